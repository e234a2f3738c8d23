"""What came of a trial: the content of result.json."""

import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from ml_collections import ConfigDict

from data.kinds import Dataset
from launch.checkout import commit
from launch.trial.resolve import trained
from train import duration, objectives
from train.policy.sizes import read_share


def summarise(
    about: Mapping[str, Any], resolved: ConfigDict, dataset: Dataset, record: Any
) -> dict[str, Any]:
    """result.json of a run that has ended, from its metrics; `about` is `resolve.describe`'s."""
    import jax

    from train import metrics
    from train.loop import STATIC
    from train.record import EXTRA

    family, cfg = trained(resolved)
    rows = metrics.read(record.workdir / "metrics.jsonl")
    evaluations = [r for r in rows if "eval_loss" in r and (EXTRA not in r or r is rows[-1])]
    last = {key: value for row in rows for key, value in row.items()}
    tokens_per_second = record.step * about["batch"] / max(record.seconds, 1e-9)
    flops = tokens_per_second * family.flops(cfg)["palm"]
    hyper = {k: v for k, v in resolved.optimizer.items() if k not in STATIC} | {
        "optimizer": resolved.optimizer.name,
        "schedule": resolved.schedule.name,
        "warmup_steps": duration.steps(resolved.schedule.warmup),
        "decay_steps": duration.steps(resolved.schedule.decay),
        "final": resolved.schedule.final,
        "total_steps": about["steps"],
    }
    measured = {
        name: {
            "value": last[metrics.column(name)],
            "se": last.get(f"{metrics.column(name)}_se"),
            "unit": metric.unit,
            "better": metric.better,
        }
        for name, metric in objectives.find(resolved.objective.name).METRICS.items()
        if metrics.column(name) in last
    }
    parent = {key: resolved.train[key] for key in ("init_from", "init_hash")}
    return dict(about) | {
        **({"params": record.params} if about["counted"] else {}),
        "holdout": resolved.holdout,
        **record.origin,
        "parent": parent if resolved.train.init_from else None,
        "epochs_of_data": 1.0 if about["counted"] else epochs(resolved, dataset, about["steps"]),
        "train_loss": last.get("loss"),
        "eval_loss": last.get("eval_loss"),
        "eval_loss_se": last.get("eval_loss_se"),
        "bits_per_byte": last.get("bits_per_byte"),
        **unknown(dataset),
        "metrics": measured,
        "seconds": record.seconds,
        "compile_seconds": record.compile_seconds,
        **({} if about["counted"] else record.spikes.result()),
        "tokens_per_second": tokens_per_second,
        **({} if about["counted"] else record.throughput.columns()),
        "mfu": flops / record.peak if record.peak else None,
        "hyperparameters": {} if about["counted"] else hyper,
        "seed": resolved.seed,
        "dataset": dataset.hash,
        **evaluated(dataset),
        **held_out(dataset),
        **failures(dataset),
        "versions": versions(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "curve": [[row["step"], row["tokens"], row["eval_loss"]] for row in evaluations],
    }


def epochs(resolved: ConfigDict, dataset: Dataset, steps: int) -> float:
    """Epochs of the data that a run of so many steps reads."""
    return dataset.epochs(steps * read_share(resolved))


def unknown(dataset: Dataset) -> dict[str, dict[str, float]]:
    """The share of each split's tokens that stand for what the vocabulary lacks; {} for data whose
    tokens stand for everything."""
    shares = getattr(dataset, "unknown_share", None)
    return {"unknown_share": shares} if shares else {}


def evaluated(dataset: Dataset) -> dict[str, str]:
    """The hash of the validation examples that are used, for data of which a run's sizes may leave
    out or cut some; {} for other data."""
    return {"evaluated": dataset.evaluated} if hasattr(dataset, "evaluated") else {}


def held_out(dataset: Dataset) -> dict[str, str]:
    """The hash of the text of `data.held_out`: runs with the same one are comparable."""
    digest = getattr(getattr(dataset, "token_store", None), "held_out", "")
    return {"held_out": digest} if digest else {}


def failures(dataset: Dataset) -> dict[str, int]:
    """How often the checker of responses failed since this process began; {} for data without."""
    checker = getattr(dataset, "checker", None)
    return {"checker_failures": checker.failures} if checker else {}


def so_far(
    result: Mapping[str, Any], resolved: ConfigDict, dataset: Dataset, step: int
) -> dict[str, Any]:
    """What differs in the result of a run that was stopped after `step` steps: its counts are those
    of the steps that it took, and `planned` keeps those of the whole run."""
    planned = {key: result[key] for key in ("steps", "tokens", "flops")}
    return {
        "planned": planned,
        "steps": step,
        "tokens": planned["tokens"] * step // planned["steps"],
        "flops": {name: n * step / planned["steps"] for name, n in planned["flops"].items()},
        "epochs_of_data": epochs(resolved, dataset, step),
    }


def versions() -> dict[str, str]:
    """The versions that can change a number, and the commit of this checkout where there is one."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    found = {"python": sys.version.split()[0]} | {p: metadata.version(p) for p in packages}
    here = commit()
    return found | ({"isoflop": here} if here else {})
