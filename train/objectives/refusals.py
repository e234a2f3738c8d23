"""What several objectives refuse, each in one line."""

from typing import Any

from model import families

Frozen = tuple[tuple[str, str, Any], ...]  # (name, family, the config's section `model`) of each


def refuse_settings(config: Any, *keys: str) -> None:
    """ValueError for keys of the section `train` that the objective does not read."""
    for key in keys:
        if config.train[key]:
            raise ValueError(
                f"train.{key}={config.train[key]} has no effect with objective.name="
                f"{config.objective.name!r}; use 0"
            )


def require_distribution(frozen: Frozen, needs: tuple[str, ...]) -> None:
    """ValueError for a frozen model that gives no distribution of the next token: one whose family
    lacks one of the functions `needs`."""
    for name, family, _ in frozen:
        if not all(hasattr(families.FAMILIES[family], need) for need in needs):
            raise ValueError(
                f"objective.{name} is of the family {family!r}, which gives no distribution of the "
                "next token; use a decoder"
            )


def require_vocabulary(model: Any, frozen: Frozen) -> None:
    """ValueError for a frozen model with another vocabulary than the model that is trained."""
    for name, _, other in frozen:
        if other.vocab_size != model.vocab_size:
            raise ValueError(
                f"objective.{name} has model.vocab_size={other.vocab_size}, and the model that is "
                f"trained {model.vocab_size}; use one of the same vocabulary"
            )
