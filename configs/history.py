"""Language models before and beside GPT on one curve: a ladder for each family.

    make history
    isoflop sweep --config=configs/history.py:lstm --workdir=runs/history/lstm

2 CPU cores that others used as well, 20 min (2026-11), docs/history.md: between 1.5e11 and 1.6e12
FLOPs the loss of the decoder's frontier falls as C^-0.090 [0.079, 0.099], the LSTM's as C^-0.069
[0.066, 0.073]; the LSTM needs 0.87 [0.74, 1.03] times the decoder's compute on average over the
losses that both reach, 1.66 [1.23, 2.07] times as much at the lowest of them as at the highest.

All families learn the bytes of this Python's standard library in windows of 256 and are scored on
the same validation windows. At each of three budgets of 6 N D FLOPs, five sizes of a family are
trained, each with the full budget. N counts all parameters; the head is the transposed embedding.
Optimiser, schedule and batch are shared. The learning rate of a family at a width is that of RATES
times the root of 64 over the width; the search behind RATES is configs/study/history_rates.py.

n-grams of five orders are counted on all of the text, a quarter and a sixteenth. They have no
training FLOPs: `isoflop compare` draws them against tokens and parameters only.
"""

from ml_collections import ConfigDict

from configs import base
from configs.space import chain
from configs.study.ladder import STYLES

BUDGETS = (1.5e11, 5e11, 1.6e12)  # FLOPs
DECODER = STYLES["llama"] | dict(n_heads=2)
# (layers, width) of seven sizes, of which each budget trains five.
SIZES = {
    "decoder": ((2, 20), (2, 24), (2, 32), (2, 40), (3, 48), (3, 64), (3, 80)),
    "lstm": ((1, 32), (1, 40), (1, 56), (1, 80), (1, 112), (1, 144), (1, 192)),
    "gru": ((1, 32), (1, 48), (1, 64), (1, 88), (1, 120), (1, 168), (1, 224)),
    "elman": ((1, 48), (1, 64), (1, 96), (1, 128), (1, 192), (1, 256), (1, 352)),
}
RATES = {"decoder": 0.025, "lstm": 0.1, "gru": 0.07, "elman": 0.045}  # at a width of 64
ORDERS = (1, 2, 3, 4, 5)
TEXTS = {"all": 0, "2400k": 2_400_000, "600k": 600_000}  # tokens that are counted; 0: all


def get_config(arg: str = "decoder") -> ConfigDict:
    """What all trials of the ladder `arg` share: a key of SIZES, or ngram."""
    if arg not in (*SIZES, "ngram"):
        known = " or :".join((*SIZES, "ngram"))
        raise ValueError(f"configs/history.py:{arg} is unknown; use :{known}")
    config = base.get_config({"decoder": "decoder", "ngram": "ngram"}.get(arg, "recurrent"))
    config.model.context_length = 256
    if arg == "decoder":
        config.model.update(DECODER)
    elif arg != "ngram":
        config.model.cell = arg
    config.train.batch_size = 4
    config.optimizer.update(name="muon", learning_rate=0.02)
    config.schedule.update(name="cosine", warmup="0.5 %", final=0.0)
    config.eval.update(every="25 %", sequences=512, batch_size=32)
    config.checkpoint.update(every="50 %", keep_last=1, keep_best=0)
    return config


def ladder_of(config: ConfigDict) -> str:
    """The ladder that a config belongs to."""
    return config.model.cell if config.model.family == "recurrent" else config.model.family


def get_sweep(config: ConfigDict) -> list[dict]:
    """The trials of a ladder: three budgets of five sizes each, or n-grams by order and text."""
    name = ladder_of(config)
    if name == "ngram":
        return [
            {"name": f"{order}-gram-{size}", "model.order": order, "data.max_tokens": tokens}
            for size, tokens in TEXTS.items()
            for order in ORDERS
        ]
    return chain(
        *(
            trials(name, budget, SIZES[name][first : first + 5])
            for first, budget in enumerate(BUDGETS)
        )
    )


def trials(name: str, flops: float, sizes: tuple[tuple[int, int], ...]) -> list[dict]:
    """One budget spent on several sizes."""
    return [
        {
            "name": f"{flops:.2e}-d{width}".replace("+", ""),
            "train.duration": f"{flops:g} flops",
            "model.n_layers": layers,
            "model.d_model": width,
            "optimizer.learning_rate": round(RATES[name] * (64 / width) ** 0.5, 4),
        }
        for layers, width in sizes
    ]
