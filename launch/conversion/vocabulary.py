"""A trained model with more tokens: a run whose vocabulary is larger than that of another run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from data import tokenizer as tokenizers
from data.buckets import copies
from data.local import parse_object
from data.tokenizer import Tokenizer, read_saved
from data.tokenizer_files import exported
from data.tokenizer_files.extended import with_special_tokens
from launch.converted import KEPT, copy_kept, is_published
from launch.errors import writing
from launch.files import read_config, write_json
from launch.restored import family_of
from launch.trial.start import of_run
from model import families, parameters
from model.huggingface import weights
from train.checkpoint import Checkpoints
from train.rules import Rules, lookup

# Kinds of data whose model has no tokens but those of the tokenizer. Others give the ids after them
# a meaning: sentinels, [MASK].
KINDS = ("text", "conversations", "preferences", "tasks")
ROWS = ("mean", "pieces")
PIECES = ("tokenizer.model", "tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json")


class Extended(NamedTuple):
    """What `extend` made."""

    tokenizer: Tokenizer
    first: int  # the id of the first new token
    before: int  # model.vocab_size
    after: int


def extend(run: Path, target: Path, names: Sequence[str], rows: str, say: Any) -> Extended:
    """Writes into `target` the newest checkpoint of `run` with one more token for each of `names`.

    A new entry of the embedding and of the head is the mean of those of all tokens ("mean", Hewitt
    2021), or of the pieces that spelled the token before ("pieces"). ValueError or
    FileNotFoundError for a run that cannot be extended."""
    if rows not in ROWS:
        raise ValueError(f"rows={rows!r} is unknown; use one of {', '.join(ROWS)}")
    if is_published(run):
        raise ValueError(
            f"run={run} holds Hugging Face weights; make a run of them first: isoflop convert "
            f"--from_hf={run} --to=RUN"
        )
    weights.refuse_full(target)
    family, cfg = family_of(run)
    config = read_config(run)
    kind = config.get("data", {}).get("kind", "text")
    if families.is_counted(family) or kind not in KINDS:
        raise ValueError(
            f"run={run} is a model of the family {config['model'].get('family', 'decoder')!r} on "
            f"data.kind={kind!r}; tokens can be added to trained models on {', '.join(KINDS)}"
        )
    tokenizer = tokenizers.load(run / "tokenizer")
    made, first = with_special_tokens(tokenizer, names), tokenizer.vocab_size
    size = max(cfg.vocab_size, made.vocab_size)
    every = np.arange(first)
    sources = [tokenizer.encode_prompt(name) if rows == "pieces" else every for name in names]
    params, _ = of_run(run, say)
    params = with_entries(params, family.PARAMETER_AXES, first, sources, size)
    section = config["model"] | {"vocab_size": size}
    _, grown = families.read({"family": "decoder"} | section)
    parameters.check(jax.eval_shape(lambda: family.init(grown, jax.random.key(0))), params)
    with (
        writing("to", target),
        copies.made_here(target) as new,
        weights.whole_folder(new) as folder,
    ):
        made.save(folder / "tokenizer")
        write_json(folder / "config.json", _config(config, section, target))
        _write_files(run, folder, grown.context_length)
        checkpoints = Checkpoints(folder / "checkpoints", keep_last=1, keep_best=0)
        checkpoints.save(0, {"params": params}, {})
        checkpoints.close()
    return Extended(made, first, cfg.vocab_size, size)


def with_entries(
    params: dict, rules: Rules, first: int, sources: Sequence[np.ndarray], size: int
) -> dict:
    """`params` with `size` entries along every axis `vocab` of a family's PARAMETER_AXES. Entry
    first + k is the mean of the entries sources[k]; entries beyond the new ones are kept, or 0."""
    found = {}
    for path, leaf in parameters.flat(params).items():
        axes = lookup(rules, path, "PARAMETER_AXES")
        if "vocab" in axes:
            axis = axes.index("vocab")
            old = np.moveaxis(np.asarray(leaf), axis, 0)
            new = np.zeros((size, *old.shape[1:]), old.dtype)
            new[: len(old)] = old
            for place, ids in enumerate(sources):
                new[first + place] = old[ids].mean(0, dtype=np.float64)
            leaf = np.moveaxis(new, 0, axis)
        found[path] = leaf
    return parameters.nested(found)


def _config(config: Mapping[str, Any], section: dict, target: Path) -> dict:
    """The config.json of the new run, without its start weights, adapter and data hash."""
    data = {"tokenizer": str(target / "tokenizer" / "tokenizer.json"), "hash": ""}
    if "vocab_size" in config["data"]:
        data["vocab_size"] = 0
    changed = {"model": section, "data": config["data"] | data, "name": target.resolve().name}
    for name, keys in (("train", {"init_from": "", "init_hash": ""}), ("adapter", {"name": ""})):
        if name in config:
            changed[name] = config[name] | keys
    return dict(config) | changed


def _write_files(run: Path, folder: Path, context_length: int) -> None:
    """Copies a run's template, imports and published files, with the tokenizer's files replaced by
    those of the new one."""
    copy_kept(run, folder, PIECES)
    if not (folder / KEPT).is_dir():
        return
    for name, content in exported.files(read_saved(folder / "tokenizer"), context_length).items():
        file = folder / KEPT / name
        if name in PIECES or not file.exists():
            file.write_bytes(content)
        elif name == "tokenizer_config.json":
            file.write_bytes(_with_decoder(file.read_bytes(), folder / KEPT / "tokenizer.json"))


def _with_decoder(config: bytes, tokenizer_json: Path) -> bytes:
    """A tokenizer_config.json that lists all added tokens, if it lists any."""
    about = parse_object(config)
    if "added_tokens_decoder" not in about or not tokenizer_json.exists():
        return config
    listed = parse_object(tokenizer_json.read_bytes()).get("added_tokens") or []
    tokens = {str(one["id"]): {k: v for k, v in one.items() if k != "id"} for one in listed}
    return exported.as_json(
        about | {"added_tokens_decoder": tokens | about["added_tokens_decoder"]}
    )
