"""The HTML page of a study of reward over-optimisation. It works offline."""

import json
from pathlib import Path
from typing import Any

from scaling.drafts import as_path, write
from scaling.laws.law import symbols
from scaling.report.comparison_page import section
from scaling.report.frame import frame, missing_package
from scaling.report.number_text import escape, interval_html, label, three_digits
from scaling.report.page import draw, figure_block, remove_page, table_row

TITLE = "Reward over-optimisation"
METHOD = (
    "Best-of-n is estimated from all samples of a prompt, without bias (Nakano et al. 2021, "
    "appendix I); its KL is log n - (n - 1)/n, or less where answers repeat. Rewards are measured "
    "from their mean under the policy that drew the samples. The laws are those of Gao et al. "
    "2022, fitted by least squares to the curve without n = 1. Intervals hold 90 % of bootstrap "
    "draws: of prompts for best-of-n, of residuals for policies. A law fits better if the interval "
    "of the difference of the two root mean squares lies on one side of 0. A curve turns over if "
    "its peak lies above its end by more than two standard errors, where each half of the prompts "
    "is measured at the peak of the other half."
)


def write_page(folder: str | Path, study: dict[str, Any]) -> Path:
    """Writes overoptimisation.json, the figures as PNG and SVG, then index.html; returns its path.
    If the plotting packages are not installed, only the numbers and their path."""
    folder = as_path(folder)
    numbers = write(folder / "overoptimisation.json", json.dumps(study, indent=1) + "\n")
    if missing_package():
        remove_page(folder)
        return numbers
    from scaling.report.proxies.proxy_figures import figures

    drawn = figures(study)
    specs = draw(folder, drawn)
    blocks = "\n".join(figure_block(figure) for figure in drawn)
    tables = "\n".join(table(study[key], key) for key in ("samples", "policies") if study[key])
    command = escape((study.get("made") or {}).get("command", ""))
    body = (
        f'<h1>{TITLE}</h1>\n<div class="figures">{blocks}</div>\n{tables}\n'
        f'<section class="panel"><h2>Methods</h2><p>{escape(METHOD)}</p>'
        f"<pre>{command}</pre></section>"
    )
    return write(folder / "index.html", frame(TITLE, body, specs))


def turns_over(part: dict[str, Any]) -> bool:
    """Whether the gold reward falls after its peak by more than two standard errors."""
    falls = part["falls"]
    return falls["se"] is not None and falls["value"] > 2 * falls["se"]


def fits(part: dict[str, Any], name: str) -> str:
    """What is said of a law beside the other one; '' of the one that fits worse."""
    if part["better"] is None:
        return "not distinguishable"
    return "fits better" if name == part["better"] else ""


def table(parts: list[dict[str, Any]], key: str) -> str:
    """One row for each proxy and each form of the law."""
    rows = []
    for part in parts:
        for name, law in part["laws"].items():
            cells = [
                escape(label(part["name"])),
                escape(symbols(law["law"]))
                + (f" ({verdict})" if (verdict := fits(part, name)) else ""),
                interval_html(law["alpha"]),
                interval_html(law["beta"]),
                three_digits(law["rmse"]),
            ]
            if key == "samples":
                peak = part["peak"]
                turned = "turns over" if turns_over(part) else "no turn within these n"
                cells.append(f"n = {peak['n']:,}, {three_digits(peak['gold'])}; {turned}")
            rows.append(table_row(cells))
    names = ["proxy", "law", "α", "β", "root mean square"] + ["peak"] * (key == "samples")
    return section({"samples": "Best-of-n", "policies": "Policies"}[key], names, rows)
