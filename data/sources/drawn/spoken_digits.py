"""Digits spoken by espeak-ng, where it is installed: "seven".

Voices differ in accent, speaker, pitch and speed. One digit of each voice is held out, chosen by
the seed: training never has it in that voice. The samples depend on the version of espeak-ng.
"""

import shutil
import subprocess
import tempfile
import wave
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np

from data.sources.drawn.digits import NAMES
from data.sources.drawn.written import Item

VERSION = 1  # of the draws
PROGRAM = "espeak-ng"
DEFAULT = 3_000  # sounds
EACH = 10  # one of 10 sounds is held out
ACCENTS = ("en-gb", "en-us", "en-gb-scotland", "en-029", "en-gb-x-rp")
SPEAKERS = ("m1", "m3", "m5", "m7", "f1", "f2", "f3", "f4")
VOICES = [f"{accent}+{speaker}" for accent, speaker in product(ACCENTS, SPEAKERS)]
PITCHES, SPEEDS = (25, 75), (140, 220)  # lowest and highest; words a minute


def items(count: int, seed: int) -> Iterator[Item]:
    """`count` sounds, int16 [N]; 0: DEFAULT of them. ValueError where espeak-ng is not installed or
    fails."""
    if not (program := shutil.which(PROGRAM)):
        raise ValueError(
            f"--of=spoken_digits needs the program {PROGRAM}, which is not installed; install it "
            f"(apt-get install {PROGRAM}), or use --of=tones"
        )
    held = np.random.default_rng([VERSION, seed]).integers(len(NAMES), size=len(VOICES))
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count or DEFAULT):
            draw = np.random.default_rng([VERSION, seed, number])
            voice, held_out = draw.integers(len(VOICES)), number % EACH == EACH - 1
            # Of ten digits, the held one or another.
            digit = (held[voice] + (0 if held_out else draw.integers(1, len(NAMES)))) % len(NAMES)
            pitch, speed = (int(draw.integers(*bounds)) for bounds in (PITCHES, SPEEDS))
            options = ["-v", VOICES[voice], "-p", str(pitch), "-s", str(speed)]
            samples, rate = _spoken(program, options, NAMES[digit], Path(folder) / "spoken.wav")
            yield Item(samples, NAMES[digit], held_out, rate)


def _spoken(program: str, options: list[str], word: str, file: Path) -> tuple[np.ndarray, int]:
    """(samples int16 [N], samples a second) of a word."""
    command = [program, *options, "-w", str(file), word]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode or not file.exists():
        said = " ".join(done.stderr.split())[:200]
        raise ValueError(f"{PROGRAM} failed with exit code {done.returncode}: {said!r}")
    with wave.open(str(file)) as sound:
        rate, content = sound.getframerate(), sound.readframes(sound.getnframes())
    file.unlink()
    return np.frombuffer(content, "<i2"), rate
