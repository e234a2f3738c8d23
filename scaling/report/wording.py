"""The tables and paragraphs of the report, from law.json."""

from typing import Any

from scaling.fits.isoflop import INTERPOLATIONS
from scaling.fits.sensitivity import FEW_DRAWS
from scaling.report.number_text import (
    amount,
    deviation,
    escape,
    interval_html,
    nats,
    prose,
    setting,
    three_digits,
)

LOSSES = {"huber": "Huber losses (δ = {delta})", "squares": "squares"}
COUNTS = {
    "total": "all parameters",
    "non_embedding": "the parameters without embeddings",
    "with_head": "the parameters without the input embedding, with the head",
}
SPENT = {
    "6nd": "6 N D unless the table has it",
    "kaplan": "counted as in Kaplan et al. 2020",
    "chinchilla": "counted as in Hoffmann et al. 2022, appendix F",
    "palm": "counted as in Chowdhery et al. 2022, appendix B",
}


def warnings(law: dict[str, Any]) -> str:
    """The warnings with their thresholds and sources, or a line that says that none applies."""
    if not law["warnings"]:
        return '<p class="quiet">No warning applies to these data.</p>'
    items = "".join(
        f"<li><b>{prose(w['message'])}</b><br><small>warned when {prose(w['threshold'])}; "
        f"{escape(w['source'])}</small></li>"
        for w in law["warnings"]
    )
    return f'<ul class="warnings">{items}</ul>'


def constants(law: dict[str, Any]) -> str:
    """The table of fitted laws."""
    rows = []
    for key, name in (
        ("parametric", "Parametric"),
        ("isoflop", "Iso-FLOP"),
        ("frontier", "Frontier"),
    ):
        part = law[key]
        formula = {"isoflop": "N* ∝ C^a, D* ∝ C^b"}.get(key, part.get("law", ""))
        if "reason" in part:
            rows.append(
                f'<tr><th>{name}</th><td colspan="2" class="reason">'
                f"No law: {prose(part['reason'])}</td></tr>"
            )
            continue
        of_part = [n for n, v in part.items() if isinstance(v, dict) and "value" in v]
        names = part.get("constants", of_part)
        fixed = part.get("fixed", {})
        values = "".join(
            f"<span><i>{prose(n)}</i> = {interval_html(part[n])}"
            + ("<small> fixed</small>" if n in fixed else "")
            + "</span>"
            for n in names
        )
        rows.append(
            f'<tr><th>{name}</th><td>{prose(formula)}</td><td class="flow">{values}</td></tr>'
        )
    return f'<table class="laws">{"".join(rows)}</table>'


def table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    """An HTML table. Cells are already HTML."""
    top = "".join(f"<th>{name}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def panel(name: str, title: str, note: str, content: str) -> str:
    inside = f'<h2>{title}</h2><p class="quiet">{note}</p>{content}'
    return f'<section class="panel tables" id="{name}">{inside}</section>'


def folded(name: str, title: str, note: str, content: str) -> str:
    """A panel of which only the title shows until it is opened."""
    inside = f'<summary><h2>{title}</h2></summary><p class="quiet">{note}</p>{content}'
    return f'<details class="panel tables" id="{name}">{inside}</details>'


def optimum(law: dict[str, Any]) -> str:
    """The table of optimal splits of compute."""
    if not law["optimum"]:
        return ""
    rows = [
        [three_digits(row["flops"])
         + (" <small>extrapolated</small>" if row["extrapolation"] > 1 else ""),
         interval_html(row["params"], amount), interval_html(row["tokens"], amount),
         interval_html(row["tokens_per_param"]), interval_html(row["loss"], nats)]
        for row in law["optimum"]
    ]  # fmt: skip
    head = (
        *("C (FLOPs)", "N* (parameters)", "D* (tokens)", "tokens per parameter"),
        "loss (nats per token)",
    )
    note = (
        "The parametric law's efficient frontier at 1, 10 and 100 times the largest fitted "
        "budget. Intervals are those of the law, without the noise of a run."
    )
    return panel("split", "The optimal split of compute", note, table(head, rows))


def sensitivity(law: dict[str, Any]) -> str:
    """The same runs with other methods and objectives, and without outliers."""
    if not law["sensitivity"]:
        return ""
    rows = [
        [escape(row["label"]), str(row["n"])]
        + [interval_html(row[k]) for k in ("E", "alpha", "beta", "a", "b")]
        for row in law["sensitivity"]
    ]
    parts = [table(("Analysis", "points", "E (nats per token)", "α", "β", "a", "b"), rows)]
    shifts = (law["isoflop"].get("grid_bias") or {}).get("params") or []
    known = [v for v in shifts if v is not None]
    if known:
        parts.append(
            "<p>Bias from the grid of sizes, simulated without noise from the fitted law: "
            f"{min(known):+.2%} to {max(known):+.2%} in N*, which adds "
            f"{law['isoflop']['grid_bias']['a'] or 0:+.4f} to the iso-FLOP exponent a.</p>"
        )
    curves = law["envelope"]
    if curves["a"]["value"] is None:
        parts.append(f"<p class=reason>Approach 1: {prose(curves['reason'])}</p>")
    note = (
        "A conclusion should hold in every row. Intervals are 90 %. Those of other objectives and "
        f"of fewer runs come from {FEW_DRAWS} draws, and are left out for very long tables."
    )
    return folded("analyses", "Sensitivity", note, "".join(parts))


def conventions(law: dict[str, Any]) -> str:
    """The exponents of the same runs for every counting convention."""
    if not law["conventions"]:
        return ""
    rows = [
        [row["params"], row["flops"], f"{row['parametric']['growth']:.3f}"]
        + [interval_html(row["parametric"][k]) for k in ("E", "alpha", "beta", "a")]
        + [interval_html(row["isoflop"]["a"])]
        for row in law["conventions"]
    ]
    head = (
        "N counted as",
        "C by",
        "g",
        "E (nats per token)",
        "α",
        "β",
        "a, parametric",
        "a, iso-FLOP",
    )
    note = (
        "The same runs with other counting conventions. If C/D ∝ N^g, then a = β / (α + g β). "
        "Iso-FLOP exponents need runs of equal C under the same count."
    )
    expected = law["kaplan_count"]
    more = (
        "<p>Pearce &amp; Song 2024 explain most of Kaplan's exponent by the excluded embeddings. "
        f"For this law, a is {expected['total']:.3f} if N counts all parameters, and "
        f"{expected['a']:.3f} over the sizes of these runs if N and C exclude embeddings.</p>"
        if expected
        else ""
    )
    return folded("counts", "Conventions side by side", note, table(head, rows) + more)


def methods(law: dict[str, Any]) -> str:
    """The methods paragraphs."""
    part, points, chosen = law["parametric"], law["points"], law["settings"]
    how = {"runs": "resampling whole runs", "residuals": "redrawing the runs' noise (Student's t)"}
    text = []
    if "reason" not in part:
        text.append(
            f"We fitted {part['law']} ({part['paper']}) to {part['n']} points by minimising the "
            "sum of "
            f"{LOSSES[part['loss']].format(delta=setting(part['delta']))} of the "
            f"{'' if part.get('linear') else 'log-'}{part['response']} with analytic gradients "
            f"from {part['starts']} starts ({part['reached']} of those polished reached the best "
            f"minimum, objective {part['objective']:.6e}, scaled gradient "
            f"{three_digits(part['gradient_norm'])}, condition number "
            f"{three_digits(part['condition'])}); the residuals have a root mean square of "
            f"{deviation(part)} and a mean of "
            f"{three_digits(part['bias']) if part.get('linear') else format(part['bias'], '+.3%')}."
            + "".join(
                f" {name} = {three_digits(v)} was fixed." for name, v in part["fixed"].items()
            )
            + (
                " Runs are weighted by the inverse square of their standard error."
                if chosen["weights"] == "loss_se"
                else ""
            )
        )
        if part["draws"]:
            text.append(
                f"Intervals contain {chosen['level']:.0%} of {part['draws']} bootstrap draws, made "
                f"by {how[part['resampling']]} (seed {chosen['seed']}); those of predictions "
                "include the noise of one run."
            )
    if law["envelope"]["a"]["value"] is not None:
        text.append(
            "The envelope (approach 1) is the lowest smoothed curve at each of 1,500 budgets, if "
            "its size is neither the smallest nor the largest. Its intervals resample runs."
        )
    how_found = INTERPOLATIONS[chosen["interpolation"]].format(window=chosen["window"])
    text.append(
        f"Iso-FLOP minima are {how_found}. Their intervals redraw the runs' noise, estimated from "
        "the spread about these curves and corrected for degrees of freedom (Student's t). N "
        f"counts {COUNTS[chosen['params']]}; C is {SPENT[chosen['flops']]}."
    )
    return "".join(f"<p>{prose(t)}</p>" for t in text) + (
        f"<p><small>Data: {escape(points['source'])}, SHA-256 of the fitted points "
        f"<code>{points['sha256']}</code>.</small></p>"
    )


def citation(law: dict[str, Any]) -> str:
    """The information needed to reproduce and cite the numbers."""
    made, points = law.get("made") or {}, law["points"]
    lines = [
        ("command", made.get("command")),
        ("commit", made.get("commit")),
        ("points, SHA-256", points["sha256"]),
        ("datasets", ", ".join(points["datasets"]) or None),
        ("versions", ", ".join(f"{k} {v}" for k, v in (made.get("versions") or {}).items())),
    ]
    text = "\n".join(escape(f"{name:<16} {value}") for name, value in lines if value)
    return f"<pre>{text}</pre>"
