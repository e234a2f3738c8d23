"""This file says what came of a trial: the content of result.json."""

import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from ml_collections import ConfigDict

from data import store
from data.kinds import text as loader
from launch.checkout import commit
from model.transformer import count
from train import duration


def summarise(
    about: Mapping[str, Any], resolved: ConfigDict, dataset: store.Dataset, record: Any
) -> dict[str, Any]:
    """result.json of a run that has ended, from its metrics; `about` is `trial.describe`'s."""
    import jax

    from train import metrics

    rows = metrics.read(record.workdir / "metrics.jsonl")
    evaluations = [row for row in rows if "eval_loss" in row]
    last = {key: value for row in rows for key, value in row.items()}
    tokens_per_second = record.step * about["batch"] / max(record.seconds, 1e-9)
    flops = tokens_per_second * count.flops_per_token(record.cfg.model, "palm")
    batch, length = resolved.train.batch_size, resolved.model.context_length
    hyper = {k: v for k, v in resolved.optimizer.items() if k not in ("name", "moments")} | {
        "optimizer": resolved.optimizer.name,
        "schedule": resolved.schedule.name,
        "warmup_steps": duration.steps(resolved.schedule.warmup),
        "decay_steps": duration.steps(resolved.schedule.decay),
        "final": resolved.schedule.final,
        "total_steps": about["steps"],
    }
    return dict(about) | {
        "holdout": resolved.holdout,
        **record.origin,
        "epochs_of_data": loader.epochs_of_data(dataset, about["steps"], batch, length),
        "train_loss": last.get("loss"),
        "eval_loss": last.get("eval_loss"),
        "eval_loss_se": last.get("eval_loss_se"),
        "bits_per_byte": last.get("bits_per_byte"),
        "seconds": record.seconds,
        "compile_seconds": record.compile_seconds,
        "tokens_per_second": tokens_per_second,
        "mfu": flops / record.peak if record.peak else None,
        "hyperparameters": hyper,
        "seed": resolved.seed,
        "dataset": dataset.hash,
        "versions": versions(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "curve": [[row["step"], row["tokens"], row["eval_loss"]] for row in evaluations],
    }


def versions() -> dict[str, str]:
    """The versions that can change a number, and the commit of this checkout where there is one."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    found = {"python": sys.version.split()[0]} | {p: metadata.version(p) for p in packages}
    here = commit()
    return found | ({"isoflop": here} if here else {})
