"""Describes the devices of TPU slices with the TPU compiler, without the devices.

The compiler is the package libtpu, which runs on any Linux machine.
"""

import importlib.util
import math
import os

from train.parallel.chips import CHIPS, Slice, known_slices, parse_slice

INSTALL = "the TPU compiler is not installed; pip install 'isoflop[compile]', or pip install libtpu"

# libtpu reads these when it is loaded. With them it does not look for a TPU, and several
# compilations can run at the same time.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}
# For chips whose two cores are one device. Every axis is a ring; otherwise all-gathers on v5p
# become all-reduces.
MEGACORE = {"wrap": (True, True, True), "chip_config_name": "megacore"}


def parse(text: str) -> Slice:
    """The TPU slice that --topology names, with its shape; ValueError for an unknown name."""
    target = parse_slice("topology", text)
    if target.shape:
        return target
    if target.chip.slices:
        use = known_slices(target.kind)
    else:
        use = ", ".join(kind for kind, chip in CHIPS.items() if chip.slices)
    raise ValueError(
        f"topology={text} is not a TPU slice; use one of {use}; --topologies lists them all"
    )


def prepare_environment() -> None:
    """Sets variables that jax and libtpu read when they are loaded. Call it before that."""
    os.environ.update(ENVIRONMENT)


def installed() -> bool:
    return importlib.util.find_spec("libtpu") is not None


def devices(target: Slice) -> list:
    """Descriptions of the devices of a slice that has a shape, to build a mesh and compile for.

    They cannot hold arrays. Raises ValueError if libtpu is missing or does not know the slice.
    """
    if not installed():
        raise ValueError(f"topology={target.name}: {INSTALL}")
    import jax
    from jax.experimental import topologies

    host = (2, 2, 1) if math.prod(target.shape) > 1 else (1, 1, 1)
    slices = {"num_slices": target.number} if target.number > 1 else {}
    shape = "x".join(str(chips) for chips in target.shape)
    try:
        described = topologies.get_topology_desc(
            f"{target.kind}:{shape}",
            platform="tpu",
            chips_per_host_bounds=host,
            **(MEGACORE if target.chip.cores == 2 else {}),
            **slices,
        )
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"topology={target.name} is unknown to the compiler ({reason}); "
            f"use one of {known_slices(target.kind)}"
        ) from error
    return list(described.devices)
