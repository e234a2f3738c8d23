"""Reads and writes the JSON files of runs, each whole or not at all."""

import json
from pathlib import Path
from typing import Any

from data.atomic import write_atomic
from model import families
from model.transformer import family as decoder
from model.transformer.config import ModelConfig


def write_json(file: Path, content: Any) -> None:
    """Replaces `file` by `content`; creates its folder if needed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, (json.dumps(content, indent=1, default=str) + "\n").encode())


def read_json(file: Path) -> dict | None:
    """The content of a JSON file; None if it does not exist, ValueError if it is damaged."""
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{file} is not valid JSON ({error}); delete it and run again") from None


def read_model(run: Path, flag: str) -> ModelConfig:
    """The model of the run that `flag` names; FileNotFoundError or ValueError if there is none."""
    config = read_json(run / "config.json")
    if config is None:
        raise FileNotFoundError(f"{flag}={run} holds no config.json; give it the folder of a run")
    if "model_type" in config:
        raise ValueError(
            f"{flag}={run} holds a model of Hugging Face's; make a run of it first: "
            f"isoflop convert --from_hf={run} --to=RUN"
        )
    try:
        family, cfg = families.read(config["model"])
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{flag}={run} holds a config.json that describes no model ({error}); give it the "
            "folder of a run"
        ) from None
    if family is not decoder:
        raise ValueError(
            f"{flag}={run} holds a model of the family {config['model']['family']!r}; this verb "
            "reads decoders"
        )
    return cfg
