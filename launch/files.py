"""Reads and writes the JSON files of runs. A write replaces the whole file or nothing."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data.atomic import write_atomic
from data.buckets.attempts import Changed
from data.buckets.lease import Lease, LostLock
from data.buckets.versioned import client
from data.files import is_remote, path_of, to_path
from data.local import parse_json
from model import families
from model.transformer import family as decoder
from model.transformer.config import ModelConfig

# What mends a damaged file that a run wrote; one of a published model; one that a conversion kept.
AGAIN, DOWNLOAD = "delete it and run again", "download it again"
CONVERT = "convert the model again"


def write_json(file: Path, content: Any) -> None:
    """Replaces `file` by `content`; creates its folder if needed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, (json.dumps(content, indent=1, default=str) + "\n").encode())


def write_once(file: Path, result: Mapping[str, Any], lease: Lease) -> None:
    """Writes the result of a trial whose lock this process holds. In a bucket, LostLock if a result
    is there that ends the trial: an owner that was frozen cannot replace that of the next one."""
    lease.confirm()
    if not is_remote(file):
        write_json(file, result)
        return
    content = (json.dumps(result, indent=1, default=str) + "\n").encode()
    store, url = client(file), os.fspath(file)
    while True:
        try:
            _, version = store.get(url)
        except FileNotFoundError:
            version = ""
        if ended(file.parent):
            raise LostLock(f"{file} was written by another process")
        lease.confirm()
        try:
            store.put(url, content, version)
            return
        except Changed:
            continue  # by a late write of an owner before this one, or by another owner


def read_json(file: Path, remedy: str = "") -> dict | None:
    """The object in a JSON file; None if there is no file. ValueError if it is damaged: what is
    wrong, and the `remedy`, which depends on who wrote the file."""
    try:
        content = parse_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise ValueError(_with(remedy, f"{file} is not valid JSON ({error})")) from None
    if not isinstance(content, dict):
        raise ValueError(_with(remedy, f"{file} holds no JSON object"))
    return content


def read_config(folder: Path) -> dict | None:
    """The config.json of a run, or of a folder of Hugging Face weights, as `read_json` reads it."""
    try:
        return read_json(folder / "config.json")
    except ValueError as error:
        published = any(folder.glob("*.safetensors")) and not (folder / "checkpoints").exists()
        raise ValueError(_with(DOWNLOAD if published else AGAIN, str(error))) from None


def _with(remedy: str, fault: str) -> str:
    return f"{fault}; {remedy}" if remedy else fault


def ended(run: Path) -> str:
    """How the trial in a folder ended: "done" or "diverged"; "" if it has not, if it failed and
    will be tried again, or if it was stopped and can go on. ValueError if its result.json says none
    of these."""
    result = read_json(run / "result.json", AGAIN)
    if result is None:
        return ""
    status = result.get("status")
    if status not in ("done", "diverged", "failed", "stopped"):
        raise ValueError(f"{run / 'result.json'} has no known status ({status!r}); {AGAIN}")
    return "" if status in ("failed", "stopped") else status


def read_model(run: Path, flag: str) -> ModelConfig:
    """The model of the run that `flag` names, as `read_family` reads it. ValueError for a model
    that is no decoder too."""
    family, cfg = read_family(run, flag)
    if family is not decoder:
        name = read_config(run)["model"]["family"]
        raise ValueError(
            f"{flag}={run} holds a model of the family {name!r}; this verb reads decoders"
            f"{instead(family, cfg, run)}"
        )
    return cfg


def instead(family: families.Family, cfg: Any, run: Path) -> str:
    """What reads the model of a run that was not trained to continue text: a sentence after the end
    of the one before; "" for a model that was."""
    config = read_config(run) or {}
    objective = config.get("objective", {}).get("name", "next_token")
    if objective in ("classify", "tag"):
        return f". It is a classifier: use isoflop classify --run={run} --text=…"
    if "image" in family.INPUTS:
        return f". It writes captions: use isoflop sample --run={run} --image=FILE"
    if hasattr(family, "masked_logits") and cfg.masked_head:
        return f'. It fills in masked tokens: use isoflop fill --run={run} --text="… [MASK] …"'
    if config.get("data", {}).get("kind", "text") in ("pairs", "joined_pairs"):
        return f". It was trained on pairs: use isoflop translate --run={run} --text=…"
    from train.objectives import OBJECTIVES  # slow imports

    needs = getattr(OBJECTIVES.get(objective), "NEEDS", ("logits",))
    if "pooled" in needs and "logits" not in needs:
        return (
            f". It scores texts: isoflop show {run} says what objective.name={objective} measures"
        )
    return ""


def text_lines(path: str | Path, flag: str) -> list[str]:
    """The lines of the text file that `flag` names. FileNotFoundError or ValueError, in one line,
    if it does not exist, is not UTF-8 or holds no text."""
    if not to_path(path).is_file():
        raise FileNotFoundError(f"{flag}={path} does not exist; name a file of texts, one a line")
    try:
        text = to_path(path).read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{flag}={path} is not UTF-8 ({error.reason}); convert it") from None
    if not text.strip():
        raise ValueError(f"{flag}={path} holds no text; put one text on each line")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def read_family(run: Path, flag: str) -> tuple[families.Family, Any]:
    """The family of the run that `flag` names, and its Config. Keys that are younger than the run
    have their defaults. FileNotFoundError or ValueError, in one line, without a config.json, and
    for keys that this version does not know."""
    config = read_config(run)
    if config is None:
        raise FileNotFoundError(f"{flag}={run} holds no config.json; give it the folder of a run")
    if "model_type" in config:
        raise ValueError(
            f"{flag}={run} holds a Hugging Face model; convert it to a run first: "
            f"isoflop convert --from_hf={run} --to=RUN"
        )
    try:
        section = config["model"]
        if (name := section.get("family", "decoder")) not in families.FAMILIES:
            raise ValueError(
                f"{flag}={run} holds a model of the family {name!r}, which this version of isoflop "
                f"does not have; this verb reads decoders"
            )
        known = {"family", *families.keys(families.find(section.get("family", "decoder")))}
        if unknown := sorted(set(section) - known):
            raise ValueError(
                f"{flag}={run} holds a config.json that describes no model of this version of "
                f"isoflop: model.{unknown[0]} is unknown to it; use the version that wrote the run"
            )
        return families.read(section)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{flag}={run} holds a config.json that describes no model ({error}); give it the "
            "folder of a run"
        ) from None


def named(entries: Sequence[str], flag: str) -> list[tuple[str, Path]]:
    """(name, path) of each [NAME=]FILE. ValueError for a name that occurs twice."""
    found = []
    for entry in entries:
        name, equals, text = entry.partition("=")
        path = path_of(text if equals else entry, flag)
        found.append((name if equals else path.stem, path))
    names = [name for name, _ in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{flag}: two files are named {twice}; write {flag}=OTHER=FILE")
    return found
