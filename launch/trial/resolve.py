"""Resolving a config: every size explicit, every duration in steps, nonsense refused."""

import re
from typing import Any

from ml_collections import ConfigDict

from configs import base
from data import kinds
from launch.chat import template
from launch.config import combination
from launch.trial import trunk
from launch.trial.chunk import LARGEST_CHUNK, chunk_steps
from launch.trial.identity import defaults, trial_id, weights_named
from model import families
from model.adapters import adapted
from train import duration, objectives
from train.flatten import flatten
from train.optimizers.moments import MOMENTS
from train.optimizers.optimizer import OPTIMIZERS
from train.optimizers.schedule import SCHEDULES
from train.parallel.mesh import row_parts
from train.policy.sizes import read_share, updates
from train.recovery.spikes import POLICIES
from train.viewers import samples

NAME = re.compile(r"[A-Za-z0-9_=+,-][A-Za-z0-9._=+,-]{0,199}")  # begins the trial's folder name
# Keys whose values name an entry of a table.
NAMES = {
    "optimizer.name": OPTIMIZERS,
    "optimizer.moments": MOMENTS,
    "schedule.name": SCHEDULES,
    "train.flops_convention": families.CONVENTIONS,
    "train.on_spike": POLICIES,
}


def prepare(config: ConfigDict, progress: bool = True) -> kinds.Dataset:
    """The data of a config, not yet sized for it. ValueError for a family, an objective and a kind
    of data that do not fit together, before any data is read."""
    combination.check(config)
    data = template.filled(config.data)
    return kinds.KINDS[config.data.kind].prepare(data, progress=progress)


def resolve(config: ConfigDict, dataset: kinds.Dataset, devices: int = 1) -> ConfigDict:
    """The config with every size explicit and every duration in steps; idempotent.

    `devices` is what `train.batch_per_device` is multiplied by. Raises ValueError naming the key,
    the value and what would be valid.
    """
    config = config.copy_and_resolve_references()
    config.lock()
    combination.check(config)
    check(config)
    trunk.check_schedule(config)
    if config.data.hash not in ("", dataset.hash):
        raise ValueError(
            f"data.hash={config.data.hash!r}, but this text has hash {dataset.hash!r}; "
            "give it the same text and tokenizer, or set data.hash to '' to accept it"
        )
    config.data.hash = dataset.hash
    config.data.update(template.filled(config.data))
    _resolve_weights(config, getattr(dataset, "tokenizer", None))
    family, cfg = _model(
        config, getattr(dataset, "vocab_size", 0), getattr(dataset, "n_classes", 0)
    )
    if families.is_counted(family):
        if not isinstance(dataset, kinds.Countable):
            raise ValueError(
                f"model.family={config.model.family!r} is counted from whole texts, which "
                f"data.kind={config.data.kind!r} does not have; use data.kind=text"
            )
        _resolve_counted(config)
        dataset.for_run(config)
        return config
    if most := config.data.get("max_tokens", 0):
        raise ValueError(
            f"data.max_tokens={most} is for counted models, and model.family="
            f"{config.model.family!r} is trained; use 0, and train.duration='{most} tokens'"
        )
    adapted.require_base(config)
    _resolve_batch(config, devices)
    _check_settings(config, family, cfg)
    samples.check(config, getattr(dataset, "tokenizer", None))
    tokens = config.train.batch_size * kinds.KINDS[config.data.kind].tokens(config)
    _resolve_durations(
        config,
        duration.Units(
            tokens=tokens,
            examples=config.train.batch_size,
            epochs=dataset.for_run(config).epochs(read_share(config)),
            flops=tokens * family.flops(cfg)[config.train.flops_convention],
        ),
    )
    return config


def resolve_sizes(config: ConfigDict, devices: int) -> ConfigDict:
    """The config of a program that is compiled and never run: every size explicit, no data read.

    Durations change no shape; here the run is one long chunk. Raises ValueError as `resolve` does.
    """
    config = config.copy_and_resolve_references()
    config.lock()
    combination.check(config)
    check(config)
    known = config.model.get("vocab_size", 0)
    known = known or kinds.KINDS[config.data.kind].vocab_size(config.data)
    family, cfg = _model(config, known)
    if families.is_counted(family):
        raise ValueError(
            f"model.family={config.model.family!r} is counted, not trained: there is no program "
            "to compile"
        )
    _check_settings(config, family, cfg)
    config.eval.batch_size = devices  # evaluations are another program
    _resolve_batch(config, devices)
    config.train.duration = f"{LARGEST_CHUNK} steps"
    config.schedule.warmup = config.schedule.decay = "0 steps"
    config.train.chunk = config.train.chunk or chunk_steps(config, cpu=False)
    return config


def check(config: ConfigDict) -> None:
    """ValueError names the first key that is out of its bounds or not in its table."""
    values = flatten(config)
    if not NAME.fullmatch(values["name"]):
        raise ValueError(
            f"name={values['name'][:60]!r} is not valid; use 1 to 200 letters, digits and ._=+,- "
            "and no dot at the start"
        )
    for key, known in NAMES.items():
        if values[key] not in known:
            raise ValueError(f"{key}={values[key]!r} is unknown; use one of {', '.join(known)}")
    for key, bound in base.bounds(values["objective.name"], values["data.kind"]).items():
        value = values[key]
        if bound.least is not None and not value >= bound.least:
            raise ValueError(f"{key}={value} is too small; use {bound.least} or more")
        if bound.below is not None and not value < bound.below:
            raise ValueError(f"{key}={value} must be below {bound.below}")


def predicts(config: ConfigDict) -> str:
    """What the loss is averaged over, as the objective says or, if it does not, the kind of data,
    with the keys of TASK that are not at their defaults. Losses are compared only where this is the
    same."""
    kind, objective = kinds.KINDS[config.data.kind], objectives.find(config.objective.name)
    usual = getattr(kind, "PREDICTS", f"the rows of data.kind={config.data.kind}")
    keys = (*getattr(kind, "TASK", ()), *getattr(objective, "TASK", ()))
    found, usually = flatten(config), defaults(config)
    set_ = [f"{key}={found[key]}" for key in keys if key in found and found[key] != usually[key]]
    what = getattr(objective, "PREDICTS", usual)
    return f"{what} ({', '.join(set_)})" if set_ else what


def _resolve_weights(config: ConfigDict, tokenizer: Any) -> None:
    values, named = flatten(config), weights_named(config.objective.name)
    if len(named) > 1 or any(values[key] for key in named):
        from launch.trial import start  # slow imports

        start.resolve(config, tokenizer)


def _model(config: ConfigDict, vocab_size: int, n_classes: int = 0) -> tuple[families.Family, Any]:
    """(family, its Config), derived from the section `model` and from what the data have, and made
    explicit in place."""
    keys = dict(config.model)
    name = keys.pop("family")
    family = families.find(name)
    if unknown := [key for key in keys if key not in families.keys(family)]:
        raise ValueError(
            f"model.family={name!r} has no key {unknown[0]}; start from "
            f"base.get_config(family={name!r}), or give --config.model.family={name}"
        )
    if "vocab_size" in keys:
        keys["vocab_size"] = keys["vocab_size"] or vocab_size
        if keys["vocab_size"] < vocab_size:
            source = "tokenizer" if "tokenizer" in config.data else "kind"
            raise ValueError(
                f"model.vocab_size={keys['vocab_size']} is smaller than the {vocab_size} "
                f"tokens of data.{source}={config.data[source]!r}; use {vocab_size}, or 0"
            )
    if n_classes and "n_classes" in keys:
        keys["n_classes"] = keys["n_classes"] or n_classes
        if keys["n_classes"] != n_classes:
            raise ValueError(
                f"model.n_classes={keys['n_classes']}, but data.corpora={config.data.corpora} has "
                f"{n_classes} labels; use {n_classes}, or 0"
            )
    if "masked" in keys:
        keys["masked"] = config.data.get("masked", keys["masked"])
    if "image" in keys and hasattr(kind := kinds.KINDS[config.data.kind], "image_shape"):
        keys["image"] = kind.image_shape(config.data)
    if keys.get("n_classes") == 0 and not objectives.beside(config):
        keys["n_classes"] = getattr(objectives.find(config.objective.name), "N_CLASSES", 0)
    config.model.update(vars(family.derive(keys)))
    family, cfg = trained(config)
    adapted.check(family, cfg)
    return family, cfg


def trained(config: ConfigDict) -> tuple[families.Family, Any]:
    """(family, its Config) of all that a config trains, for its counts."""
    if not objectives.beside(config):
        return adapted.family_of(config)
    from launch.trial import start  # slow imports

    return start.trained(config)


def _check_settings(config: ConfigDict, family: families.Family, cfg: Any) -> None:
    """ValueError where the objective or the optimiser cannot do what the config asks for."""
    objective = objectives.find(config.objective.name)
    objective.configure(config)
    if families.carries(cfg) and not getattr(kinds.KINDS[config.data.kind], "READS_ON", False):
        fitting = [name for name, kind in kinds.KINDS.items() if getattr(kind, "READS_ON", False)]
        raise ValueError(
            f"model.carry_state=True needs rows that go on from batch to batch, which data.kind="
            f"{config.data.kind!r} does not have; use {' or '.join(fitting)}, or carry_state=False"
        )
    if hasattr(objective, "rollout") and config.train.chunk not in (0, updates(config)):
        raise ValueError(
            f"train.chunk={config.train.chunk}, but objective.name={config.objective.name!r} makes "
            f"the batches of {updates(config)} steps from the parameters before them; use 0"
        )
    policy = config.train.on_spike
    if policy != "stop" and hasattr(objective, "rollout"):
        raise ValueError(
            f"train.on_spike={policy!r} is not for objective.name={config.objective.name!r}, whose "
            "batches depend on the parameters; use stop"
        )
    if policy == "skip" and config.optimizer.get("offload", False):
        raise ValueError(
            "train.on_spike='skip' keeps the moments of the step before, which "
            "optimizer.offload=True moves to the host; use stop or rewind, or offload=False"
        )
    if hasattr(family, "update_scales"):
        family.update_scales(cfg, config.optimizer.name)
    if config.optimizer.name == "muon" and not hasattr(family, "MATRICES"):
        raise ValueError(
            f"optimizer.name='muon' needs to know the matrices of model.family="
            f"{config.model.family!r}, which states none; use adamw"
        )


def _resolve_counted(config: ConfigDict) -> None:
    """One pass over the text: nothing of how models are trained applies."""
    if (rows := config.data.get("rows", "windows")) != "windows":
        raise ValueError(
            f"data.rows={rows!r} is for trained models, and model.family={config.model.family!r} "
            "is counted from the whole text; use windows"
        )
    config.train.batch_size = config.train.accumulation = 1
    config.train.duration = "1 steps"
    config.schedule.warmup = config.schedule.decay = "0 steps"
    config.checkpoint.keep_at, config.checkpoint.stop_at, config.log.samples = (), "", ""
    for section in ("log", "eval", "checkpoint"):
        config[section].every = "0 steps"


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
    whole = lambda steps: -(-steps // every) * every  # noqa: E731
    every, total = (
        updates(config),
        duration.to_steps("train.duration", config.train.duration, units),
    )
    if total < 1:
        raise ValueError(
            f"train.duration={config.train.duration!r} is too small for one step, which is "
            f"{units.tokens:,} tokens or {units.flops:.3g} flops; give it more"
        )
    total = whole(total)  # rollouts
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
    config.checkpoint.keep_at = tuple(f"{whole(step)} steps" for step in steps)
    if config.checkpoint.stop_at:
        _resolve_stop(config, units)
    for section in ("log", "eval", "checkpoint"):
        text = config[section].every
        never = duration.parse(f"{section}.every", text)[0] == 0
        steps = duration.to_steps(f"{section}.every", text, units)
        config[section].every = "0 steps" if never else f"{whole(max(1, steps))} steps"
    if text := config.log.samples:
        never = duration.parse("log.samples", text)[0] == 0
        steps = duration.to_steps("log.samples", text, units)
        config.log.samples = "" if never else f"{whole(max(1, steps))} steps"


def _resolve_stop(config: ConfigDict, units: duration.Units) -> None:
    """Drops a stop at or after the end of the run."""
    text = config.checkpoint.stop_at
    step = duration.to_steps("checkpoint.stop_at", text, units)
    if step < 1:
        raise ValueError(f"checkpoint.stop_at={text!r} is less than one step; give it more, or ''")
    step = -(-step // updates(config)) * updates(config)
    config.checkpoint.stop_at = f"{step} steps" if step < units.total_steps else ""


def describe(resolved: ConfigDict, dataset: kinds.Dataset) -> dict[str, Any]:
    """What is known of a trial before it runs: id, sizes, tokens, steps, FLOPs of the whole run.
    The parameters of a counted family are known only once it is counted: {} until then."""
    family, cfg = trained(resolved)
    steps = duration.steps(resolved.train.duration)
    counted = families.is_counted(family)
    length = kinds.KINDS[resolved.data.kind].tokens(resolved)
    tokens = steps * resolved.train.batch_size * length
    if counted:
        tokens = dataset.for_run(resolved).n_tokens("train")
    return {
        "id": trial_id(resolved),
        "family": resolved.model.family,
        "objective": resolved.objective.name,
        "predicts": predicts(resolved),
        "counted": counted,
        "params": {} if counted else family.parameters(cfg),
        **adapted.counts(family, cfg),
        "tokens": tokens,
        "steps": steps,
        "batch": tokens // steps,
        "context_length": length,
        "flops": {name: tokens * flops for name, flops in family.flops(cfg).items()},
    }
