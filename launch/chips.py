"""This file lists accelerators as data: peak FLOP/s and the list price of an hour."""

from dataclasses import dataclass

from train.metrics import PEAK_FLOPS

# Taken from quotations of Google's page by others: several agree for v4, v5p and v6e, one alone for
# v5e; for GPUs most agree within 3 %.
PRICED = (
    "an ASSUMPTION: Google Cloud's list price on demand, cheapest US region, as of 2025; it "
    "changes, and reserved or spot capacity costs less: --price=USD gives your own"
)


@dataclass(frozen=True)
class Chip:
    """One kind of accelerator. `device` is its name in train/metrics.py's table of peaks."""

    device: str
    price: float | None  # USD a chip-hour; None where no list price is known
    per_chip: int = 1  # what Google's names count of a chip: v4-8 and v5p-8 are 8 cores, 4 chips

    @property
    def peak(self) -> float:
        """Dense bf16 FLOP/s."""
        return PEAK_FLOPS[self.device]


CHIPS = {
    "v4": Chip("TPU v4", 3.22, per_chip=2),
    "v5e": Chip("TPU v5e", 1.20),
    "v5p": Chip("TPU v5p", 4.20, per_chip=2),
    "v6e": Chip("TPU v6", 2.70),
    "tpu7x": Chip("TPU7x", None),
    # GPUs with their share of the machine: a2-ultragpu, a3-highgpu-8g, a3-ultragpu-8g.
    "a100": Chip("NVIDIA A100", 5.07),
    "h100": Chip("NVIDIA H100", 11.06),
    "h200": Chip("NVIDIA H200", 10.60),
    "b200": Chip("NVIDIA B200", None),
}


@dataclass(frozen=True)
class Slice:
    """Some chips of one kind, at a price."""

    name: str
    chip: Chip
    chips: int
    price: float | None  # USD a chip-hour

    def rate(self, mfu: float) -> float:
        """Useful FLOP/s of all chips."""
        return self.chips * self.chip.peak * mfu

    def cost(self, seconds: float) -> float | None:
        """USD."""
        return None if self.price is None else self.price * self.chips * seconds / 3600


def parse_slice(name: str, price: float | None = None) -> Slice:
    """'v5e-256', 'h100-8'; ValueError names the known chips and how to write a number of them."""
    kind, _, count = name.lower().partition("-")
    if kind not in CHIPS:
        raise ValueError(
            f"tpu={name} is unknown; write one of {', '.join(CHIPS)} and a number: v5e-256"
        )
    chip = CHIPS[kind]
    if not count.isdecimal() or int(count) < 1 or int(count) % chip.per_chip:
        counted = f"an even number, for {kind}-8 names 8 cores, 4 chips"
        wanted = counted if chip.per_chip == 2 else "a whole number of chips"
        raise ValueError(f"tpu={name}: after {kind}- comes {wanted}")
    return Slice(name, chip, int(count) // chip.per_chip, chip.price if price is None else price)
