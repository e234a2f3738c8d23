"""Writes a run as a folder for llama.cpp, LM Studio and Ollama: a GGUF file and a Modelfile."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from data import tokenizer as tokenizers
from data.buckets import copies
from data.chat import modelfile
from data.chat.encoding import ChatEncoder
from data.tokenizer import Saved
from data.tokenizer_files import gguf as vocabulary
from launch.chat import template as chat_template
from launch.errors import BadInput
from launch.trial.start import of_run
from model.gguf import file, layouts
from model.huggingface import weights
from model.transformer.config import ModelConfig

MODELFILE = "Modelfile"


def write(
    run: Path,
    target: Path,
    cfg: ModelConfig,
    model_type: str,
    kind: str,
    say: Callable[[str], None],
) -> file.Written:
    """Writes FOLDER/NAME-TYPE.gguf and FOLDER/Modelfile from the newest checkpoint of a run.
    ValueError or FileNotFoundError, in one line, for a model or a tokenizer that GGUF cannot
    hold."""
    file.check_type(kind)
    layouts.check(cfg, model_type)
    weights.refuse_full(target)
    saved = tokenizers.read_saved(run / "tokenizer")
    encoder = encoder_of(run, saved)
    keys = vocabulary.described(saved, encoder.names if encoder else None)
    if encoder:
        keys |= chat_keys(encoder, saved)
    template, stops = modelfile.RAW, ()
    if encoder:
        stops = encoder.template.stops
        try:
            template = modelfile.go_template(encoder.template, keys["add_bos_token"])
        except ValueError as error:
            template = ""
            say(f"{MODELFILE}: {error}")
    params, _ = of_run(run, say)
    name = run.resolve().name
    with copies.made_here(target) as new, weights.whole_folder(new) as folder:
        gguf_name = f"{name}-{kind}.gguf"
        written = _needs_package(folder / gguf_name, cfg, params, model_type, keys, kind, name)
        text = modelfile.modelfile(gguf_name, template, stops, cfg.context_length)
        (folder / MODELFILE).write_text(text, encoding="utf-8")
    return written


def _needs_package(*arguments: Any) -> file.Written:
    """`file.write`; BadInput without the package gguf."""
    try:
        return file.write(*arguments)
    except ImportError as error:
        raise BadInput(
            f"to_gguf needs the library gguf ({error}); pip install -e '.[gguf]' adds it"
        ) from error


def encoder_of(run: Path, saved: Saved) -> ChatEncoder | None:
    """What encodes the conversations of a run; None for a run without a chat template."""
    if not chat_template.has_template(run):
        return None
    return chat_template.encoder_of(run, saved.tokenizer())


def chat_keys(encoder: ChatEncoder, saved: Saved) -> dict[str, Any]:
    """The keys of a chat template. Programs put the token that begins a text before a conversation
    if the template writes it, and a template sees no such token where the tokenizer has none."""
    source, template = encoder.template.source, encoder.template
    if not saved.prefix:
        source = "{% set bos_token = '' %}" + source
    begins = bool(saved.prefix) and modelfile.begins(template)
    ends = {"eot_token_id": encoder.end} if encoder.end != saved.eod else {}
    return {"tokenizer.chat_template": source, "add_bos_token": begins} | ends
