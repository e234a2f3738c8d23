"""What a tokenizer does to a text: how long it becomes, whether it comes back, how fast."""

import re
import time
from typing import Any

import numpy as np

from data.tokenizer import Tokenizer

# Scripts that put no spaces between words: Thai to Burmese, Khmer, kana, Han.
UNSPACED = re.compile("[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]")
SPACED_SHARE = 0.7  # of the characters that are no spaces
TIMED_BYTES = 200_000
AROUND = 12  # characters shown before and after where a text came back otherwise


def measure(tokenizer: Tokenizer, text: str) -> dict[str, Any]:
    """Counts of one text. `fertility` is tokens for each word between spaces (Rust et al. 2021);
    None where the script has no spaces. `round_trip` is "" if the text came back, otherwise where
    it first differs."""
    ids = tokenizer.encode(text)
    n_bytes, words = len(text.encode()), len(text.split())
    found = {
        "bytes": n_bytes,
        "characters": len(text),
        "words": words if spaced(text) else None,
        "tokens": len(ids),
        "bytes_per_token": n_bytes / max(1, len(ids)),
        "fertility": len(ids) / max(1, words) if spaced(text) else None,
        "round_trip": difference(text, tokenizer.decode(ids)),
    }
    if tokenizer.unknown is not None:
        found["unknown"] = int(np.count_nonzero(ids == tokenizer.unknown))
    return found


def spaced(text: str) -> bool:
    """Whether most of a text is in scripts that separate words by spaces."""
    visible = re.sub(r"\s", "", text)
    return len(UNSPACED.findall(visible)) <= (1 - SPACED_SHARE) * len(visible)


def difference(text: str, back: str) -> str:
    """Where a text and what came back first differ, in words; "" if they are equal."""
    if text == back:
        return ""
    shorter = min(len(text), len(back))
    place = next((i for i in range(shorter) if text[i] != back[i]), shorter)
    here = slice(max(0, place - AROUND), place + AROUND)
    return f"character {place}: {text[here]!r} became {back[here]!r}"


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    """The tokens of a text as they are spelled; bytes that are no whole character as <C3>, a token
    without bytes as <its id>."""
    found = []
    for i in tokenizer.encode(text).tolist():
        raw = tokenizer.pieces[i]
        try:
            found.append(raw.decode() if raw else f"<{i}>")
        except UnicodeDecodeError:
            found.append("".join(f"<{byte:02X}>" for byte in raw))
    return found


def megabytes_per_second(tokenizer: Tokenizer, text: str) -> float:
    """The speed of `encode` in 10^6 bytes of text a second, on TIMED_BYTES of it; best of three."""
    n_bytes = max(1, len(text.encode()))
    text = text * -(-TIMED_BYTES // n_bytes)
    text = text[: max(1, TIMED_BYTES * len(text) // len(text.encode()))]
    tokenizer.encode(text[:1000])
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        tokenizer.encode(text)
        seconds.append(time.perf_counter() - begun)
    return len(text.encode()) / 1e6 / max(min(seconds), 1e-9)
