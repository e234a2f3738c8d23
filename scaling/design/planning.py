"""Plans a run with a fitted law: the best N and D for a budget, a loss, or an inference load.

The law comes from law.json: the constants, and bootstrap draws for the intervals. Arrays are
[1 + S]: the fit first, then its draws.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scaling.drafts import as_path, read_object
from scaling.intervals import FAR, finite, number
from scaling.laws import LAWS
from scaling.laws.optimal_split import optimal_params

SARDANA = "Sardana et al. 2024, arXiv:2401.00448"
CONSTANTS = ("A", "B", "E", "alpha", "beta")  # names in files without the key "split"
IN_FOLDER = ("law.json", "report/law.json")  # in the folder of a report, or of a sweep
AROUND = (0.25, 0.5, 1.0, 2.0, 4.0)  # sizes shown beside the optimum, as multiples of it
NOISE_DRAWS = 4000
HALVINGS = 100  # steps of a bisection in log N; more than float64 can resolve


@dataclass(frozen=True)
class PlanningLaw:
    """The parametric law of a law.json."""

    theta: np.ndarray  # [1 + S, 5]: log A, log B, log E, alpha, beta
    spread: float  # of one run's log-loss about the law
    dof: int
    range: dict[str, list[float]]  # fitted params, tokens, flops, tokens_per_param
    isoflop: dict[str, np.ndarray]  # "params", "tokens": [1 + S', 2], exponent and log k
    about: dict[str, Any]

    @property
    def constants(self) -> dict[str, np.ndarray]:
        return LAWS["parametric"].constants(self.theta)


def read_law(path: str | Path) -> PlanningLaw:
    """Reads the law from a file that `isoflop fit --json` wrote, or from the folder of a report or
    a sweep. Raises ValueError if the file has no law.
    """
    path = as_path(path)
    if path.is_dir():
        files = [path / name for name in IN_FOLDER if (path / name).is_file()]
        if not files:
            raise FileNotFoundError(f"law={path} contains neither {' nor '.join(IN_FOLDER)}")
        path = files[0]
    if not path.is_file():
        raise FileNotFoundError(f"law={path} does not exist; isoflop fit --json={path} writes it")
    remedy = "write one with isoflop fit --json=law.json"
    try:
        law = read_object(path)
    except ValueError as error:
        raise ValueError(f"law={path} is not a law.json: {error}; {remedy}") from None
    try:
        part, points = law["parametric"], law["points"]
        if "reason" in part:
            raise ValueError(f"law={path} has no parametric law to plan with: {part['reason']}")
        if part["law"] != LAWS["parametric"].formula:
            raise ValueError(f"law={path} is {part['law']}; plan needs the parametric law")
        names = part.get("split") or CONSTANTS
        value = [[part[name]["value"] for name in names]]
        cloud = part.get("cloud") or {}
        drawn = np.array([cloud[name] for name in names]).T if cloud else np.empty((0, 5))
        table = np.concatenate([np.array(value, float), drawn.astype(float)])
    except (KeyError, TypeError) as error:
        raise ValueError(f"law={path} is not a law.json ({error!r}); {remedy}") from None
    with np.errstate(divide="ignore"):
        theta = np.concatenate([np.log(table[:, :3]), table[:, 3:]], axis=1)
    return PlanningLaw(
        theta=theta,
        spread=float(part["spread"]),
        dof=max(part["n"] - len(CONSTANTS) + len(part.get("fixed", {})), 1),
        range=fitted_range(law),
        isoflop=isoflop_lines(law),
        about={"file": str(path), "law": part["law"], "paper": part["paper"]}
        | {"n": points["n"], "sha256": points["sha256"], "source": points["source"]}
        | {"params": law["settings"]["params"], "flops": law["settings"]["flops"]}
        | {"level": law["settings"]["level"], "draws": len(drawn)},
    )


def fitted_range(law: dict[str, Any]) -> dict[str, list[float]]:
    """Smallest and largest fitted values, as far as law.json has them."""
    if "range" in law["points"]:
        return law["points"]["range"]
    budgets = [m["flops"] for m in law["isoflop"]["minima"]]
    return {"flops": [min(budgets), max(budgets)]} if budgets else {}


def isoflop_lines(law: dict[str, Any]) -> dict[str, np.ndarray]:
    """log N* and log D* as lines in log C through the iso-FLOP minima. Empty if there are no minima
    or if C is not 6 N D.
    """
    part = law["isoflop"]
    if "reason" in part or law["settings"]["flops"] != "6nd":
        return {}
    return {
        name: np.array([[part[letter]["value"], part[f"log_k_{letter}"]], *part["cloud"][letter]])
        for name, letter in (("params", "a"), ("tokens", "b"))
    }


def at_flops(law: PlanningLaw, flops: float) -> tuple[np.ndarray, np.ndarray]:
    """The N and D with the lowest loss at 6 N D = flops. Hoffmann et al. 2022, eq. 4."""
    n = optimal_params(law.theta, np.array(flops))
    return n, flops / (6 * n)


def at_tokens(law: PlanningLaw, tokens: float) -> tuple[np.ndarray, np.ndarray]:
    """The N for which `tokens` is the optimal D: α A N^-α = β B D^-β."""
    c = law.constants
    share = c["beta"] * c["B"] * tokens ** -c["beta"] / (c["alpha"] * c["A"])
    return share ** (-1 / c["alpha"]), np.full(len(law.theta), float(tokens))


def at_params(law: PlanningLaw, params: float) -> tuple[np.ndarray, np.ndarray]:
    """The D for which `params` is the optimal N: α A N^-α = β B D^-β."""
    c = law.constants
    share = c["alpha"] * c["A"] * params ** -c["alpha"] / (c["beta"] * c["B"])
    return np.full(len(law.theta), float(params)), share ** (-1 / c["beta"])


def at_loss(law: PlanningLaw, loss: float) -> tuple[np.ndarray, np.ndarray]:
    """The N and D that reach the loss with the least compute; nan for draws that never reach it.

    At the optimum α A N^-α = β B D^-β, so A N^-α (1 + α/β) = loss - E.
    """
    c = law.constants
    excess = reducible(law, loss)
    n = (c["A"] * (1 + c["alpha"] / c["beta"]) / excess) ** (1 / c["alpha"])
    d = (c["B"] * (1 + c["beta"] / c["alpha"]) / excess) ** (1 / c["beta"])
    return n, d


BUDGETS: dict[str, Callable[[PlanningLaw, float], tuple[np.ndarray, np.ndarray]]] = {
    "flops": at_flops,
    "tokens": at_tokens,
    "params": at_params,
    "loss": at_loss,
}


def reducible(law: PlanningLaw, loss: float) -> np.ndarray:
    """loss - E; nan for draws with E >= loss. Raises ValueError if the fitted E >= loss."""
    floor = law.constants["E"]
    if not loss > floor[0]:
        raise ValueError(
            f"loss={loss:g} is not above the law's irreducible loss E = {floor[0]:.4g}: no model "
            "reaches it; give a higher loss"
        )
    return np.where(loss > floor, loss - floor, np.nan)


def over_trained(
    law: PlanningLaw, loss: float, inference_tokens: float
) -> tuple[np.ndarray, np.ndarray]:
    """The N and D that reach `loss` with the least 6 N D + 2 N D_inference, by bisection in log N.

    Sardana et al. 2024. Along the curve D(N) of equal loss, the slope of the cost in log N is
    proportional to 6 D (1 - g) + 2 D_inference with g = α A N^-α / β B D^-β. It increases with N:
    from -∞, where D is infinite, to 2 D_inference at the compute-optimal N, where g = 1. So there
    is one root.
    """
    c = law.constants
    excess = reducible(law, loss)
    low = np.log(c["A"] / excess) / c["alpha"]
    high = np.log(at_loss(law, loss)[0])
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        of_n = c["A"] * np.exp(-c["alpha"] * middle)
        of_d = np.maximum(excess - of_n, 1e-300)
        with np.errstate(over="ignore"):
            d = (c["B"] / of_d) ** (1 / c["beta"])
            slope = 6 * d * (1 - c["alpha"] * of_n / (c["beta"] * of_d)) + 2 * inference_tokens
        low, high = np.where(slope < 0, middle, low), np.where(slope < 0, high, middle)
    return np.exp(high), length_for(law, np.exp(high), loss)


def length_for(law: PlanningLaw, params: np.ndarray | float, loss: float) -> np.ndarray:
    """The D with which a model of N parameters reaches `loss`; inf if it never does."""
    c = law.constants
    left = loss - c["E"] - c["A"] * params ** -c["alpha"]
    with np.errstate(divide="ignore"):
        return np.where(left > 0, np.abs(c["B"] / left) ** (1 / c["beta"]), np.inf)


def losses(law: PlanningLaw, params: float, tokens: float) -> np.ndarray:
    """The loss at N and D, from the fit and from every draw."""
    columns = {"params": np.array([params]), "tokens": np.array([tokens])}
    return LAWS["parametric"].loss(law.theta, columns)[:, 0]


def outcome(law: PlanningLaw, params: float, tokens: float, seed: int = 0) -> dict[str, Any]:
    """The loss of a run at N and D. The interval covers the law's draws and a run's noise."""
    value, *draws = losses(law, params, tokens)
    if not draws:
        return number(value)
    random = np.random.default_rng(seed)
    noise = law.spread * random.standard_t(law.dof, NOISE_DRAWS)
    return number(value, random.choice(draws, NOISE_DRAWS) * np.exp(noise))


def with_interval(values: np.ndarray) -> dict[str, float | None]:
    """The fit's value with the interval of the finite draws."""
    return number(values[0], values[1:][np.isfinite(values[1:])])


def describe_size(n: np.ndarray, d: np.ndarray) -> dict[str, Any]:
    """N, D, C and D/N, each with its interval."""
    parts = {"params": n, "tokens": d, "flops": 6 * n * d, "tokens_per_param": d / n}
    return {name: with_interval(values) for name, values in parts.items()}


def plan(
    law: PlanningLaw,
    budget: tuple[str, float],
    inference_tokens: float | None = None,
    loss: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The best run for a budget ("flops" | "tokens" | "params" | "loss", amount), as --json prints
    it.

    With `inference_tokens`, also the run that reaches `loss` with the least compute for training
    plus inference. `loss` defaults to the loss that the budget reaches.
    """
    name, amount = budget
    for key, value in ((name, amount), ("inference_tokens", inference_tokens), ("loss", loss)):
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ValueError(f"{key}={value:g} must be positive and finite")
    n, d = BUDGETS[name](law, amount)
    best = describe_size(n, d) | {"loss": outcome(law, n[0], d[0], seed)}
    planned = {"law": law.about, "budget": {name: amount}, "optimum": best}
    planned["second_opinion"] = second_opinion(law, 6 * n[0] * d[0])
    planned["around"] = around(law, n[0], d[0])
    planned["inference"] = None
    if inference_tokens:
        target = loss if loss is not None else best["loss"]["value"]
        planned["inference"] = inference(law, target, inference_tokens, seed)
    run = planned["inference"] or best
    planned["run"] = {key: run[key]["value"] for key in ("params", "tokens", "flops")}
    planned["range"] = law.range
    planned["warnings"] = beyond(law, planned["run"])
    more = planned["run"]["flops"] / best["flops"]["value"]
    if planned["inference"] and loss is None:
        planned["warnings"].append(f"its training takes {more:.2f} times the optimum's compute")
    return planned


def second_opinion(law: PlanningLaw, flops: float) -> dict[str, Any] | None:
    """N* and D* at that compute from the iso-FLOP minima; None without their exponents."""
    if not law.isoflop:
        return None
    return {
        name: with_interval(np.exp(lines[:, 0] * np.log(flops) + lines[:, 1]))
        for name, lines in law.isoflop.items()
    }


def around(law: PlanningLaw, params: float, tokens: float) -> list[dict[str, Any]]:
    """Other sizes at the same compute: their loss, and their compute for the optimal loss."""
    flops, best = 6 * params * tokens, float(losses(law, params, tokens)[0])
    return [
        {
            "params": n,
            "tokens": flops / (6 * n),
            "loss": float(losses(law, n, flops / (6 * n))[0]),
            "compute_for_same_loss": finite(6 * n * length_for(law, n, best)[0] / flops),
        }
        for n in (times * params for times in AROUND)
    ]


def inference(
    law: PlanningLaw, loss: float, inference_tokens: float, seed: int = 0
) -> dict[str, Any]:
    """The model that reaches `loss` with the least compute for training plus inference, compared
    with the compute-optimal one.
    """
    n, d = over_trained(law, loss, inference_tokens)
    plain_n, plain_d = at_loss(law, loss)
    total = 6 * n * d + 2 * n * inference_tokens
    plain = 6 * plain_n * plain_d + 2 * plain_n * inference_tokens
    return describe_size(n, d) | {
        "loss": outcome(law, n[0], d[0], seed),
        "target_loss": loss,
        "inference_tokens": inference_tokens,
        "total_flops": with_interval(total),
        "compute_optimal": describe_size(plain_n, plain_d) | {"total_flops": with_interval(plain)},
        "saving": with_interval(1 - total / plain),
        "draws_that_reach_it": float(np.isfinite(n[1:]).mean()) if len(n) > 1 else 1.0,
        "source": SARDANA,
    }


def beyond(law: PlanningLaw, run: dict[str, float]) -> list[str]:
    """Warnings about extrapolation beyond the fitted runs."""
    if not law.range:
        return ["law.json lacks the fitted range: how far this extrapolates is unknown"]
    warnings = []
    fitted, wanted = law.range["flops"], run["flops"]
    if wanted > FAR * fitted[1]:
        warnings.append(
            f"EXTRAPOLATION: {wanted / fitted[1]:.3g} times the largest fitted compute "
            f"({fitted[1]:.2g} FLOPs); beyond {FAR:g} times the intervals are too narrow"
        )
    ratio = run["tokens"] / run["params"]
    most = law.range.get("tokens_per_param", [0, np.inf])[1]
    if ratio > most:
        warnings.append(
            f"EXTRAPOLATION: {ratio:.3g} tokens per parameter; the fitted runs had at most "
            f"{most:.3g}"
        )
    return warnings
