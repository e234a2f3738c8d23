"""isoflop classify: the probability of each class of a text, by a run that was trained to classify.

isoflop classify --run=runs/sentiment --text="the soup was not bad ."
isoflop classify --run=runs/sentiment --file=reviews.txt --json=classes.json

--text may be repeated; --file holds a text a line. A run that was trained to tag (objective.name=
tag) gives a label to each word of a text, and words are what white space separates.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags as absl_flags

from data.files import to_path
from launch import flags
from launch.alive import alive
from launch.errors import DONE, bad_input, writing
from launch.files import text_lines, write_json
from scaling.printable import printable

SHOWN = 5  # classes of a text that are printed; the file of --json has all


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    flags.define_path("run", None, "folder of the run of a classifier", values)
    absl_flags.DEFINE_multi_string(
        "text", [], "text to classify; may be repeated", flag_values=values
    )
    flags.define_path("file", None, "file of texts, one a line", values)
    flags.define_path("json", None, "write the classes with their probabilities here", values)
    flags.define_import(values)
    absl_flags.mark_flags_as_required(["run"], values)
    return values


def main(argv: Sequence[str]) -> int:
    """Prints the classes. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__)
    run = to_path(values.run)
    with bad_input(), alive("loading the model"):
        # Slow imports, which --help does without.
        from data.framed import saved_classes
        from data.framed.marks import FRAMES
        from launch.files import instead
        from launch.texts import opened, rows

        named = texts_of(values.text, values.file)
        model = opened.open_run(run, "pooled", "has no head of classes")
        if not model.cfg.n_classes:
            done = instead(model.family, model.cfg, run)
            raise ValueError(f"run={run} has no classes (model.n_classes=0){done}")
        classes = saved_classes.read(run)
        marks = FRAMES[classes.frame](model.tokenizer)
        spelled = [spell(model.tokenizer, *one, classes.each_word) for one in named]
        framed = [marks.framed(tokens) for tokens, _ in spelled]
        rows.require_room(framed, [name for name, _ in named], model.cfg.context_length)
    with alive("classifying"):
        probabilities = scores(model, framed, marks, classes.each_word)
    found = []
    for (_, text), p, (_, ends) in zip(named, probabilities, spelled, strict=True):
        if classes.each_word:
            words = zip(text.split(), p[1 + ends], strict=True)  # after the first mark
            found.append({"text": text, "words": [described(classes, p, w) for w, p in words]})
        else:
            found.append(described(classes, p, text))
    if values.json:
        with writing("json", values.json):
            write_json(to_path(values.json), {"run": str(run), "step": model.step, "texts": found})
    print("\n".join(map(line, found)))
    return DONE


def texts_of(texts: Sequence[str], file: str | None) -> list[tuple[str, str]]:
    """(how to name it, text) of all texts; ValueError for an empty one, and without any."""
    found = [(f"text={text[:60]!r}", text) for text in texts]
    if file:
        lines = enumerate(text_lines(file, "file"), start=1)
        found += [(f"file={file} line {number}", line) for number, line in lines]
    if not found:
        raise ValueError("--text is not given; add --text=… or --file=TEXTS")
    for name, text in found:
        if not text.strip():
            raise ValueError(f"{name} is empty; give it a text")
    return found


def spell(tokenizer: Any, name: str, text: str, each_word: bool) -> tuple[np.ndarray, np.ndarray]:
    """(the tokens of a text, the place of the last token of each of its words). ValueError for a
    word without a token."""
    words = text.split() if each_word else [text]
    ids = [tokenizer.encode(f" {word}" if n else word) for n, word in enumerate(words)]
    if lacking := [word for word, found in zip(words, ids, strict=True) if not len(found)]:
        raise ValueError(
            f"{name}: {lacking[0][:40]!r} gives no token of the run's tokenizer "
            f"({tokenizer.name}); leave it out"
        )
    return np.concatenate(ids), np.cumsum([len(part) for part in ids]) - 1


def scores(model: Any, framed: list[np.ndarray], marks: Any, each_word: bool) -> list[np.ndarray]:
    """The probabilities [C] of each text, or [T, C] of each of its tokens."""
    import jax

    from launch.texts import rows
    from model import classes

    family, cfg = model.family, model.cfg

    @jax.jit
    def probabilities(params: dict, batch: dict) -> jax.Array:
        states = (family.hidden if each_word else family.pooled)(cfg, params, batch)
        return jax.nn.softmax(classes.logits(params, states))

    batches = rows.batches(framed, marks.padding, cfg.context_length)
    found = [p for batch in batches for p in np.asarray(probabilities(model.params, batch))]
    return found[: len(framed)]


def described(classes: Any, p_C: np.ndarray, text: str) -> dict[str, Any]:
    """A text or a word with its likeliest class and the probabilities of all."""
    by_class = {name: float(p) for name, p in zip(classes.labels, p_C, strict=True)}
    return {"text": text, "label": classes.labels[int(p_C.argmax())], "probabilities": by_class}


def line(found: dict[str, Any]) -> str:
    """What is printed of a text."""
    if "words" in found:
        words = (f"{w['text']}/{w['label']} {w['probabilities'][w['label']]:.2f}"
                 for w in found["words"])  # fmt: skip
        return printable("  ".join(words))
    ranked = sorted(found["probabilities"].items(), key=lambda item: -item[1])
    listed = "  ".join(f"{name} {p:.3f}" for name, p in ranked[:SHOWN])
    more = f"  and {len(ranked) - SHOWN} more" if len(ranked) > SHOWN else ""
    return printable(f"{listed}{more}  {found['text'][:100]}")
