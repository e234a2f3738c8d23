"""The last pass over a unit: drops duplicates, repeated spans, contamination and personal data, and
writes the text."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data.cleaning.duplicates import spans
from data.cleaning.filter_pass import survivor_file, survivors, written
from data.cleaning.records import LONGEST_EXAMPLE, Tally
from data.cleaning.text import contamination, normalise, private
from data.cleaning.text.words import TOKEN

LEVEL = 3  # of zstandard


def output_file(folder: Path, unit: int) -> Path:
    """The text of a unit that is left in the end."""
    return folder / f"part-{unit:06}.jsonl.zst"


class Writer:
    """The stages of the last pass, for one config."""

    def __init__(self, cfg: Mapping[str, Any], grams: np.ndarray):
        self.cfg, self.grams, self.skip = cfg, grams, frozenset(cfg["skip"])
        kinds = [kind for kind in private.KINDS if kind not in self.skip]
        on = cfg["private"]["on"]
        self.placeholders = {kind: cfg["private"][kind] for kind in kinds} if on else {}
        self.decontaminates = "contaminated" not in self.skip and len(grams) > 0

    def unit(
        self,
        number: int,
        contaminated: list[int],
        repeated: Mapping[int, list[int]],
        fates: np.ndarray,
        first: int,
        roots: Mapping[int, int],
        work: Path,
        out: Path,
    ) -> dict[str, Any]:
        """Writes the text of a unit, unless none is left. Returns its counts.

        `contaminated` are its documents that share n-grams with evaluation sets, and `repeated` has
        the sentences at which repeated spans begin, by document. `fates` says of each document
        whether it is kept (0), an exact duplicate (1) or a near one (2); `first` is the number of
        its first document over all units, and `roots` the sizes of the largest groups of duplicates
        by the number of the document that is kept.
        """
        tally, groups, shared = Tally(), [], set(contaminated)
        path = output_file(out, number)
        with written(path, LEVEL) as stream:
            for place, (where, text) in enumerate(survivors(survivor_file(work, number))):
                if fates[place]:
                    rule = "exact_duplicate" if fates[place] == 1 else "near_duplicate"
                    tally.removed(rule, where, text)
                    continue
                if size := roots.get(first + place):
                    groups.append({"size": size, "where": where, "text": text[:LONGEST_EXAMPLE]})
                if place in repeated:
                    text = self._without_spans(where, text, repeated[place], tally)
                    if text is None:
                        continue
                if place in shared and self.decontaminates:
                    text = self._decontaminated(where, text, tally)
                    if text is None:
                        continue
                text = self._private(where, text, tally)
                text = self._final(where, text, tally)
                if not text.strip():  # its bytes count under the rules that cut them
                    tally.removed("empty", where, "")
                    continue
                tally.seen("written", text, len(text.encode()))
                row = {"text": text, "source": where}
                stream.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
        if not tally.about["written"]["documents"]:
            path.unlink()
        return {"tally": tally.about, "groups": groups}

    def _without_spans(self, where: str, text: str, begins: list[int], tally: Tally) -> str | None:
        """The text without repeated spans of sentences; None if too little is left of it."""
        section = self.cfg["spans"]
        left, sentences, example = spans.without(text, begins, section["sentences"])
        cut = len(text.encode()) - len(left.encode())
        tally.changed("repeated_span", where, len(begins), example, cut)
        words = len(TOKEN.findall(left))
        for rule, found, least in (
            ("few_sentences_left", sentences, section["min_sentences"]),
            ("few_words_left", words, section["min_words"]),
        ):
            if found < least and rule not in self.skip:
                tally.removed(rule, where, left, found)
                return None
        return left

    def _decontaminated(self, where: str, text: str, tally: Tally) -> str | None:
        """The text without what it shares with evaluation sets; None if the document goes."""
        section = self.cfg["decontaminate"]
        around = section["around"] if section["remove"] == "span" else 0
        left, shared = contamination.without_spans(text, section["ngram"], self.grams, around)
        if not shared:  # they were in spans that are removed
            return text
        if section["remove"] == "document":
            tally.removed("contaminated", where, text, shared[0][:LONGEST_EXAMPLE])
            return None
        cut = len(text.encode()) - len(left.encode())
        tally.changed("contaminated", where, len(shared), shared[0], cut)
        return left

    def _private(self, where: str, text: str, tally: Tally) -> str:
        text, found = private.scrubbed(text, self.placeholders)
        for rule, matches in found.items():
            tally.changed(rule, where, len(matches), _masked(matches[0]))
        return text

    def _final(self, where: str, text: str, tally: Tally) -> str:
        if not self.cfg["final"]["on"] or "final_form" in self.skip:
            return text
        formed = normalise.final_form(text, self.cfg["final"])
        if formed != text:
            cut = len(text.encode()) - len(formed.encode())
            tally.changed("final_form", where, 1, formed, cut)
        return formed


def _masked(found: str) -> str:
    """The form of personal data without the data: x for letters, 0 for digits."""
    return "".join("0" if c.isdigit() else "x" if c.isalpha() else c for c in found)
