"""Synthesised tones with captions: "a square g then a sine c".

A sound lasts one second and has one or two tones of a timbre and a note of the octave from 523 to
988 Hz, with noise 20 to 40 dB below them. A tenth of the 441 ordered pairs of tones is held out,
chosen by the seed: training never has such a pair, and every held-out sound is one.
"""

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np

from data.sources.drawn.written import Item

VERSION = 1  # of the sounds
RATE = 16_000  # samples a second
DEFAULT = 6_000  # sounds
EACH = 10  # one of 10 sounds is held out
NOTES = dict(zip("cdefgab", (523.25, 587.33, 659.26, 698.46, 783.99, 880.0, 987.77), strict=True))
# Harmonic → its amplitude. Harmonics above half the rate are left out, so nothing is aliased.
TIMBRES: dict[str, Callable[[int], float]] = {
    "sine": lambda k: float(k == 1),
    "square": lambda k: (k % 2) / k,
    "saw": lambda k: 1 / k,
}


Pair = tuple[tuple[str, str], ...]
"""(timbre, note) of each tone of a sound."""


def items(count: int, seed: int) -> Iterator[Item]:
    """`count` sounds, int16 [16000]; 0: DEFAULT of them."""
    held = held_out(seed)
    for number in range(count or DEFAULT):
        draw = np.random.default_rng([VERSION, seed, number])
        yield _item(draw, held, held_out=number % EACH == EACH - 1)


def held_out(seed: int) -> set[Pair]:
    """The pairs of tones that no training sound has."""
    pairs = list(product(product(TIMBRES, NOTES), repeat=2))
    chosen = np.random.default_rng([VERSION, seed]).permutation(len(pairs))
    return {pairs[place] for place in chosen[: round(len(pairs) / 10)]}


def _item(draw: np.random.Generator, held: set[Pair], held_out: bool) -> Item:
    tones: Pair = ()
    while not tones or (tones in held) != held_out:
        tones = tuple(_drawn(draw) for _ in range(draw.integers(1, 3)))
    sound, start = np.zeros(RATE), draw.uniform(0, 0.1)
    for timbre, note in tones:
        length = draw.uniform(0.25, 0.4)
        _add(sound, start, _tone(draw, timbre, NOTES[note] * draw.uniform(0.995, 1.005), length))
        start += length + draw.uniform(0.02, 0.08)
    sound /= abs(sound).max()
    sound += draw.normal(0, 10 ** draw.uniform(-2, -1) / np.sqrt(2), RATE)
    samples = np.round(sound * draw.uniform(0.1, 0.5) * 32767).clip(-32768, 32767)
    caption = " then ".join(f"a {timbre} {note}" for timbre, note in tones)
    return Item(samples.astype(np.int16), caption, held_out, RATE)


def _drawn(draw: np.random.Generator) -> tuple[str, str]:
    return tuple(list(of)[draw.integers(len(of))] for of in (TIMBRES, NOTES))


def _tone(draw: np.random.Generator, timbre: str, hertz: float, seconds: float) -> np.ndarray:
    """A tone that rises and falls within 10 ms."""
    time = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * (hertz * time + draw.random())
    harmonics = range(1, int(RATE / 2 / hertz) + 1)
    wave = sum(TIMBRES[timbre](k) * np.sin(k * phase) for k in harmonics)
    return wave * np.minimum(1, np.minimum(time, time[::-1]) / 0.01)


def _add(sound: np.ndarray, start: float, tone: np.ndarray) -> None:
    first = round(start * RATE)
    room = sound[first : first + len(tone)]
    room += tone[: len(room)]
