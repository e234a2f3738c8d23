"""isoflop convert: turns Hugging Face weights into a run, and a run into Hugging Face weights or
GGUF.

isoflop convert --from_hf=Llama-3.2-1B --to=runs/llama
isoflop convert --from=runs/llama --to_hf=llama-tuned
isoflop convert --from=runs/lora --to_hf=adapter
isoflop convert --from=runs/llama --to_gguf=llama-gguf --gguf_type=q8_0

All are folders on this machine; nothing is downloaded. The run holds the weights as step 0: sample
from it with `isoflop sample --run=…`, or train on with --config.train.init_from=RUN. The files of
a published tokenizer are copied in either direction; isoflop itself reads a SentencePiece
tokenizer.model or, with the library tokenizers, a tokenizer.json, each with the tokens that the
other files add. The tokenizer of a run that was trained here is written as a tokenizer.json.

A run that trained adapters is written in PEFT's format, on top of the weights that it began with;
--merged writes the whole model instead. --from_hf reads such a folder too. --base names another
folder of the weights that adapters change.

--to_gguf writes one file with the weights, the tokenizer and the chat template, for llama.cpp and
LM Studio, and a Modelfile for Ollama. A model or a tokenizer with which these programs would
compute something else is refused. A chat template that Ollama cannot follow is left out of the
Modelfile, and a line says so.
"""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags as absl_flags

from configs import base
from data import tokenizer as tokenizers
from data.buckets import copies
from data.chat.encoding import FILE as TEMPLATE
from data.files import to_path
from data.framed import saved_classes
from data.framed.marks import marks_of
from data.tokenizer import Tokenizer
from data.tokenizer_files import exported, published
from launch import flags
from launch.alive import alive
from launch.config import sections
from launch.conversion import adapters, gguf
from launch.converted import KEPT
from launch.errors import DONE, BadInput, bad_input, writing
from launch.files import CONVERT, read_family, read_json, read_model, write_json
from launch.trial import start
from launch.trial.start import of_run
from model import families
from model.huggingface import bert, config_json, peft, weights
from train.checkpoint import Checkpoints
from train.parallel.sharding import make_mesh, parameter_shardings

FILES = (
    *(
        "tokenizer.model",
        "spiece.model",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
    ),
    *("added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja"),
    *("generation_config.json", "config.json"),
)
# (our family, what its head predicts) → the objective and the kind of data of a converted run.
TRAINED_BY = {
    ("decoder", "tokens"): ("next_token", "text"),
    ("encoder_decoder", "tokens"): ("next_token", "spans"),
    ("encoder", "tokens"): ("masked", "masked_text"),
    ("encoder", "texts"): ("classify", "labelled"),
    ("encoder", "words"): ("tag", "tagged"),
}
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    text = absl_flags.DEFINE_string
    flags.define_path(
        "from_hf", None, "Hugging Face folder to read: config.json and safetensors", values
    )
    flags.define_path("to", None, "run folder to write", values)
    flags.define_path("from", None, "run folder to read", values)
    flags.define_path("to_hf", None, "Hugging Face folder to write", values)
    flags.define_path("to_gguf", None, "folder to write a GGUF file and a Modelfile to", values)
    text("gguf_type", "f16", "type of its matrices: f32, f16, q8_0 or q4_0", values)
    text(
        "model_type",
        "",
        "Hugging Face family for --to_hf and --to_gguf; default: the original, or one that fits",
        values,
    )
    absl_flags.DEFINE_boolean("merged", False, "write adapters merged into their weights", values)
    flags.define_path("base", None, "the weights that adapters change", values)
    flags.define_import(values)
    return values


def main(argv: Sequence[str]) -> int:
    """Converts in one of the three directions. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__)
    pairs = (("from_hf", "to"), ("from", "to_hf"), ("from", "to_gguf"))
    given = {name for pair in pairs for name in pair if values[name].value}
    if given not in map(set, pairs):
        raise BadInput(
            "give --from_hf=FOLDER --to=RUN, --from=RUN --to_hf=FOLDER, or --from=RUN "
            "--to_gguf=FOLDER"
        )
    for name in given & {"to", "to_hf", "to_gguf"}:
        flags.require_writable(to_path(values[name].value), name)
    if values.to_gguf:
        target = to_path(values.to_gguf)
        return to_gguf(to_path(values["from"].value), target, values.model_type, values.gguf_type)
    if values["gguf_type"].present:
        raise BadInput(f"--gguf_type={values.gguf_type} goes with --to_gguf; drop it")
    if values.to_hf:
        run, target = to_path(values["from"].value), to_path(values.to_hf)
        with bad_input():
            adapted = adapters.has_adapters(run) and not values.merged
        if adapted:
            return adapters_to_hf(run, target, values.base or "", values.model_type)
        return to_hf(run, target, values.model_type)
    if values.model_type:
        raise BadInput(f"--model_type={values.model_type} goes with --to_hf and --to_gguf; drop it")
    if peft.is_adapter(to_path(values.from_hf)):
        return adapters_from_hf(to_path(values.from_hf), to_path(values.to), values.base or "")
    return from_hf(to_path(values.from_hf), to_path(values.to))


def adapters_to_hf(run: Path, target: Path, base: str, model_type: str) -> int:
    """Writes the adapters of a run's newest checkpoint for PEFT."""
    with bad_input(), alive("writing the adapters"), writing("to_hf", target):
        adapters.write(run, target, base, model_type, _complain)
    print(f"{target}: adapters for PEFT")
    return DONE


def adapters_from_hf(source: Path, run: Path, base: str) -> int:
    """Makes a run of adapters in PEFT's format."""

    def fresh_config(folder: Path, run: Path) -> dict:
        folder = start.here(folder)
        ours, _ = reader_of(folder)
        _, cfg = families.read(start.model_section(folder))
        return run_config(folder, run, ours, cfg, published.read(folder, cfg.vocab_size)[0])

    with bad_input(), alive("reading the adapters"), writing("to", run):
        family, cfg = adapters.read(source, run, base, fresh_config)
    print(f"{run}: adapters, {family.trained_parameters(cfg):,} parameters")
    return DONE


def from_hf(source: Path, run: Path) -> int:
    """Makes a run of a checkpoint: its config, the weights as step 0, the tokenizer."""
    with bad_input(), alive("reading the weights"):
        weights.refuse_full(run)
        given, source = source, start.here(source)
        ours, read = reader_of(source)
        spread = functools.partial(shardings, families.find(ours))
        cfg, params = read(source, spread if jax.device_count() > 1 else None)
        tokenizer, faults = published.read(source, cfg.vocab_size)
        files = {n: (source / n).read_bytes() for n in FILES if (source / n).is_file()}
    with alive("writing the run"), writing("to", run), _whole_folder(run) as folder:
        (folder / KEPT).mkdir()
        for name, content in files.items():
            (folder / KEPT / name).write_bytes(content)
        if tokenizer:
            tokenizer.save(folder / "tokenizer")
        write_json(folder / "config.json", run_config(source, run, ours, cfg, tokenizer))
        if (head := head_of(cfg, source)) != "tokens":
            named = bert.labels(config_json.read_json(source)) or map(str, range(cfg.n_classes))
            saved_classes.Classes(tuple(named), head == "words", "cls").save(folder)
        checkpoints = Checkpoints(folder / "checkpoints", keep_last=1, keep_best=0)
        checkpoints.save(0, {"params": params}, {})
        checkpoints.close()
    say(run, config_json.read_json(source)["model_type"], families.find(ours), cfg)
    if faults or not tokenizer:
        why = "; ".join(faults) or "has no tokenizer.model and no tokenizer.json"
        if not tokenizer:
            why += ". The weights are converted, but `isoflop sample` cannot spell text"
        print(f"{given}: {why}", file=sys.stderr)
    return DONE


@contextlib.contextmanager
def _whole_folder(run: Path) -> Iterator[Path]:
    """A folder to fill, which becomes that of the run at the end."""
    with copies.made_here(run) as new, weights.whole_folder(new) as folder:
        yield folder


def reader_of(source: Path) -> tuple[str, Callable]:
    """The name of our family of a Hugging Face folder, and the function that loads it."""
    if config_json.read_json(source).get("model_type") == bert.MODEL_TYPE:
        return bert.FAMILY, bert.load
    return config_json.family(config_json.read_json(source)).ours, weights.load


def shardings(family: families.Trained, shapes: dict) -> dict:
    """Parameters spread over all devices, as in training with the default mesh."""
    return parameter_shardings(shapes, family.PARAMETER_AXES, make_mesh({"data": 1, "fsdp": -1}))


def run_config(source: Path, run: Path, name: str, cfg: Any, tokenizer: Tokenizer | None) -> dict:
    """A run's config.json: the defaults except for the model, of the family `name`, an objective
    and a kind of data that fit it, and its tokenizer."""
    config = base.get_config(name, *TRAINED_BY[name, head_of(cfg, source)])
    sections.complete(config)
    config.name = source.resolve().name
    config.model.update(vars(cfg))
    kept = run / ("tokenizer/tokenizer.model" if tokenizer else f"{KEPT}/tokenizer.json")
    config.data.tokenizer = "bytes" if tokenizer and tokenizer.kind == "bytes" else str(kept)
    return config.to_dict()


def head_of(cfg: Any, source: Path) -> str:
    """What the head of a model in a Hugging Face folder predicts: a key of TRAINED_BY."""
    if not getattr(cfg, "n_classes", 0):
        return "tokens"
    named = config_json.read_json(source).get("architectures") or ()
    return "words" if bert.TAGGER in named or not cfg.pooler else "texts"


def to_hf(run: Path, target: Path, model_type: str) -> int:
    """Writes the newest checkpoint of a run for transformers."""
    with bad_input(), alive("reading the weights"):
        family, cfg = read_family(run, "from")
        weights.refuse_full(target)
        original = read_json(run / KEPT / "config.json", CONVERT) or {}
        is_bert = family is families.find(bert.FAMILY)
        if is_bert and model_type not in ("", bert.MODEL_TYPE):
            raise BadInput(f"model_type={model_type} is no encoder; drop it, or use bert")
        if is_bert:
            model_type = bert.MODEL_TYPE
            classes = saved_classes.read(run)._asdict() if cfg.n_classes else {}
            about = {"names": classes.get("labels"), "each_word": classes.get("each_word", False)}
            save = functools.partial(bert.save, **about)
        else:
            model_type = known_type(cfg, original, model_type)
            save = functools.partial(weights.save, model_type=model_type)
        extra = {key: original[key] for key in TOKEN_IDS if key in original}
        kept = (p for p in (run / KEPT).glob("*") if p.name != "config.json")
        files = {path.name: path.read_bytes() for path in kept}
        if not original:
            extra, files = tokenizer_of(run, cfg)
            extra |= mark_ids(run) if is_bert else {}
        if (run / TEMPLATE).is_file():
            files[TEMPLATE] = (run / TEMPLATE).read_bytes()
        params, _ = of_run(run, _complain)
    with bad_input(), alive("writing the weights"), writing("to_hf", target):
        with copies.made_here(target) as folder:
            save(folder, cfg, params, extra=extra, files=files)
    say(target, model_type, family, cfg)
    return DONE


def to_gguf(run: Path, target: Path, model_type: str, kind: str) -> int:
    """Writes the newest checkpoint of a run for llama.cpp."""
    gguf.require_package()
    with bad_input(), alive("reading the weights"):
        cfg = read_model(run, "from")
        weights.refuse_full(target)
        original = read_json(run / KEPT / "config.json", CONVERT) or {}
        model_type = known_type(cfg, original, model_type)
        content = gguf.read(run, cfg, model_type, kind, _complain)
    with alive("writing the weights"), writing("to_gguf", target):
        written = gguf.write(content, target)
    if written.left:
        _complain(
            f"{len(written.left)} matrices, such as {written.left[0]}, are float16: their rows are "
            f"no multiple of the 32 weights of a block of {kind}"
        )
    print(f"{target}: {model_type}, {kind}, {written.size:,} bytes, context {cfg.context_length:,}")
    return DONE


def _complain(line: str) -> None:
    print(line, file=sys.stderr)


def known_type(cfg: Any, original: dict, model_type: str) -> str:
    """The model_type to write: the given one, the original or one that fits."""
    origin = original.get("model_type", "")
    if not model_type and origin and not config_json.misfit(cfg, origin):
        model_type = origin
    return config_json.write(cfg, model_type)["model_type"]


def mark_ids(run: Path) -> dict[str, int]:
    """Keys of config.json for the tokens that frame a text; they may be above the tokenizer's."""
    try:
        marks = marks_of(tokenizers.load(run / "tokenizer"))
    except (FileNotFoundError, ValueError):
        return {}
    ids = {"cls": marks.begin, "sep": marks.end, "mask": marks.mask, "pad": marks.padding}
    return {f"{name}_token_id": number for name, number in ids.items()}


def tokenizer_of(run: Path, cfg: Any) -> tuple[dict, dict[str, bytes]]:
    """Keys of config.json and files of the tokenizer of a run; a line on stderr says what cannot be
    written. Empty for a run without a tokenizer."""
    try:
        saved = tokenizers.read_saved(run / "tokenizer")
    except FileNotFoundError:
        return {}, {}
    except ValueError as error:
        print(f"{error}; the weights are written without a tokenizer", file=sys.stderr)
        return {}, {}
    try:
        return exported.ids(saved), exported.files(saved, cfg.context_length)
    except ValueError as error:
        alone = {"tokenizer.model": saved.model} if saved.kind == "sentencepiece" else {}
        rest = "its tokenizer.model is" if alone else "the weights are"
        print(f"{run / 'tokenizer'}: {error}; {rest} written alone", file=sys.stderr)
        return exported.ids(saved), alone


def say(folder: Path, model_type: str, family: families.Trained, cfg: Any) -> None:
    """Prints what was written."""
    total = sum(family.parameters(cfg).values())
    print(f"{folder}: {model_type}, {total:,} parameters, context {cfg.context_length:,}")
