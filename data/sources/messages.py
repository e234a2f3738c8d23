"""Pairs from the message catalogues that installed packages ship: English and its translation.

'messages:PACKAGE:LANGUAGE', or 'messages:PACKAGE+PACKAGE:LANGUAGE': all messages in the files
LANGUAGE/LC_MESSAGES/*.mo of these packages, which are the texts of their user interfaces. Runs of
white space become one space; equal pairs and messages that are not translated are left out.
"""

import gettext
import importlib.util
from collections.abc import Iterator
from pathlib import Path


def files(spec: str) -> list[Path]:
    """The catalogues, sorted by path. ValueError for an invalid spec, and for a package or a
    language that is not installed."""
    _, *parts = spec.split(":")
    if len(parts) != 2 or not all(parts):
        raise ValueError(
            f"data.corpora={spec!r} is not of the form 'messages:PACKAGE:LANGUAGE', such as "
            "messages:jupyterlab_language_pack_fr_FR:fr_FR"
        )
    found, (packages, language) = [], parts
    for package in packages.split("+"):
        about = importlib.util.find_spec(package) if package.isidentifier() else None
        if about is None:
            raise ValueError(
                f"data.corpora={spec!r}: the package {package!r} is not installed; pip install it"
            )
        folders = [Path(folder) for folder in about.submodule_search_locations or ()]
        listed = sorted(file for folder in folders for file in folder.rglob("LC_MESSAGES/*.mo"))
        chosen = [file for file in listed if file.parts[-3] == language]
        if not chosen:
            known = ", ".join(sorted({file.parts[-3] for file in listed})) or "none"
            raise ValueError(
                f"data.corpora={spec!r}: {package} has no messages in {language!r}; languages that "
                f"it has: {known}"
            )
        found += chosen
    return found


def pairs(spec: str) -> Iterator[tuple[str, str, str]]:
    """(where it is, English, translation) of each message, once."""
    seen = set()
    for path in files(spec):
        with open(path, "rb") as file:
            catalog = gettext.GNUTranslations(file)._catalog  # gettext lists messages nowhere else
        for key, translation in catalog.items():
            message, number = key if isinstance(key, tuple) else (key, 0)
            pair = " ".join(message.rpartition("\x04")[2].split()), " ".join(translation.split())
            if number == 0 and all(pair) and pair[0] != pair[1] and pair not in seen:
                seen.add(pair)
                yield (str(path), *pair)
