"""The table of accelerators that isoflop knows, and the notations for a number of them.

Two notations name a slice. 'v5e-256' and 'h100-8' give a number of chips; of v4, v5p and tpu7x they
count cores, as Google's names do. 'v5e:16x16' gives the chips along each axis of a TPU slice, and
'2*v5e:16x16' is two such slices joined by the data-centre network.
"""

import math
import re
from dataclasses import dataclass

GIB = 1 << 30

# Several quotations of Google's price page agree for v4, v5p and v6e; only one gives v5e. For GPUs,
# most agree within 3 %.
PRICED = (
    "an ASSUMPTION: Google Cloud's list price on demand, cheapest US region, as of 2025; it "
    "changes, and reserved or spot capacity costs less; set your price with --price=USD"
)

# Slice shapes that Cloud TPU offers, one per number of chips; the compiler knows others.
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBE = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16")


@dataclass(frozen=True)
class Chip:
    """One kind of accelerator. All numbers are per jax device.

    `hbm`, `ici`, `macs` and `slices` are set only for TPUs, for which `isoflop compile` compiles.
    """

    names: tuple[str, ...]  # prefixes of jax's `device_kind`; reports show the first
    peak: float  # dense bf16 FLOP/s, from the manufacturer's data sheet
    price: float | None = None  # USD per hour; None: no list price is known
    cores: int = 1  # cores per device; the number in 'v5p-8' counts cores
    per_chip: int = 1  # devices per chip
    hbm: int = 0  # bytes that a program may use according to libtpu 0.0.42; less than advertised
    ici: float = 0.0  # bytes/s sent over all links to neighbours, from the data sheet
    macs: int = 0  # bf16 multiply-adds per cycle: size of a matrix unit times their number
    slices: tuple[str, ...] = ()

    @property
    def clock(self) -> float:
        """Hz: 1.5 GHz for v5e, 1.75 GHz for v5p. TPUs only."""
        return self.peak / (2 * self.macs)


CHIPS = {
    "v4": Chip(
        ("TPU v4",), 275e12, 3.22, cores=2,
        hbm=int(30.75 * GIB), ici=300e9, macs=8 * 128**2, slices=_CUBE,
    ),
    "v5e": Chip(
        ("TPU v5e", "TPU v5 lite"), 197e12, 1.20,
        hbm=int(15.75 * GIB), ici=200e9, macs=4 * 128**2, slices=_FLAT,
    ),
    "v5p": Chip(
        ("TPU v5p", "TPU v5"), 459e12, 4.20, cores=2,
        hbm=int(95.74 * GIB), ici=600e9, macs=8 * 128**2, slices=_CUBE,
    ),
    "v6e": Chip(
        ("TPU v6",), 918e12, 2.70,
        hbm=int(31.25 * GIB), ici=400e9, macs=4 * 256**2, slices=_FLAT,
    ),
    "tpu7x": Chip(
        ("TPU7x",), 1154e12, per_chip=2,
        hbm=int(94.75 * GIB), ici=300e9, macs=4 * 256**2, slices=_CUBE,
    ),
    # Prices include a share of the host: a2-ultragpu, a3-highgpu-8g (SXM), a3-ultragpu-8g.
    "a100": Chip(("NVIDIA A100",), 312e12, 5.07),
    "h100": Chip(("NVIDIA H100",), 989e12, 11.06),
    "h200": Chip(("NVIDIA H200",), 989e12, 10.60),
    "b200": Chip(("NVIDIA B200",), 2250e12),
}  # fmt: skip


def peak_flops(device_kind: str) -> float | None:
    """Dense bf16 FLOP/s of a device that jax calls `device_kind`; None if unknown, as for CPUs."""
    known = ((name, chip.peak) for chip in CHIPS.values() for name in chip.names)
    return next((peak for name, peak in known if device_kind.startswith(name)), None)


@dataclass(frozen=True)
class Slice:
    """Chips of one kind: `number` slices of `shape` chips along each axis.

    `shape` is () for GPUs, and if no TPU slice has this number of chips.
    """

    name: str
    kind: str
    devices: int  # jax devices in all slices
    shape: tuple[int, ...] = ()
    number: int = 1

    @property
    def chip(self) -> Chip:
        return CHIPS[self.kind]

    def rate(self, mfu: float) -> float:
        """Useful FLOP/s of all devices."""
        return self.devices * self.chip.peak * mfu


_SLICE = re.compile(
    r"(?:(?P<number>[1-9]\d*)\*)?(?P<kind>\w+)(?:-(?P<count>\d+)|:(?P<shape>\d+(?:x\d+)*)|.*)"
)
_KINDS = {kind.removeprefix("tpu"): kind for kind in CHIPS}  # '7x' is short for 'tpu7x'


def parse_slice(flag: str, text: str) -> Slice:
    """The slice that --`flag`=`text` names: 'v5e-256', 'h100-8', 'v5e:16x16', '2*v5e:16x16'.

    Raises ValueError, which names the flag and says what is valid.
    """
    match = _SLICE.fullmatch(text.strip().lower())
    kind = match and _KINDS.get(match["kind"].removeprefix("tpu"))
    if not kind:
        raise ValueError(
            f"{flag}={text} is unknown; write one of {', '.join(CHIPS)} with a number of chips, "
            "such as v5e-256, or with the chips along each axis of a TPU slice, such as v5e:16x16"
        )
    chip, number = CHIPS[kind], int(match["number"] or 1)
    rented = [_axes(shape) for shape in chip.slices]
    if match["shape"] and rented:
        shape = _axes(match["shape"])
        if len(shape) != len(rented[0]) or min(shape) < 1:
            raise ValueError(
                f"{flag}={text}: a {kind} slice has {len(rented[0])} axes of at least one chip; "
                f"use one of {known_slices(kind)}"
            )
        devices = math.prod(shape) * chip.per_chip
    else:
        devices, rest = divmod(int(match["count"] or 0), chip.cores)
        if rest or not devices:
            raise ValueError(f"{flag}={text}: {_notations(kind)}")
        shape = next((s for s in rented if math.prod(s) * chip.per_chip == devices), ())
    return Slice(text, kind, number * devices, shape, number)


def known_slices(kind: str) -> str:
    """The slices of a kind of TPU that Cloud TPU offers, as text: 'v5e:1x1, v5e:2x2, …'."""
    return ", ".join(f"{kind}:{shape}" for shape in CHIPS[kind].slices)


def _axes(shape: str) -> tuple[int, ...]:
    return tuple(int(chips) for chips in shape.split("x"))


def _notations(kind: str) -> str:
    """The valid notations for a kind of chip."""
    cores = f"an even number of cores ({kind}-8 is 8 cores, 4 chips)"
    count = cores if CHIPS[kind].cores == 2 else "a whole number of chips"
    axes = f", or {kind}: and the chips along each axis: {known_slices(kind)}"
    return f"write {kind}- and {count}" + (axes if CHIPS[kind].slices else "")
