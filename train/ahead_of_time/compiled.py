"""Compiles the training chunk of a config for a TPU slice without its devices, and reports costs.

Nothing runs and no state is allocated: the compiler gets shapes and shardings. All numbers are per
device and optimiser step.
"""

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data.kinds import KINDS
from model.adapters.adapted import family_of
from train import objectives
from train.ahead_of_time import costs, rollout_shapes
from train.loop import Start, hyperparameters, initial_state, step_config
from train.objectives.preference.stored import stored_fields
from train.parallel import memory, sharding
from train.parallel.chips import Slice
from train.step import StepConfig, roll_out, train_chunk

# Relative error of the estimated step of the published runs in configs/compiled.py
# (docs/scaling-up.md). Runs on other chips were not compared.
ERROR_BANDS = {"v5e": 0.2, "v5p": 0.2}

FRESH = Start()  # fresh parameters, and no frozen ones

_UNITS = {"B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# The compiler states the memory that a program needs in total, or without its arguments.
_TOTAL = re.compile(r"Used ([\d.]+)([BKMGT]) of [\d.]+[BKMGT] hbm")
_TEMPORARY = re.compile(r"required for HLO temporaries \(([\d.]+)([BKMGT])\)")


@dataclass(frozen=True)
class Program:
    """A compiled program. If it exceeds the memory, compilation fails; then `text` is None and
    `peak` is the size that the compiler's error states. Sizes are in bytes."""

    text: str | None  # optimised HLO
    argument: int
    temporary: int
    peak: int  # alive at one time, which must fit; less than the sum as arguments are reused
    seconds: float  # of compilation
    counted: float = 0.0  # FLOPs by the compiler's count: loop bodies once, no kernels
    state: Mapping[str, int] = field(default_factory=dict)  # bytes of a device, by component
    resident: int = 0  # of the state, which the program does not read and which stays; in `peak`
    host: int = 0  # in the host's memory, for one device
    cfg: StepConfig | None = None  # of the training chunk
    rollout: "Program | None" = None  # what makes the batches of the chunk from the parameters


def abstract_chunk(config: Any, mesh: Mesh, start: Start = FRESH) -> tuple:
    """The arguments of `train_chunk` as shapes with shardings, for a resolved config. `start` has
    the shapes of what the run begins with, if it is not fresh parameters alone."""
    cfg = step_config(config, start)
    state, _ = initial_state(cfg, hyperparameters(config), config.seed, mesh, start)
    if rollout_shapes.makes_rollouts(cfg):
        batches = rollout_shapes.batches(config, cfg, state, mesh)
    else:
        fields = KINDS[config.data.kind].spec(config) | stored_fields(config)
        leading = config.train.chunk, config.train.batch_size
        batches = rollout_shapes.abstract(fields, leading, mesh)
    scalar = NamedSharding(mesh, PartitionSpec())
    return cfg, state, batches, jax.ShapeDtypeStruct((), jnp.int32, sharding=scalar)


def compile_chunk(config: Any, mesh: Mesh, start: Start = FRESH) -> Program:
    """Compiles what `isoflop train` would run on `mesh`, whose devices need not exist."""
    begun = time.perf_counter()
    cfg, state, *arguments = abstract_chunk(config, mesh, start)
    program = _compiled(train_chunk, begun, mesh, cfg, state, *arguments)
    rollout = None
    if rollout_shapes.makes_rollouts(cfg):
        begun, prompts = time.perf_counter(), rollout_shapes.prompts(config, cfg, mesh)
        rollout = _compiled(roll_out, begun, mesh, cfg, state, prompts)
    return replace(program, state=memory.by_component(state), cfg=cfg, rollout=rollout)


def _compiled(function: Any, begun: float, mesh: Mesh, *arguments: Any) -> Program:
    """A jitted function of a StepConfig and shapes, compiled for `mesh`."""
    given = argument_bytes(arguments)
    with sharding.activation_rules(mesh):
        lowered = function.lower(*arguments)
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            peak = needed(str(error), given)
            seconds = time.perf_counter() - begun
            return Program(None, given, peak - given, peak, seconds, host=host_bytes(arguments))
    seconds = time.perf_counter() - begun
    used = compiled.memory_analysis()
    resident = max(0, given - used.argument_size_in_bytes) if function is roll_out else 0
    return Program(
        compiled.as_text(),
        used.argument_size_in_bytes,
        used.temp_size_in_bytes,
        device_peak(used) + resident,
        seconds,
        compiled.cost_analysis()["flops"],
        resident=resident,
        host=used.host_argument_size_in_bytes + used.host_temp_size_in_bytes,
    )


def device_peak(used: Any) -> int:
    """Bytes alive at one time on a device, from a compiler's memory analysis. Its own peak includes
    what is in the host's memory; what the device holds in all bounds it."""
    own = used.argument_size_in_bytes + used.temp_size_in_bytes + used.generated_code_size_in_bytes
    added = used.output_size_in_bytes - used.alias_size_in_bytes
    return min(used.peak_memory_in_bytes, own + added)


def argument_bytes(arguments: tuple) -> int:
    """Bytes that the arguments of a program, after its StepConfig, take in one device's memory."""
    leaves = jax.tree.leaves(arguments[1:])
    return sum(memory.local_bytes(leaf) for leaf in leaves if not memory.is_on_host(leaf))


def host_bytes(arguments: tuple) -> int:
    """Bytes of these arguments in the host's memory, for one device."""
    leaves = jax.tree.leaves(arguments[1:])
    return sum(map(memory.local_bytes, filter(memory.is_on_host, leaves)))


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
    step = program.cfg
    family, cfg = (step.trained, step.model) if step else family_of(config)
    length = KINDS[config.data.kind].tokens(config)
    tokens = config.train.batch_size * length / topology.devices
    chip = topology.chip
    model = tokens * family.flops(cfg)["palm"]
    cost = costs.measure(program.text) if program.text else None
    measured = _measured(program, cost, topology)
    seconds = measured["estimated_seconds"]
    whole, rolled = seconds, {}
    if program.rollout:
        rolled = {"rollout": _rollout(config, topology, program)}
        of_rollout = rolled["rollout"]["estimated_seconds"]
        share = rolled["rollout"]["updates"]
        whole = seconds + of_rollout / share if seconds and of_rollout else None
    needed_flops = _needed(config, family, cfg, program, tokens)
    return {
        "topology": topology.name,
        "devices": topology.devices,
        "memory": measured["memory"],
        "flops": {"model": model, "matmul": cost and cost.matmul},
        "collectives": measured["collectives"],
        "estimated_cycles": cost and cost.cycles,
        "estimated_step_seconds": seconds,
        "estimated_mfu": model / (seconds * chip.peak) if seconds else None,
        "fits": measured["fits"] and all(part["fits"] for part in rolled.values()),
        **rolled,
        "detail": {
            "name": config.name,
            "mesh": dict(mesh.shape),
            "batch_size": config.train.batch_size,
            "context_length": length,
            "parameters": sum(family.parameters(cfg).values()),
            "compile_seconds": program.seconds,
            "state": dict(program.state),
            "recompute": cost.matmul / needed_flops if cost and needed_flops else None,
            **measured["detail"],
            "tokens_per_second": topology.devices * tokens / whole if whole else None,
            "error_band": ERROR_BANDS.get(topology.kind),
            "versions": {"jax": jax.__version__, "libtpu": libtpu_version()},
        },
    }


def _measured(program: Program, cost: costs.Costs | None, topology: Slice) -> dict[str, Any]:
    """The memory of a program and, if it fits, what it sends and how long it takes."""
    chip, kinds = topology.chip, sorted(cost.payload) if cost else []
    # The compiler does not estimate cycles for kernels. Assume the chip's peak rate for their
    # products, including blocks that the mask lets them skip.
    kernels = sum(cost.kernels.values()) / chip.peak if cost else None
    return {
        "memory": {
            "argument": program.argument,
            "temporary": program.temporary,
            "peak": program.peak,
            "host": program.host,
            "hbm": chip.hbm,
        },
        "fits": program.text is not None and program.peak <= chip.hbm,
        "collectives": {k: {"payload": cost.payload[k], "wire": cost.wire[k]} for k in kinds},
        "estimated_seconds": cost.cycles / chip.clock + kernels if cost else None,
        "detail": {
            "kernel_flops": dict(cost.kernels) if cost else {},
            "kernel_seconds": kernels,
            "unknown_kernels": sorted(cost.unknown_kernels) if cost else [],
            "calls": {k: cost.calls[k] for k in kinds},
            "loops_counted_once": cost.loops if cost else [],
            "wire_seconds": sum(cost.wire.values()) / chip.ici if cost else None,
        },
    }


def _rollout(config: Any, topology: Slice, program: Program) -> dict[str, Any]:
    """The report of the program that makes the batches of `updates` steps, per rollout. Every
    response counts as if it had the full length."""
    cfg, rollout = program.cfg, program.rollout
    cost = costs.measure(rollout.text, max(1, cfg.loss.max_tokens - 1)) if rollout.text else None
    measured = _measured(rollout, cost, topology)
    forward = rollout_shapes.forward_flops(config, cfg)
    return measured | {
        "memory": measured["memory"] | {"resident": rollout.resident},
        "flops": {"model": forward / topology.devices, "matmul": cost and cost.matmul},
        "estimated_cycles": cost and cost.cycles,
        "updates": rollout_shapes.updates(cfg),
        "responses": cfg.loss.rows,
        "response_tokens": cfg.loss.max_tokens,
        "compile_seconds": rollout.seconds,
    }


def _needed(config: Any, family: Any, cfg: Any, program: Program, tokens: float) -> float | None:
    """FLOPs of the matrix products of a step on a device if nothing is computed twice: those of the
    trained model and of a forward pass of each frozen one. None if a family does not define them,
    and for objectives that do not read the logits of every token."""
    step = program.cfg
    objective = objectives.find(config.objective.name)
    if not hasattr(family, "matmul_flops") or "logits" not in objective.NEEDS:
        return None
    if hasattr(objective, "rollout"):
        return None
    of_frozen = rollout_shapes.frozen_flops(step, "matmul") if step else 0.0
    return None if math.isnan(of_frozen) else tokens * (family.matmul_flops(cfg) + of_frozen)


def libtpu_version() -> str:
    from importlib import metadata

    return metadata.version("libtpu")
