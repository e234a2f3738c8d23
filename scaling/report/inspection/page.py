"""The page of what a model makes of one text. It works offline."""

import base64
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from scaling.drafts import as_path, write
from scaling.report import word_map
from scaling.report.frame import embedded, frame, missing_package
from scaling.report.inspection import heads, text
from scaling.report.number_text import escape, label, nats
from scaling.report.page import card, reproduction

MAP = "embedding-map"  # the id of its element


def write_page(folder: str | Path, about: Mapping[str, Any], weights_LHTS: Any = None) -> Path:
    """Writes index.html into `folder`; returns its path. `about` is what `isoflop inspect --json`
    writes, and the weights are those of the attention of all heads, or None."""
    return write(as_path(folder) / "index.html", page(about, weights_LHTS))


def page(about: Mapping[str, Any], weights_LHTS: np.ndarray | None = None) -> str:
    """The whole page as text."""
    name = label(PurePath(about["run"]).name)
    parts = [
        f"<h1>Inside {escape(name)}</h1>",
        f'<p class="quiet">{subtitle(about)}</p>',
        f'<div class="cards">{cards(about)}</div>',
        text.tokens(about),
        text.lens(about) if about["lens"] else "",
        heads.attention(about) if about["attention"] else "",
        heads.ablated(about) if about["ablation"] else "",
        heads.induction(about) if about["induction"] else "",
        neighbours(about) if about["embedding"] else "",
        '<section class="panel" id="made" data-title="Source">'
        f"{reproduction(about.get('made'))}</section>",
    ]
    drawable = about["embedding"] and not missing_package()
    specs = {MAP: word_map.spec(about["embedding"]["map"])} if drawable else {}
    data = embedded("inspection", carried(about, weights_LHTS))
    return frame(f"Inside {name}", "\n".join(filter(None, parts)), specs, data)


def carried(about: Mapping[str, Any], weights_LHTS: np.ndarray | None) -> dict[str, Any]:
    """What the code of the page reads. Of the weights, one byte each: 255 w of the keys up to each
    query, head by head, as base64. The page opens with the head of the highest induction score."""
    names = ("pieces", "nats", "entropy", "rank", "top", "top_p", "start")
    content = {name: about[name] for name in names}
    if weights_LHTS is None:
        return content
    L, H, T, _ = weights_LHTS.shape
    seen = weights_LHTS[:, :, *np.tril_indices(T)]
    codes = np.rint(255 * np.clip(seen, 0, 1)).astype(np.uint8)
    coded = base64.b64encode(codes.tobytes()).decode()
    chosen = 0
    if about["induction"] and "prefix_matching" in about["induction"]:
        chosen = int(np.argmax(about["induction"]["prefix_matching"]))
    shape = {"layers": L, "heads": H, "length": T, "chosen": chosen}
    return content | {"attention": shape | {"codes": coded}}


def subtitle(about: Mapping[str, Any]) -> str:
    """What was looked at."""
    count = len(about["tokens"])
    cut = f", the first {count:,} of a longer text" if about["cut"] else ""
    family = about["family"].replace("_", "–")
    step = f" at step {about['step']:,}" if about["step"] else ""
    return escape(f"A {family} model{step}, and a text of {count:,} tokens{cut}.")


def cards(about: Mapping[str, Any]) -> str:
    """The main numbers."""
    shown = [card("Loss", text.loss(about["loss"]), "nats per token of the text")]
    if about["bits_per_byte"] is not None:
        shown.append(card("Bits per byte", nats(about["bits_per_byte"]), "of the same text"))
    first = sum(rank == 1 for rank in about["rank"])
    note = f"{first:,} of {len(about['rank']):,} tokens were the likeliest"
    shown.append(card("Best guess right", f"{first / len(about['rank']):.0%}", note))
    if about["ablation"]:
        zero = np.array(about["ablation"]["heads"]["zero"])
        layer, head = np.unravel_index(zero.argmax(), zero.shape)
        note = f"layer {layer + 1}, head {head + 1}: nats per token that are lost without it"
        shown.append(card("Most needed head", f"{zero.max():+.3f}", note))
    if about["induction"] and "saved" in about["induction"]:
        found = about["induction"]
        score = np.array(found["prefix_matching"])
        layer, head = np.unravel_index(score.argmax(), score.shape)
        note = f"layer {layer + 1}, head {head + 1}; equal attention has {found['uniform']:.2f}"
        shown.append(card("Induction score", f"{score.max():.2f}", note))
    return "\n".join(shown)


def neighbours(about: Mapping[str, Any]) -> str:
    """The map of the embedding, and the nearest tokens of those of the text."""
    drawn, listed = about["embedding"]["map"], about["embedding"]["neighbours"]
    caption = (
        f"The tokens of the text and others of the vocabulary, {len(drawn['words'])} in all: their "
        f"vectors in the embedding, scaled to length 1, {drawn['projection']}. Scroll to zoom, "
        "drag to move."
    )
    figure = f'<div class="chart" id="{MAP}"></div>' if not missing_package() else ""
    rows = "".join(
        f"<tr><td><code>{escape(row['token'])}</code></td>"
        f"<td>{text.listed(row['nearest'], row['cosine'], '{:.2f}')}</td></tr>"
        for row in listed
    )
    return (
        f'<section class="panel" id="embedding"><h2>Embedding</h2>{figure}'
        f'<p class="quiet">{escape(caption)}</p>'
        f"<details><summary>Nearest tokens of {len(listed)} tokens of the text, with their "
        "cosines</summary>"
        '<div class="scroll"><table '
        'class="wrapped"><thead><tr><th>token</th><th>nearest</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details></section>"
    )
