"""Writes captioned images and sounds as folders: files, and the list captions.jsonl.

shapes/train/captions.jsonl        shapes/held_out/captions.jsonl
shapes/train/000000.png            shapes/held_out/000000.png
"""

import io
import json
import wave
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.atomic import write_atomic
from data.captioned.listing import LIST
from data.captioned.pictures import pillow

PARTS = {False: "train", True: "held_out"}


class Item(NamedTuple):
    """What is drawn: uint8 pixels [H, W, C], or int16 samples [N] of a sound."""

    content: np.ndarray
    caption: str
    held_out: bool
    rate: int = 0  # samples a second; 0: it is an image


def write(items: Iterable[Item], folder: Path, advance: Callable[[int], None]) -> dict[str, int]:
    """Writes the folders train and held_out; returns the items of each. The lists are written last.
    Calls `advance(1)` after each item. A folder is made with its first file, so a set that
    cannot be made leaves no folder."""
    lines: dict[str, list[str]] = {part: [] for part in PARTS.values()}
    for item in items:
        part = PARTS[item.held_out]
        if not lines[part]:
            (folder / part).mkdir(parents=True, exist_ok=True)
        ending, content = ("wav", wav(item)) if item.rate else ("png", png(item.content))
        name = f"{len(lines[part]):06d}.{ending}"
        (folder / part / name).write_bytes(content)
        lines[part].append(json.dumps({"file": name, "caption": item.caption}) + "\n")
        advance(1)
    for part, found in lines.items():
        write_atomic(folder / part / LIST, "".join(found).encode())
    return {part: len(found) for part, found in lines.items()}


def require_both(of: str, count: int, least: int) -> None:
    """ValueError for a count so small that one of the two folders would have no file."""
    if 0 < count < least:
        raise ValueError(
            f"--count={count} is too few to hold any of --of={of} out; use {least} or more, or 0"
        )


def require_empty(folder: Path) -> None:
    """FileExistsError for a file or a folder that is not empty: nothing is ever replaced."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"to={folder} exists already and is not empty; name a new folder")


def png(pixels_HWC: np.ndarray) -> bytes:
    """An image as a PNG file."""
    content = io.BytesIO()
    grey = pixels_HWC.shape[2] == 1
    image = pillow().Image.fromarray(pixels_HWC[:, :, 0] if grey else pixels_HWC)
    image.save(content, "PNG")
    return content.getvalue()


def wav(item: Item) -> bytes:
    """A sound as a WAV file: one channel of 16 bits."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(item.rate)
        file.writeframes(item.content.astype("<i2").tobytes())
    return content.getvalue()
