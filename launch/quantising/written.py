"""Writes a quantised run: what the run had, its kernels in few bits, and quantised.json."""

from pathlib import Path
from typing import Any

from data.buckets import copies
from launch.converted import copy_kept
from launch.files import read_config, write_json
from launch.quantising.quantised import FILE
from model.huggingface import weights
from model.quantised import model
from train.checkpoint import Checkpoints


def write(run: Path, target: Path, params: dict, step: int, about: dict[str, Any]) -> None:
    """Writes `target`, atomically. The new run computes in float32 and has no adapters: `params`
    contains them."""
    config = read_config(run)
    config["model"] = config["model"] | {"dtype": "float32"}
    if (config.get("adapter") or {}).get("name"):
        config["adapter"] = {"name": ""}
    with copies.made_here(target) as new, weights.whole_folder(new) as folder:
        copy_kept(run, folder, also=("tokenizer",))
        checkpoints = Checkpoints(folder / "checkpoints", keep_last=1, keep_best=0)
        checkpoints.save(step, {"params": model.stored(params)}, {})
        checkpoints.close()
        write_json(folder / "config.json", config)
        write_json(folder / FILE, about)
