"""Arranges devices as a mesh. Its axes split:

    data      rows of a batch; parameters are replicated. The only axis that may span slices, which
              a slow network connects
    fsdp      rows of a batch, and one dimension of each parameter with its moments. Parameters are
              gathered where they are used (Rajbhandari et al. 2020, ZeRO stage 3). The default
    tensor    heads, the MLP's width, the vocabulary (Shoeybi et al. 2019). Each layer's activations
              are summed over this axis, and sharded along it between layers
    sequence  the tokens of a row (model/kernels/); parameters as for fsdp

To add an axis `expert`, add a row to MESH_AXES and a size to the config, together with the first
parameter that has such a dimension. An axis that nothing uses is an error.
"""

import math

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh

MESH_AXES = {
    "batch": ("data", "fsdp"),
    "seq": ("sequence",),
    "embed": ("fsdp", "sequence"),
    "heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "activation": ("tensor",),  # the residual stream; every layer keeps a copy
    # Replicated:
    "layer": (),
    "position": (),
    "vector": (),
    "rank": (),
}


ORDER = ("data", "fsdp", "sequence", "tensor")  # neighbours along the last axis are nearest


class MeshError(ValueError):
    """An invalid mesh, or sizes that do not fit on it."""


def mesh_sizes(sizes: dict[str, int], devices: int) -> dict[str, int]:
    """The sizes in ORDER, with a size of -1 inferred. Raises MeshError if their product is not the
    number of devices, or if no entry of MESH_AXES uses an axis."""
    used = {axis for axes in MESH_AXES.values() for axis in axes}
    for axis, size in sizes.items():
        if axis not in used:
            raise MeshError(
                f"mesh.{axis}={size}: no entry of MESH_AXES uses this axis; use {', '.join(ORDER)}"
            )
        if size != -1 and size < 1:
            raise MeshError(f"mesh.{axis}={size} must be a positive number, or -1 for the rest")
    sizes = {axis: sizes[axis] for axis in ORDER if axis in sizes}
    inferred = [axis for axis, size in sizes.items() if size == -1]
    text = ", ".join(f"mesh.{axis}={size}" for axis, size in sizes.items())
    if len(inferred) > 1:
        raise MeshError(f"{text}: only one axis can be -1")
    free = inferred[0] if inferred else "fsdp"
    others = math.prod(size for axis, size in sizes.items() if axis != free)
    if inferred:
        sizes[free] = devices // others
    if math.prod(sizes.values()) != devices:
        remedy = f"use mesh.{free}={devices // others}, or -1"
        if devices % others:
            divisors = [n for n in range(1, devices + 1) if devices % n == 0]
            near = [
                max(n for n in divisors if n < others),
                *[n for n in divisors if n > others][:1],
            ]
            near = " or ".join(map(str, near))
            remedy = f"without mesh.{free} the product is {others}; it should be {near}"
        raise MeshError(f"{text} does not multiply to the {devices} devices; {remedy}")
    return sizes


def make_mesh(sizes: dict[str, int], devices: list | None = None) -> Mesh:
    """A mesh over `devices`, which may be descriptions; None means all local devices. Raises
    MeshError as `mesh_sizes` does, and if `data` is not divisible by the number of slices."""
    devices = jax.local_devices() if devices is None else devices
    sizes = mesh_sizes(sizes, len(devices))
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if sizes.get("data", 1) % slices:
        raise MeshError(
            f"mesh.data={sizes.get('data', 1)} is not divisible by the {slices} slices that the "
            f"devices are in, and only data may span them; use mesh.data={slices}"
        )
    return Mesh(_arranged(sizes, devices, slices), tuple(sizes))


def _arranged(sizes: dict[str, int], devices: list, slices: int) -> np.ndarray:
    """The devices in the shape of the mesh; fast links connect neighbours along an axis."""
    shape = tuple(sizes.values())
    if devices[0].platform != "tpu":
        return np.asarray(devices).reshape(shape)
    if slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    within = tuple(n // slices if axis == "data" else n for axis, n in sizes.items())
    across = tuple(slices if axis == "data" else 1 for axis in sizes)
    return mesh_utils.create_hybrid_device_mesh(
        within, across, devices, allow_split_physical_axes=True
    )


def row_parts(sizes: dict[str, int], devices: int) -> int:
    """The number of parts that the rows of a batch are split into. Tensor and sequence do not split
    rows. If these sizes do not form a mesh of `devices`, for instance in planning, `devices`."""
    try:
        sizes = mesh_sizes(sizes, devices)
    except MeshError:
        return devices
    return math.prod(sizes.get(axis, 1) for axis in MESH_AXES["batch"])
