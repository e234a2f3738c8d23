"""Replaces personal data by placeholders: e-mail and IP addresses, card and telephone numbers.

Patterns find what has the form of such data, so version numbers of four parts are taken for IP
addresses, and telephone numbers without a country code are found only in the North American form.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping

EMAIL = re.compile(
    r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+"
    r"[A-Za-z]{2,24}(?![\w-])"
)
IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\w)")
IPV6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f:]*:[0-9A-Fa-f]*:)[0-9A-Fa-f:]{3,39}(?![\w:])")
CARD = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-]|\.\d)")
PHONE = re.compile(
    r"(?<![\w.+-])(?:\+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,6}"
    r"|(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[.-])\d{3}[ .-]\d{4})(?![\w-]|\.\d)"
)
# Every number is inside one of these runs, and an IPv6 address has these colons. A pattern that
# begins with a set of characters is found several times as fast as those above.
RUN = re.compile(r"[\d+(][\d ().+-]{6,}")
COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")


def is_card(digits: str) -> bool:
    """Whether the check digit of a card number is right (Luhn's algorithm, ISO/IEC 7812)."""
    figures = [int(figure) for figure in reversed(digits)]
    doubled = [2 * figure - 9 * (figure > 4) for figure in figures[1::2]]
    return len(set(figures)) > 1 and (sum(figures[::2]) + sum(doubled)) % 10 == 0


def _is_address(found: str) -> bool:
    try:
        ipaddress.ip_address(found)
    except ValueError:
        return False
    return True


def _digits(found: str) -> str:
    return re.sub(r"\D", "", found)


def _anything(found: str) -> bool:
    return True


# Rule → (patterns, what a match must satisfy). In this order: a card number is no telephone number.
KINDS: dict[str, tuple[tuple[re.Pattern, ...], Callable[[str], bool]]] = {
    "email": ((EMAIL,), _anything),
    "ip_address": ((IPV4, IPV6), _is_address),
    "credit_card": ((CARD,), lambda found: is_card(_digits(found))),
    "phone": ((PHONE,), lambda found: 8 <= len(_digits(found)) <= 15),
}


def scrubbed(text: str, placeholders: Mapping[str, str]) -> tuple[str, dict[str, list[str]]]:
    """(the text with a placeholder for each match, what was replaced by rule). Rules without a
    placeholder in the mapping replace nothing."""
    found: dict[str, list[str]] = {}
    runs = RUN.findall(text)
    digits = max((sum(map(str.isdigit, run)) for run in runs), default=0)
    possible = {
        "email": "@" in text,
        "ip_address": any(run.count(".") >= 3 for run in runs) or COLONS.search(text),
        "credit_card": digits >= 13,
        "phone": digits >= 8,
    }
    for rule, (patterns, holds) in KINDS.items():
        if rule not in placeholders or not possible[rule]:
            continue
        matches: list[str] = []

        def replace(match: re.Match, rule: str = rule, holds=holds, matches=matches) -> str:
            if not holds(match[0]):
                return match[0]
            matches.append(match[0])
            return placeholders[rule]

        for pattern in patterns:
            text = pattern.sub(replace, text)
        if matches:
            found[rule] = matches
    return text, found
