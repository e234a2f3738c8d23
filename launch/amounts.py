"""Numbers as the terminal shows them: counts, FLOPs, bytes and times, with three digits."""

from collections.abc import Callable, Mapping
from typing import Any

from scaling.report.number_text import amount as amount
from scaling.report.number_text import byte_size as byte_size
from scaling.report.number_text import three_digits

flops = three_digits  # powers of ten, as the flags --flops and --budgets take them


def clock(seconds: float) -> str:
    """Seconds as m:ss, h:mm:ss or, from four days on, as days: '1.2k days'."""
    if seconds >= 4 * 86_400:
        return f"{amount(seconds / 86_400)} days"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def with_interval(estimate: Mapping[str, Any], text: Callable[[float], str] = three_digits) -> str:
    """'42.7k [39.7k, 45.9k]': an estimate's "value", with "lo" and "hi" if they are known.

    `text` formats each of the three. A "value" of None becomes '—'.
    """
    if estimate["value"] is None:
        return "—"
    value = text(estimate["value"])
    if estimate["lo"] is None:
        return value
    return f"{value} [{text(estimate['lo'])}, {text(estimate['hi'])}]"
