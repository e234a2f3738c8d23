"""Maps text to tokens and back: bytes, characters, words, SentencePiece, Hugging Face.

    'bytes'              256 tokens; the end of a document is byte 0xFF, which UTF-8 never contains
    'chars'              the characters of the training documents, end-of-document, unknown
    'bpe', 'unigram'     SentencePiece, trained here on training documents, data.vocab_size tokens
    'words',             the most frequent words of the training documents, end-of-document, unknown
    'lowercase_words'    (data.vocab_size tokens, 0: all words): `data/tokenizer_files/words.py`
    'path/to/x.model'    an existing SentencePiece model, with its own normalisation
    'path/to/x.json'     a Hugging Face tokenizer.json, read by the library tokenizers

A tokenizer is (kind, name, model). `model` holds the bytes that define it; for 'bytes' it is empty.
A path may also name a file that `save` wrote, of any kind.

Text never yields control tokens, such as the end of a document: a document that spells
<|endoftext|> is encoded as those 13 characters. Only `encode_prompt` reads special strings.
"""

import functools
import hashlib
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.atomic import write_atomic
from data.files import path_of, to_path
from data.local import parse_object, sealed, unsealed
from data.tokenizer_files import special_strings, tokenizer_json, words
from data.tokenizer_files.added_tokens import end_ids
from data.tokenizer_files.sentencepiece_model import without_dummy_prefix
from data.tokenizer_files.special_strings import SpecialString

REVISIONS = {"huggingface": 1}  # increment when the same model encodes a text differently
SPACE = tokenizer_json.SPACE
LINE_CHARACTERS = 1000  # SentencePiece drops training lines above 4192 bytes


class Tokenizer:
    """Text to int32 ids and back. Equal fingerprints mean equal tokens for every text."""

    def __init__(
        self,
        kind: str,
        name: str,
        model: bytes = b"",
        prefix: Sequence[int] = (),
        end: int | None = None,
        specials: Sequence[SpecialString] = (),
        space_after: bool = True,
    ):
        """`prefix` holds the tokens that the model expects before every prompt, such as <s>.

        `end` is the end-of-document token if it is not the one that `model` names. `specials`
        apply to prompts only, and may add ids after those of `model`; a tokenizer.json lists its
        own. If `model` puts a space before every text and `space_after` is true, text after a
        special string begins with a space too.
        """
        self.kind, self.name, self.model, self.prefix = kind, name, model, tuple(prefix)
        self.end, self.specials, self.space_after = end, tuple(specials), space_after
        self._encode, pieces, self.eod = KINDS[kind](model, end)
        # The id that stands for what the vocabulary lacks; None if it lacks nothing.
        self.unknown = len(pieces) - 1 if kind in UNKNOWN_LAST else None
        added = max((special.id + 1 for special in self.specials), default=0) - len(pieces)
        self.pieces = [*pieces, *[b""] * added]
        # The largest id plus 1. Ids may have gaps.
        self.vocab_size = len(self.pieces)
        self.fingerprint = _fingerprint(kind, model, end, self.specials)
        # Some models put a space before every text.
        first = b"".join(self.pieces[i] for i in self.encode("a b")[:1])
        self.dummy_prefix = b" " if first.startswith(b" ") else b""
        # Bytes of text that each token represents [V]; 0 for control tokens and unused ids. None
        # if tokens do not determine them, as words do not.
        sizes = np.array([len(piece) for piece in self.pieces], np.int32)
        self.token_bytes = None if kind in WITHOUT_BYTES else sizes

    def encode(self, text: str) -> np.ndarray:
        """Token ids int32 [n] of a document. They never include control tokens."""
        return self._encode(text)

    def encode_parts(self, before: str, after: str) -> tuple[list[int], list[int]]:
        """The tokens of `before + after`, divided where `after` begins. A token that covers parts
        of both is the first of `after`."""
        whole = self.encode(before + after).tolist()
        alone = self.encode(before).tolist() if before else []
        pairs = enumerate(zip(alone, whole, strict=False))
        cut = next((i for i, (a, b) in pairs if a != b), min(len(alone), len(whole)))
        return whole[:cut], whole[cut:]

    def encode_prompt(self, text: str) -> np.ndarray:
        """Token ids int32 [n] of a prompt, where special strings such as <|user|> are tokens."""
        if self.kind == "huggingface":
            return tokenizer_json.encode_prompt(self.model, text)
        parts = list(special_strings.split(text, self.specials))
        first = later = self._encode
        if len(parts) > 1 and not self.space_after:
            later, _, _ = KINDS[self.kind](without_dummy_prefix(self.model), self.end)
        ids = [np.empty(0, np.int32)]
        for number, part in enumerate(parts):
            encode = later if number else first
            ids.append(encode(part) if isinstance(part, str) else np.array([part], np.int32))
        return np.concatenate(ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`. Control tokens give no text; invalid UTF-8 becomes U+FFFD."""
        raw = b"".join(self.pieces[int(i)] for i in ids)
        return raw.removeprefix(self.dummy_prefix).decode("utf-8", "replace")

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json and, if `model` is not empty, tokenizer.model into `folder`."""
        folder = to_path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            "kind": self.kind,
            "name": self.name,
            "vocab_size": self.vocab_size,
            "end_of_document": self.eod,
            "fingerprint": self.fingerprint,
        } | self._options()
        if self.model:
            write_atomic(folder / "tokenizer.model", self.model)
        write_atomic(folder / "tokenizer.json", sealed(about))

    def _options(self) -> dict:
        """The optional keys of a saved tokenizer.json."""
        options = {"prefix": self.prefix} if self.prefix else {}
        if self.end is not None:
            options["end"] = self.end
        if self.specials:
            options |= {"specials": self.specials, "space_after": self.space_after}
        return options


def _fingerprint(
    kind: str, model: bytes, end: int | None, specials: Sequence[SpecialString]
) -> str:
    chosen = b"" if end is None else f"\0end {end}".encode()
    for special in () if kind in MODEL_HAS_SPECIALS else specials:
        chosen += f"\0special {special.id} {special.text}".encode()
    return hashlib.sha256(kind.encode() + b"\0" + model + chosen).hexdigest()


class Saved(NamedTuple):
    """What `Tokenizer.save` wrote."""

    kind: str
    name: str
    model: bytes
    prefix: Sequence[int]
    end: int | None
    specials: Sequence[SpecialString]
    space_after: bool
    eod: int  # the token that ends documents
    fingerprint: str

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that was saved."""
        options = (self.prefix, self.end, self.specials, self.space_after)
        return Tokenizer(self.kind, self.name, self.model, *options)


def read_saved(folder: Path) -> Saved:
    """Reads and verifies the files of a saved tokenizer, without building it.

    Raises FileNotFoundError if the folder has no tokenizer, ValueError if a file is damaged.
    """
    path, model = folder / "tokenizer.json", folder / "tokenizer.model"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no tokenizer that isoflop reads; a converted model has one only if "
            "it was published with a tokenizer.model or tokenizer.json"
        )
    try:
        about = parse_object(path.read_bytes())
        if "checksum" in about:
            about = unsealed(path.read_bytes())
        content = model.read_bytes() if model.exists() else b""
        prefix, end = about.get("prefix", ()), about.get("end")
        specials = [SpecialString(*one) for one in about.get("specials", ())]
        saved = Saved(
            *(about["kind"], about["name"], content, prefix, end, specials),
            *(about.get("space_after", True), about["end_of_document"], about["fingerprint"]),
        )
        named = isinstance(saved.name, str) and saved.kind in KINDS
        ids = [*prefix, saved.eod, *(one.id for one in specials), *([] if end is None else [end])]
        spelled = all(isinstance(one.text, str) and one.text for one in specials)
        if not named or not spelled or not all(type(i) is int for i in ids):
            raise ValueError("it does not describe a tokenizer")
    except (ValueError, KeyError, TypeError) as error:
        reason = f"it has no key {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is damaged ({reason}); delete {folder} to rebuild it") from None
    if _fingerprint(saved.kind, content, saved.end, specials) != saved.fingerprint:
        raise ValueError(f"{model} does not match tokenizer.json; delete {folder} to rebuild it")
    return saved


def load(folder: str | Path) -> Tokenizer:
    """The tokenizer that `save` wrote into `folder`; raises what `read_saved` raises."""
    return read_saved(to_path(folder)).tokenizer()


def train(name: str, texts: Iterable[str], vocab_size: int = 0) -> Tokenizer:
    """Trains one of TRAINED on documents; equal texts give equal tokenizers."""
    kind, model_of = TRAINERS[name]
    return Tokenizer(kind, name, model_of(texts, vocab_size))


def from_spec(spec: str) -> Tokenizer:
    """The tokenizer of a spec that needs no training: 'bytes', or the path of a .model or .json
    file, published or saved by isoflop.

    Raises ValueError or FileNotFoundError, naming the spec.
    """
    if spec == "bytes":
        return Tokenizer("bytes", "bytes")
    kind = {".model": "sentencepiece", ".json": "huggingface"}.get(to_path(spec).suffix)
    if kind is None:
        known = ", ".join(("bytes", *TRAINED))
        raise ValueError(
            f"data.tokenizer={spec!r} is unknown; use {known} or the path of a .model or .json"
        )
    path = path_of(spec, "data.tokenizer")
    if not path.is_file():
        raise FileNotFoundError(f"data.tokenizer={spec!r} does not exist")
    if _is_saved(path.parent) and path.name in ("tokenizer.model", "tokenizer.json"):
        return read_saved(path.parent)._replace(name=path.stem).tokenizer()
    model, end = path.read_bytes(), None
    if kind == "huggingface" and tokenizer_json.end_of(model) is None:
        end = next(iter(end_ids(path.parent)), None)
    try:
        made = Tokenizer(kind, path.stem, model, end=end)
    except RuntimeError as error:
        raise ValueError(f"data.tokenizer={spec!r} is not a SentencePiece model") from error
    if kind == "huggingface":
        made.prefix = tuple(tokenizer_json.prefix(model))
    return made


def _is_saved(folder: Path) -> bool:
    """Whether `Tokenizer.save` wrote the tokenizer.json in `folder`. Published files have no
    fingerprint."""
    try:
        return "fingerprint" in parse_object((folder / "tokenizer.json").read_bytes())
    except (OSError, ValueError):
        return False


Encode = Callable[[str], np.ndarray]


def _bytes(model: bytes, end: int | None) -> tuple[Encode, list[bytes], int]:
    def encode(text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int32)

    return encode, [bytes([value]) for value in range(255)] + [b""], 255


def _characters(model: bytes, end: int | None) -> tuple[Encode, list[bytes], int]:
    """Ids are ranks of code points. The unknown token counts as the fewest bytes, one."""
    points = np.frombuffer(model, "<u4")
    if not len(points):
        raise ValueError(
            "data.tokenizer='chars' found no training text; use more, or a smaller data.validation"
        )
    eod, unknown = len(points), len(points) + 1

    def encode(text: str) -> np.ndarray:
        wanted = np.frombuffer(text.encode("utf-32-le"), "<u4")
        rank = np.searchsorted(points, wanted)
        known = points[np.minimum(rank, len(points) - 1)] == wanted
        return np.where(known, rank, unknown).astype(np.int32)

    return encode, [chr(point).encode() for point in points] + [b"", b"?"], eod


def _train_characters(texts: Iterable[str], vocab_size: int) -> bytes:
    characters: set[str] = set()
    for text in texts:
        characters.update(text)
    return "".join(sorted(characters)).encode("utf-32-le")


def _sentencepiece(model: bytes, end: int | None) -> tuple[Encode, list[bytes], int]:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [_piece_bytes(processor, i) for i in range(processor.vocab_size())]
    eod = processor.eos_id() if processor.eos_id() >= 0 else processor.bos_id()
    eod = eod if end is None else end
    if not 0 <= eod < len(pieces):
        raise ValueError("data.tokenizer: the model has neither </s> nor <s> to end documents with")
    mark = [processor.piece_to_id(f"<0x{byte:02X}>") for byte in SPACE.encode()]
    exact = processor.unk_id() not in mark and pieces[processor.encode("x")[0]] == b"x"

    def encode(text: str) -> np.ndarray:
        if not exact or SPACE not in text:
            return np.array(processor.encode(text), np.int32)
        # SentencePiece reads this character as a space, so it is encoded as bytes.
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


def require_size(name: str, vocab_size: int) -> None:
    """ValueError if a tokenizer of a given size, bpe or unigram, has none."""
    if vocab_size < 1:
        raise ValueError(
            f"data.tokenizer={name!r} needs a data.vocab_size above 0, not {vocab_size}; try 4096"
        )


def _train_sentencepiece(name: str, texts: Iterable[str], vocab_size: int) -> bytes:
    import sentencepiece

    require_size(name, vocab_size)
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
    """Training lines, split at tabs and NULs, which SentencePiece reserves and encodes as bytes."""
    for text in texts:
        for line in re.split(r"[\n\t\r\0]+", text):
            for start in range(0, len(line), LINE_CHARACTERS):
                yield line[start : start + LINE_CHARACTERS]


KINDS: dict[str, Callable[[bytes, int | None], tuple[Encode, list[bytes], int]]] = {
    "bytes": _bytes,
    "chars": _characters,
    "sentencepiece": _sentencepiece,
    "words": words.read,
    "huggingface": tokenizer_json.read,
}
UNKNOWN_LAST = ("chars", "words")  # kinds whose last token stands for what they do not know
MODEL_HAS_SPECIALS = ("sentencepiece", "huggingface")  # kinds whose model lists special strings
WITHOUT_BYTES = ("words",)  # kinds whose tokens do not give back the bytes of a text

# What is trained here: name -> (kind, what makes its model from documents and data.vocab_size).
TRAINERS: dict[str, tuple[str, Callable[[Iterable[str], int], bytes]]] = {
    "chars": ("chars", _train_characters),
    "bpe": ("sentencepiece", functools.partial(_train_sentencepiece, "bpe")),
    "unigram": ("sentencepiece", functools.partial(_train_sentencepiece, "unigram")),
    "words": ("words", words.train),
    "lowercase_words": ("words", functools.partial(words.train, lowercase=True)),
}
TRAINED = tuple(TRAINERS)
