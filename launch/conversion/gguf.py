"""Writes a run as a folder for llama.cpp, LM Studio and Ollama: a GGUF file and a Modelfile."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from data import tokenizer as tokenizers
from data.buckets import copies
from data.chat import modelfile
from data.chat.encoding import ChatEncoder
from data.tokenizer import Saved
from data.tokenizer_files import gguf as vocabulary
from launch.chat import template as chat_template
from launch.errors import BadInput
from launch.trial.start import of_run
from model.gguf import file
from model.huggingface import weights
from model.transformer.config import ModelConfig

MODELFILE = "Modelfile"


class Content(NamedTuple):
    """What the two files say of a run."""

    cfg: ModelConfig
    params: dict
    model_type: str
    keys: dict[str, Any]  # of the tokenizer
    kind: str  # type of the matrices
    name: str
    modelfile: str

    @property
    def file_name(self) -> str:
        return f"{self.name}-{self.kind}.gguf"


def require_package() -> None:
    """BadInput without the package gguf."""
    if importlib.util.find_spec("gguf") is None:
        raise BadInput("to_gguf needs the library gguf; pip install -e '.[gguf]' adds it")


def read(
    run: Path, cfg: ModelConfig, model_type: str, kind: str, say: Callable[[str], None]
) -> Content:
    """Reads the newest checkpoint of a run, its tokenizer and its chat template. ValueError or
    FileNotFoundError, in one line, for a model or a tokenizer that GGUF cannot hold."""
    file.check(cfg, model_type, {}, kind)
    saved = tokenizers.read_saved(run / "tokenizer")
    encoder = encoder_of(run, saved)
    keys = vocabulary.described(saved, encoder.names if encoder else None)
    if encoder:
        keys |= chat_keys(encoder, saved)
    file.check(cfg, model_type, keys, kind)
    template, stops = modelfile.RAW, ()
    if encoder:
        stops = encoder.template.stops
        try:
            template = modelfile.go_template(encoder.template, keys["add_bos_token"])
        except ValueError as error:
            template = ""
            say(f"{MODELFILE}: {error}")
    params, _ = of_run(run, say)
    found = Content(cfg, params, model_type, keys, kind, run.resolve().name, "")
    text = modelfile.modelfile(found.file_name, template, stops, cfg.context_length)
    return found._replace(modelfile=text)


def write(content: Content, target: Path) -> file.Written:
    """Writes FOLDER/NAME-TYPE.gguf and FOLDER/Modelfile."""
    cfg, params, model_type, keys, kind, name, text = content
    with copies.made_here(target) as new, weights.whole_folder(new) as folder:
        path = folder / content.file_name
        written = file.write(path, cfg, params, model_type, keys, kind, name)
        (folder / MODELFILE).write_text(text, encoding="utf-8")
    return written


def encoder_of(run: Path, saved: Saved) -> ChatEncoder | None:
    """What encodes the conversations of a run; None for a run without a chat template."""
    if not chat_template.has_template(run):
        return None
    return chat_template.encoder_of(run, saved.tokenizer())


def chat_keys(encoder: ChatEncoder, saved: Saved) -> dict[str, Any]:
    """The keys of a chat template. Programs add the token that begins a text if the template writes
    it; the template is told of none if the tokenizer has none."""
    source, template = encoder.template.source, encoder.template
    if not saved.prefix:
        source = "{% set bos_token = '' %}" + source
    begins = bool(saved.prefix) and modelfile.begins(template)
    ends = {"eot_token_id": encoder.end} if encoder.end != saved.eod else {}
    return {"tokenizer.chat_template": source, "add_bos_token": begins} | ends
