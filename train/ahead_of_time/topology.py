"""This file describes TPU slices that need not exist: chips as data, and devices to compile for.

The TPU compiler, the package libtpu, runs on any Linux machine. A topology is written as the chips
along each axis of the slice, v5e:16x16 or v5p:4x4x8; "2*v5e:16x16" is two such slices joined by the
data-centre network.
"""

import importlib.util
import math
import os
import re
from dataclasses import dataclass, field
from typing import Any

from train.metrics import PEAK_FLOPS

GIB = 1 << 30
INSTALL = "the TPU compiler is not installed; pip install 'isoflop[compile]', or pip install libtpu"

# What libtpu asks of the machine it runs on when it is loaded. It finds no TPU here, and is not to
# look for one; several compilations may run side by side.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}

_LITE = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBE = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16")
# Two cores as one device; every axis a ring: without, v5p gathers by all-reduce.
_MEGACORE = dict(wrap=(True, True, True), chip_config_name="megacore")


@dataclass(frozen=True)
class Chip:
    """One kind of TPU. Numbers are those of one device of JAX: `per_chip` of them make a chip."""

    device: str  # its name in PEAK_FLOPS
    hbm: int  # bytes that a program may use, as libtpu 0.0.42 states them: less than is sold
    macs: int  # bf16 multiply-adds of a cycle: the matrix units' area times their number
    ici: float  # bytes/s that leave one device over all links to its neighbours, data sheet
    slices: tuple[str, ...]  # shapes that Cloud TPU rents; the compiler knows others
    libtpu: str  # its name there
    per_chip: int = 1
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def peak(self) -> float:
        """Dense bf16 FLOP/s."""
        return PEAK_FLOPS[self.device]

    @property
    def clock(self) -> float:
        """Hz: 1.5 GHz for v5e, 1.75 GHz for v5p."""
        return self.peak / (2 * self.macs)


CHIPS = {
    "v4": Chip("TPU v4", int(30.75 * GIB), 8 * 128**2, 300e9, _CUBE, "v4", arguments=_MEGACORE),
    "v5e": Chip("TPU v5e", int(15.75 * GIB), 4 * 128**2, 200e9, ("1x1", *_LITE), "v5e"),
    "v5p": Chip("TPU v5p", int(95.74 * GIB), 8 * 128**2, 600e9, _CUBE, "v5p", arguments=_MEGACORE),
    "v6e": Chip("TPU v6", int(31.25 * GIB), 4 * 256**2, 400e9, ("1x1", *_LITE), "v6e"),
    "7x": Chip("TPU7x", int(94.75 * GIB), 4 * 256**2, 300e9, _CUBE, "tpu7x", per_chip=2),
}


@dataclass(frozen=True)
class Topology:
    """`slices` slices of chips, `shape` chips along each axis."""

    name: str
    kind: str
    shape: tuple[int, ...]
    slices: int = 1

    @property
    def chip(self) -> Chip:
        return CHIPS[self.kind]

    @property
    def devices(self) -> int:
        return self.slices * math.prod(self.shape) * self.chip.per_chip


def parse(name: str) -> Topology:
    """'v5e:4x4', 'v5p:4x4x8', '2*v5e:16x16'; ValueError lists what there is."""
    match = re.fullmatch(r"(?:(\d+)\*)?([\w]+):(\d+(?:x\d+)*)", name.strip().lower())
    kind = match[2].removeprefix("tpu") if match else name.partition(":")[0]
    if not match or kind not in CHIPS:
        known = ", ".join(f"{kind}:{chip.slices[-1]}" for kind, chip in CHIPS.items())
        raise ValueError(
            f"topology={name} is unknown; write the kind of chip and how many of them lie along "
            f"each axis, such as {known}; --topologies lists more"
        )
    shape, known = tuple(int(n) for n in match[3].split("x")), CHIPS[kind].slices
    axes = known[-1].count("x") + 1
    if len(shape) != axes or min(shape) < 1:
        raise ValueError(
            f"topology={name}: a {kind} slice has {axes} axes of at least one chip; "
            f"use one of {', '.join(f'{kind}:{s}' for s in known)}"
        )
    return Topology(name, kind, shape, max(1, int(match[1] or 1)))


def prepare_environment() -> None:
    """Sets what jax and libtpu read when they are first loaded: call it before either is."""
    os.environ.update(ENVIRONMENT)


def installed() -> bool:
    return importlib.util.find_spec("libtpu") is not None


def devices(topology: Topology) -> list:
    """Devices of the topology, to build a mesh and compile for; they cannot hold an array.

    Raises ValueError where libtpu is missing or knows no such slice.
    """
    if not installed():
        raise ValueError(f"topology={topology.name}: {INSTALL}")
    import jax
    from jax.experimental import topologies

    chip = topology.chip
    host = (2, 2, 1) if math.prod(topology.shape) > 1 else (1, 1, 1)
    slices = {"num_slices": topology.slices} if topology.slices > 1 else {}
    shape = "x".join(str(n) for n in topology.shape)
    try:
        described = topologies.get_topology_desc(
            f"{chip.libtpu}:{shape}",
            platform="tpu",
            chips_per_host_bounds=host,
            **chip.arguments,
            **slices,
        )
    except jax.errors.JaxRuntimeError as error:
        why = str(error).splitlines()[0]
        known = ", ".join(f"{topology.kind}:{s}" for s in chip.slices)
        raise ValueError(
            f"topology={topology.name} is unknown to the compiler ({why}); use one of {known}"
        ) from error
    return list(described.devices)
