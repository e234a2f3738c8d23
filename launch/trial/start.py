"""The weights that a trial starts from or reads: those of a run, or of a Hugging Face folder."""

import functools
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data import tokenizer as tokenizers
from data.buckets import copies
from data.chat.encoding import FILE as TEMPLATE
from data.files import to_path
from data.tokenizer import Tokenizer
from launch.config import imports
from launch.converted import KEPT
from launch.files import CONVERT, read_config, read_json
from launch.quantising import quantised
from launch.trial.identity import weights_named
from model import families, parameters
from model.adapters.adapted import Adapted, family_of
from model.beside import Beside, Models
from model.huggingface import bert, config_json, peft, weights
from model.quantised.model import dense
from train import objectives
from train.checkpoint import finished, restore_params
from train.loop import Start
from train.parallel import processes
from train.parallel.precision import rounded
from train.rules import path_name
from train.step import BASE


@dataclass(frozen=True)
class Weights:
    """Parameters with the model that they belong to."""

    section: Mapping[str, Any]  # the section `model` of a config
    params: dict  # arrays of the host
    hash: str  # of names, shapes, types and values


def model_section(source: Path, key: str = "train.init_from") -> dict[str, Any]:
    """The section `model` of a run, or of a folder of Hugging Face weights or PEFT adapters, which
    `key` names; ValueError or FileNotFoundError where there is none."""
    if peft.is_adapter(source):
        source = peft.base_of(source, to_path)
    config = _config(source, key)
    if "model_type" in config:
        try:
            if config["model_type"] == bert.MODEL_TYPE:
                return {"family": bert.FAMILY} | vars(bert.read(here(source)))
            return {"family": config_json.family(config).ours} | vars(config_json.read(config))
        except ValueError as error:
            raise ValueError(f"{source / 'config.json'}: {error}") from None
    section = config.get("model")
    if not isinstance(section, dict):
        raise ValueError(f"{key}={source} holds a config.json that describes no model")
    if (name := section.get("family", "decoder")) not in families.FAMILIES:
        raise ValueError(
            f"{key}={source} holds a model of the family {name!r}, which is unknown"
            f"{imports.remedy(source)}"
        )
    return {"family": "decoder"} | section


def here(source: Path) -> Path:
    """A folder of Hugging Face weights or PEFT adapters on this machine: of one in a bucket, a copy
    that is made once."""
    return copies.fetched_folder(source)


def load(source: Path, key: str = "train.init_from") -> Weights:
    """The weights in `source`, which `key` names, read once a process for each state of the
    folder. Adapters are merged into theirs. ValueError for a counted model."""
    if families.is_counted(families.FAMILIES[name := model_section(source, key)["family"]]):
        raise ValueError(
            f"{key}={source} holds a model of the family {name!r}, which is counted; use one that "
            "is trained"
        )
    return _load(source.resolve(), _stamp(source, key))


def _stamp(source: Path, key: str) -> tuple:
    """What changes when the weights in a folder do; of an adapter, also those of its base."""
    if not peft.is_adapter(source) and "model_type" not in _config(source, key):
        return tuple(path.name for path in finished(source / "checkpoints"))
    files = (*source.glob("*.safetensors"), *source.glob("*.json"))
    stats = [(path, path.stat()) for path in files]
    of_base = _stamp(peft.base_of(source, to_path), key) if peft.is_adapter(source) else ()
    return *sorted((p.name, about.st_mtime_ns, about.st_ino) for p, about in stats), *of_base


@functools.lru_cache(maxsize=4)
def _load(source: Path, stamp: tuple) -> Weights:
    section = model_section(source)
    if peft.is_adapter(source):
        base = load(peft.base_of(source, to_path))
        family, cfg = families.read(section)
        named = model_type(peft.base_of(source, to_path), cfg)
        adapter, trained = peft.load(here(source), cfg, named, base.hash)
        params = Adapted(family, adapter).merged(base.params, trained)
    elif "model_type" in _config(source):
        is_bert = section["family"] == bert.FAMILY
        _, params = (bert if is_bert else weights).load(here(source))
    else:
        params, _ = of_run(source)
    params = jax.tree.map(np.asarray, params)
    return Weights(section, params, hash_of(params))


def model_type(source: Path, cfg: Any) -> str:
    """The Hugging Face family whose names the modules of the weights in `source` have: their own
    or, for a run that was trained here, one that fits."""
    config = _config(source)
    kept = read_json(source / KEPT / "config.json", CONVERT) or {}
    named = config.get("model_type") or kept.get("model_type", "")
    if named and not config_json.misfit(cfg, named):
        return named
    return config_json.write(cfg, "")["model_type"]


def of_run(run: Path, say: Callable[[str], None] = print) -> tuple[dict, dict]:
    """(all parameters of the model, on the host, meta) of a run's newest good checkpoint, without
    those of models that were trained beside it. Adapters are merged into the weights that they were
    trained on; ValueError if those are others now."""
    if quantised.is_quantised(run):
        params, meta = quantised.read(run, say)
        return dense(params), meta
    params, meta = restore_params(run / "checkpoints", say)
    config = _config(run)
    params = {name: x for name, x in params.items() if name not in objectives.beside(config)}
    family, _ = family_of(config)
    if not isinstance(family, Adapted):
        return params, meta
    source, stated = config["train"]["init_from"], config["train"]["init_hash"]
    base = load(to_path(source))
    if base.hash != stated:
        raise ValueError(
            f"{run} holds adapters of weights with the hash {stated!r}, but those in "
            f"train.init_from={source} have the hash {base.hash!r}; put back the others"
        )
    return family.merged(base.params, params), meta


def hash_of(params: dict) -> str:
    """16 hex digits of the SHA-256 of all parameters, by name."""
    digest = hashlib.sha256()
    for path, leaf in sorted(jax.tree_util.tree_leaves_with_path(params), key=lambda x: str(x[0])):
        digest.update(f"{path_name(path)} {leaf.shape} {leaf.dtype}".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def resolve(config: ConfigDict, tokenizer: Tokenizer | None = None) -> None:
    """Fills in the hashes of the weights that the config names, in place. ValueError where a hash
    is given and the weights have another one, where the objective reads weights that are not named,
    and where those were not trained on the tokens of `tokenizer`."""
    for key, hash_key in weights_named(config.objective.name).items():
        section, leaf = key.split(".")
        source, stated = config[section][leaf], config[section][hash_key.split(".")[1]]
        if not source:
            continue
        found = load(to_path(source), key)
        if stated not in ("", found.hash):
            raise ValueError(
                f"{hash_key}={stated!r}, but the weights in {key}={source} have the hash "
                f"{found.hash!r}; restore those weights, or use another --workdir"
            )
        config[section][hash_key.split(".")[1]] = found.hash
    beside = beside_sources(config).values()
    for key, source in beside:
        if not config.train.init_from:
            raise ValueError(
                f"{key}={source} is trained beside a model that starts from weights, and "
                "train.init_from is empty; name a run or a folder of Hugging Face weights"
            )
    read = [*frozen_sources(config).values(), *beside]
    for key, source in read:
        require_template(key, source, config)
    if config.train.init_from and "template" in config.data:  # a phase of post-training
        read.append(("train.init_from", to_path(config.train.init_from)))
    for key, source in read:
        if tokenizer is not None and not has_other_text(key, config):
            require_tokenizer(key, source, tokenizer)


def has_other_text(key: str, config: ConfigDict) -> bool:
    """Whether the model that `key` names may have another tokenizer and another length of text than
    the rows of the data."""
    return key in getattr(objectives.find(config.objective.name), "OTHER_TEXT", ())


def frozen_sources(config: ConfigDict) -> dict[str, tuple[str, Path]]:
    """(the dotted key that names them, where they are) for each set of weights that the objective
    reads, by name; ValueError for a key that is empty."""
    objective, found = objectives.find(config.objective.name), {}
    for name, key in getattr(objective, "FROZEN", {}).items():
        section, leaf = key.split(".")
        value = config[section][leaf]
        if not value and key in getattr(objective, "MAY_LACK", ()):
            continue
        empty = f"{key} is empty"
        if not value and key in getattr(objective, "FROM_START", ()):
            key, value = "train.init_from", config.train.init_from
            empty += ", and so is train.init_from"
        if not value:
            raise ValueError(f"{empty}; objective.name={config.objective.name} reads it")
        found[name] = key, to_path(value)
    return found


def beside_sources(config: Mapping[str, Any]) -> dict[str, tuple[str, Path]]:
    """(the dotted key that names it, where it is) for each model that is trained beside, by
    name."""
    found = {}
    for name, key in objectives.beside(config).items():
        section, leaf = key.split(".")
        found[name] = key, to_path(config[section][leaf])
    return found


def beside_models(config: Mapping[str, Any]) -> Models:
    """The models that are trained beside, from the config.json of their folders."""
    found = []
    for name, (key, source) in beside_sources(config).items():
        section = model_section(source, key)
        found.append((name, section["family"], families.read(section)[1]))
    return tuple(found)


def trained(config: Mapping[str, Any]) -> tuple[Any, Any]:
    """(family, its Config) of a resolved config, with the models that are trained beside."""
    family, cfg = family_of(config)
    models = beside_models(config)
    return (Beside(family, models), cfg) if models else (family, cfg)


def require_tokenizer(key: str, source: Path, tokenizer: Tokenizer) -> None:
    """ValueError where the weights that `key` names are saved with a tokenizer that makes other
    tokens than `tokenizer`."""
    if (source / "tokenizer" / "tokenizer.json").exists():
        saved = [tokenizers.load(source / "tokenizer")]
    else:
        files = (source / name for name in ("tokenizer.json", "tokenizer.model"))
        saved = [tokenizers.from_spec(str(file)) for file in files if file.exists()]
    if saved and tokenizer.fingerprint not in [other.fingerprint for other in saved]:
        raise ValueError(
            f"{key}={source} has the tokenizer {saved[0].name!r} of {saved[0].vocab_size} tokens, "
            f"and the data {tokenizer.name!r} of {tokenizer.vocab_size}, which makes other tokens; "
            "use weights and data of one tokenizer"
        )


def require_template(key: str, source: Path, config: ConfigDict) -> None:
    """ValueError where the weights that `key` names, which are not those of train.init_from, were
    trained on texts of another chat template than the data have."""
    template, file = config.data.get("template", ""), source / TEMPLATE
    if key == "train.init_from" or not template or not file.is_file():
        return
    if file.read_bytes() != template.encode():
        raise ValueError(
            f"{key}={source} was trained on another chat template ({TEMPLATE}) than data.template; "
            f"use data.template={file}, or weights that were trained on that of the data"
        )


def start(resolved: ConfigDict) -> Start:
    """What a fresh run of a resolved config begins with. ValueError names the parameter that the
    model has otherwise than the weights do, and frozen models that do not go with it."""
    params = None
    if resolved.train.init_from:
        params = load(to_path(resolved.train.init_from)).params
        family, cfg = families.read(resolved.model)
        shapes = jax.eval_shape(lambda: family.init(cfg, jax.random.key(0)))
        params = with_own_heads(family, cfg, shapes, params, resolved.seed)
        try:
            parameters.check(shapes, params)
        except ValueError as error:
            raise ValueError(
                f"train.init_from={resolved.train.init_from}: {error}; give the section model the "
                "keys of those weights"
            ) from None
    frozen, models, from_base = {}, [], []
    if resolved.adapter.name:
        adapted, cfg = family_of(resolved)
        params, frozen[BASE] = adapted.split(cfg, params, resolved.seed)
    for name, (key, source) in frozen_sources(resolved).items():
        found = _load_other(key, source, resolved)
        section = dict(found.section)
        if key == "train.init_from" and "dtype" in section:  # it computes as the policy does
            section["dtype"] = resolved.model.get("dtype", section["dtype"])
        models.append((name, section["family"], families.read(section)[1]))
        if resolved.adapter.name and key == "train.init_from":
            from_base.append(name)  # the base without its adapters, which is there already
        else:
            frozen[name] = rounded(found.params, models[-1][2])
    beside = beside_models(resolved)
    for name, (key, source) in beside_sources(resolved).items():
        found = _load_other(key, source, resolved).params
        own = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), found)
        params = params | {name: own}  # a copy: those of `load` are kept
    objective = objectives.find(resolved.objective.name)
    if hasattr(objective, "check_frozen"):
        objective.check_frozen(families.read(resolved.model)[1], (*models, *beside))
    return Start(params, frozen, tuple(models), tuple(from_base), beside)


def _load_other(key: str, source: Path, resolved: ConfigDict) -> Weights:
    """Weights of another model than the trained one. ValueError for shorter sequences."""
    found = load(source, key)
    longest, length = (of.get("context_length", 0) for of in (found.section, resolved.model))
    if longest and longest < length and not has_other_text(key, resolved):
        raise ValueError(
            f"{key}={source} has model.context_length={longest}, and the rows {length} tokens; "
            f"use --config.model.context_length={longest}"
        )
    return found


def with_own_heads(
    family: families.Trained, cfg: Any, shapes: dict, params: dict, seed: int
) -> dict:
    """`params` with the heads of this model: the HEADS of its family that the weights lack, or have
    in another shape, are fresh, and those that it has not are left out. Says so."""
    expected, given = parameters.flat(shapes), parameters.flat(params)
    is_head = lambda path: any(re.search(head, path) for head in getattr(family, "HEADS", ()))  # noqa: E731
    fresh = [
        path
        for path, leaf in expected.items()
        if is_head(path) and (path not in given or given[path].shape != leaf.shape)
    ]
    left_out = [path for path in given if is_head(path) and path not in expected]
    if not fresh and not left_out:
        return params
    if processes.is_first():
        named = lambda paths: ", ".join(dict.fromkeys(path.split("/")[0] for path in paths))  # noqa: E731
        print(f"  fresh: {named(fresh) or 'none'}; left out: {named(left_out) or 'none'}")
    init = jax.jit(family.init, static_argnums=0)
    made = parameters.flat(init(cfg, jax.random.key(seed))) if fresh else {}
    kept = {path: leaf for path, leaf in given.items() if path not in left_out}
    return parameters.nested(kept | {path: np.asarray(made[path]) for path in fresh})


def _config(source: Path, key: str = "train.init_from") -> dict[str, Any]:
    config = read_config(source)
    if config is None:
        raise FileNotFoundError(
            f"{key}={source} holds no config.json; name the folder of a run or of "
            "Hugging Face weights"
        )
    return config
