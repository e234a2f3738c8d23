"""The lines that `isoflop probe` prints."""

from collections.abc import Mapping
from typing import Any

from scaling.intervals import interval_text
from scaling.printable import printable
from scaling.report.number_text import label, nats, p_text, percent, signed, signed_percent
from scaling.report.probing.wording import other_world, unlearned_unread


def show(about: Mapping[str, Any]) -> None:
    """Prints them."""
    for line in lines(about):
        print(printable(line))


def lines(about: Mapping[str, Any]) -> list[str]:
    """What was measured, part by part."""
    found: list[str] = []
    for name, part in (("pairs", _pairs), ("weat", _weat), ("facts", _facts), ("text", _text)):
        if name in about:
            found += part(about[name])
    return found


def _pairs(about: Mapping[str, Any]) -> list[str]:
    mean = about["mean"]
    found = [
        f"pairs: {len(about['rows'])} in {mean['units']} groups; mean difference "
        f"{interval_text(mean, signed)} nats, {p_text(mean['p'])}; {percent(mean['positive'])} of "
        "the pairs above 0"
    ]
    if about["left_out"]:
        found.append(f"  {about['left_out']} more pairs have words that the vocabulary lacks")
    for group in sorted(about["groups"], key=lambda one: -abs(one["mean"]))[:12]:
        found.append(f"  {signed(group['mean']):>8}  {label(group['group'])}")
    if "change" in about:
        found.append(
            f"  before {interval_text(about['before'], signed)}, change "
            f"{interval_text(about['change'], signed)}, {p_text(about['change']['p'])}"
        )
    return found


def _weat(about: Mapping[str, Any]) -> list[str]:
    found = []
    for test in about["tests"]:
        size = "—" if test["effect_size"] is None else f"{test['effect_size']:+.2f}"
        how = "all" if test["exact"] else "drawn"
        missing = f"; {len(test['missing'])} words missing" if test["missing"] else ""
        found.append(
            f"weat {label(test['name'])}: d = {size}, {p_text(test['p'])} of {test['divisions']:,} "
            f"divisions ({how}){missing}"
        )
    return found


def _facts(about: Mapping[str, Any]) -> list[str]:
    s = about["summary"]
    found = [
        f"facts: {about['facts']:,}, asked in {about['questions']:,} questions; guessing gets "
        f"{percent(about['chance'])}",
        f"  accuracy {interval_text(s['accuracy'], percent)}, confidence "
        f"{interval_text(s['confidence'], percent)}",
        f"  ECE {interval_text(s['ece'], nats)}; perfect calibration would have "
        f"{nats(about['ece_by_chance'])} by chance, {p_text(about['ece_p'])}",
        f"  selective answering: AURC {interval_text(s['aurc'], nats)}, best possible "
        f"{nats(about['best_aurc'])}; 5% wrong: {percent(s['coverage']['value'])} can be answered",
    ]
    if about["left_out"]:
        found.append(f"  {about['left_out']:,} more facts have words that the vocabulary lacks")
    if about["of_another_world"]:
        found.append(f"  warning: {other_world(about)}")
    if s["auroc_known"]["value"] is not None:
        apart = interval_text(s["auroc_known"], nats)
        found.append(f"  known from unknown facts, by confidence: AUROC {apart}")
        made_up = interval_text(s["made_up"], percent)
        found.append(f"  made up, with a confidence of 50% or more: {made_up} of unknown facts")
    if about["unlearned_unread"]:
        found.append(f"  warning: {unlearned_unread(about)}")
    for group in about["groups"]:
        name = label(group["name"])
        cells = f"accuracy {interval_text(group['accuracy'], percent)}, confidence "
        cells += percent(group["confidence"]["value"])
        if group["consistency"]["value"] is not None:
            cells += f", consistency {percent(group['consistency']['value'])}"
        found.append(f"  {name} ({group['facts']} facts): {cells}")
    for one in about.get("change", []):
        of, right = one["nats"], one["accuracy"]
        found.append(
            f"  change, {label(one['group'])}: nats of the right answer {of['before']:.3f} → "
            f"{of['now']:.3f}, {interval_text(of['change'], signed)}, {p_text(of['change']['p'])}; "
            f"accuracy {percent(right['before'])} → {percent(right['now'])}, "
            f"{interval_text(right['change'], signed_percent)}"
        )
    return found


def _text(about: Mapping[str, Any]) -> list[str]:
    found = [
        f"text {label(about['corpus'])}: {interval_text(about['nats'], nats)} nats per token of "
        f"{about['tokens']:,} in {about['documents']:,} documents"
    ]
    if about["unknown"]:
        found.append(f"  {about['unknown']:,} of them are words that the vocabulary lacks")
    if "change" in about:
        found.append(
            f"  before {interval_text(about['before'], nats)}, change "
            f"{interval_text(about['change'], '{:+.4f}'.format)}, {p_text(about['change']['p'])}"
        )
    return found
