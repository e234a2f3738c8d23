"""The class Law: a scaling law's formula, inputs, and everything that fits, reports and plans need.

A law maps coordinates theta [S, P] (S sets of P coordinates: starts, or bootstrap draws) and the
logarithms x of its inputs [n] to the log of its response [S, n] and the gradient [S, P, n]. A law
with `linear` maps them to the response itself, which may then be negative.
A coordinate named log_X is the logarithm of the constant X; any other is the constant itself.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ"}
Inputs = Mapping[str, np.ndarray]
Evaluate = Callable[[np.ndarray, Inputs], tuple[np.ndarray, np.ndarray]]
POWER_LAW = (1e-3, 2.0)  # bounds of an exponent; published exponents are below 1
CLASSICAL = ("params", "tokens", "loss")  # columns that classical laws need
# Inputs that are computed from other columns if the table lacks them.
DERIVED = {"flops": ("params", "tokens"), "unique_tokens": ("tokens",)}


@dataclass(frozen=True)
class Law:
    """A scaling law. `function` and `grid` use all coordinates, including fixed ones; `evaluate`,
    `starts`, `constants` and `loss` use the free coordinates only.
    """

    name: str
    formula: str
    paper: str
    inputs: tuple[str, ...]  # columns of positive numbers
    coordinates: tuple[str, ...]
    function: Evaluate
    grid: Callable[[Inputs, np.ndarray], np.ndarray]  # (x, log response [n]) -> starts [S, P]
    response: str = "loss"  # the column that the law describes
    better: str = "down"  # "up" if larger is better, as for accuracy
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # by constant
    exponents: Mapping[str, str] = field(default_factory=dict)  # constant -> its input
    floor: str | None = None  # the constant for the irreducible part of the response
    # The names of A, B, E, α, β if the law is E + A N^-α + B D^-β without repeated data. Such a law
    # has a compute-optimal split: scaling/laws/optimal_split.py.
    split: tuple[str, str, str, str, str] | None = None
    constant_inputs: tuple[str, ...] = ()  # inputs that may be the same in all runs
    linear: bool = False  # fitted to the response, not to its logarithm
    fixed: Mapping[str, float] = field(default_factory=dict)  # constant -> value, never fitted

    def __post_init__(self) -> None:
        """Raises ValueError if the fields are inconsistent."""
        roles = (*(self.split or ()), *((self.floor,) if self.floor else ()))
        unknown = [name for name in (*roles, *self.fixed) if name not in self.names]
        if unknown:
            raise ValueError(f"law {self.name}: {', '.join(unknown)} is not one of its constants")
        if self.split and (self.response != "loss" or not {"params", "tokens"} <= set(self.inputs)):
            raise ValueError(
                f"law {self.name}: a split needs the response loss and the inputs params, tokens"
            )
        if self.linear and self.response == "loss":
            raise ValueError(f"law {self.name}: a law of the loss is fitted to its logarithm")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that this law needs in a table."""
        names = [*self.inputs, self.response]
        if set(names) <= {*CLASSICAL, *DERIVED}:
            return CLASSICAL
        sources = [source for name in names for source in DERIVED.get(name, (name,))]
        return tuple(dict.fromkeys(sources))

    @property
    def signed(self) -> str:
        """The column that may be negative; "" if none may."""
        return self.response if self.linear else ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the constants, including fixed ones, in the order of the coordinates."""
        return tuple(name.removeprefix("log_") for name in self.coordinates)

    @property
    def printed(self) -> tuple[str, ...]:
        """The keys of `constants`."""
        return self.names + (("a", "b", "gamma") if self.split else ())

    @cached_property
    def free(self) -> list[int]:
        """The indices of the fitted coordinates."""
        return [i for i, name in enumerate(self.names) if name not in self.fixed]

    def complete(self, theta: np.ndarray) -> np.ndarray:
        """All coordinates [..., P] from the free ones [..., F]."""
        if not self.fixed:
            return theta
        full = np.empty((*np.shape(theta)[:-1], len(self.coordinates)))
        full[..., self.free] = theta
        for i, name in enumerate(self.names):
            if name in self.fixed:
                value = self.fixed[name]
                full[..., i] = np.log(value) if self.is_log(i) else value
        return full

    def is_log(self, index: int) -> bool:
        """Whether a coordinate is the logarithm of its constant."""
        return self.coordinates[index].startswith("log_")

    def scaled(self, response: np.ndarray) -> np.ndarray:
        """The response on the scale of the fit: its logarithm, or itself for a linear law."""
        return np.asarray(response, float) if self.linear else np.log(np.asarray(response, float))

    def unscaled(self, values: np.ndarray) -> np.ndarray:
        """The inverse of `scaled`."""
        return values if self.linear else np.exp(values)

    def evaluate(self, theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """The response on the scale of the fit [S, n] and its slopes [S, F, n] at free coordinates
        [S, F]."""
        log_response, slopes = self.function(self.complete(theta), x)
        return log_response, slopes[:, self.free] if self.fixed else slopes

    def starts(self, x: Inputs, log_response: np.ndarray) -> np.ndarray:
        """Free coordinates [S, F] from which fits start."""
        starts = self.grid(x, log_response)
        return np.unique(starts[:, self.free], axis=0) if self.fixed else starts

    def constants(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """The constants [S] as papers print them; laws with a split also have a, b and gamma of
        `frontier_exponents`.
        """
        full = self.complete(theta)
        with np.errstate(over="ignore"):  # amplitudes of a degenerate fit may overflow
            values = {
                name: np.exp(full[:, i]) if self.is_log(i) else full[:, i]
                for i, name in enumerate(self.names)
            }
        if self.split:
            values |= frontier_exponents(values[self.split[3]], values[self.split[4]])
        return values

    def split_coordinates(self, theta: np.ndarray) -> np.ndarray:
        """log A, log B, log E, α, β [..., 5] of a law that has a split."""
        full = self.complete(theta)
        return full[..., [self.names.index(name) for name in self.split]]

    def log_inputs(self, columns: Mapping[str, np.ndarray]) -> Inputs:
        """The logarithms of this law's inputs. Raises ValueError if a column is missing."""
        missing = [name for name in self.inputs if name not in columns]
        if missing:
            raise ValueError(
                f"law={self.name} needs {', '.join(self.inputs)}, but these points have no "
                f"{', '.join(missing)}; add the column, or choose another law"
            )
        return {name: np.log(np.asarray(columns[name], float)) for name in self.inputs}

    def loss(self, theta: np.ndarray, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """The response at the given columns; [n] for one set of coordinates, [S, n] for many."""
        x = {name: np.atleast_1d(values) for name, values in self.log_inputs(columns).items()}
        log_response, _ = self.evaluate(np.atleast_2d(theta), x)
        return self.unscaled(log_response[0] if np.ndim(theta) == 1 else log_response)

    def fix(self, values: Mapping[str, float]) -> "Law":
        """The law with these constants fixed, in the units in which they are printed. Raises
        ValueError for unknown names and invalid values.
        """
        for name, value in values.items():
            if name not in self.names:
                raise ValueError(
                    f"fix={name}={value:g}: law={self.name} has no constant {name} to fix; "
                    f"use one of {', '.join(self.names)}"
                )
            low, high = self.bounds.get(name, (-np.inf, np.inf))
            low = max(low, 0.0) if self.is_log(self.names.index(name)) else low
            if not (np.isfinite(value) and low < value < high):
                span = f"above {low:g}" + (f" and below {high:g}" if np.isfinite(high) else "")
                span = span if np.isfinite(low) else "finite"
                raise ValueError(f"fix={name}={value:g}: {name} of law={self.name} must be {span}")
        if len(values) == len(self.names):
            raise ValueError(f"fix={','.join(values)} leaves no constant of law={self.name} to fit")
        return replace(self, fixed=dict(values))

    def best(self, response: np.ndarray) -> int:
        """The index of the best value."""
        return int(np.argmin(response) if self.better == "down" else np.argmax(response))


def frontier_exponents(
    alpha: np.ndarray, beta: np.ndarray, growth: float = 1.0
) -> dict[str, np.ndarray]:
    """The exponents of N* ∝ C^a, D* ∝ C^b, L* - E ∝ C^-gamma if C ∝ N^growth D. For growth = 1:
    Hoffmann et al. 2022, eq. 4.

    Minimising A N^-α + B D^-β along D = C / N^g gives α N^-α ∝ g β D^-β, hence a = β/(α + gβ).
    """
    total = alpha + growth * beta
    return {"a": beta / total, "b": alpha / total, "gamma": alpha * beta / total}


def symbols(text: str) -> str:
    """Replaces the names of Greek letters by the letters: 'A N^-alpha' becomes 'A N^-α'."""
    return re.sub(
        rf"(?<![A-Za-z])({'|'.join(GREEK)})(?![A-Za-z])", lambda name: GREEK[name[0]], text
    )


def power_law_bounds(*exponents: str) -> dict[str, tuple[float, float]]:
    """The bounds POWER_LAW for each exponent."""
    return dict.fromkeys(exponents, POWER_LAW)


def log_sum(*terms: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Log of the sum of exponentials, and its gradient: the share of each term in the sum."""
    top = terms[0]
    for term in terms[1:]:
        top = np.maximum(top, term)
    parts = [np.exp(term - top) for term in terms]
    total = sum(parts)
    return top + np.log(total), [part / total for part in parts]


def unstack(theta: np.ndarray) -> list[np.ndarray]:
    """Splits the coordinates into arrays [S, 1], which broadcast against points."""
    return [theta[:, index, None] for index in range(theta.shape[1])]


def without_floor(evaluate: Evaluate, at: int = 2) -> Evaluate:
    """The function with E = 0. Coordinate `at` of the given function, log E, is removed."""

    def bare(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        log_loss, slopes = evaluate(np.insert(theta, at, -np.inf, axis=1), x)
        return log_loss, np.delete(slopes, at, axis=1)

    return bare


def with_floor(evaluate: Evaluate) -> Evaluate:
    """The function plus E. The new last coordinate is log E."""

    def raised(theta: np.ndarray, x: Inputs) -> tuple[np.ndarray, np.ndarray]:
        above, slopes = evaluate(theta[:, :-1], x)
        log_loss, (of_law, of_e) = log_sum(above, theta[:, -1:] + 0 * above)
        return log_loss, np.concatenate([slopes * of_law[:, None], of_e[:, None]], axis=1)

    return raised


# Values in the grids of starts: exponents, and shares of the two reducible terms in the loss.
EXPONENTS = (0.1, 0.2, 0.35, 0.55, 0.9)
SHARES = ((0.1, 0.2), (0.3, 0.3), (0.05, 0.05), (0.2, 0.6), (0.6, 0.2))
