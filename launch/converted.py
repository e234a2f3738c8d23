"""What a converted run keeps of its Hugging Face checkpoint: configs and tokenizer files."""

from pathlib import Path

from data.tokenizer_files.added_tokens import end_ids

KEPT = "huggingface"  # folder of the run that holds these files


def end_tokens(run: Path) -> set[int]:
    """The tokens that end a text according to the kept files, such as the end of a turn; empty if
    the run was not converted. ValueError if a kept file is damaged."""
    return set(end_ids(run / KEPT))
