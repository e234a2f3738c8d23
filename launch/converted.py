"""Hugging Face folders, and what a converted run keeps of one: configs and tokenizer files."""

import sys
from collections.abc import Sequence
from pathlib import Path

from data import tokenizer as tokenizers
from data.chat.encoding import FILE as TEMPLATE
from data.tokenizer import Tokenizer
from data.tokenizer_files import published
from data.tokenizer_files.added_tokens import end_ids
from launch.config.imports import FOLDER as IMPORTS
from launch.files import read_config

KEPT = "huggingface"  # folder of the run that holds these files


def is_published(run: Path) -> bool:
    """Whether a folder holds Hugging Face weights and no run. ValueError for a damaged
    config.json."""
    return "model_type" in (read_config(run) or {})


def published_files(run: Path) -> Path:
    """The folder with a published model's own files: the run's, if it was converted."""
    return run if is_published(run) else run / KEPT


def end_tokens(run: Path) -> set[int]:
    """The tokens that end a text according to the published files, such as the end of a turn; empty
    if the run was not converted. ValueError if a file is damaged."""
    return set(end_ids(published_files(run)))


def copy_kept(
    run: Path, folder: Path, without: Sequence[str] = (), also: Sequence[str] = ()
) -> None:
    """Copies to `folder` what a run keeps beside its weights and config: its chat template, the
    user's files that it imports, those of a published model except the names in `without`, and the
    folders `also`."""
    for name in (KEPT, IMPORTS, *also):
        for file in (run / name).iterdir() if (run / name).is_dir() else ():
            if file.is_file() and not (name == KEPT and file.name in without):
                (folder / name).mkdir(exist_ok=True)
                (folder / name / file.name).write_bytes(file.read_bytes())
    if (run / TEMPLATE).is_file():
        (folder / TEMPLATE).write_bytes((run / TEMPLATE).read_bytes())


def read_tokenizer(run: Path, vocab_size: int, flag: str) -> Tokenizer:
    """The tokenizer of a run's folder or of Hugging Face weights, which `flag` names in errors.
    ValueError says why a converted run or such a folder has none."""
    try:
        return tokenizers.load(run / "tokenizer")
    except FileNotFoundError:
        tokenizer, faults = published.read(published_files(run), vocab_size)
        if is_published(run):
            return _of_published(run, tokenizer, faults, flag)
        if not faults:
            raise
        raise ValueError(
            f"{flag}={run} has no tokenizer: {'; '.join(faults)}; mend it and convert again"
        ) from None


def _of_published(
    folder: Path, tokenizer: Tokenizer | None, faults: list[str], flag: str
) -> Tokenizer:
    """The tokenizer; says what its files lack. ValueError without one."""
    why = "; ".join(faults)
    if tokenizer is None:
        why = why or "it has no tokenizer.model and no tokenizer.json"
        raise ValueError(f"{flag}={folder} has no tokenizer: {why}; add the model's own files")
    if why:
        print(f"{folder}: {why}", file=sys.stderr)
    return tokenizer
