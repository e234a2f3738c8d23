"""The kind of data `sounds`: WAV files with captions, as log-mel spectrograms.

A spectrogram is an image of one channel, [mels, frames, 1], so rows and models are those of the
kind `images`. With model.patch_height equal to data.mels a patch is model.patch whole frames.
"""

from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from data.captioned import store
from data.captioned.dataset import FIELDS as FIELDS
from data.captioned.dataset import CaptionedDataset, require_choices, spec_of
from data.captioned.spectrogram import Spectrogram
from data.fields import Field
from data.kinds.captioned import images

PREDICTS = "the caption of a sound"
tokens, vocab_size = images.tokens, images.vocab_size


@dataclass(frozen=True)
class Config:
    corpora: tuple[str, ...] = ("tones/train",)  # folders with captions.jsonl, or .jsonl files
    held_out: tuple[str, ...] = ()  # the same for validation; (): a share of the corpora
    file_key: str = "file"  # field of a jsonl row that holds the file's path
    caption_key: str = "caption"
    sample_rate: int = 16_000  # a second; files of another rate are resampled
    seconds: float = 1.024  # of a sound; longer ones count as unreadable
    mels: int = 64  # bands
    window: int = 1024  # samples of a frame
    hop: int = 256  # samples between the beginnings of two frames
    max_unreadable: int = 0  # files that may be left out because they cannot be read
    tokenizer: str = "words"  # of the captions
    vocab_size: int = 0  # tokens to train bpe or unigram with
    validation: float = 0.1  # share of the files, chosen by a hash of their content
    too_long: str = "refuse"  # captions longer than the context: refuse | truncate
    cache: str = "cache"  # folder of the spectrograms
    hash: str = ""  # of the dataset, filled in by `resolve`; give it to insist on one


def image_shape(data: Any) -> tuple[int, int, int]:
    """(mels, frames, 1) of the field `image`; ValueError for impossible ones."""
    return _spectrogram(data).shape


def reader(data: Any) -> Callable[[bytes], np.ndarray]:
    """A function from a file's bytes to the field `image`; it raises Unreadable."""
    return _spectrogram(data).image


def spec(config: Any) -> dict[str, Field]:
    """Fields of a row: image uint8 [mels, frames, 1], tokens, targets int32 [T], weights float32
    [T]."""
    return spec_of(image_shape(config.data), config.model.context_length)


def prepare(data: Any, progress: bool = True) -> CaptionedDataset:
    """The sounds of a `data` section; raises what `store.prepare` raises."""
    require_choices(data)
    shape, origin = image_shape(data), ["sounds", *astuple(_spectrogram(data))]
    return CaptionedDataset(store.prepare(data, shape, origin, reader(data), progress))


def _spectrogram(data: Any) -> Spectrogram:
    return Spectrogram(data.sample_rate, data.seconds, data.mels, data.window, data.hop)
