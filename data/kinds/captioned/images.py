"""The kind of data `images`: images with captions, for a decoder that reads patches first.

`data/captioned/listing.py` says what a list of files looks like, `data/captioned/dataset.py` what
a row does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from data.captioned import store
from data.captioned.dataset import FIELDS as FIELDS
from data.captioned.dataset import CaptionedDataset, require_choices, spec_of
from data.captioned.pictures import MODES, pillow, pixels
from data.fields import Field
from data.kinds import text

PREDICTS = "the caption of an image"


@dataclass(frozen=True)
class Config:
    corpora: tuple[str, ...] = ("shapes/train",)  # folders with captions.jsonl, or .jsonl files
    held_out: tuple[str, ...] = ()  # the same for validation; (): a share of the corpora
    file_key: str = "file"  # field of a jsonl row that holds the file's path
    caption_key: str = "caption"
    height: int = 32  # pixels; images of another size are scaled
    width: int = 32
    channels: int = 3  # 3: red, green, blue | 1: grey
    max_pixels: int = 1 << 24  # images with more are not decoded: decompression bombs
    max_unreadable: int = 0  # files that may be left out because they cannot be read
    tokenizer: str = "words"  # of the captions
    vocab_size: int = 0  # tokens to train bpe or unigram with
    validation: float = 0.1  # share of the files, chosen by a hash of their content
    too_long: str = "refuse"  # captions longer than the context: refuse | truncate
    cache: str = "cache"  # folder of the pixels
    hash: str = ""  # of the dataset, filled in by `resolve`; give it to insist on one


def image_shape(data: Any) -> tuple[int, int, int]:
    """(height, width, channels) of the field `image`; ValueError for impossible ones."""
    for key in ("height", "width", "max_pixels"):
        if data[key] < 1:
            raise ValueError(f"data.{key}={data[key]} must be 1 or more")
    if data.channels not in MODES:
        raise ValueError(f"data.channels={data.channels} is unknown; use 1 (grey) or 3 (RGB)")
    return data.height, data.width, data.channels


def reader(data: Any) -> Callable[[bytes], np.ndarray]:
    """A function from a file's bytes to the field `image`; it raises Unreadable."""
    pillow()
    return partial(pixels, shape=image_shape(data), max_pixels=data.max_pixels)


def spec(config: Any) -> dict[str, Field]:
    """Fields of a row: image uint8 [H, W, C], tokens, targets int32 [T], weights float32 [T]."""
    return spec_of(image_shape(config.data), config.model.context_length)


def tokens(config: Any) -> int:
    """Tokens of a caption per row, padding included; patches do not count."""
    return config.model.context_length


def vocab_size(data: Any) -> int:
    """Size of an existing tokenizer; ValueError for one that is trained on the captions first."""
    return text.vocab_size(data)


def prepare(data: Any, progress: bool = True) -> CaptionedDataset:
    """The images of a `data` section; raises what `store.prepare` raises."""
    require_choices(data)
    shape = image_shape(data)
    origin = ["images", data.max_pixels]
    return CaptionedDataset(store.prepare(data, shape, origin, reader(data), progress))
