"""The parts of the page about heads and neurons: attention, ablations, induction."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scaling.report.number_text import escape, nats


def attention(about: Mapping[str, Any]) -> str:
    """The place of the pictures, which the page draws, and a table of all heads."""
    found = about["attention"]
    columns = {
        "entropy, nats": found["entropy"],
        "first token": found["first"],
        "token before": found["previous"],
    }
    if about["induction"] and "prefix_matching" in about["induction"]:
        columns["induction score"] = about["induction"]["prefix_matching"]
    if about["ablation"]:
        columns["zero ablation"] = about["ablation"]["heads"]["zero"]
        columns["mean ablation"] = about["ablation"]["heads"]["mean"]
    own = found["backend_of_run"]
    other = f"; the run has model.attention={escape(own)}, which rounds differently" * (
        own not in ("auto", found["backend"])
    )
    head = "".join(f"<th>{escape(name)}</th>" for name in ("head", *columns))
    rows = "".join(
        f"<tr><td>layer {layer + 1}, head {unit + 1}</td>"
        + "".join(f"<td>{values[layer][unit]:.3f}</td>" for values in columns.values())
        + "</tr>"
        for layer, unit in np.ndindex(*np.shape(found["entropy"]))
    )
    return (
        '<section class="panel" id="attention"><h2>Attention</h2>'
        '<p class="quiet">Each picture is one head: rows are the tokens that read, from the first '
        "at "
        "the top, columns the tokens that are read. Choose a head, then a token. The weights are "
        f"computed by plain attention ({escape(found['backend'])}){other}.</p>"
        '<div id="heads"><noscript>The pictures need JavaScript; the table below does '
        "not.</noscript></div>"
        '<details><summary>All heads as a table</summary><p class="quiet">Means over the tokens: '
        "the "
        "entropy of the weights, and the weight of the first token and of the token before. The "
        "induction score is of repeated random tokens. Ablations: the change in loss without the "
        f'head, nats per token.</p><div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details></section>"
    )


def ablated(about: Mapping[str, Any]) -> str:
    """The change in loss without each head, and without the neurons that were tried."""
    found = about["ablation"]
    grids = "".join(
        f"<figure><h3>{title}</h3>{grid(found['heads'][key])}</figure>"
        for key, title in (("zero", "Set to zero"), ("mean", "Set to its mean"))
    )
    rows = "".join(
        f"<tr><td>layer {one['layer']}, neuron {one['neuron']}</td><td>{one['zero']:+.4f}</td>"
        f"<td>{one['mean']:+.4f}</td><td>{one['estimated_zero']:+.4f}</td>"
        f"<td>{one['estimated_mean']:+.4f}</td><td>{one['activation']:.3f}</td></tr>"
        for one in found["neurons"]
    )
    names = (*("neuron", "zero", "mean", "zero, estimated", "mean, estimated", "mean activation"),)
    head = "".join(f"<th>{name}</th>" for name in names)
    neurons = (
        f"<h3>Neurons</h3><p class='quiet'>The {len(found['neurons'])} neurons whose gradient "
        "times activation is the largest. The estimates are these products: the change in loss to "
        "first "
        f'order.</p><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>'
        "</table></div>"
    )
    return (
        '<section class="panel" id="ablations"><h2>Ablations</h2>'
        '<p class="quiet">The change in loss, nats per token of this text, when one head alone is '
        f"switched off; with all heads it is {nats(found['loss'])}. A mean ablation sets the head "
        "to "
        "its mean output over the text. Rows are layers, columns heads.</p>"
        f'<div class="beside">{grids}</div>{neurons if rows else ""}</section>'
    )


def grid(values: Sequence[Sequence[float]], most: float = 0.0, sign: str = "+") -> str:
    """A table of layers and heads, each cell coloured by its share of `most`, or else of the
    largest size."""
    largest = most or max((abs(value) for row in values for value in row), default=0) or 1
    head = "".join(f"<th>{n + 1}</th>" for n in range(len(values[0])))
    rows = []
    for layer, row in enumerate(values):
        cells = "".join(
            f'<td class="cell{" less" if value < 0 else ""}" '
            f'style="--s:{abs(value) / largest:.2f}">'
            f"{value:{sign}.{decimals(largest)}f}</td>"
            for value in row
        )
        rows.append(f"<tr><th>{layer + 1}</th>{cells}</tr>")
    return (
        f'<div class="scroll wide"><table class="cells"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def decimals(largest: float) -> int:
    """Decimals of the cells of a grid: three digits of the largest."""
    return int(np.clip(2 - np.floor(np.log10(largest)), 2, 5)) if largest < 1 else 2


def induction(about: Mapping[str, Any]) -> str:
    """The induction score of each head, and what repetition saves."""
    found = about["induction"]
    opened = '<section class="panel" id="induction"><h2>Induction heads</h2>'
    if "reason" in found:
        return f'{opened}<p class="quiet">Not measured: {escape(found["reason"])}.</p></section>'
    return (
        f'{opened}<p class="quiet">{found["tokens"]} random tokens with a letter or '
        "a digit, then the same again, "
        f"{found['rows']} times. The score of a head is the mean weight that a token of the second "
        "half gives the token after its first occurrence, which is the one to predict (the prefix "
        f"matching score of Olsson et al. 2022). Equal attention to all tokens has "
        f"{found['uniform']:.3f}. Rows are layers, columns heads.</p>"
        f"{grid(found['prefix_matching'], most=1.0, sign='')}"
        f"<p>The first half costs {nats(found['first_half'])} nats per token, the second "
        f"{nats(found['second_half'])}: repetition saves {found['saved']:.4f} ± "
        f"{found['saved_se']:.4f}.</p></section>"
    )
