"""The HTML page of an index: what it saves, and what it is worth. It works offline."""

import json
from pathlib import Path
from typing import Any

from scaling.drafts import as_path, write
from scaling.report.comparison_page import section
from scaling.report.frame import frame, missing_package
from scaling.report.number_text import amount, escape, label, nats, three_digits
from scaling.report.page import draw, figure_block, remove_page, table_row

TITLE = "What an index saves"
METHODS = {
    "knn": "kNN language model (Khandelwal et al. 2020): λ p_kNN + (1 − λ) p_LM, where p_kNN is "
    "the softmax of minus the squared distances, divided by a temperature, of the nearest stored "
    "states. The keys are the states after the last norm; the paper stores the input of the last "
    "block's MLP. λ and the temperature have the lowest loss on the first half of the text; all "
    "losses here are of the second half.",
    "in_context": "Retrieval in context (Ram et al. 2023): every few tokens, the passages that "
    "match the last tokens best are put before the text and take the place of its oldest tokens. "
    "Nothing is tuned. Passages of documents that are scored are left out.",
}
OF_ALL = (
    "Smaller indexes are random parts of the largest. Standard errors are paired by text. What an "
    "index is worth follows from the fitted law L(N, D) = E + A N^-α + B D^-β: the factor x with "
    "A (x N)^-α = A N^-α − saved; ∞ where no size saves as much on these tokens. Its interval "
    "holds 90 % of the law's bootstrap draws, each with a draw of the saving from its standard "
    "error."
)


def write_page(folder: str | Path, about: dict[str, Any]) -> Path:
    """Writes retrieval.json, the figures as PNG and SVG, then index.html; returns its path. If the
    plotting packages are not installed, only the numbers and their path."""
    folder = as_path(folder)
    numbers = write(folder / "retrieval.json", json.dumps(about, indent=1) + "\n")
    if missing_package():
        remove_page(folder)
        return numbers
    from scaling.report.retrieval.figures import figures

    drawn = figures(about)
    specs = draw(folder, drawn)
    blocks = "\n".join(figure_block(figure) for figure in drawn)
    index, beyond = about["index"], beyond_law(about)
    warning = f"<p>{escape(beyond)}</p>\n" if beyond else ""
    subtitle = (
        f"{label(about['run'])} with {label(index['path'])} ({index['kind']}), on {about['data']}"
    )
    body = (
        f"<h1>{TITLE}</h1>\n<p>{escape(subtitle)}</p>\n"
        f'<div class="figures">{blocks}</div>\n{table(about)}\n{warning}'
        f'<section class="panel"><h2>Methods</h2><p>{escape(METHODS[about["method"]])}</p>'
        f"<p>{escape(OF_ALL)}</p></section>"
    )
    return write(folder / "index.html", frame(TITLE, body, specs))


def times(value: float | None) -> str:
    """A factor; ∞ where no size is enough."""
    return "∞" if value is None else three_digits(value)


def worth_text(worth: dict[str, Any]) -> str:
    """'1.8 [1.3, ∞]': how many times larger a model, with its interval if there is one."""
    span = f" [{times(worth['lo'])}, {times(worth['hi'])}]" if worth["draws"] else ""
    return times(worth["value"]) + span


def beyond_law(about: dict[str, Any]) -> str:
    """A warning if the largest model that an index is worth exceeds those of the law; '' if not."""
    _, largest = about.get("law", {}).get("range", {}).get("params", (0, None))
    factors = [row["worth"]["value"] for row in about["sizes"] if "worth" in row]
    factor = max((one for one in factors if one is not None), default=0.0)
    if largest is None or factor * about["params"] <= largest:
        return ""
    return (
        f"warning: a model {times(factor)} times larger has {amount(factor * about['params'])} "
        f"parameters, and the law was fitted up to {amount(largest)}: this is an extrapolation"
    )


def table(about: dict[str, Any]) -> str:
    """A row for each size of the index."""
    knn, law = about["method"] == "knn", "law" in about
    names = ["tokens of the index", "loss alone", "loss with it", "saved"]
    names += ["λ"] * knn + ["worth × parameters"] * law
    rows = []
    for row in about["sizes"]:
        error = "" if row["saved_se"] is None else f" ± {nats(row['saved_se'])}"
        cells = [amount(row["tokens"]), nats(row["base"]), nats(row["loss"])]
        cells.append(nats(row["saved"]) + error)
        if knn:
            cells.append(f"{row['weight']:.2f}")
        if law:
            cells.append(worth_text(row["worth"]))
        rows.append(table_row([*map(escape, cells)]))
    return section("Sizes of the index", names, rows)
