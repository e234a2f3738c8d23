"""What `isoflop train` says: a header before it trains, a summary after, and how to go on."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data.kinds import Dataset
from launch.amounts import amount, byte_size, clock, flops
from launch.sweep.expand import ASSUMED_FLOPS, CONVENTION, START_SECONDS
from launch.trial.resolve import describe
from model import families
from scaling.report.number_text import three_digits
from train import objectives
from train.policy.sizes import read_share


def header(resolved: ConfigDict, dataset: Dataset, workdir: Path) -> list[str]:
    """What will be trained: parameters by component, tokens, epochs, FLOPs, time and device."""
    import jax

    about = describe(resolved, dataset)
    kind = f"{about['family']}, {about['objective']}"
    if about["counted"]:
        return [f"{resolved.name}: {kind}, counted on {amount(about['tokens'])} tokens; {workdir}"]
    parts = ", ".join(f"{name} {amount(n)}" for name, n in about["params"].items() if n)
    data = "data without end"
    if epochs := dataset.epochs(about["steps"] * read_share(resolved)):
        data = f"{three_digits(epochs)} epochs of {amount(about['tokens'] / epochs)} tokens of data"
    platform, devices = jax.default_backend(), jax.device_count()
    if platform == "cpu":
        units = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        where = f"{units} CPU core{'s' if units > 1 else ''}"
    else:
        units, where = devices, f"{devices} × {jax.devices()[0].device_kind}"
    convention = resolved.train.flops_convention
    rate = ASSUMED_FLOPS.get(platform, ASSUMED_FLOPS["gpu"]) * units
    share = 1 - _reached(workdir) / about["steps"]
    time = START_SECONDS + share * about["flops"][CONVENTION] / rate
    return [
        f"{resolved.name}: {amount(sum(about['params'].values()))} parameters ({parts}); {kind}",
        f"  {amount(about['tokens'])} tokens in {about['steps']:,} steps of {about['batch']:,}; "
        f"{data}",
        *(f"  {note}" for note in getattr(dataset, "notes", ())),
        f"  {flops(about['flops'][convention])} FLOPs ({convention}); about {clock(time)} on "
        f"{where}, at an assumed {rate / 1e9:,.0f} GFLOP/s",
        f"  writes to {workdir}; Ctrl-C saves a checkpoint and stops",
    ]


def memory(components: Mapping[str, int]) -> list[str]:
    """What the state takes on one device, by component; nothing for a counted model."""
    if not components:
        return []
    parts = ", ".join(f"{name} {byte_size(size)}" for name, size in components.items())
    return [f"  memory of one device: {parts}; activations on top (isoflop compile)"]


def summary(resolved: ConfigDict, workdir: Path, result: Mapping[str, Any]) -> list[str]:
    """How a trial ended, and what to do with it."""
    if result["status"] == "diverged":
        return [f"{resolved.name}: diverged; {remedy(resolved, workdir)}"]
    time = clock(result.get("seconds") or 0.0)
    if result["status"] == "stopped":
        return [
            f"{resolved.name}: stopped after {result['steps']:,} of {result['planned']['steps']:,} "
            f"steps (checkpoint.stop_at), {measured(result)}; trained for {time}; the same command "
            "without checkpoint.stop_at goes on from there"
        ]
    return [
        f"{resolved.name}: done, {measured(result)}; trained for {time}; {workdir / 'result.json'}",
        *_to_sample(resolved, workdir),
    ]


def again(resolved: ConfigDict, workdir: Path, result: Mapping[str, Any]) -> list[str]:
    """What to say about a trial that had ended before."""
    first = f"{workdir} holds the result already: {result['status']}"
    if result["status"] == "diverged":
        return [f"{first}; {remedy(resolved, workdir)}"]
    return [
        f"{first}, {measured(result)}; use another --workdir to train it again",
        *_to_sample(resolved, workdir),
    ]


def stopped(resolved: ConfigDict, workdir: Path) -> list[str]:
    """What a run that was asked to stop has saved, and how to continue it."""
    total, reached = resolved.train.duration.split()[0], _reached(workdir)
    saved = f"a checkpoint of step {reached:,} of {int(total):,} is saved" if reached else ""
    return [
        f"{resolved.name}: stopped; {saved or 'there was nothing to save yet'}. The same command "
        f"continues from {'there' if reached else 'the beginning'}"
    ]


def remedy(resolved: ConfigDict, workdir: Path) -> str:
    """What to do about a divergence."""
    rate = three_digits(resolved.optimizer.learning_rate)
    return (
        f"try a lower --config.optimizer.learning_rate (here {rate}) "
        f"or a longer --config.schedule.warmup (here {resolved.schedule.warmup}) in another "
        f"--workdir; {workdir / 'diverged' / 'diverged.json'} holds its last steps"
    )


def measured(result: Mapping[str, Any]) -> str:
    """The losses of a result in words."""
    loss, bits = result.get("eval_loss"), result.get("bits_per_byte")
    unit = result.get("metrics", {}).get("loss", {}).get("unit", "nats/token")
    parts = ["no evaluation" if loss is None else f"eval loss {loss:.4f} {unit}"]
    parts += [] if bits is None else [f"{bits:.4f} bits/byte"]
    if unknown := result.get("unknown_share", {}).get("validation"):
        parts.append(f"{unknown:.2%} of the validation tokens unknown to the vocabulary")
    return ", ".join(parts)


def _to_sample(resolved: ConfigDict, workdir: Path) -> list[str]:
    """The command that draws text from the model, or talks with it, if it can."""
    writes = "logits" in objectives.find(resolved.objective.name).NEEDS
    if not writes or not hasattr(families.find(resolved.model.family), "generate"):
        return []
    run = shlex.quote(str(workdir))
    if resolved.data.get("template", ""):
        return [f"  talk with it: isoflop chat --run={run}"]
    return [f"  sample from it: isoflop sample --run={run} --prompt='The '"]


def _reached(workdir: Path) -> int:
    """The step of the newest checkpoint; 0 before the first."""
    from train.checkpoint import finished  # slow to import

    paths = finished(workdir / "checkpoints")
    return int(paths[0].name) if paths else 0
