"""Whether the family, the objective and the kind of data of a config go together."""

from ml_collections import ConfigDict

from data import kinds
from model import families
from train import objectives


def check(config: ConfigDict) -> None:
    """ValueError where the family, the objective and the kind of data do not fit together: by the
    batch fields that they need and give, naming the entries that would fit."""
    family = families.find(config.model.family)
    objective = objectives.find(config.objective.name)
    if config.data.kind not in kinds.KINDS:
        raise ValueError(
            f"data.kind={config.data.kind!r} is unknown; use one of {', '.join(kinds.KINDS)}"
        )
    if families.is_counted(family):
        measured = getattr(family, "OBJECTIVE", "next_token")
        if objective.METRICS["loss"] != objectives.OBJECTIVES[measured].METRICS["loss"]:
            raise ValueError(
                f"model.family={config.model.family!r} is counted and measured by the "
                f"{objectives.OBJECTIVES[measured].METRICS['loss'].unit} of objective.name="
                f"{measured!r}, not by {config.objective.name!r}; use {measured}"
            )
    elif lacking := [name for name in objective.NEEDS if not hasattr(family, name)]:
        fitting = [
            name
            for name, other in families.FAMILIES.items()
            if all(hasattr(other, need) for need in objective.NEEDS)
        ]
        raise ValueError(
            f"objective.name={config.objective.name!r} calls {', '.join(objective.NEEDS)} of a "
            f"family; model.family={config.model.family!r} has no {', '.join(lacking)}. Families "
            f"that fit: {', '.join(fitting) or 'none'}"
        )
    needs, given = fields_of(family, objective), kinds.KINDS[config.data.kind].FIELDS
    if missing := [name for name in needs if name not in given]:
        fitting = [name for name, kind in kinds.KINDS.items() if {*needs} <= {*kind.FIELDS}]
        remedy = f"Kinds that fit: {', '.join(fitting)}"
        if not fitting:
            others = [
                name
                for name, other in objectives.OBJECTIVES.items()
                if all(hasattr(family, need) for need in other.NEEDS)
                and {*fields_of(family, other)} <= {*given}
            ]
            remedy = (
                "No kind fits both. Objectives that fit the family and this kind: "
                f"{', '.join(others) or 'none'}"
            )
        raise ValueError(
            f"model.family={config.model.family!r} with objective.name={config.objective.name!r} "
            f"needs the batch fields {', '.join(needs)}; data.kind={config.data.kind!r} has no "
            f"{', '.join(missing)}. {remedy}"
        )


def fields_of(family: families.Family, objective: objectives.Objective) -> tuple[str, ...]:
    """The batch fields that a family and an objective need of the data."""
    made = getattr(objective, "MAKES", ())
    inputs = (name for name in family.INPUTS if name not in made)
    return tuple(dict.fromkeys((*inputs, *objective.FIELDS)))
