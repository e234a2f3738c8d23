"""Formats numbers and names for the terminal, pages and figures: 50k, 3e-3, 1.5e13, α."""

import html
import json
from collections.abc import Callable
from typing import Any

from scaling.laws.law import symbols
from scaling.printable import printable

BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (0, "B"))
LETTERS = {"T": 1e12, "B": 1e9, "M": 1e6, "k": 1e3}  # of counts, as in "a 7B model"
LONGEST_LABEL = 80  # characters of a name
LONG_NUMBER = 8  # characters
exponent = "{:.3f}".format
signed = "{:+.3f}".format
percent = "{:.1%}".format
signed_percent = "{:+.1%}".format
nats = "{:.4f}".format  # losses keep four decimals: runs differ in the third


def amount(value: float) -> str:
    """'30k', '1.5M', '7B': counts of parameters and tokens."""
    for letter, size in LETTERS.items():
        if value >= 0.9995 * size:  # 999,999 rounds to 1M
            return f"{three_digits(value / size)}{letter}"
    return three_digits(value)


def byte_size(number: float) -> str:
    """1234567 bytes as '1.23MB', in units of 1000."""
    size, unit = next(row for row in BYTES if abs(number) >= 0.9995 * row[0])
    return f"{number / (size or 1):.3g}{unit}"


def parse_amount(text: str) -> float:
    """Parses '30k', '1.5M', '7B' or '7e9'. Raises ValueError for other text."""
    text = text.strip()
    letter = next((k for k in LETTERS if text[-1:].lower() == k.lower()), "")
    try:
        return float(text[: len(text) - len(letter)]) * LETTERS.get(letter, 1)
    except ValueError:
        raise ValueError(f"{text!r} is not a number; write 7e9, 7B, 1.5M or 30k") from None


def three_digits(value: float) -> str:
    """'0.35', '2.09e3', '3e-3', '1.23e13': FLOPs and any other number."""
    text = f"{value:.3g}"
    if 0 < abs(value) < 0.01:
        text = f"{value:.2e}"
    return short_power(text)


def power_of_ten(value: float) -> str:
    """'1e13', '3e13': a round number on an axis."""
    return short_power(f"{value:.1e}")


def setting(value: Any) -> str:
    """A setting with all its digits: 3e-3 for 0.003. Text and integers are unchanged."""
    if isinstance(value, float) and value and not 0.01 <= abs(value) < 1e4:
        exact = repr(value)
        digits = len(exact.partition("e")[0].replace(".", "").lstrip("-0")) or 1
        return short_power(f"{value:.{digits - 1}e}")
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def brief(value: Any) -> str:
    """A setting with its digits, except for a long number that nobody chose by hand: 0.0102 for
    0.0101719762."""
    text = setting(value)
    return three_digits(value) if isinstance(value, float) and len(text) > LONG_NUMBER else text


def p_text(p: float) -> str:
    """'p = 0.012', or 'p < 0.001'."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def deviation(parametric: dict[str, Any], name: str = "rmse") -> str:
    """A root mean square, or another statistic of the residuals, of a fitted law: '0.42%' of the
    response, or its units for a linear law."""
    value = parametric[name]
    return three_digits(value) if parametric.get("linear") else f"{value:.2%}"


def short_power(text: str) -> str:
    """'3e-3' for '3.00e-03'."""
    lead, e, power = text.partition("e")
    lead = lead.rstrip("0").rstrip(".") if "." in lead and e else lead
    return f"{lead}e{int(power)}" if e else lead


def label(name: str) -> str:
    """The displayed name of a run or ladder: printable characters, at most LONGEST_LABEL."""
    text = printable(name)
    return text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"


def escape(text: Any) -> str:
    """Any text, escaped for HTML."""
    return html.escape(printable(text))


def prose(text: str) -> str:
    """A sentence or formula about a law as HTML, with α for alpha."""
    return escape(symbols(text))


def interval_html(v: dict[str, Any] | None, text: Callable[[float], str] = three_digits) -> str:
    """A value with its interval in small print, each number formatted by `text`."""
    if v is None or v["value"] is None:
        return "—"
    value = text(v["value"])
    if v["lo"] is None:
        return value
    return f"{value} <small>[{text(v['lo'])}, {text(v['hi'])}]</small>"


def needed(saved: dict[str, float | None]) -> dict[str, float | None]:
    """The compute that a ladder needs as a multiple of the first ladder's: the inverse of the
    multiplier and its interval.
    """
    inverse = {"value": "value", "lo": "hi", "hi": "lo"}
    return {name: saved.get(other) and 1 / saved[other] for name, other in inverse.items()}
