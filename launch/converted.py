"""What a converted run keeps of its Hugging Face checkpoint: configs and tokenizer files."""

from pathlib import Path

from launch.files import read_json

KEPT = "huggingface"  # folder of the run that holds these files


def end_tokens(run: Path) -> set[int]:
    """The tokens that end a text according to the kept files, such as the end of a turn; empty if
    the run was not converted."""
    files = [run / KEPT / name for name in ("config.json", "generation_config.json")]
    named = [(read_json(file) or {}).get("eos_token_id") for file in files]
    lists = [ids if isinstance(ids, list) else [ids] for ids in named if ids is not None]
    return {token for ids in lists for token in ids}
