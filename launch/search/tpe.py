"""Tree-structured Parzen estimator (Bergstra et al. 2011), by Optuna: learns from the results.

A question depends on the seed, its number and the results so far, and on nothing else, so that a
search that was stopped goes on as if it had not been.
"""

import json
import math
import warnings
from collections.abc import Sequence
from typing import Any

from configs.distributions import Choice, Integers, LogUniform
from configs.space import Overrides, Search
from launch.search import design
from launch.search.asked import Asked

SEQUENTIAL = True
ENDS = False
RANDOM = 10  # random trials before the model of the results says anything: Optuna's default


def ask(search: Search, asked: Sequence[Asked]) -> list[Overrides]:
    """The next trial, in a list of one. Optuna's constant liar keeps trials that run at the same
    time apart. A diverged trial counts as worse than all others. ValueError without Optuna."""
    try:
        import optuna
    except ImportError:
        raise ValueError(
            'search=tpe needs Optuna: pip install -e ".[search]"; or use --search=sobol'
        ) from None
    if search.trials and len(asked) >= search.trials:
        return []
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    spaces = {
        key: _distribution(optuna, axis) for key, axis in search.axes.items() if callable(axis)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=RANDOM,
            multivariate=True,
            constant_liar=True,
            seed=(search.seed * 1_000_003 + len(asked)) % 2**32,
        )
    study = optuna.create_study(sampler=sampler)
    for before in asked:
        study.add_trial(_trial(optuna, search, spaces, before))
    params = study.ask(spaces).params
    asks = {key: _value(axis, params.get(key)) for key, axis in search.axes.items()}
    return [design.legible(search.axes, asks)]


def _distribution(optuna: Any, axis: Any) -> Any:
    """Optuna's distribution for one of ours; a choice is the number of its value."""
    distributions = optuna.distributions
    if isinstance(axis, Choice):
        return distributions.CategoricalDistribution(range(len(axis.values)))
    if isinstance(axis, Integers):
        return distributions.IntDistribution(axis.low, axis.high)
    return distributions.FloatDistribution(axis.low, axis.high, log=isinstance(axis, LogUniform))


def _value(axis: Any, param: Any) -> Any:
    """The value of a key from Optuna's parameter."""
    if not callable(axis):
        return axis
    return axis.values[param] if isinstance(axis, Choice) else param


def _param(axis: Any, value: Any) -> Any:
    """Optuna's parameter for the value of a key, which may have been read from JSON."""
    return (
        list(map(json.dumps, axis.values)).index(json.dumps(value))
        if isinstance(axis, Choice)
        else value
    )


def _trial(optuna: Any, search: Search, spaces: dict[str, Any], before: Asked) -> Any:
    """A trial that was asked for, as Optuna records it."""
    params = {key: _param(search.axes[key], before.overrides[key]) for key in spaces}
    states = optuna.trial.TrialState
    known = {
        "done": {"state": states.COMPLETE, "value": before.loss},
        "diverged": {"state": states.COMPLETE, "value": math.inf},
        "stopped": {
            "state": states.PRUNED,
            "intermediate_values": {before.tokens: before.loss},
        },
        "running": {"state": states.RUNNING},
    }.get(before.status, {"state": states.FAIL})
    return optuna.trial.create_trial(params=params, distributions=spaces, **known)
