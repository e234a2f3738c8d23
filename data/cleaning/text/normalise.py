"""Unicode normalisation, and the optional last form of the text."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

# Control characters but tab, newline and carriage return; beyond ASCII also byte order marks inside
# text, and line and paragraph separators.
CONTROL = bytes({*range(32), 127} - set(b"\t\n\r"))
OTHERS = re.compile("[\x80-\x9f\ufeff]")
SEPARATORS = re.compile("[\u2028\u2029]")
PUNCTUATION = {
    **dict.fromkeys(map(ord, "‘’‚‛′"), "'"),
    **dict.fromkeys(map(ord, "“”„‟″«»"), '"'),
    **dict.fromkeys(map(ord, "‐‑‒–—―−"), "-"),
    ord("…"): "...",
    ord("\u00a0"): " ",
}
NO_PUNCTUATION = re.compile(r"[^\w\s]|_")
FORMS = ("keep", "ascii", "remove")  # values of final.punctuation


def normalised(text: str, form: str = "NFC") -> str:
    """The text in a Unicode normal form, with \\n as its line end and without control
    characters."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    raw = text.encode()
    plain = raw.translate(None, CONTROL)  # faster than a search in the text
    text = text if len(plain) == len(raw) else plain.decode()
    if text.isascii():
        return text
    return unicodedata.normalize(form, SEPARATORS.sub("\n", OTHERS.sub("", text)))


def repair() -> Callable[[str], str]:
    """ftfy's repair of text that was decoded with a wrong encoding (mojibake)."""
    try:
        import ftfy
    except ImportError:
        raise ValueError(
            "normalise.ftfy=True needs the package ftfy; pip install 'isoflop[clean]'"
        ) from None
    settings = ftfy.TextFixerConfig(uncurl_quotes=False, normalization=None)
    return lambda text: ftfy.fix_text(text, settings)


def final_form(text: str, section: Mapping[str, Any]) -> str:
    """Lower case and the handling of punctuation, as the section `final` says. "ascii" replaces
    typographic quotes, dashes and ellipses; "remove" deletes everything but letters, digits and
    white space."""
    if section["lowercase"]:
        text = text.lower()
    if section["punctuation"] == "ascii" and not text.isascii():
        return text.translate(PUNCTUATION)
    return NO_PUNCTUATION.sub("", text) if section["punctuation"] == "remove" else text
