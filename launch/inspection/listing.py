"""The lines that `isoflop inspect` prints: the main numbers of its page."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from scaling.report.inspection.text import loss
from scaling.report.number_text import nats

SHOWN = 3  # heads and neurons


def show(about: Mapping[str, Any]) -> None:
    """Prints them."""
    for line in lines(about):
        print(line)


def lines(about: Mapping[str, Any]) -> list[str]:
    """One line a part."""
    count = len(about["tokens"])
    found = [f"{count:,} tokens, {loss(about['loss'])} nats per token"]
    if about["bits_per_byte"] is not None:
        found[0] += f", {nats(about['bits_per_byte'])} bits per byte"
    if about["cut"]:
        found[0] += f"; the text goes on: only its first {count:,} tokens were read"
    if lens := about["lens"]:
        parts = zip(lens["after"], lens["loss"], strict=True)
        found.append("logit lens: " + ", ".join(f"{name} {loss(value)}" for name, value in parts))
    if ablation := about["ablation"]:
        found += _ablations(ablation)
    if (induction := about["induction"]) and "saved" in induction:
        best = _best(induction["prefix_matching"], "{:.2f}")
        found.append(f"induction: {best}; equal attention has {induction['uniform']:.3f}")
        found.append(
            f"repeated random tokens: {nats(induction['first_half'])} nats the first time, "
            f"{nats(induction['second_half'])} the second"
        )
    return found


def _ablations(ablation: Mapping[str, Any]) -> list[str]:
    heads = _best(ablation["heads"]["zero"], "{:+.4f}")
    found = [f"zero ablation, nats per token: {heads}"]
    ordered = sorted(ablation["neurons"], key=lambda one: -abs(one["zero"]))[:SHOWN]
    if ordered:
        listed = ", ".join(
            f"layer {one['layer']} neuron {one['neuron']} {one['zero']:+.4f}" for one in ordered
        )
        found.append(f"of neurons: {listed}")
    return found


def _best(values_LH: list, text: str) -> str:
    """The heads of the largest values, best first."""
    values = np.array(values_LH)
    best = np.argsort(-values, axis=None, kind="stable")[:SHOWN]
    places = zip(*np.unravel_index(best, values.shape), strict=True)
    return ", ".join(
        f"layer {row + 1} head {head + 1} {text.format(values[row, head])}" for row, head in places
    )
