"""Simulates ladders of runs from a known law, as points or as folders with result.json files."""

import json
from pathlib import Path

import numpy as np

from scaling.table import Points

# Byte-level losses of small Transformers: E, A, B, alpha, beta.
TRUTH = {"E": 0.9, "A": 40.0, "B": 400.0, "alpha": 0.35, "beta": 0.37}
BUDGETS = (1e12, 3e12, 1e13)


def true_loss(params, tokens, truth=TRUTH):
    """L(N, D) of the known law."""
    return (
        truth["E"] + truth["A"] * params ** -truth["alpha"] + truth["B"] * tokens ** -truth["beta"]
    )


def best_params(flops, truth=TRUTH):
    """N*(C) of the known law, in closed form."""
    a, b = truth["alpha"], truth["beta"]
    scale = (a * truth["A"] / (b * truth["B"])) ** (1 / (a + b))
    return scale * (flops / 6) ** (b / (a + b))


def design(budgets=BUDGETS, sizes=6, span=4.0):
    """N and D of `sizes` models per budget, from N*/span to N*·span."""
    n = np.concatenate([best_params(c) * np.geomspace(1 / span, span, sizes) for c in budgets])
    c = np.repeat(budgets, sizes)
    return n, c / 6 / n


def simulate(noise=0.004, seed=0, budgets=BUDGETS, sizes=6, span=4.0, held_out=3.0):
    """Points of a ladder with relative noise.

    The last point is held out, at `held_out` × the largest budget.
    """
    random = np.random.default_rng(seed)
    n, d = design(budgets, sizes, span)
    if held_out:
        c = budgets[-1] * held_out
        n, d = np.append(n, best_params(c)), np.append(d, c / 6 / best_params(c))
    loss = true_loss(n, d) * np.exp(noise * random.standard_normal(len(n)))
    holdout = np.zeros(len(n), bool)
    holdout[-1] = bool(held_out)
    return Points(
        run=np.array([f"sim-{i:03d}" for i in range(len(n))]),
        params=n,
        tokens=d,
        flops=6 * n * d,
        loss=loss,
        loss_se=np.full(len(n), 0.002),
        holdout=holdout,
        source="simulation",
    )


def components(params, width=64, vocab=256):
    """A split of N into components, roughly as in a Transformer."""
    embedding = min(vocab * width, params / 4)
    position, norm = embedding / 4, params / 200
    body = params - embedding - position - norm
    parts = (embedding, position, body / 3, body * 2 / 3, norm, 0)
    names = ("embedding", "position", "attention", "mlp", "norm", "head")
    return {name: round(part) for name, part in zip(names, parts, strict=True)}


def result(points, row, **changes):
    """The result.json of one simulated run. Its curve decreases to the final loss."""
    n, d, loss = (float(v[row]) for v in (points.params, points.tokens, points.loss))
    batch, parts = 4096, components(n)
    steps = round(d / batch)
    share = np.linspace(0.1, 1, 10)
    early = true_loss(n, d * share) - true_loss(n, d) + 0.25 * (1 - share) ** 2
    curve = [[round(s * steps), round(s * d), loss + e] for s, e in zip(share, early, strict=True)]
    total = sum(parts.values())
    return {
        "id": str(points.run[row]),
        "status": "done",
        "sweep": "simulated",
        "overrides": {"model.d_model": 64, "train.duration": f"{points.flops[row]:.3g} flops"},
        "holdout": bool(points.holdout[row]),
        "params": parts,
        "tokens": d,
        "steps": steps,
        "batch": batch,
        "context_length": 128,
        "epochs_of_data": d / 3e8,
        "flops": {
            "6nd": 6 * total * d,
            "kaplan": 5.6 * total * d,
            "chinchilla": 6.6 * total * d,
            "palm": 6.4 * total * d,
        },
        "train_loss": loss - 0.01,
        "eval_loss": loss,
        "eval_loss_se": 0.002,
        "bits_per_byte": loss / np.log(2),
        "seconds": d * n * 6 / 6e10,
        "compile_seconds": 4.0,
        "tokens_per_second": 1e10 / n,
        "mfu": 0.4,
        "hyperparameters": {
            "learning_rate": 3e-3,
            "weight_decay": 0.1,
            "warmup_steps": round(0.02 * steps),
            "total_steps": steps,
            "schedule": "cosine",
            "optimizer": "adamw",
            "b1": 0.9,
            "b2": 0.95,
        },
        "seed": 0,
        "dataset": "0123456789abcdef",
        "versions": {"jax": "0.10.2", "numpy": "2.0"},
        "device": "cpu",
        "curve": curve,
        **changes,
    }


def write_runs(folder: Path, points, **changes) -> Path:
    """Writes a folder of simulated trials like that of a sweep."""
    for row in range(len(points)):
        trial = folder / str(points.run[row])
        trial.mkdir(parents=True)
        text = json.dumps(result(points, row, **changes))
        (trial / "result.json").write_text(text)
        (trial / "config.json").write_text("{}")
    return folder
