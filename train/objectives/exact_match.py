"""Next-token prediction of target sentences, measured by whole sentences too.

A sentence matches if the most likely token is the right one at each of its places, the end
included. Greedy decoding writes those sentences and gets all others wrong, so it need not run. The
rows of an evaluation hold one pair each.
"""

from typing import Any

import jax

from model.families import Trained
from train.objectives import next_token
from train.objectives.cross_entropy import cross_entropy
from train.objectives.metrics import Metric

FIELDS, NEEDS, TRAINED = next_token.FIELDS, next_token.NEEDS, next_token.TRAINED
configure, loss = next_token.configure, next_token.loss

BINS = (8, 16, 24, 32, 48)  # tokens of the longest target in each bin but the last
SHARE = dict(of="matches", per="sentences", better="higher")


def _bins() -> dict[str, tuple[int, float]]:
    """Name → (tokens of the shortest target, of the longest)."""
    firsts = [bound + 1 for bound in (0, *BINS)]
    named = {f"{first}_{last}": (first, last) for first, last in zip(firsts, BINS, strict=False)}
    return named | {f"{firsts[-1]}_up": (firsts[-1], float("inf"))}


METRICS = next_token.METRICS | {
    "accuracy": Metric("share of tokens", of="right", per="weights", better="higher"),
    "exact_match": Metric("share of sentences", **SHARE),
} | {
    f"exact_match_{name}": Metric(
        "share of sentences", of=f"matches_{name}", per=f"sentences_{name}", better="higher"
    )
    for name in _bins()
}  # fmt: skip


def evaluate(
    model: Trained, params: dict, frozen: dict, cfg: Any, batch: dict
) -> dict[str, jax.Array]:
    """The sums of `next_token` for each row [B], right tokens, and whether the sentence matches, in
    total and by the length of its target without the end token."""
    logits_BTV = model.logits(
        cfg.model, model.head(cfg.model, params), model.hidden(cfg.model, params, batch)
    )
    nll_BT, _ = cross_entropy(logits_BTV, batch["targets"])
    w_BT = batch["weights"]
    counted_B, right_B = w_BT.sum(-1), ((logits_BTV.argmax(-1) == batch["targets"]) * w_BT).sum(-1)
    sentences_B = (counted_B > 0).astype(w_BT.dtype)
    matches_B = sentences_B * (right_B == counted_B)
    sums = {"nats": (nll_BT * w_BT).sum(-1), "weights": counted_B, "right": right_B}
    sums |= {"sentences": sentences_B, "matches": matches_B}
    for name, (first, last) in _bins().items():
        within_B = (counted_B - 1 >= first) & (counted_B - 1 <= last)
        sums |= {
            f"sentences_{name}": sentences_B * within_B,
            f"matches_{name}": matches_B * within_B,
        }
    return sums | ({"bytes": batch["bytes"]} if "bytes" in batch else {})
