"""Maps text to tokens and back: bytes, characters, SentencePiece, Hugging Face.

    'bytes'              256 tokens; the end of a document is byte 0xFF, which UTF-8 never contains
    'chars'              the characters of the training documents, end-of-document, unknown
    'bpe', 'unigram'     SentencePiece, trained here on training documents, data.vocab_size tokens
    'path/to/x.model'    an existing SentencePiece model, with its own normalisation
    'path/to/x.json'     a Hugging Face tokenizer.json, read by the library tokenizers

A tokenizer is (kind, name, model): `model` is the bytes that define it, empty for 'bytes'.
"""

import hashlib
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from data.atomic import write_atomic

TRAINED = ("chars", "bpe", "unigram")
SPACE = "\u2581"  # what SentencePiece writes for a space
ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")  # of documents, in published models
LINE_CHARACTERS = 1000  # SentencePiece drops training lines above 4192 bytes


class Tokenizer:
    """Text to int32 ids and back. Equal fingerprints mean equal tokens for every text."""

    def __init__(self, kind: str, name: str, model: bytes = b"", prefix: Sequence[int] = ()):
        """`prefix` holds the tokens that the model expects before every prompt, such as <s>."""
        self.kind, self.name, self.model, self.prefix = kind, name, model, tuple(prefix)
        self._encode, self.pieces, self.eod = KINDS[kind](model)
        self.vocab_size = len(self.pieces)
        self.fingerprint = hashlib.sha256(kind.encode() + b"\0" + model).hexdigest()
        # Some models put a space before every text.
        first = self.pieces[self.encode("a b")[0]]
        self._dummy_prefix = b" " if first.startswith(b" ") else b""
        # Bytes of text that each token represents [V]; 0 for the end of a document.
        self.token_bytes = np.array([len(piece) for piece in self.pieces], np.int32)

    def encode(self, text: str) -> np.ndarray:
        """Token ids int32 [n], without an end-of-document token."""
        return self._encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`. End-of-document gives no text; a cut character becomes U+FFFD."""
        raw = b"".join(self.pieces[int(i)] for i in ids)
        return raw.removeprefix(self._dummy_prefix).decode("utf-8", "replace")

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json, and tokenizer.model if it has one, into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            "kind": self.kind,
            "name": self.name,
            "vocab_size": self.vocab_size,
            "end_of_document": self.eod,
            "fingerprint": self.fingerprint,
        } | ({"prefix": self.prefix} if self.prefix else {})
        if self.model:
            write_atomic(folder / "tokenizer.model", self.model)
        write_atomic(folder / "tokenizer.json", json.dumps(about, indent=1).encode())


def load(folder: str | Path) -> Tokenizer:
    """The tokenizer that `save` wrote into `folder`.

    Raises FileNotFoundError if there is none, ValueError if its model has changed since.
    """
    folder = Path(folder)
    if not (folder / "tokenizer.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no tokenizer that isoflop reads; a converted model has one if its "
            "tokenizer.model or tokenizer.json came with it"
        )
    about = json.loads((folder / "tokenizer.json").read_text())
    model = folder / "tokenizer.model"
    content = model.read_bytes() if model.exists() else b""
    tokenizer = Tokenizer(about["kind"], about["name"], content, about.get("prefix", ()))
    if tokenizer.fingerprint != about["fingerprint"]:
        raise ValueError(f"{model} does not match tokenizer.json; delete {folder} to rebuild it")
    return tokenizer


def train(name: str, texts: Iterable[str], vocab_size: int = 0) -> Tokenizer:
    """Trains 'chars', 'bpe' or 'unigram' on documents; equal texts give equal tokenizers."""
    if name == "chars":
        characters = "".join(sorted(set().union(*texts)))
        return Tokenizer("chars", "chars", characters.encode("utf-32-le"))
    return Tokenizer("sentencepiece", name, _train_sentencepiece(name, texts, vocab_size))


def given(spec: str) -> Tokenizer:
    """The tokenizer of a spec that needs no training: 'bytes' or the path of a .model or .json.

    Raises ValueError or FileNotFoundError, naming the spec.
    """
    if spec == "bytes":
        return Tokenizer("bytes", "bytes")
    kind = {".model": "sentencepiece", ".json": "huggingface"}.get(Path(spec).suffix)
    if kind is None:
        known = ", ".join(("bytes", *TRAINED))
        raise ValueError(
            f"data.tokenizer={spec!r} is unknown; use {known} or the path of a .model or .json"
        )
    path = Path(spec).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"data.tokenizer={spec!r} does not exist")
    model = path.read_bytes()
    try:
        made = Tokenizer(kind, path.stem, model)
    except RuntimeError as error:
        raise ValueError(f"data.tokenizer={spec!r} is not a SentencePiece model") from error
    return made if kind == "sentencepiece" else Tokenizer(kind, path.stem, model, _prefix(model))


Encode = Callable[[str], np.ndarray]


def _bytes(model: bytes) -> tuple[Encode, list[bytes], int]:
    def encode(text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    return encode, [bytes([value]) for value in range(255)] + [b""], 255


def _characters(model: bytes) -> tuple[Encode, list[bytes], int]:
    """Ids are ranks of code points. Unknown counts as one byte, so it never lowers bits/byte."""
    points = np.frombuffer(model, "<u4")
    if not len(points):
        raise ValueError(
            "data.tokenizer='chars' found no training text; use more, or a smaller data.validation"
        )
    eod, unknown = len(points), len(points) + 1

    def encode(text: str) -> np.ndarray:
        wanted = np.frombuffer(text.encode("utf-32-le"), "<u4")
        rank = np.searchsorted(points, wanted)
        found = points[np.minimum(rank, len(points) - 1)] == wanted
        return np.where(found, rank, unknown).astype(np.int32)

    return encode, [chr(point).encode() for point in points] + [b"", b"?"], eod


def _sentencepiece(model: bytes) -> tuple[Encode, list[bytes], int]:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [_piece_bytes(processor, i) for i in range(processor.vocab_size())]
    eod = processor.eos_id() if processor.eos_id() >= 0 else processor.bos_id()
    if eod < 0:
        raise ValueError("data.tokenizer: the model has neither </s> nor <s> to end documents with")
    mark = [processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE.encode()]
    exact = processor.unk_id() not in mark and pieces[processor.encode("x")[0]] == b"x"

    def encode(text: str) -> np.ndarray:
        if not exact or SPACE not in text:
            return np.array(processor.encode(text), np.int32)
        # SentencePiece would take this character for a space; as bytes it survives.
        parts = [processor.encode(part) for part in text.split(SPACE)]
        marked = itertools.chain.from_iterable((mark, part) for part in parts[1:])
        return np.array(list(itertools.chain(parts[0], *marked)), np.int32)

    return encode, pieces, eod


def _piece_bytes(processor, i: int) -> bytes:
    if processor.is_byte(i):
        return bytes([int(processor.id_to_piece(i)[1:-1], 16)])
    if processor.is_control(i) or processor.is_unused(i):
        return b""
    if processor.is_unknown(i):
        return b"?"
    return processor.id_to_piece(i).replace(SPACE, " ").encode()


def _library(model: bytes):
    """The tokenizer of the library tokenizers that a tokenizer.json describes."""
    try:
        import tokenizers
    except ImportError as error:
        raise ValueError(
            "data.tokenizer: a tokenizer.json needs the library tokenizers; pip install -e '.[hf]'"
        ) from error
    try:
        return tokenizers.Tokenizer.from_str(model.decode())
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(f"data.tokenizer: this is not a tokenizer.json: {error}") from error


def _prefix(model: bytes) -> list[int]:
    """Tokens that a tokenizer.json puts before every text, such as <s>."""
    fast = _library(model)
    whole, plain = (fast.encode("a", add_special_tokens=special).ids for special in (True, False))
    return whole[: whole.index(plain[0])] if plain and plain[0] in whole else []


def _huggingface(model: bytes) -> tuple[Encode, list[bytes], int]:
    fast = _library(model)
    special = {i for i, token in fast.get_added_tokens_decoder().items() if token.special}
    eod = next((i for end in ENDS if (i := fast.token_to_id(end)) is not None), None)
    if eod is None:
        raise ValueError(
            f"data.tokenizer: the tokenizer.json has none of {', '.join(ENDS)} to end documents"
        )
    spelled = _spelled_bytes if '"ByteLevel"' in model.decode() else _marked_bytes
    names = [fast.id_to_token(i) for i in range(fast.get_vocab_size())]
    pieces = [b"" if i in special or not name else spelled(name) for i, name in enumerate(names)]

    def encode(text: str) -> np.ndarray:
        return np.array(fast.encode(text, add_special_tokens=False).ids, np.int32)

    return encode, pieces, eod


def _marked_bytes(piece: str) -> bytes:
    """The bytes of a SentencePiece-style piece in a tokenizer.json."""
    if re.fullmatch(r"<0x[0-9A-F]{2}>", piece):
        return bytes([int(piece[3:5], 16)])
    return piece.replace(SPACE, " ").encode()


# GPT-2 spells bytes as characters: printable ones as themselves, the others from U+0100 on.
_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
_BYTE_OF = {chr(byte): byte for byte in _PRINTABLE}
_BYTE_OF |= {chr(256 + place): byte for place, byte in enumerate(_OTHERS)}


def _spelled_bytes(piece: str) -> bytes:
    """The bytes of a piece of a byte-level tokenizer; manually added tokens are plain text."""
    if all(character in _BYTE_OF for character in piece):
        return bytes(_BYTE_OF[character] for character in piece)
    return piece.encode()


def _train_sentencepiece(name: str, texts: Iterable[str], vocab_size: int) -> bytes:
    import sentencepiece

    if vocab_size < 1:
        raise ValueError(
            f"data.tokenizer={name!r} needs data.vocab_size, now {vocab_size}; try 4096"
        )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_training_lines(texts),
            model_writer=model,
            model_type=name,
            vocab_size=vocab_size,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            byte_fallback=True,
            character_coverage=0.9995,
            split_digits=True,
            unk_id=0,
            eos_id=1,
            bos_id=-1,
            pad_id=-1,
            # With several threads, sums of floats depend on which finishes first.
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split()).rpartition("] ")[2]
        reason = reason.partition(" Increase vocab_size")[0]
        raise ValueError(
            f"data.vocab_size={vocab_size} does not fit this text: {reason}"
        ) from error
    return model.getvalue()


def _training_lines(texts: Iterable[str]) -> Iterator[str]:
    """Lines without tabs and NULs, which SentencePiece reserves; it encodes those as bytes."""
    for text in texts:
        for line in re.split(r"[\n\t\r\0]+", text):
            for start in range(0, len(line), LINE_CHARACTERS):
                yield line[start : start + LINE_CHARACTERS]


KINDS: dict[str, Callable[[bytes], tuple[Encode, list[bytes], int]]] = {
    "bytes": _bytes,
    "chars": _characters,
    "sentencepiece": _sentencepiece,
    "huggingface": _huggingface,
}
