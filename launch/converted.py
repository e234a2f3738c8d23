"""What a converted run keeps of its Hugging Face checkpoint: configs and tokenizer files."""

from pathlib import Path

from data import tokenizer as tokenizers
from data.tokenizer import Tokenizer
from data.tokenizer_files import published
from data.tokenizer_files.added_tokens import end_ids

KEPT = "huggingface"  # folder of the run that holds these files


def end_tokens(run: Path) -> set[int]:
    """The tokens that end a text according to the kept files, such as the end of a turn; empty if
    the run was not converted. ValueError if a kept file is damaged."""
    return set(end_ids(run / KEPT))


def read_tokenizer(run: Path, vocab_size: int, flag: str) -> Tokenizer:
    """The tokenizer of a run's folder, which `flag` names in errors. ValueError says why a
    converted run has none."""
    try:
        return tokenizers.load(run / "tokenizer")
    except FileNotFoundError:
        _, faults = published.read(run / KEPT, vocab_size)
        if not faults:
            raise
        raise ValueError(
            f"{flag}={run} has no tokenizer: {'; '.join(faults)}; mend it and convert again"
        ) from None
