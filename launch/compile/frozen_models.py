"""The frozen models of a program that is compiled and never run: their shapes, without weights."""

from collections.abc import Mapping
from typing import Any

import jax

from data.files import to_path
from launch.trial.start import beside_models, model_section
from model import families
from model.adapters.adapted import family_of
from train import objectives
from train.loop import Start
from train.objectives.preference.stored import stored_fields
from train.parallel.precision import rounded
from train.step import BASE


def start(config: Any) -> Start:
    """What a run of a resolved config would begin with, as shapes: the adapters and their base, and
    the models that the objective reads. Their sizes are in the config.json of the folders that the
    config names. A reference that is not named has the size of the policy.

    Raises ValueError for a model whose size nothing states, FileNotFoundError for a folder without
    a config.json.
    """
    objective, adapted = objectives.find(config.objective.name), bool(config.adapter.name)
    params, frozen, models, from_base = None, {}, [], []
    if adapted:
        family, cfg = family_of(config)
        params, frozen[BASE] = family.split_shapes(cfg)
    named = {} if stored_fields(config) else getattr(objective, "FROZEN", {})
    for name, key in named.items():
        if (section := _section(config, name, key)) is None:
            continue
        family, cfg = families.read(section)
        models.append((name, section.get("family", "decoder"), cfg))
        section_name, leaf = key.split(".")
        if adapted and not config[section_name][leaf]:
            from_base.append(name)  # the base without its adapters, which is there already
        else:
            frozen[name] = _shapes(family, cfg)
    beside = beside_models(config)
    if hasattr(objective, "check_frozen"):
        objective.check_frozen(families.read(config.model)[1], (*models, *beside))
    return Start(params, frozen, tuple(models), tuple(from_base), beside)


def _section(config: Any, name: str, key: str) -> Mapping[str, Any] | None:
    """The section `model` of a frozen model; None for one that the objective goes without."""
    objective = objectives.find(config.objective.name)
    section, leaf = key.split(".")
    if value := config[section][leaf]:
        return model_section(to_path(value), key)
    if key in getattr(objective, "MAY_LACK", ()):
        return None
    if key not in getattr(objective, "FROM_START", ()):
        raise ValueError(
            f"{key} is empty, so the size of the {name} is unknown; name a run or a folder of "
            "Hugging Face weights, of which only config.json is read"
        )
    if config.train.init_from:
        found = model_section(to_path(config.train.init_from))
        return found | ({"dtype": config.model.dtype} if "dtype" in found else {})
    # The policy itself, without a head that is its own, such as that of the values.
    own = dict(config.model)
    return own | ({"n_classes": 0} if "n_classes" in own else {})


def _shapes(family: families.Trained, cfg: Any) -> dict:
    """The shapes of a frozen model as training stores it: rounded for the computation."""
    return jax.eval_shape(lambda: rounded(family.init(cfg, jax.random.key(0)), cfg))
