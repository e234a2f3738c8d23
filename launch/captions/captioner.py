"""The model of a run that was trained on images or sounds, as something that writes captions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from data.captioned.pictures import Unreadable, raw_bytes
from data.files import path_of
from data.kinds import KINDS
from data.tokenizer import Tokenizer
from launch.converted import read_tokenizer
from launch.files import instead, read_config
from launch.restored import family_of, restored
from launch.trial import start
from model import families
from model.captioner import config as of_model
from model.captioner import family as captioner
from model.captioner import reading
from model.generation import sample
from model.generation.samplers import Sampler

AT_ONCE = 64  # images in a batch
# The last token of a caption is never read, so a caption may fill the context.
READER = reading.READER._replace(bounded=False)


@dataclass(frozen=True)
class Captioner:
    """A model with its tokenizer. `data` is the section of its run's config."""

    run: Path
    cfg: of_model.Config
    params: dict
    tokenizer: Tokenizer
    step: int
    data: ConfigDict

    @property
    def prompt(self) -> list[int]:
        """The tokens before a caption, as in training."""
        return [self.tokenizer.eod]

    def read(self, raw: bytes) -> np.ndarray:
        """The field `image` uint8 [H, W, C] of a file's bytes; raises Unreadable."""
        return KINDS[self.data.kind].reader(self.data)(raw)

    def write(self, images_NHWC: np.ndarray) -> Iterator[tuple[list[int], bool]]:
        """Greedy captions: (tokens without the end, whether it ended) of each image."""
        sampler = Sampler(
            temperature=0.0, vocab_size=self.tokenizer.vocab_size, stop=(self.tokenizer.eod,)
        )
        for first in range(0, len(images_NHWC), AT_ONCE):
            part = images_NHWC[first : first + AT_ONCE]
            padded = np.resize(part, (AT_ONCE, *part.shape[1:]))  # one program for all
            params, prompts = reading.with_images(self.params, padded), [self.prompt] * AT_ONCE
            drawn = sample.sample(
                params, self.cfg, prompts, self.cfg.context_length, sampler, reader=READER
            )
            for tokens, count in zip(drawn.tokens_BN, drawn.lengths_B[: len(part)], strict=False):
                written = tokens[:count].tolist()
                ended = bool(written) and written[-1] == self.tokenizer.eod
                yield (written[:-1] if ended else written), ended


class Sampled(NamedTuple):
    """What `isoflop sample` draws a caption with."""

    model: tuple[families.Family, of_model.Config, Tokenizer]
    prompt: tuple[list[int], set[int]]  # its tokens, and those that end a caption besides the end
    weights: tuple[tuple[dict, of_model.Config], int]  # with the image; and their step


def sampled(run: Path, file: str, prompt: str) -> Sampled:
    """The captioner of a run with the image or sound in a file, and the beginning of its caption.
    ValueError or FileNotFoundError, in one line, for a run or a file that cannot be read."""
    opened = open_run(run)
    params = reading.with_images(opened.params, read_file(opened, file, "image")[None])
    typed = opened.tokenizer.encode_prompt(prompt).tolist()
    model, weights = (captioner, opened.cfg, opened.tokenizer), (params, opened.cfg)
    return Sampled(model, ([*opened.prompt, *typed], set()), (weights, opened.step))


def open_run(run: Path) -> Captioner:
    """The captioner in a run's folder, from its newest good checkpoint. ValueError or
    FileNotFoundError, in one line, for a run that captions nothing, with what it can do."""
    family, cfg = family_of(run)
    config = read_config(run) or {}
    if family is not captioner:
        raise ValueError(
            f"run={run} holds a model of the family {families.name_of(family)!r}, which reads no "
            f"images; use a run with model.family=captioner{instead(family, cfg, run)}"
        )
    data = config.get("data", {})
    if not hasattr(KINDS.get(data.get("kind")), "reader"):
        raise ValueError(f"run={run} has data.kind={data.get('kind')!r}, which has no images")
    tokenizer = read_tokenizer(run, cfg.vocab_size, "run")
    params, step = restored(run, family, cfg)
    if not cfg.learns_encoder:
        params = params | {"encoder": frozen_encoder(run, config)}
    params = reading.prepare(params, cfg)
    return Captioner(run, cfg, params, tokenizer, step, ConfigDict(data))


def frozen_encoder(run: Path, config: Mapping[str, Any]) -> dict:
    """The encoder that a run used and did not train. ValueError if its weights have changed."""
    section = config.get("objective", {})
    source, stated = section.get("encoder", ""), section.get("encoder_hash", "")
    if not source:
        raise ValueError(f"run={run} has a frozen encoder, but objective.encoder names none")
    found = start.load(path_of(source, "objective.encoder"), "objective.encoder")
    if found.hash != stated:
        raise ValueError(
            f"run={run} was trained with an encoder of the hash {stated!r}, but the weights in "
            f"objective.encoder={source} have the hash {found.hash!r}; restore the original weights"
        )
    return jax.device_put(found.params["encoder"])


def read_file(opened: Captioner, path: str, flag: str) -> np.ndarray:
    """The image, or the sound as an image, in a file that `flag` names. ValueError if it cannot be
    read."""
    try:
        return opened.read(raw_bytes(path_of(path, flag)))
    except Unreadable as reason:
        raise ValueError(f"{flag}={path} cannot be read: {reason}") from None
