"""What `isoflop tokenize --compare` measures: tokenizers, side by side, on texts by language."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from data import store
from data import tokenizer as tokenizers
from data.compared import declaration
from data.compared.measures import measure, megabytes_per_second, pieces
from data.sources import corpus
from data.tokenizer import Tokenizer

SENTENCES = (
    "Köche präferieren süße Schokolädentörtchen.",
    "Koeche praeferieren suesse Schokolaedentoertchen.",
)
MOST = 2_000_000  # bytes of each text that are read
COUNTS = ("bytes", "characters", "tokens")


def compare(
    config: ConfigDict,
    specs: Sequence[str],
    texts: Mapping[str, str],
    sentences: Sequence[str],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Every tokenizer on every text. A spec is that of `opened`, or NAME=SPEC. `texts` maps names,
    such as languages, to corpora; without any they are Article 1 of the Declaration of Human Rights
    in some languages. `say` is told what is being done. Raises what reading tokenizers and texts
    does."""
    named = [(name, spec or name) for name, _, spec in (one.partition("=") for one in specs)]
    if len({name for name, _ in named}) < len(named):
        raise ValueError(f"compare={','.join(specs)} has a name twice; write NAME=TOKENIZER")
    parallel = not texts
    read = dict(declaration.TEXTS)
    if texts:
        read = {name: read_text(config, name, spec) for name, spec in texts.items()}
    found = []
    for number, (name, spec) in enumerate(named):
        say(f"{name}, {number + 1} of {len(specs)}")
        begun = time.perf_counter()
        tokenizer = opened(config, spec)
        ready = time.perf_counter() - begun
        by_text = {key: measure(tokenizer, text) for key, text in read.items()}
        total = {key: sum(one[key] for one in by_text.values()) for key in COUNTS}
        worded = [one for one in by_text.values() if one["words"]]
        words = sum(one["words"] for one in worded)
        found.append(
            {
                "name": name,
                "from": spec,
                "vocab_size": tokenizer.vocab_size,
                "fingerprint": tokenizer.fingerprint,
                "seconds_until_ready": ready,
                "megabytes_per_second": megabytes_per_second(tokenizer, "\n".join(read.values())),
                "bytes_per_token": total["bytes"] / max(1, total["tokens"]),
                "fertility": sum(one["tokens"] for one in worded) / words if words else None,
                "unknown": unknown_share(by_text.values()),
                "came_back": sum(not one["round_trip"] for one in by_text.values()),
                "texts": by_text,
                "sentences": [pieces(tokenizer, sentence) for sentence in sentences],
            }
        )
    if parallel:
        for one in found:
            usual = one["texts"][declaration.REFERENCE]["tokens"]
            for counts in one["texts"].values():
                counts["premium"] = counts["tokens"] / usual
    return {
        "texts": {name: {"from": texts.get(name, "the declaration")} for name in read},
        "parallel": declaration.REFERENCE if parallel else None,
        "sentences": list(sentences),
        "tokenizers": found,
    }


def unknown_share(counted: Iterable[Mapping[str, Any]]) -> float | None:
    """The share of unknown tokens; None if the vocabulary has none."""
    pairs = [(one.get("unknown"), one["tokens"]) for one in counted]
    if any(unknown is None for unknown, _ in pairs):
        return None
    return sum(unknown for unknown, _ in pairs) / max(1, sum(tokens for _, tokens in pairs))


def opened(config: ConfigDict, spec: str) -> Tokenizer:
    """The tokenizer of a spec: those of data.tokenizer, and NAME:SIZE, such as bpe:4096, to be
    trained with that data.vocab_size on the training text of the config, or read from its cache."""
    name, _, size = spec.rpartition(":")
    if name not in tokenizers.TRAINED and spec not in tokenizers.TRAINED:
        return tokenizers.from_spec(spec)
    data = config.data.copy_and_resolve_references()
    if name in tokenizers.TRAINED:
        if not size.isdigit():
            raise ValueError(f"compare={spec}: {size!r} is no vocabulary size; use {name}:4096")
        data.tokenizer, data.vocab_size = name, int(size)
    else:
        data.tokenizer, data.vocab_size = spec, 0
    return store.trained_tokenizer(data)


def read_text(config: ConfigDict, name: str, spec: str) -> str:
    """The first MOST bytes of a corpus as one text."""
    try:
        return "\n".join(corpus.documents(spec, config.data.text_key, MOST))
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"texts={name}={spec}: {error}") from None
