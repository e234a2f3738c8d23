"""Compiles the training chunk of a config for a TPU slice without its devices, and reports costs.

Nothing runs and no state is allocated: the compiler gets shapes and shardings. All numbers are per
device and optimiser step.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data.kinds import KINDS
from model.adapters.adapted import family_of
from train.ahead_of_time import costs
from train.loop import Start, hyperparameters, initial_state, step_config
from train.parallel import memory, sharding
from train.parallel.chips import Slice
from train.step import BASE, StepConfig, train_chunk

# Relative error of the estimated step of the published runs in configs/compiled.py
# (docs/scaling-up.md). Runs on other chips were not compared.
ERROR_BANDS = {"v5e": 0.2, "v5p": 0.2}

_UNITS = {"B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# The compiler states the memory that a program needs in total, or without its arguments.
_TOTAL = re.compile(r"Used ([\d.]+)([BKMGT]) of [\d.]+[BKMGT] hbm")
_TEMPORARY = re.compile(r"required for HLO temporaries \(([\d.]+)([BKMGT])\)")


@dataclass(frozen=True)
class Program:
    """A compiled training chunk. If it exceeds the memory, compilation fails; then `text` is None
    and `peak` is the size that the compiler's error states. Sizes are in bytes."""

    text: str | None  # optimised HLO
    argument: int
    temporary: int
    peak: int  # alive at one time, which must fit; less than the sum as arguments are reused
    seconds: float  # of compilation
    counted: float = 0.0  # FLOPs by the compiler's count: loop bodies once, no kernels
    state: Mapping[str, int] = field(default_factory=dict)  # bytes of a device, by component


def abstract_chunk(config: Any, mesh: Mesh) -> tuple:
    """The arguments of `train_chunk` as shapes with shardings, for a resolved config."""
    cfg = step_config(config)
    start = Start(*adapters_of(cfg)) if cfg.adapter else Start()
    state, _ = initial_state(cfg, hyperparameters(config), config.seed, mesh, start)
    fields = KINDS[config.data.kind].spec(config)
    where, leading = (
        sharding.batch_shardings(mesh, fields),
        (config.train.chunk, config.train.batch_size),
    )
    batches = {
        name: jax.ShapeDtypeStruct((*leading, *field.shape), field.dtype, sharding=where[name])
        for name, field in fields.items()
    }
    scalar = NamedSharding(mesh, PartitionSpec())
    return cfg, state, batches, jax.ShapeDtypeStruct((), jnp.int32, sharding=scalar)


def adapters_of(cfg: StepConfig) -> tuple[dict, dict]:
    """(shapes of the trained parameters, of the frozen ones by name) of a model with adapters."""
    trained, base = cfg.trained.split_shapes(cfg.model)
    return trained, {BASE: base}


def compile_chunk(config: Any, mesh: Mesh) -> Program:
    """Compiles what `isoflop train` would run on `mesh`, whose devices need not exist."""
    begun, arguments = time.perf_counter(), abstract_chunk(config, mesh)
    state = memory.by_component(arguments[1])
    with sharding.activation_rules(mesh):
        lowered = train_chunk.lower(*arguments)
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            argument = argument_bytes(arguments)
            peak = needed(str(error), argument)
            seconds = time.perf_counter() - begun
            return Program(None, argument, peak - argument, peak, seconds, state=state)
    seconds = time.perf_counter() - begun
    used = compiled.memory_analysis()
    return Program(
        compiled.as_text(),
        used.argument_size_in_bytes,
        used.temp_size_in_bytes,
        used.peak_memory_in_bytes,
        seconds,
        compiled.cost_analysis()["flops"],
        state,
    )


def argument_bytes(arguments: tuple) -> int:
    """Bytes that the arguments of `abstract_chunk` take on one device."""
    leaves = jax.tree.leaves(arguments[1:])
    local = (np.prod(x.sharding.shard_shape(x.shape), dtype=int) * x.dtype.itemsize for x in leaves)
    return int(sum(local))


def needed(message: str, argument: int) -> int:
    """Bytes that a program needs, from the compiler's error and the size of its arguments.

    Raises ValueError if the error states no size.
    """
    for pattern, more in ((_TOTAL, 0), (_TEMPORARY, argument)):
        if match := pattern.search(message):
            return more + int(float(match[1]) * _UNITS[match[2]])
    raise ValueError(f"the compiler's error states no size: {message}")


def describe(config: Any, topology: Slice, mesh: Mesh, program: Program) -> dict[str, Any]:
    """The report that `isoflop compile --json` writes. `detail` has the numbers for human readers.

    Measurements of the compiled program are None if it does not fit.
    """
    family, cfg = family_of(config)
    length = KINDS[config.data.kind].tokens(config)
    tokens = config.train.batch_size * length / topology.devices
    chip = topology.chip
    model = tokens * family.flops(cfg)["palm"]
    # What training needs if nothing is computed twice; None if the family does not define it.
    needed_flops = tokens * family.matmul_flops(cfg) if hasattr(family, "matmul_flops") else None
    cost = costs.measure(program.text) if program.text else None
    # The compiler does not estimate cycles for kernels. Assume the chip's peak rate for their
    # products, including blocks that the mask lets them skip.
    kernels = sum(cost.kernels.values()) / chip.peak if cost else None
    seconds = cost.cycles / chip.clock + kernels if cost else None
    kinds = sorted(cost.payload) if cost else []
    wire = sum(cost.wire.values()) if cost else None
    return {
        "topology": topology.name,
        "devices": topology.devices,
        "memory": {
            "argument": program.argument,
            "temporary": program.temporary,
            "peak": program.peak,
            "hbm": chip.hbm,
        },
        "flops": {"model": model, "matmul": cost and cost.matmul},
        "collectives": {k: {"payload": cost.payload[k], "wire": cost.wire[k]} for k in kinds},
        "estimated_cycles": cost and cost.cycles,
        "estimated_step_seconds": seconds,
        "estimated_mfu": model / (seconds * chip.peak) if seconds else None,
        "fits": program.text is not None and program.peak <= chip.hbm,
        "detail": {
            "name": config.name,
            "mesh": dict(mesh.shape),
            "batch_size": config.train.batch_size,
            "context_length": length,
            "parameters": sum(family.parameters(cfg).values()),
            "compile_seconds": program.seconds,
            "state": dict(program.state),
            "recompute": cost.matmul / needed_flops if cost and needed_flops else None,
            "kernel_flops": dict(cost.kernels) if cost else {},
            "kernel_seconds": kernels,
            "unknown_kernels": sorted(cost.unknown_kernels) if cost else [],
            "calls": {k: cost.calls[k] for k in kinds},
            "loops_counted_once": cost.loops if cost else [],
            "wire_seconds": wire / chip.ici if cost else None,
            "tokens_per_second": topology.devices * tokens / seconds if seconds else None,
            "error_band": ERROR_BANDS.get(topology.kind),
            "versions": {"jax": jax.__version__, "libtpu": libtpu_version()},
        },
    }


def libtpu_version() -> str:
    from importlib import metadata

    return metadata.version("libtpu")
