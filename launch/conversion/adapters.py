"""Turns adapters in PEFT's format into a run that trained adapters, and such a run into PEFT's."""

from pathlib import Path
from typing import Any

from data.buckets import copies
from data.files import to_path
from launch.converted import KEPT
from launch.errors import BadInput
from launch.files import read_config, write_json
from launch.trial import start
from model import families
from model.adapters.adapted import Adapted, adapter_of, family_of
from model.huggingface import config_json, peft, weights
from train.checkpoint import Checkpoints, restore_params


def read(source: Path, run: Path, base: str, fresh_config: Any) -> tuple[families.Family, Any]:
    """Writes a run whose adapters are those in `source`; returns its family and Config. Its base is
    the folder `base` or, if that is "", the one that the adapter names. `fresh_config(folder, run)`
    gives the config.json of a converted Hugging Face folder."""
    weights.refuse_full(run)
    folder = to_path(base) if base else peft.base_of(source, to_path)
    held = start.load(folder)
    family, cfg = families.read(held.section)
    adapter, trained = peft.load(start.here(source), cfg, start.model_type(folder, cfg), held.hash)
    own = read_config(folder)
    is_run = "model_type" not in own
    config = own if is_run else fresh_config(folder, run)
    config = config | {"name": source.resolve().name, "adapter": dict(vars(adapter))}
    config["train"] = config["train"] | {"init_from": str(folder), "init_hash": held.hash}
    with copies.made_here(run) as new, weights.whole_folder(new) as target:
        for name in ("tokenizer", KEPT) if is_run else ():
            for file in (folder / name).iterdir() if (folder / name).is_dir() else ():
                (target / name).mkdir(exist_ok=True)
                (target / name / file.name).write_bytes(file.read_bytes())
        write_json(target / "config.json", config)
        checkpoints = Checkpoints(target / "checkpoints", keep_last=1, keep_best=0)
        checkpoints.save(0, {"params": trained}, {})
        checkpoints.close()
    return Adapted(family, adapter), cfg


def has_adapters(run: Path) -> bool:
    """Whether a run trained adapters."""
    return adapter_of(read_config(run) or {}) is not None


def write(run: Path, target: Path, base: str, model_type: str, say: Any) -> None:
    """Writes the adapters of a run for PEFT, on top of `base` or, if that is "", of the weights
    that they were trained on."""
    config = read_config(run)
    family, cfg = family_of(config)
    if family.family not in {config_json.FAMILIES[n].model for n in config_json.FAMILIES}:
        raise BadInput(
            f"from={run} adapts a model.family={config['model']['family']!r}, whose modules PEFT's "
            "names do not cover; use --merged"
        )
    source = config["train"]["init_from"]
    model_type = model_type or start.model_type(to_path(source), cfg)
    trained, _ = restore_params(run / "checkpoints", say)
    stated = config["train"]["init_hash"]
    weights.refuse_full(target)
    with copies.made_here(target) as new:
        peft.save(new, family.adapter, cfg, trained, base or source, stated, model_type)
