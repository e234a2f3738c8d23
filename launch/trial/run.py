"""This file is the unit of work everywhere: a config goes in, a folder with result.json comes out.

RUNS/SWEEP/TRIAL/ holds config.json (resolved), metrics.jsonl, checkpoints/ and, written last,
result.json. A trial whose result says "done" is not run again; any other trial resumes.
"""

import functools
import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data import store, tokenizer
from data.kinds import text as loader
from launch.errors import BAD_INPUT, DIVERGED, DONE, PREEMPTED, BadInput, bad_input, disk_full
from launch.files import read_json, write_json
from launch.trial import distributed, trunk
from launch.trial.result import summarise
from model.transformer import count
from model.transformer.config import DEFAULTS, ModelConfig, derive
from train import duration
from train.objectives import loss_in_chunks
from train.optimizers import update_scales as parametrization
from train.optimizers.moments import MOMENTS
from train.optimizers.optimizer import OPTIMIZERS
from train.optimizers.schedule import SCHEDULES
from train.parallel import processes
from train.parallel.mesh import row_parts
from train.watch import Stop, stop_signals

EXIT_CODES = {"done": DONE, "preempted": PREEMPTED, "diverged": DIVERGED}
CONVENTIONS = tuple(count.FLOPS)

# Keys that cannot change a trial's numbers; all other keys make its id. The text is in data.hash.
NOT_IN_ID = {
    "name": None,
    "holdout": None,
    "data": (
        *("corpora", "weights", "text_key", "tokenizer", "vocab_size"),
        *("validation", "cache", "max_bytes"),
    ),
    "model": ("attention", "scan_layers", "remat"),
    "train": ("chunk", "flops_convention", "batch_per_device", "loss_chunk"),
    "eval": ("batch_size",),
    "checkpoint": None,
    "log": None,
    "mesh": None,
}
# Switches of the model younger than the first trials: left out of the id at their defaults, where
# they change nothing, so that older trials keep theirs.
YOUNGER = (
    *("parametrization", "base_width", "base_head_dim", "base_depth"),
    *("norm_offset", "norm_position", "qk_norm", "rope_theta_local", "rope_layout"),
    *("rope_fraction", "rope_scaling", "rope_factor", "rope_original_context"),
    *("rope_low_frequency", "rope_high_frequency", "rope_short_factors", "rope_long_factors"),
    *("window", "window_pattern", "query_scale", "attention_softcap", "logit_softcap"),
    *("logit_scale", "out_bias", "embedding_scale", "embedding_std"),
)
NOT_IN_ID_AT = {f"model.{key}": json.loads(json.dumps(DEFAULTS[key])) for key in YOUNGER} | {
    "optimizer.moments": "float32"
}
CPU_CHUNK_FLOPS = 1.5e10  # about a quarter second of one core
ACCELERATOR_CHUNK_FLOPS = 1.5e13
LARGEST_CHUNK = 64  # steps
LARGEST_CPU_MESH_CHUNK = 16  # steps: more in flight deadlock the collectives of virtual devices


def resolve(config: ConfigDict, dataset: store.Dataset, devices: int = 1) -> ConfigDict:
    """The config with every size explicit and every duration in steps; idempotent.

    `devices` is what `train.batch_per_device` is multiplied by. Raises ValueError naming the key,
    the value and what would be valid.
    """
    config = config.copy_and_resolve_references()
    config.lock()
    _check_names(config)
    trunk.check_schedule(config)
    if config.data.hash not in ("", dataset.hash):
        raise ValueError(
            f"data.hash={config.data.hash!r}, but this text has hash {dataset.hash!r}; "
            "give it the same text and tokenizer, or set data.hash to '' to accept it"
        )
    config.data.hash = dataset.hash
    cfg = _model(config, dataset)
    parametrization.require(cfg.parametrization, config.optimizer.name)
    loss_in_chunks.require(config.train.loss_chunk, cfg.context_length)
    config.model.update(vars(cfg))
    _resolve_batch(config, devices)
    batch = config.train.batch_size
    loader.require_windows(dataset, batch, cfg.context_length)
    next(loader.eval_batches(dataset, config.eval.sequences, 1, cfg.context_length))
    flops = count.flops_per_token(cfg, config.train.flops_convention)
    _resolve_durations(
        config,
        duration.Units(
            tokens=batch * cfg.context_length,
            examples=batch,
            epochs=loader.epochs_of_data(dataset, 1, batch, cfg.context_length),
            flops=batch * cfg.context_length * flops,
        ),
    )
    return config


def resolve_sizes(config: ConfigDict, devices: int) -> ConfigDict:
    """The config of a program that is compiled and never run: every size explicit, no text read.

    Durations change no shape; here the run is one long chunk. Raises ValueError as `resolve` does.
    """
    config = config.copy_and_resolve_references()
    config.lock()
    _check_names(config)
    if not config.model.vocab_size and config.data.tokenizer in tokenizer.TRAINED:
        raise ValueError(
            "model.vocab_size=0 means that of a tokenizer that is trained first, which a program "
            "without text cannot know; give --config.model.vocab_size=N"
        )
    known = config.model.vocab_size or tokenizer.given(config.data.tokenizer).vocab_size
    cfg = derive(dict(config.model) | {"vocab_size": known})
    parametrization.require(cfg.parametrization, config.optimizer.name)
    loss_in_chunks.require(config.train.loss_chunk, cfg.context_length)
    config.model.update(vars(cfg))
    config.eval.batch_size = devices  # evaluations are another program
    _resolve_batch(config, devices)
    config.train.duration = f"{LARGEST_CHUNK} steps"
    config.schedule.warmup = config.schedule.decay = "0 steps"
    config.train.chunk = config.train.chunk or chunk_steps(config, cpu=False)
    return config


def _check_names(config: ConfigDict) -> None:
    known = {
        "optimizer.name": (config.optimizer.name, OPTIMIZERS),
        "schedule.name": (config.schedule.name, SCHEDULES),
        "optimizer.moments": (config.optimizer.moments, MOMENTS),
        "train.flops_convention": (config.train.flops_convention, CONVENTIONS),
    }
    for key, (value, choices) in known.items():
        if value not in choices:
            raise ValueError(f"{key}={value!r} is unknown; use one of {', '.join(choices)}")
    at_least = {"train.accumulation": 1, "eval.sequences": 2, "eval.batch_size": 1}
    at_least |= {"checkpoint.keep_last": 1, "checkpoint.keep_best": 0, "seed": 0}
    at_least |= {"train.batch_size": 1, "train.batch_per_device": 0, "train.chunk": 0}
    at_least |= {"train.loss_chunk": 0}
    at_least |= {"optimizer.learning_rate": 0, "optimizer.weight_decay": 0}
    at_least |= {"optimizer.clip_norm": 0, "optimizer.b1": 0, "optimizer.b2": 0}
    at_least |= {"schedule.final": 0, "train.z_loss": 0, "train.label_smoothing": 0}
    at_least |= {"train.max_loss_ratio": 1, "log.peak_flops": 0, "optimizer.eps": 0}
    for key, least in at_least.items():
        section, _, leaf = key.rpartition(".")
        value = (config[section] if section else config)[leaf]
        if not value >= least:
            raise ValueError(f"{key}={value} is too small; use {least} or more")
    if not config.seed < 2**32:
        raise ValueError(f"seed={config.seed} must be below 2^32")
    for key in ("b1", "b2"):
        if not config.optimizer[key] < 1:
            raise ValueError(f"optimizer.{key}={config.optimizer[key]} must be below 1")
    if not config.train.label_smoothing < 1:
        raise ValueError(f"train.label_smoothing={config.train.label_smoothing} must be below 1")


def _model(config: ConfigDict, dataset: store.Dataset) -> ModelConfig:
    keys = dict(config.model)
    keys["vocab_size"] = keys["vocab_size"] or dataset.vocab_size
    if keys["vocab_size"] < dataset.vocab_size:
        raise ValueError(
            f"model.vocab_size={keys['vocab_size']} is smaller than the {dataset.vocab_size} "
            f"tokens of data.tokenizer={config.data.tokenizer!r}; use {dataset.vocab_size}, or 0"
        )
    return derive(keys)


def _resolve_batch(config: ConfigDict, devices: int) -> None:
    shares = row_parts(dict(config.mesh), devices)
    who = f"{devices} devices" if shares == devices else f"mesh.data times mesh.fsdp, {shares},"
    if config.train.batch_per_device:
        config.train.batch_size = config.train.batch_per_device * shares
        config.train.batch_per_device = 0
    batch, parts = config.train.batch_size, config.train.accumulation
    if batch % parts:
        valid = ", ".join(str(k) for k in range(1, batch + 1) if batch % k == 0)
        raise ValueError(
            f"train.accumulation={parts} does not divide train.batch_size={batch}; use {valid}"
        )
    for key, rows, unit in (
        ("train.batch_size", batch, parts * shares),
        ("eval.batch_size", config.eval.batch_size, shares),
    ):
        if rows % unit:
            valid = sorted({max(1, rows // unit) * unit, (rows // unit + 1) * unit})
            raise ValueError(
                f"{key}={rows} is no multiple of {unit}, which {who}"
                f"{f' times train.accumulation={parts}' if unit > shares else ''} need; "
                f"use {' or '.join(map(str, valid))}"
            )


def _resolve_durations(config: ConfigDict, units: duration.Units) -> None:
    total = duration.to_steps("train.duration", config.train.duration, units)
    if total < 1:
        raise ValueError(
            f"train.duration={config.train.duration!r} is too small for one step, which is "
            f"{units.tokens:,} tokens or {units.flops:.3g} flops; give it more"
        )
    units = duration.Units(**{**vars(units), "total_steps": total})
    config.train.duration = f"{total} steps"
    for section, key in (("schedule", "warmup"), ("schedule", "decay")):
        name = f"{section}.{key}"
        steps = duration.to_steps(name, config[section][key], units)
        if steps > total:
            raise ValueError(
                f"{name}={config[section][key]!r} is {steps} steps, longer than the run of {total} "
                'steps; use less, such as "2 %"'
            )
        config[section][key] = f"{steps} steps"
    keep_at = config.checkpoint.keep_at
    steps = [duration.to_steps("checkpoint.keep_at", text, units) for text in keep_at]
    if steps and not 1 <= min(steps) <= max(steps) <= total:
        raise ValueError(
            f"checkpoint.keep_at={keep_at!r} is steps {steps}, outside the run of {total} steps"
        )
    config.checkpoint.keep_at = tuple(f"{step} steps" for step in steps)
    for section in ("log", "eval", "checkpoint"):
        text = config[section].every
        never = duration.parse(f"{section}.every", text)[0] == 0
        steps = duration.to_steps(f"{section}.every", text, units)
        config[section].every = "0 steps" if never else f"{max(1, steps)} steps"


def chunk_steps(resolved: ConfigDict, cpu: bool | None = None, lanes: int = 1) -> int:
    """Steps of one jitted call when `train.chunk` is 0: about a quarter second of work.

    `cpu` says whether that is on CPUs; None: on the devices of this process. `lanes` trials share a
    device.
    """
    import jax  # the parent of a sweep needs no devices

    cpu = jax.default_backend() == "cpu" if cpu is None else cpu
    cfg = ModelConfig(**resolved.model)
    tokens = lanes * resolved.train.batch_size * cfg.context_length
    step = tokens * count.flops_per_token(cfg, "palm")
    wanted = (CPU_CHUNK_FLOPS if cpu else ACCELERATOR_CHUNK_FLOPS) / step
    most = LARGEST_CPU_MESH_CHUNK if cpu and jax.device_count() > 1 else LARGEST_CHUNK
    return max(1, min(most, round(wanted), duration.steps(resolved.train.duration)))


def trial_id(resolved: ConfigDict) -> str:
    """The config's name and 8 hex digits of the hash of everything that can change its numbers."""
    text = json.dumps(identity(resolved), sort_keys=True)
    return f"{resolved.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def identity(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """The dotted keys that make the id, with their values, as JSON has them."""
    flat = {}
    for section, value in resolved.items():
        if section in NOT_IN_ID and NOT_IN_ID[section] is None:
            continue
        if not isinstance(value, Mapping | ConfigDict):
            flat[section] = value
            continue
        left_out = NOT_IN_ID.get(section, ())
        flat |= {f"{section}.{key}": v for key, v in value.items() if key not in left_out}
    flat = json.loads(json.dumps(flat))  # tuples are lists in config.json
    return {k: v for k, v in flat.items() if k not in NOT_IN_ID_AT or v != NOT_IN_ID_AT[k]}


def describe(resolved: ConfigDict) -> dict[str, Any]:
    """What is known of a trial before it runs: id, sizes, tokens, steps, FLOPs of the whole run."""
    cfg, steps = ModelConfig(**resolved.model), duration.steps(resolved.train.duration)
    tokens = steps * resolved.train.batch_size * cfg.context_length
    return {
        "id": trial_id(resolved),
        "params": count.parameters(cfg),
        "tokens": tokens,
        "steps": steps,
        "batch": tokens // steps,
        "context_length": cfg.context_length,
        "flops": {name: tokens * count.flops_per_token(cfg, name) for name in CONVENTIONS},
    }


def run(config: ConfigDict, workdir: str | Path, overrides: Mapping[str, Any] | None = None) -> int:
    """Trains the trial in `workdir` unless it is done there; returns the exit code.

    `overrides` is what a sweep changed; it is copied into result.json. Bad input is one line on
    stderr.
    """
    act = functools.partial(_run, config, Path(workdir), dict(overrides or {}))
    return guarded(act, Path(workdir))


def guarded(act: Callable[[Stop], int], workdir: Path) -> int:
    """The exit code of `act`, which learns when to stop; what a user can mend is one line."""
    try:
        with stop_signals(joint=processes.count() > 1) as stop:
            return act(stop)
    except BadInput as error:
        print(f"isoflop: {error}", file=sys.stderr)
    except OSError as error:
        if not disk_full(error):
            raise
        print(
            f"isoflop: no space left in {workdir}; the last good checkpoint is kept: "
            "free some and run this again",
            file=sys.stderr,
        )
    return BAD_INPUT


def _run(config: ConfigDict, workdir: Path, overrides: dict, stop: Stop) -> int:
    import jax

    # Slow imports, which planning a sweep does without.
    from train.checkpoint import Damaged, finished
    from train.loop import Run
    from train.parallel.sharding import MeshError

    with distributed.together() as alike, bad_input():
        dataset = store.prepare(config.data, progress=processes.is_first())
        resolved, ended, branch = opened(config, workdir, dataset, jax.device_count())
        resolved.train.chunk = resolved.train.chunk or chunk_steps(resolved)
        kept = [path.name for path in finished(workdir / "checkpoints")]
        alike |= distributed.alike(json.loads(resolved.to_json()))
        alike |= {"--workdir": str(workdir), "its checkpoints": kept, "its status": ended}
    if ended:
        print(f"{workdir} holds the result already: {ended}")
        return EXIT_CODES[ended]
    try:
        training = Run(resolved, dataset, workdir, branch_until=branch)
    except (MeshError, Damaged) as error:
        raise BadInput(error) from error
    begin(resolved, workdir, dataset)
    with distributed.together(), bad_input():
        distributed.require_shared(workdir / "config.json")
    status = training.train(stop)
    end(resolved, dataset, training.record, overrides, status)
    return EXIT_CODES[status]


def opened(
    config: ConfigDict, workdir: Path, dataset: store.Dataset, devices: int
) -> tuple[ConfigDict, str, int]:
    """(the resolved config, its status if it has ended in `workdir`, the step until which it may
    branch from its trunk). ValueError where it cannot be trained there."""
    from train.checkpoint import finished

    resolved = resolve(config, dataset, devices)
    _check_same(resolved, read_json(workdir / "config.json"), workdir)
    result = read_json(workdir / "result.json")
    if result and result["status"] in ("done", "diverged"):
        return resolved, result["status"], 0
    fresh = resolved.checkpoint.trunk and not finished(workdir / "checkpoints")
    return resolved, "", trunk.branch_until(resolved, identity) if fresh else 0


def begin(resolved: ConfigDict, workdir: Path, dataset: store.Dataset) -> None:
    """Writes what a run is, before it trains."""
    if not processes.is_first():
        return
    write_json(workdir / "config.json", json.loads(resolved.to_json()))
    dataset.tokenizer.save(workdir / "tokenizer")  # a run samples without its text


def end(
    resolved: ConfigDict, dataset: store.Dataset, record: Any, overrides: dict, status: str
) -> None:
    """Writes result.json, unless the run was preempted and goes on later."""
    if status == "preempted" or not processes.is_first():
        return
    about = {"sweep": record.workdir.parent.name, "overrides": overrides, "status": status}
    told = summarise(describe(resolved), resolved, dataset, record)
    write_json(record.workdir / "result.json", told | about)


def _check_same(resolved: ConfigDict, there: dict | None, workdir: Path) -> None:
    """ValueError, naming the first key that differs, if the config there is another trial's."""
    if there is None:
        return
    if differs := trunk.difference(identity(there), identity(resolved)):
        raise ValueError(
            f"workdir={workdir} holds another config's run: {differs}; choose another --workdir"
        )
