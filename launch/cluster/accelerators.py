"""What the providers call an accelerator, and how many hosts a slice of it has.

Sources: for TPUs on GKE, https://cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus (node
selectors, chips of a host); for Cloud TPU, the pages of each version under
https://cloud.google.com/tpu/docs (types, runtimes); for GPUs on GKE,
https://cloud.google.com/compute/docs/gpus; the names of SkyPilot are those of its catalogue.
Written down in 2025; a provider's own answer counts where they differ.
"""

import math
from dataclasses import dataclass

from train.parallel.chips import CHIPS, PRICED, Slice, known_slices, parse_slice


@dataclass(frozen=True)
class Tpu:
    """One generation of TPU. '' stands for what a provider does not offer."""

    api: str  # prefix of Cloud TPU's accelerator types, followed by the number of `unit`s
    unit: int  # 1: that number counts chips; 2: it counts cores, two a chip
    runtime: str  # software of a Cloud TPU VM, `runtime_version`
    gke: str  # node label cloud.google.com/gke-tpu-accelerator
    one_host: tuple[int, ...]  # numbers of chips that are one host; more chips: hosts of 4


TPUS = {
    "v4": Tpu("v4", 2, "tpu-ubuntu2204-base", "tpu-v4-podslice", (4,)),
    "v5e": Tpu("v5litepod", 1, "v2-alpha-tpuv5-lite", "tpu-v5-lite-podslice", (1, 4, 8)),
    "v5p": Tpu("v5p", 2, "v2-alpha-tpuv5", "tpu-v5p-slice", (4,)),
    "v6e": Tpu("v6e", 1, "v2-alpha-tpuv6e", "tpu-v6e-slice", (1, 4, 8)),
    "tpu7x": Tpu("", 2, "", "tpu7x", (4,)),
}
CHIPS_OF_A_HOST = 4  # of every slice of several hosts


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU: the node label cloud.google.com/gke-accelerator, SkyPilot's name."""

    gke: str
    sky: str


GPUS = {
    "a100": Gpu("nvidia-a100-80gb", "A100-80GB"),
    "h100": Gpu("nvidia-h100-80gb", "H100"),
    "h200": Gpu("nvidia-h200-141gb", "H200"),
    "b200": Gpu("nvidia-b200", "B200"),
}
GPUS_OF_A_HOST = (1, 2, 4, 8)


@dataclass(frozen=True)
class Accelerator:
    """One slice of TPU chips, or the GPUs of one host."""

    slice: Slice

    @property
    def kind(self) -> str:
        return self.slice.kind

    @property
    def tpu(self) -> Tpu | None:
        return TPUS.get(self.kind)

    @property
    def chips(self) -> int:
        return self.slice.devices // self.slice.chip.per_chip

    @property
    def topology(self) -> str:
        """The chips along each axis of a TPU slice, '4x4'."""
        return "x".join(map(str, self.slice.shape))

    @property
    def hosts(self) -> int:
        if not self.tpu or self.chips in self.tpu.one_host:
            return 1
        return self.chips // CHIPS_OF_A_HOST

    @property
    def chips_of_a_host(self) -> int:
        return self.chips // self.hosts

    @property
    def api(self) -> str:
        """What Cloud TPU calls the slice, 'v5litepod-16'."""
        return f"{self.tpu.api}-{self.chips * self.tpu.unit}"

    @property
    def sky(self) -> str:
        """What SkyPilot calls it, with the number of GPUs: 'tpu-v5litepod-16:1', 'H100:8'."""
        return f"tpu-{self.api}:1" if self.tpu else f"{GPUS[self.kind].sky}:{self.chips}"

    def __str__(self) -> str:
        if not self.tpu:
            return f"{self.chips} {self.kind}"
        hosts = "host" if self.hosts == 1 else "hosts"
        return f"{self.kind}:{self.topology} ({self.chips} chips, {self.hosts} {hosts})"


def accelerator(text: str, flag: str = "accelerator") -> Accelerator:
    """The slice or the GPUs of one host that --`flag`=`text` names; ValueError says what is
    valid."""
    found = parse_slice(flag, text)
    if found.number > 1:
        raise ValueError(
            f"{flag}={text} names several slices; write --{flag}="
            f"{text.partition('*')[2]} --slices={found.number}"
        )
    if found.chip.slices and not found.shape:
        raise ValueError(
            f"{flag}={text} is no slice that Cloud TPU offers; use one of "
            f"{known_slices(found.kind)}"
        )
    chips = math.prod(found.shape)
    if found.shape and chips not in TPUS[found.kind].one_host and chips % CHIPS_OF_A_HOST:
        raise ValueError(
            f"{flag}={text}: {chips} chips are no whole number of hosts; use one of "
            f"{known_slices(found.kind)}"
        )
    if not found.chip.slices and found.devices not in GPUS_OF_A_HOST:
        counts = ", ".join(f"{found.kind}-{count}" for count in GPUS_OF_A_HOST)
        raise ValueError(
            f"{flag}={text}: a host has 1, 2, 4 or 8 GPUs; use one of {counts}, and --slices "
            "for the number of hosts"
        )
    return Accelerator(found)


def hourly(found: Accelerator, slices: int) -> str:
    """What the slices cost an hour, in words, with what that rests on."""
    price = CHIPS[found.kind].price
    if price is None:
        return f"no list price of {found.kind} is known here"
    dollars = price * found.slice.devices * slices
    return f"about {dollars:,.2f} USD an hour at {price:.2f} a device: {PRICED.partition(';')[0]}"
