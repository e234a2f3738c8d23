"""What `isoflop inspect` measures of one text under the model of a run."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from launch.alive import bar
from launch.errors import BadInput
from launch.evaluation.scored_model import ScoredModel
from launch.inspection.embedding import embedding
from launch.inspection.text import Text, name, printable_tokens
from model.inspection import ablation, attention, induction, readings
from scaling.intervals import finite
from train.parallel.precision import rounded

TOP = 5  # likeliest tokens that are listed
HALF, ROWS = 25, 32  # random tokens that are repeated, as Olsson et al. 2022; rows of them
AT_ONCE = 8  # rows


@dataclass(frozen=True)
class How:
    """What to measure: the neurons whose ablation is exact, whether to ablate, and the seed of the
    random tokens."""

    neurons: int
    ablate: bool
    seed: int


def inspected(
    model: ScoredModel, text: Text, how: How, show: Callable[[str], None]
) -> tuple[dict[str, Any], np.ndarray | None]:
    """(what --json writes, the attention weights [L, H, T, S] or None). Parts that a family does
    not have are None: only decoders have attention, ablations and induction. BadInput for a trained
    model without a finite loss."""
    if not model.counted:
        model = dataclasses.replace(model, fitted=rounded(model.fitted, model.cfg))
    backend = getattr(model.cfg, "attention", None)
    if hasattr(model.family, "activations"):
        model = dataclasses.replace(model, cfg=attention.plain(model.cfg))
    show("tokens")
    read = _readings(model, text)
    about = _of_text(model, text, read)
    if about["loss"] is None and not model.counted:
        raise BadInput(
            f"run={model.run} gives this text no finite loss at step {model.step:,}: it has "
            "diverged; use another run"
        )
    about["lens"] = _lens(model, text, read) if hasattr(model.family, "layers") else None
    about["embedding"] = None if model.counted else embedding(model, text.tokens)
    about |= {"attention": None, "ablation": None, "induction": None}
    if not hasattr(model.family, "activations"):
        return about, None
    weights_LHTS, means_LHC = map(np.asarray, attention.seen(model.cfg, model.fitted, text.tokens))
    of_heads = attention.summary(weights_LHTS)
    about["attention"] = {"backend": model.cfg.attention, "backend_of_run": backend}
    about["attention"] |= {key: _rounded(value) for key, value in of_heads.items()}
    show("induction")
    about["induction"] = _induction(model, how.seed)
    if how.ablate:
        about["ablation"] = _ablation(model, text, means_LHC, how.neurons, show)
    return about, weights_LHTS


def _rounded(x: Any) -> Any:
    """Numbers as lists with six decimals; those that are not finite are None."""
    x = np.asarray(x, np.float64).round(6)
    return np.where(np.isfinite(x), x, None).tolist()


def _readings(model: ScoredModel, text: Text) -> readings.Reading:
    """The readings [N, T] after each layer; the last is the model's own."""
    targets = np.append(text.tokens[1:], 0)  # what follows the last token is not known
    if model.counted:
        p_TV = [
            model.family.distribution(model.fitted, text.tokens[:end])
            for end in range(1, len(text.tokens) + 1)
        ]
        with np.errstate(divide="ignore"):
            found = readings.read(jnp.log(np.stack(p_TV)), targets, min(TOP, len(p_TV[0])))
        return jax.tree.map(lambda x: np.asarray(x)[None], found)
    family, top = model.name, min(TOP, model.cfg.vocab_size)
    found = readings.of_layers(family, model.cfg, top, model.fitted, text.tokens, targets)
    return jax.tree.map(np.asarray, found)


def _of_text(model: ScoredModel, text: Text, read: readings.Reading) -> dict[str, Any]:
    """The tokens with what the model said of each, and of what would follow the last."""
    last = jax.tree.map(lambda x: x[-1], read)
    scored = slice(text.start - 1, -1)  # a reading is of the token after its place
    nats = last.nats_T[scored].astype(float)
    ids = text.tokens[text.start :].tolist()
    named = lambda tokens: [name(model.tokenizer, int(token)) for token in tokens]  # noqa: E731
    spelled = b"".join(model.tokenizer.pieces[token] for token in ids)
    bits = float(nats.sum()) / math.log(2)
    known = model.tokenizer.token_bytes is not None and len(spelled) and math.isfinite(bits)
    return {
        "start": named(text.tokens[: text.start]),
        "cut": text.cut,
        "tokens": ids,
        "pieces": named(ids),
        "nats": _rounded(nats),
        "entropy": _rounded(last.entropy_T[scored]),
        "rank": last.rank_T[scored].tolist(),
        "top": [named(row) for row in last.top_TK[scored]],
        "top_p": _rounded(np.exp(last.logp_TK[scored])),
        "loss": finite(nats.mean()),
        "bits_per_byte": bits / len(spelled) if known else None,
        "next": {"top": named(last.top_TK[-1]), "top_p": _rounded(np.exp(last.logp_TK[-1]))},
    }


def _lens(model: ScoredModel, text: Text, read: readings.Reading) -> dict[str, Any]:
    """The likeliest token after each layer, its probability, the nats of the text's own token, and
    the mean of these."""
    scored = slice(text.start - 1, -1)
    nats_NT = read.nats_T[:, scored]
    names = [
        [name(model.tokenizer, int(token)) for token in row] for row in read.top_TK[:, scored, 0]
    ]
    embeddings = len(nats_NT) - model.cfg.n_layers  # 1 if the embedding is read too, else 0
    return {
        "after": ["embedding"] * embeddings + [f"layer {n + 1}" for n in range(model.cfg.n_layers)],
        "loss": _rounded(nats_NT.mean(-1)),
        "nats": _rounded(nats_NT),
        "top": names,
        "top_p": _rounded(np.exp(read.logp_TK[:, scored, 0])),
    }


def _induction(model: ScoredModel, seed: int) -> dict[str, Any]:
    """The prefix matching score of each head on random tokens that are repeated once, and the loss
    on the two halves, with standard errors over rows."""
    # Byte tokenizers have tokens that no training text has, and hardly any text lacks letters.
    candidates, start = printable_tokens(model.tokenizer, words=True), model.start
    n = min(HALF, len(candidates), (model.cfg.context_length - len(start)) // 2)
    if n < 4:
        return {"reason": "the context or the vocabulary holds fewer than 4 tokens to repeat"}
    rng = np.random.default_rng(seed)
    tokens_BT = induction.repeated(rng, candidates, start, n, ROWS)
    parts = [
        induction.measured(
            model.cfg, len(start), n, model.fitted, tokens_BT[first : first + AT_ONCE]
        )
        for first in range(0, ROWS, AT_ONCE)
    ]
    matching, previous, halves = zip(*parts, strict=True)
    matching_LBH, previous_LBH = np.concatenate(matching, 1), np.concatenate(previous, 1)
    of_rows_B2 = np.concatenate(halves).mean(-1)
    error = lambda x, axis: x.std(axis, ddof=1) / math.sqrt(x.shape[axis])  # noqa: E731
    saved_B = of_rows_B2[:, 0] - of_rows_B2[:, 1]
    return {
        "tokens": n,
        "rows": ROWS,
        "uniform": float((1 / (len(start) + n + 1 + np.arange(n))).mean()),
        "prefix_matching": _rounded(matching_LBH.mean(1)),
        "prefix_matching_se": _rounded(error(matching_LBH, 1)),
        "previous_token": _rounded(previous_LBH.mean(1)),
        "first_half": float(of_rows_B2[:, 0].mean()),
        "second_half": float(of_rows_B2[:, 1].mean()),
        "saved": float(saved_B.mean()),
        "saved_se": float(error(saved_B, 0)),
    }


def _ablation(
    model: ScoredModel, text: Text, means_LHC: np.ndarray, neurons: int, show: Callable[[str], None]
) -> dict[str, Any]:
    """The change in loss of the text, nats per token, of each head and of the neurons of the
    largest estimated effect. Layers and neurons count from 1."""
    cfg, params, at = model.cfg, model.fitted, (text.tokens, text.start)
    base = float(jax.jit(ablation.loss, static_argnums=(0, 3))(cfg, params, *at, {}))

    def changes(site: str, places: np.ndarray, values: np.ndarray) -> np.ndarray:
        say = lambda done: show(f"ablating {site} {bar(done / max(len(places), 1))}")  # noqa: E731
        return ablation.losses(cfg, params, *at, site, places, values, say) - base

    heads = np.array(list(np.ndindex(cfg.n_layers, cfg.n_heads)))
    means = means_LHC.reshape(len(heads), -1)
    of_heads = {"zero": changes("heads", heads, 0 * means), "mean": changes("heads", heads, means)}
    found = ablation.estimates(cfg, text.start, params, text.tokens)
    zero_LF, mean_LF, activation_LF = map(np.asarray, found)
    largest = np.argsort(-np.abs(zero_LF), axis=None, kind="stable")[:neurons]
    places = np.stack(np.unravel_index(largest, zero_LF.shape), axis=1)
    values = activation_LF.ravel()[largest]
    zero, mean = changes("neurons", places, 0 * values), changes("neurons", places, values)
    listed = [
        {
            "layer": int(layer) + 1, "neuron": int(unit) + 1, "zero": float(zero[n]),
            "mean": float(mean[n]), "estimated_zero": float(zero_LF[layer, unit]),
            "estimated_mean": float(mean_LF[layer, unit]), "activation": float(values[n]),
        }
        for n, (layer, unit) in enumerate(places)
    ]  # fmt: skip
    shape = cfg.n_layers, cfg.n_heads
    return {
        "loss": base,
        "heads": {key: _rounded(value.reshape(shape)) for key, value in of_heads.items()},
        "neurons": listed,
    }
