"""Numbers as the terminal shows them: parameters, tokens, FLOPs, bytes and times.

Counts of parameters and tokens take the letters of the literature, K, M, B and T ("a 6.74B model").
FLOPs are powers of ten, as the flags --flops and --budgets take them. Bytes take SI prefixes. All
have three significant digits.
"""

from collections.abc import Callable, Mapping
from typing import Any

_COUNTS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))
_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (0, "B"))


def amount(number: float) -> str:
    """1234567 parameters or tokens as '1.23M'."""
    return _scaled(number, _COUNTS)


def byte_size(number: float) -> str:
    """1234567 bytes as '1.23MB', in units of 1000."""
    return _scaled(number, _BYTES)


def flops(number: float) -> str:
    """2700000000000 FLOPs as '2.7e12'."""
    digits, exponent, power = f"{number:.3g}".partition("e")
    return f"{digits}e{int(power)}" if exponent else digits


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss, or m:ss below an hour."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def with_interval(
    estimate: Mapping[str, Any], text: Callable[[float], str] = "{:.4g}".format
) -> str:
    """'42.7K [39.7K, 45.9K]': an estimate's "value", with "lo" and "hi" if they are known.

    `text` formats each of the three. A "value" of None becomes '—'.
    """
    if estimate["value"] is None:
        return "—"
    value = text(estimate["value"])
    if estimate["lo"] is None:
        return value
    return f"{value} [{text(estimate['lo'])}, {text(estimate['hi'])}]"


def _scaled(number: float, units: tuple[tuple[float, str], ...]) -> str:
    for size, unit in units:
        if number >= 0.9995 * size:  # 999,999 is 1M, for it rounds to that
            return f"{number / (size or 1):.3g}{unit}"
    return f"{number:.3g}"
