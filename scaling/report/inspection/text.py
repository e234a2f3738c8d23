"""The parts of the page about the tokens: what the model said of each, and after each layer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from scaling.report.number_text import escape, nats

MOST = 6.0  # nats at which the colour of a token ends


def token_span(piece: str, share: float, tip: str, place: int) -> str:
    """One token of a strip, coloured by a share in [0, 1]. A line break follows a token that ends
    with one."""
    end = "<br>" if piece.endswith("\\n") else ""
    style = f"--s:{max(0.0, min(1.0, share)):.2f}"
    return (
        f'<span class="token" data-place="{place}" style="{style}" title="{escape(tip)}">'
        f"{escape(piece)}</span>{end}"
    )


def tokens(about: Mapping[str, Any]) -> str:
    """The text, coloured by how surprising each token was, and the table of the numbers."""
    spans, rows = [], []
    columns = (about[name] for name in ("pieces", "nats", "entropy", "rank", "top", "top_p"))
    for place, (piece, value, entropy, rank, top, top_p) in enumerate(zip(*columns, strict=True)):
        shown = loss(value)
        tip = f"{piece}: {shown} nats, rank {rank:,}"
        spans.append(token_span(piece, (MOST if value is None else value) / MOST, tip, place))
        rows.append(
            f"<tr><td><code>{escape(piece)}</code></td><td>{probability(value)}</td>"
            f"<td>{shown}</td><td>{nats(entropy)}</td><td>{rank:,}</td>"
            f"<td>{listed(top, top_p)}</td></tr>"
        )
    before = " ".join(f"<code>{escape(piece)}</code>" for piece in about["start"])
    head = "".join(
        f"<th>{name}</th>"
        for name in ("token", "probability", "nats", "entropy, nats", "rank", "likeliest tokens")
    )
    after = about["next"]
    return (
        '<section class="panel" id="tokens"><h2>Tokens</h2>'
        f'<p class="quiet">The text comes after {before}. The darker a token, the less the model '
        "expected it. Point at one, tap it, or go through them with the arrow keys.</p>"
        '<div class="legend"><span>0 nats</span><span class="surprise" aria-hidden="true"></span>'
        f"<span>{MOST:g} or more</span></div>"
        '<div class="strip" id="strip" tabindex="0" role="group" aria-label="The tokens of the '
        f'text">{"".join(spans)}</div>'
        '<div class="detail" id="detail" aria-live="polite"></div>'
        f"<p>After the text: {listed(after['top'], after['top_p'])}</p>"
        "<details><summary>All tokens as a table</summary>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        "</table></div></details></section>"
    )


def probability(value: float | None) -> str:
    """exp(-nats) as a percentage."""
    p = 0.0 if value is None else math.exp(-value)
    return f"{p:.1%}" if p >= 0.001 or not p else f"{p:.1e}"


def loss(value: float | None) -> str:
    """Nats; ∞ for a token without any probability."""
    return "∞" if value is None else nats(value)


def listed(pieces: Sequence[str], numbers: Sequence[float], form: str = "{:.1%}") -> str:
    """Tokens, each with its number in small print: by default a probability."""
    return " ".join(
        f'<span class="near"><code>{escape(piece)}</code> <small>{form.format(n)}</small></span>'
        for piece, n in zip(pieces, numbers, strict=True)
    )


def lens(about: Mapping[str, Any]) -> str:
    """The logit lens: the loss after each layer, and the likeliest token at each place."""
    found = about["lens"]
    worst = max([value for value in found["loss"] if value is not None], default=1.0) or 1.0
    bars = "".join(
        f"<tr><td>{escape(name)}</td><td>{loss(value)}</td>"
        '<td class="bar"><span '
        f'style="width:{100 * (value or worst) / worst:.1f}%"></span></td></tr>'
        for name, value in zip(found["after"], found["loss"], strict=True)
    )
    head = "".join(f"<th>{escape(name)}</th>" for name in ("next token", *found["after"]))
    rows = []
    for place, piece in enumerate(about["pieces"]):
        cells = "".join(
            f'<td class="cell{" right" if top[place] == piece else ""}" style="--s:{p[place]:.2f}" '
            f'title="{p[place]:.1%}"><code>{escape(top[place])}</code> '
            f"<small>{p[place]:.0%}</small></td>"
            for top, p in zip(found["top"], found["top_p"], strict=True)
        )
        rows.append(f"<tr><th><code>{escape(piece)}</code></th>{cells}</tr>")
    return (
        '<section class="panel" id="lens"><h2>Logit lens</h2>'
        '<p class="quiet">What the model would say if it ended after a layer: the head reads the '
        "state there (nostalgebraist 2020). Each row is a token of the text; the cells have the "
        "likeliest token at its place, darker where it is more probable, with a frame where it is "
        "right.</p>"
        '<table class="bars"><thead><tr><th>after</th><th>nats per token</th><th></th></tr></thead>'
        f"<tbody>{bars}</tbody></table>"
        f'<div class="scroll"><table class="cells"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )
