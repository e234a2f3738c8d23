"""The model of a run as a coder of files."""

import dataclasses
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.tokenizer import Tokenizer
from data.tokenizer_files import lossless
from launch.coding import container, same_bits
from launch.coding.container import Header
from launch.restored import restored
from launch.sampling import draw
from model import families
from model.generation import coding
from model.parameters import flat
from scaling.printable import printable

STREAM = 4096  # tokens of a stream, at least, if --streams is not given
STREAMS = 16

Advance = Callable[[float], None]
"""Receives the share of the work that is done."""


@dataclass(frozen=True)
class Coder:
    """A model with its tokenizer. `fitted` holds its parameters or its counts."""

    run: Path
    family: families.Family
    cfg: Any
    tokenizer: Tokenizer
    fitted: Any
    step: int

    @property
    def counted(self) -> bool:
        return families.is_counted(self.family)

    def layout(self, tokens: int, streams: int, overlap: int) -> coding.Layout:
        """How tokens are read in `streams` rows; 0: as many as lose little. `overlap` tokens of
        each window are read again; 0: half a context. ValueError for impossible numbers."""
        context = self.cfg.context_length if draw.is_bounded(self.family) else 0
        if overlap and not context:
            raise ValueError(
                f"overlap={overlap} means nothing for a model of the family "
                f"{families.name_of(self.family)!r}, whose context has no end; drop it"
            )
        if not 0 <= streams <= container.MOST_STREAMS:
            raise ValueError(
                f"streams={streams} is out of range; use 1 to {container.MOST_STREAMS}"
            )
        return coding.Layout(
            tokens=tokens,
            rows=streams or max(1, min(STREAMS, tokens // STREAM)),
            context=context,
            overlap=overlap or context // 2,
            first=self.tokenizer.prefix or (self.tokenizer.eod,),
            again=self.tokenizer.prefix,
        )

    def tables(self, layout: coding.Layout) -> coding.Tables:
        """The tables of the model, from the beginning."""
        usable_V = lossless.usable(self.tokenizer, self.cfg.vocab_size)
        how = self.cfg, usable_V, layout
        if self.counted:
            return coding.FromCounts(self.family, self.fitted, *how)
        reader = draw.reader_of(self.family)
        cfg, *others = how
        return coding.Trained(reader.prepare(self.fitted, cfg), cfg, reader, *others)

    def hash(self) -> str:
        """SHA-256 of the parameters or counts, of the keys of the model that are not at their
        defaults, and of the tokenizer."""
        usual = families.keys(self.family)
        keys = {k: v for k, v in dataclasses.asdict(self.cfg).items() if v != usual.get(k)}
        about = [families.name_of(self.family), keys, self.tokenizer.fingerprint]
        about += [self.tokenizer.prefix, self.tokenizer.eod]
        digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
        if self.counted:
            counts = io.BytesIO()
            self.family.save(self.fitted, counts)
            digest.update(counts.getbuffer())
            return digest.hexdigest()
        for name, leaf in sorted(flat(self.fitted).items()):
            digest.update(f"{name} {leaf.shape} {leaf.dtype}".encode())
            digest.update(np.ascontiguousarray(leaf).tobytes())
        return digest.hexdigest()


def open_run(run: Path) -> Coder:
    """The coder of a run's folder or of Hugging Face weights. ValueError or FileNotFoundError, in
    one line, for a model that gives no distribution of the next token."""
    family, cfg, tokenizer = draw.open_run(run)
    fitted, step = restored(run, family, cfg)
    return Coder(run, family, cfg, tokenizer, fitted, step)


@dataclass(frozen=True)
class Compressed:
    """A compressed file, and how it came about. `bits` are those of the model's probabilities."""

    file: bytes
    header: Header
    gap_bytes: int  # bytes of the original that no token spells
    bits: float


def compress(
    coder: Coder, content: bytes, streams: int, overlap: int, advance: Advance
) -> Compressed:
    """Compresses the content of a file. ValueError for impossible numbers."""
    tokens, gaps = lossless.spell(coder.tokenizer, content)
    layout = coder.layout(len(tokens), streams, overlap)
    coded = coding.encode(coder.tables(layout), layout, tokens, advance)
    packed = container.pack_gaps(gaps)
    header = Header(
        model=coder.hash(),
        run=coder.run.name,
        step=coder.step,
        platform=same_bits.here(coder.counted),
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        tokens=len(tokens),
        streams=layout.rows,
        overlap=layout.overlap,
        gaps=len(packed),
        content=len(coded.content),
        checks=list(coded.checks),
    )
    file = container.write(header, packed, coded.content)
    return Compressed(file, header, sum(len(raw) for _, raw in gaps), coded.bits)


def check(coder: Coder, header: Header, name: str, anyway: bool) -> None:
    """ValueError, in one line, if a file was compressed with another model or, without `anyway`,
    on another platform."""
    if header.model != (own := coder.hash()):
        raise ValueError(
            f"{name} was compressed with another model: that of a run called "
            f"{printable(header.run)} at step {header.step:,} with the SHA-256 "
            f"{printable(header.model[:16])}…, but run={coder.run} is at step {coder.step:,} and "
            f"has {own[:16]}…; give the run that compressed it"
        )
    apart = same_bits.differences(header.platform, same_bits.here(coder.counted))
    if apart and not anyway:
        raise ValueError(
            f"{name} was compressed on another platform, which may compute other bits: "
            f"{printable(apart)}; decompress it there, or add --anyway to try it here: its "
            "checksum tells whether it worked"
        )


def decompress(
    coder: Coder, parts: tuple[Header, bytes, bytes], name: str, advance: Advance
) -> bytes:
    """The content of the original file, verified. `parts` are those of `container.read`.
    ValueError, in one line, if the file is damaged or this machine computes other bits."""
    header, packed, content = parts
    overlap = header.overlap if draw.is_bounded(coder.family) else 0
    try:
        layout = coder.layout(header.tokens, header.streams, overlap)
        gaps = container.unpack_gaps(packed, header.bytes)
    except ValueError as error:
        raise ValueError(f"{name} is damaged ({error}); copy it again") from None
    try:
        tokens = coding.decode(coder.tables(layout), layout, content, header.checks, advance)
    except coding.Different as error:
        raise ValueError(
            f"{name} cannot be decompressed here: this machine computes {error} than the one that "
            "compressed it; decompress it there"
        ) from None
    found = lossless.join(coder.tokenizer, lossless.Spelled(tokens, gaps))
    if hashlib.sha256(found).hexdigest() != header.sha256:
        raise ValueError(
            f"{name} cannot be decompressed here: the result does not have the SHA-256 of the "
            "original, because this machine computes other bits or the file was altered"
        )
    return found
