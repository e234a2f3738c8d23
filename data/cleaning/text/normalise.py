"""Unicode normalisation, and the optional last form of the text."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

# Control characters but tab and newline; byte order marks inside text; lone surrogates.
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")
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
    text = text.replace("\u2028", "\n").replace("\u2029", "\n") if not text.isascii() else text
    text = CONTROL.sub("", text)
    return text if text.isascii() else unicodedata.normalize(form, text)


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
