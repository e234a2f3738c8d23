"""The validation pairs of a run, as text."""

from pathlib import Path

from ml_collections import ConfigDict

from data.kinds import KINDS
from data.paired import pair_store
from data.tokenizer import Tokenizer
from data.tokenizer_files import words
from launch.files import read_config


def held_out(run: Path) -> tuple[list[str], list[str]]:
    """(sources, targets) of the validation pairs of a run's data, in order, as its tokenizer spells
    them; what it does not know is spelled as in the data, so that an unknown word of a translation
    is no match. ValueError, in one line, if the data cannot be read or have changed."""
    section = (read_config(run) or {}).get("data", {})
    kind, data = section.get("kind", "text"), ConfigDict(section)
    if kind not in ("pairs", "joined_pairs"):
        raise ValueError(f"run={run} has data.kind={kind!r}, which has no validation pairs")
    store = KINDS[kind].prepare(data).store
    if store.hash != data.hash:
        raise ValueError(
            f"data.corpora={store.name!r} has changed since run={run} was trained; give --file and "
            "--references"
        )
    pairs = pair_store.held_out(data)
    sources, targets = ([spelled(store.tokenizer, pair[side]) for pair in pairs] for side in (0, 1))
    return sources, targets


def spelled(tokenizer: Tokenizer, text: str) -> str:
    """A text as a tokenizer spells it, with what it does not know."""
    if tokenizer.kind == "words":
        return words.spaced(tokenizer.model, text)
    tokens = tokenizer.encode(text)
    return text if tokenizer.unknown in tokens else tokenizer.decode(tokens)
