"""Turns sizes into trials: real shapes near every N."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from launch.pilot.shapes import interpolate
from model import families
from model.transformer import count
from model.transformer.config import ModelConfig
from scaling.design.pilot_trials import Z90

NARROWEST, WIDEST = 8, 16384
MOST_STEP = 2.25  # largest ratio of neighbouring sizes; a parabola through sparser ones is biased
FINEST, STEPS_AN_OCTAVE = 8, 16  # widths are multiples of 8; above 256, of larger powers of 2


@dataclass(frozen=True)
class Shape:
    """A model of the base config with other layers, width and heads."""

    model: ModelConfig
    params: int

    @property
    def width(self) -> int:
        """D, the width of the model."""
        return self.model.d_model

    @property
    def text(self) -> str:
        """Layers x width."""
        return f"{self.model.n_layers}x{self.width}"

    def tokens(self, flops: float, convention: str) -> float:
        """The tokens on which this shape spends `flops`, counted by the convention."""
        return flops / count.flops_per_token(self.model, convention)

    def overrides(self) -> dict[str, Any]:
        """The keys that make this shape from the base config."""
        keys = ("n_layers", "d_model", "n_heads")
        return {f"model.{key}": getattr(self.model, key) for key in keys}


def shape_of(base: ConfigDict, vocab_size: int, changes: Mapping[str, Any]) -> Shape:
    """The base's model with changed keys. Raises ValueError if they do not fit together."""
    keys = base.model.to_dict() | dict(changes)
    family, model = families.derive(keys | {"vocab_size": keys["vocab_size"] or vocab_size})
    return Shape(model, sum(family.parameters(model).values()))


def sweep_shapes(base: ConfigDict, vocab_size: int, trials: Sequence[Mapping]) -> list[Shape]:
    """The shape of every trial of a sweep; the shape of the base config if it has no trials."""
    changes = [
        {key.removeprefix("model."): value for key, value in trial.items() if "model." in key}
        for trial in trials or [{}]
    ]
    return [shape_of(base, vocab_size, change) for change in changes]


def candidates(base: ConfigDict, vocab_size: int, known: Sequence[Shape]) -> list[Shape]:
    """The shapes to choose from, by rising N. Every width has the aspect ratio of the known shapes,
    interpolated in log width and constant beyond them, and the heads of the nearest known shape.
    Raises ValueError if those heads fit no width.
    """
    aspects: dict[int, list[float]] = {}
    for shape in known:
        aspects.setdefault(shape.width, []).append(shape.width / shape.model.n_layers)
    widths = sorted(aspects)
    means = [math.prod(aspects[w]) ** (1 / len(aspects[w])) for w in widths]
    shapes, width = [], NARROWEST
    while width <= WIDEST:
        nearest = min(known, key=lambda shape: abs(math.log(shape.width / width)))
        layers = max(1, round(width / interpolate(widths, means, width)))
        change = {"n_layers": layers, "d_model": width, "n_heads": nearest.model.n_heads}
        try:
            shapes.append(shape_of(base, vocab_size, change))
        except ValueError:
            pass  # heads that do not divide this width
        octave = 2 ** int(math.log2(width))
        width += max(FINEST, octave // STEPS_AN_OCTAVE)
    if not shapes:
        raise ValueError(
            f"model.n_heads={known[0].model.n_heads} fits no width up to {WIDEST}; use a power of 2"
        )
    return sorted(shapes, key=lambda shape: shape.params)


def nearest_shape(shapes: Sequence[Shape], params: float) -> Shape:
    """The shape closest in log N."""
    return min(shapes, key=lambda shape: abs(math.log(shape.params / params)))


def shapes_around(shapes: Sequence[Shape], log_n: float, half: float, sizes: int) -> list[Shape]:
    """`sizes` distinct shapes, evenly from log N - half to log N + half. Raises ValueError if fewer
    than two are on either side.
    """
    chosen: list[Shape] = []
    for i in range(sizes):
        target = math.exp(log_n - half + 2 * half * i / (sizes - 1))
        left = [shape for shape in shapes if shape not in chosen]
        chosen += [nearest_shape(left, target)] if left else []
    chosen.sort(key=lambda shape: shape.params)
    below = sum(math.log(shape.params) < log_n for shape in chosen)
    if not 2 <= below <= len(chosen) - 2:
        raise ValueError(
            f"the shapes of this config do not bracket N = {math.exp(log_n):.3g}: they have "
            f"{shapes[0].params:.3g} to {shapes[-1].params:.3g} parameters; use other --budgets or "
            "--share"
        )
    return chosen


def half_log_span(span: float, sd: float) -> float:
    """How far sizes reach to either side of log N*: the log of `span`, plus half the 90 % interval
    of log N*, whose standard deviation is `sd`."""
    return math.log(span) + Z90 * sd


def n_sizes(half: float, sizes: int) -> int:
    """`sizes`, or more if they would otherwise be further apart than MOST_STEP."""
    return max(sizes, 1 + math.ceil(2 * half / math.log(MOST_STEP)))


def trial(
    budget: float, shape: Shape, rate: float, holdout: bool = False, seed: int | None = None
) -> dict[str, Any]:
    """One trial of a sweep, as overrides of its base config."""
    name = f"{budget:.1e}-d{shape.width}".replace("+", "")
    row = {"name": name, "holdout": holdout, "train.duration": f"{budget:g} flops"}
    row |= shape.overrides() | {"optimizer.learning_rate": rate}
    return row if seed is None else row | {"seed": seed}
