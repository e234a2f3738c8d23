"""isoflop fill: the likeliest tokens in place of each [MASK] of a text.

isoflop fill --run=runs/bert --text="the soup was [MASK] ."
isoflop fill --run=runs/bert --text="the [MASK] was very [MASK] ." --top=3 --json=filled.json

For masked encoders. --text may be repeated. The probabilities of two masks of a text are each given
the rest of it, not given one another.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags as absl_flags

from data.files import to_path
from launch import flags
from launch.alive import alive
from launch.errors import DONE, bad_input, writing
from launch.files import write_json
from scaling.printable import printable


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    flags.define_path("run", None, "folder of the run of a masked encoder", values)
    absl_flags.DEFINE_multi_string(
        "text", [], "text with one or more [MASK]; may be repeated", flag_values=values
    )
    absl_flags.DEFINE_integer(
        "top", 5, "tokens to show for each mask", lower_bound=1, flag_values=values
    )
    flags.define_path("json", None, "write the tokens with their probabilities here", values)
    flags.define_import(values)
    absl_flags.mark_flags_as_required(["run"], values)
    return values


def main(argv: Sequence[str]) -> int:
    """Prints the tokens. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__)
    with bad_input(), alive("loading the model"):
        # Slow imports, which --help does without.
        from data.framed.marks import MASK, marks_of, with_masks
        from launch.texts import opened, rows

        if not values.text:
            raise ValueError(f'--text is not given; add --text="… {MASK} …"')
        for text in values.text:
            if MASK not in text:
                raise ValueError(f"text={text[:60]!r} has no {MASK}, so there is nothing to fill")
        model = opened.open_run(to_path(values.run), "masked_logits", "predicts no masked tokens")
        if not model.cfg.masked_head:
            from launch.files import instead

            done = instead(model.family, model.cfg, to_path(values.run))
            raise ValueError(f"run={values.run} has no masked-LM head{done}")
        marks = marks_of(model.tokenizer)
        texts = [with_masks(model.tokenizer, marks, text) for text in values.text]
        names = [f"text={text[:60]!r}" for text in values.text]
        rows.require_room(texts, names, model.cfg.context_length)
    with alive("filling"):
        found = [
            filled(text, masks)
            for text, masks in zip(
                values.text, predicted(model, texts, marks, values.top), strict=True
            )
        ]
    if values.json:
        with writing("json", values.json):
            about = {"run": values.run, "step": model.step, "top": values.top}
            write_json(to_path(values.json), about | {"texts": found})
    for one in found:
        print(printable(one["filled"]))
        for number, mask in enumerate(one["masks"], start=1):
            listed = "  ".join(f"{printable(t['text'])!r} {t['probability']:.3f}" for t in mask)
            print(f"  {number}: {listed}")
    return DONE


def predicted(model: Any, texts: list[np.ndarray], marks: Any, top: int) -> list[list[list[dict]]]:
    """For each text and each of its masks the `top` likeliest tokens of the tokenizer."""
    import jax

    from launch.texts import rows

    family, cfg, size = model.family, model.cfg, model.tokenizer.vocab_size

    @jax.jit
    def probabilities(params: dict, batch: dict) -> jax.Array:
        logits_BTV = family.masked_logits(cfg, params, family.hidden(cfg, params, batch))
        return jax.nn.softmax(logits_BTV[..., :size])  # a mask is never filled with a mark

    found = []
    for batch in rows.batches(texts, marks.padding, cfg.context_length):
        p_BTV = np.asarray(probabilities(model.params, batch))
        for tokens_T, p_TV in zip(batch["tokens"], p_BTV, strict=True):
            places = np.flatnonzero(tokens_T == marks.mask)
            found.append([_likeliest(model.tokenizer, p_TV[place], top) for place in places])
    return found[: len(texts)]


def _likeliest(tokenizer: Any, p_V: np.ndarray, top: int) -> list[dict]:
    best = np.argsort(-p_V, kind="stable")[:top]
    return [
        {"token": int(i), "text": tokenizer.decode([i]), "probability": float(p_V[i])} for i in best
    ]


def filled(text: str, masks: list[list[dict]]) -> dict[str, Any]:
    """A text, its likeliest completion, and the tokens of each mask."""
    from data.framed.marks import MASK

    parts = text.split(MASK)
    words = [mask[0]["text"] for mask in masks]
    whole = "".join(part + word for part, word in zip(parts, [*words, ""], strict=True))
    return {"text": text, "filled": whole, "masks": masks}
