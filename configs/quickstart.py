"""The ladder of `make ladder`: iso-FLOP trials, then a larger one predicted before it starts.

    isoflop sweep --config=configs/quickstart.py --workdir=runs/quickstart

2 CPU cores, 4.4 min (2026-11): predicted 1.389 nats [1.359, 1.424], outcome 1.388 (-0.1 %), all
three minima bracketed, N* ∝ C^0.70 [0.53, 0.96]. With seeds 1 and 2 the outcomes are +1.1 % and
+0.4 % from the predictions. All three lie inside their intervals.

The recipe is that of configs/study/ladder.py, with rows of 64 tokens instead of 128 and two heads
instead of four: both make a step of so small a model faster. The learning rate falls to 0, which
brings runs of different seeds within 0.4 % of each other, and with the root of the width. Five
sizes are trained at each of three budgets a factor 2.5 apart; the held-out run has 3 times the
largest budget.
"""

from ml_collections import ConfigDict

from configs.study import ladder

# Budget in FLOPs: the (layers, width), each trained with the full budget.
LADDER = {
    1.6e11: ((2, 20), (2, 24), (2, 32), (2, 40), (3, 48)),
    4e11: ((2, 24), (2, 32), (2, 40), (3, 48), (3, 64)),
    1e12: ((2, 32), (2, 40), (3, 48), (3, 64), (3, 80)),
}
HELD_OUT = {3e12: ((3, 64),)}


def get_config(arg: str = "llama") -> ConfigDict:
    """What all trials share; `arg` is a style of block, one of ladder.STYLES."""
    config = ladder.get_config(arg)
    config.model.update(context_length=64, n_heads=2)
    config.train.batch_size = 16
    config.schedule.final = 0.0
    config.eval.sequences = 1024
    return config


def get_sweep(config: ConfigDict) -> list[dict]:
    """The trials to fit, and the one to predict."""
    return with_rates(config, ladder.all_trials(LADDER, HELD_OUT))


def with_rates(config: ConfigDict, trials: list[dict]) -> list[dict]:
    """The trials with a learning rate that falls with the root of the width, from 32 on."""
    rates = [config.optimizer.learning_rate * (32 / t["model.d_model"]) ** 0.5 for t in trials]
    return [
        trial | {"optimizer.learning_rate": round(rate, 4)}
        for trial, rate in zip(trials, rates, strict=True)
    ]
