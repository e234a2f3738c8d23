"""How often the captions of a run are exactly right, by greedy decoding, and what it gets wrong."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import rich.console

from data.captioned import listing
from data.captioned.pictures import Unreadable, raw_bytes
from data.captioned.store import require_few, unreadable
from data.files import specs_of
from data.kinds import KINDS
from launch.captions.captioner import AT_ONCE, Captioner
from scaling.intervals import wilson
from scaling.printable import printable

LEVEL = 0.95  # of intervals
SHOWN = 10  # wrong captions, and confused words, that are printed


class Example(NamedTuple):
    """An image with its right caption, as tokens."""

    name: str
    image: np.ndarray
    caption: list[int]


def of_validation(model: Captioner) -> tuple[list[str], Iterator[Example], int]:
    """(unreadable files, the validation images of a run, how many); ValueError if its data have
    changed."""
    store = KINDS[model.data.kind].prepare(model.data).store
    if store.hash != model.data.hash:
        raise ValueError(
            f"data.corpora={store.name!r} has changed since run={model.run} was trained; give "
            "--data=FOLDER"
        )
    captions, names = store.captions["validation"], store.names("validation")
    room = model.cfg.context_length - 1

    def examples() -> Iterator[Example]:
        for number, name in enumerate(names):
            begin = captions.begins_N[number]
            tokens = captions.tokens_n[begin : begin + min(captions.lengths_N[number], room)]
            image = store.images("validation", np.array([number]))[0]
            yield Example(name, image, tokens.tolist())

    return [], examples(), len(names)


def of_data(model: Captioner, spec: str) -> tuple[list[str], Iterator[Example], int]:
    """(unreadable files so far, the examples of a list, how many). ValueError for a list that
    cannot be read. The iterator raises it for more unreadable files than the run allowed."""
    data, lost = model.data, []
    found = listing.files(specs_of(spec), "data", data.file_key, data.caption_key)

    def examples() -> Iterator[Example]:
        for one in found:
            try:
                image = model.read(raw_bytes(one.path))
            except Unreadable as reason:
                lost.append(unreadable(one, reason))
                require_few(lost, data.max_unreadable)
                continue
            yield Example(one.name, image, model.tokenizer.encode(one.caption).tolist())

    return lost, examples(), len(found)


def measure(
    model: Captioner, examples: Iterator[Example], advance: Callable[[int], None]
) -> list[dict]:
    """For each image: file, caption, written, right. Calls `advance` with the images done."""
    rows: list[dict] = []
    waiting: list[Example] = []

    def caption_all() -> None:
        images = np.stack([one.image for one in waiting])
        for one, (tokens, ended) in zip(waiting, model.write(images), strict=True):
            rows.append(
                {
                    "file": one.name,
                    "caption": model.tokenizer.decode(one.caption),
                    "written": model.tokenizer.decode(tokens),
                    "right": ended and tokens == one.caption,
                }
            )
        waiting.clear()
        advance(len(rows))

    for one in examples:
        waiting.append(one)
        if len(waiting) == AT_ONCE:
            caption_all()
    if waiting:
        caption_all()
    return rows


def findings(model: Captioner, data: str | None, rows: list[dict], lost: list[str]) -> dict:
    """The content of the JSON file."""
    if not rows:
        raise ValueError(f"data={data!r} holds no file that can be read; name another folder")
    right = sum(row["right"] for row in rows)
    return {
        "run": str(model.run),
        "step": model.step,
        "data": data or "validation set of the run",
        "images": len(rows),
        "unreadable": lost,
        "right": right,
        "exact_match": right / len(rows),
        "interval": list(wilson(right / len(rows), len(rows), LEVEL)),
        "level": LEVEL,
        "confused": confused(rows),
        "captions": rows,
    }


def confused(rows: list[dict]) -> list[dict[str, Any]]:
    """Pairs of a right word and the one written in its place, most frequent first. Captions
    written with a wrong number of words are left out."""
    pairs: Counter = Counter()
    for row in rows:
        caption, written = row["caption"].split(), row["written"].split()
        if len(caption) == len(written):
            pairs.update((a, b) for a, b in zip(caption, written, strict=True) if a != b)
    return [{"word": a, "written": b, "count": n} for (a, b), n in pairs.most_common()]


def show(about: dict) -> None:
    """Prints the share of right captions, confused words and wrong captions."""
    console = rich.console.Console(highlight=False, markup=False)
    low, high = about["interval"]
    title = f"{about['run']} at step {about['step']:,} on {about['data']}"
    console.print(printable(title), style="bold", soft_wrap=True)
    console.print(
        f"  exactly right  {about['exact_match']:.4f} [{low:.4f}, {high:.4f}]  "
        f"{about['right']:,} of {about['images']:,}; greedy, {about['level']:.0%} Wilson interval",
        soft_wrap=True,
    )
    if about["unreadable"]:
        files = "; ".join(map(printable, about["unreadable"]))
        console.print(f"  unreadable and left out: {files}", soft_wrap=True)
    if about["confused"]:
        console.print("confused words, right → written", style="bold")
        for one in about["confused"][:SHOWN]:
            line = f"  {one['count']:>5,}  {one['word']} → {one['written']}"
            console.print(printable(line), soft_wrap=True)
    wrong = [row for row in about["captions"] if not row["right"]]
    if wrong:
        console.print(f"wrong captions, {min(SHOWN, len(wrong))} of {len(wrong):,}", style="bold")
    for row in wrong[:SHOWN]:
        line = f"  {row['file']}  {row['caption']}  written: {row['written']}"
        console.print(printable(line), soft_wrap=True)
