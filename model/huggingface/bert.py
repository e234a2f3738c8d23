"""Loads and saves BERT's checkpoints in Hugging Face's format, without torch.

A file may have the pooler, the masked-LM head, a classification head, or none of them, and its
names with or without "bert." in front. The head that guesses whether sentence B follows sentence A
is left out. Dtypes are kept: a round trip changes no bit.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from model import parameters
from model.encoder import family
from model.encoder.config import Config
from model.huggingface import config_json, safetensors
from model.huggingface.inert_keys import INERT
from model.huggingface.parts import ACTIVATIONS
from model.huggingface.weights import LEAVES, refuse_full, stacked, whole_folder

MODEL_TYPE, FAMILY = "bert", "encoder"
CLASSIFIER, TAGGER = "BertForSequenceClassification", "BertForTokenClassification"
LAYER = "bert.encoder.layer.{}."
MODULES = {  # {their module: ours}
    "bert.embeddings.word_embeddings": "embed",
    "bert.embeddings.position_embeddings": "position",
    "bert.embeddings.token_type_embeddings": "token_type",
    "bert.embeddings.LayerNorm": "embed_norm",
    f"{LAYER}attention.self.query": "blocks/attention/query",
    f"{LAYER}attention.self.key": "blocks/attention/key",
    f"{LAYER}attention.self.value": "blocks/attention/value",
    f"{LAYER}attention.output.dense": "blocks/attention/out",
    f"{LAYER}attention.output.LayerNorm": "blocks/attention_post_norm",
    f"{LAYER}intermediate.dense": "blocks/mlp/up",
    f"{LAYER}output.dense": "blocks/mlp/down",
    f"{LAYER}output.LayerNorm": "blocks/mlp_post_norm",
    "bert.pooler.dense": "pooler",
    "cls.predictions.transform.dense": "transform",
    "cls.predictions.transform.LayerNorm": "transform_norm",
    "cls.predictions": "head",
    "classifier": "classes",
}
OLDER = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
COPIES = {  # tensors that some files repeat for the tied head: {copy: what it equals}
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
LEFT_OUT = ("cls.seq_relationship.", "bert.embeddings.position_ids")
KEYS = {  # {their key: ours}
    "vocab_size": "vocab_size", "max_position_embeddings": "context_length",
    "num_hidden_layers": "n_layers", "hidden_size": "d_model", "num_attention_heads": "n_heads",
    "intermediate_size": "d_ff", "type_vocab_size": "token_types", "layer_norm_eps": "norm_eps",
    "hidden_dropout_prob": "dropout", "initializer_range": "init_std",
}  # fmt: skip
DEFAULTS = dict(
    type_vocab_size=2, layer_norm_eps=1e-12, hidden_dropout_prob=0.1, initializer_range=0.02
)
FIXED = dict(
    position_embedding_type="absolute", is_decoder=False, add_cross_attention=False,
    tie_word_embeddings=True, pruned_heads={},
)  # fmt: skip
TASKS = ("classifier_dropout", "id2label", "label2id", "num_labels", "_num_labels")


def load(
    directory: str | Path, shardings: Callable[[Any], Any] | None = None
) -> tuple[Config, dict]:
    """(Config, parameters) of a folder with config.json and safetensors. ValueError or
    FileNotFoundError names what is missing, damaged or not supported.

    `shardings` maps a tree of shapes to a tree of shardings.
    """
    directory = Path(directory)
    tensors = _named(safetensors.tensors(directory))
    cfg = _config(directory, tensors)
    shapes = _shapes(cfg)
    where = parameters.flat(shardings(shapes)) if shardings else {}
    params = {}
    for path, leaf in parameters.flat(shapes).items():
        read = [_read(directory, tensors, name, leaf, path) for name in _names(path, cfg)]
        params[path] = jax.device_put(np.stack(read) if stacked(path) else read[0], where.get(path))
    expected = {name for path in params for name in _names(path, cfg)}
    for name, tensor in tensors.items():
        copied = tensors.get(COPIES.get(name, ""))
        if name not in expected and not (copied and tensor.equals(copied)):
            raise ValueError(
                f"{tensor.file}: tensor {tensor.name} "
                + (f"differs from {copied.name}, which BERT ties to it" if copied else
                   "does not belong to the model of config.json")
            )  # fmt: skip
    return cfg, parameters.nested(params)


def read(directory: str | Path) -> Config:
    """The Config of a folder; its heads are those that its tensors have."""
    return _config(Path(directory), _named(safetensors.tensors(Path(directory))))


def labels(config: Mapping[str, Any]) -> list[str]:
    """The names of the classes in a config.json, in order; [] if it has none."""
    names = config.get("id2label") or {}
    return [names[key] for key in sorted(names, key=int)]


def _named(tensors: Mapping[str, safetensors.Tensor]) -> dict[str, safetensors.Tensor]:
    """The tensors by their present names, without those that are left out."""
    found = {}
    for name, tensor in tensors.items():
        for older, newer in OLDER.items():
            name = name.replace(older, newer)
        whole = name if name.startswith(("bert.", "cls.", "classifier.")) else f"bert.{name}"
        if not whole.startswith(LEFT_OUT):
            found[whole] = tensor
    return found


def _config(directory: Path, tensors: Mapping[str, Any]) -> Config:
    config, where = config_json.read_json(directory), directory / "config.json"
    ours: dict[str, Any] = {}
    for theirs, key in KEYS.items():
        value, kind = (
            config.get(theirs, DEFAULTS.get(theirs)),
            Config.__dataclass_fields__[key].type,
        )
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
            raise ValueError(f"{where}: {theirs}={value!r} is missing or has the wrong type")
        ours[key] = value
    for key, value in FIXED.items():
        if config.get(key, value) != value:
            raise ValueError(f"{where}: {key}={config[key]!r} is not supported; only {value!r} is")
    act = config.get("hidden_act", "gelu")
    if act not in ACTIVATIONS:
        raise ValueError(f"{where}: hidden_act={act!r}; known are {', '.join(ACTIVATIONS)}")
    known = {*KEYS, *FIXED, *TASKS, *INERT, "hidden_act", "dtype", "torch_dtype"}
    if unknown := sorted(set(config) - known):
        raise ValueError(f"{where}: the key {unknown[0]} is unknown; it may change the model")
    bfloat16 = "bfloat16" in (config.get("dtype"), config.get("torch_dtype"))
    classes = tensors.get("classifier.weight")
    try:
        return Config(
            **ours,
            activation=ACTIVATIONS[act],
            pooler="bert.pooler.dense.weight" in tensors,
            masked_head="cls.predictions.bias" in tensors,
            n_classes=classes.shape[0] if classes else 0,
            dtype="bfloat16" if bfloat16 else "float32",
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


@functools.lru_cache(maxsize=16)
def _shapes(cfg: Config) -> dict:
    return jax.eval_shape(lambda: family.init(cfg, jax.random.key(0)))


def _names(path: str, cfg: Config) -> list[str]:
    """The names of the tensors of one of our parameters: one for each layer, or one."""
    module, leaf = path.rsplit("/", 1)
    theirs = next(theirs for theirs, ours in MODULES.items() if ours == module)
    layers = range(cfg.n_layers) if stacked(path) else [0]
    return [f"{theirs}.{LEAVES[leaf]}".format(layer) for layer in layers]


def _read(directory: Path, tensors: Mapping, name: str, leaf: Any, path: str) -> np.ndarray:
    """One tensor, as our parameter has it."""
    shape = leaf.shape[stacked(path) :]
    shape = shape[::-1] if path.endswith("kernel") else shape
    if name not in tensors:
        raise ValueError(f"{directory} lacks tensor {name} {list(shape)}; fetch it again")
    tensor = tensors[name]
    if tensor.shape != shape or tensor.dtype not in safetensors.DTYPES:
        raise ValueError(
            f"{tensor.file}: {tensor.name} is {tensor.dtype} {list(tensor.shape)}; it must be "
            f"{list(shape)} and one of {', '.join(safetensors.DTYPES)}"
        )
    out = np.empty(shape, safetensors.DTYPES[tensor.dtype])
    tensor.read(slice(None), slice(None), out)
    return np.ascontiguousarray(out.T) if path.endswith("kernel") else out


def save(
    directory: str | Path,
    cfg: Config,
    params: Any,
    names: list[str] | None = None,
    extra: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
    each_word: bool = False,
) -> None:
    """Writes a folder that transformers loads, atomically. `names` are those of the classes, of a
    text or of `each_word`; `extra` are further keys of config.json and `files` further files.
    Raises ValueError if a parameter does not fit `cfg` or no class of transformers computes the
    model, and FileExistsError if the folder is not empty."""
    directory = Path(directory)
    parameters.check(_shapes(cfg), params)
    refuse_full(directory)
    architecture = _architecture(cfg, each_word)
    leaves = parameters.flat(params)
    if architecture == TAGGER:  # whose classes read the states of tokens, not of the pooler
        leaves = {path: leaf for path, leaf in leaves.items() if not path.startswith("pooler/")}
    tensors = {
        name: (path, layer) for path in leaves for layer, name in enumerate(_names(path, cfg))
    }
    written = lambda name: name.removeprefix("bert.") if architecture == "BertModel" else name  # noqa: E731

    def array(name: str) -> Iterator[np.ndarray]:
        path, layer = tensors[name if name in tensors else f"bert.{name}"]
        leaf = np.asarray(leaves[path][layer] if stacked(path) else leaves[path])
        yield leaf.T if path.endswith("kernel") else leaf

    layout = {
        written(name): (np.dtype(leaves[path].dtype), next(array(name)).shape)
        for name, (path, _) in tensors.items()
    }
    config = _keys(cfg, names) | {
        "architectures": [architecture],
        "dtype": str(np.dtype(leaves["embed/embedding"].dtype)),
        **dict(extra or {}),
    }
    with whole_folder(directory) as folder:
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        for name, content in (files or {}).items():
            (folder / name).write_bytes(content)
        safetensors.write(folder / safetensors.SINGLE, layout, array)


def _architecture(cfg: Config, each_word: bool) -> str:
    """The class of transformers that has these heads; ValueError where none has."""
    if cfg.n_classes and each_word:
        return TAGGER
    if cfg.n_classes and not cfg.pooler:
        raise ValueError(
            f"model.pooler=False, but {CLASSIFIER} has a pooler, and no class of transformers "
            "classifies texts without one; train the classifier with model.pooler=True"
        )
    if cfg.n_classes:
        return CLASSIFIER
    return "BertForMaskedLM" if cfg.masked_head else "BertModel"


def _keys(cfg: Config, names: list[str] | None) -> dict[str, Any]:
    named = {str(number): name for number, name in enumerate(names or range(cfg.n_classes))}
    classes = {
        "id2label": named,
        "label2id": {name: int(number) for number, name in named.items()},
    }
    return {
        "model_type": MODEL_TYPE,
        **{theirs: getattr(cfg, key) for theirs, key in KEYS.items()},
        "hidden_act": "gelu_new" if cfg.activation == "gelu_tanh" else cfg.activation,
        "attention_probs_dropout_prob": 0.0,
        **({} if not cfg.n_classes else classes),
    }
