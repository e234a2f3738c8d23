"""Digits spoken by espeak-ng, where it is installed: "seven".

Sounds differ in speaker, accent, pitch and speed. Of each speaker one digit is held out, and of
each digit one speaker, chosen by the seed: training never has that speaker say it, in any accent.
The samples depend on the version of espeak-ng.
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

VERSION = 2  # of the draws
PROGRAM = "espeak-ng"
REMEDY = f"install {PROGRAM} 1.51 with its data, or use --of=tones"
DEFAULT = 3_000  # sounds
EACH = 10  # one of 10 sounds is held out
# The name en-gb is no accent here: espeak-ng 1.51 ignores the speaker after it.
ACCENTS = ("en", "en-us", "en-gb-scotland", "en-029", "en-gb-x-rp")
SPEAKERS = ("m1", "m2", "m3", "m4", "m5", "f1", "f2", "f3", "f4", "f5")  # as many as digits
PITCHES, SPEEDS = (25, 75), (140, 220)  # lowest and highest; words a minute


def items(count: int, seed: int) -> Iterator[Item]:
    """`count` sounds, int16 [N]; 0: DEFAULT of them. ValueError where espeak-ng is not installed,
    lacks a voice or fails."""
    if not (program := shutil.which(PROGRAM)):
        raise ValueError(
            f"--of=spoken_digits needs the program {PROGRAM}, which is not installed; install it "
            f"(apt-get install {PROGRAM}), or use --of=tones"
        )
    # The place in NAMES of the digit that is held out of each speaker.
    held = np.random.default_rng([VERSION, seed]).permutation(len(SPEAKERS))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "spoken.wav"
        _require_voices(program, file)
        for number in range(count or DEFAULT):
            draw = np.random.default_rng([VERSION, seed, number])
            speaker, held_out = draw.integers(len(SPEAKERS)), number % EACH == EACH - 1
            # Of ten digits, the held one or another.
            digit = (held[speaker] + (0 if held_out else draw.integers(1, len(NAMES)))) % len(NAMES)
            voice = f"{ACCENTS[draw.integers(len(ACCENTS))]}+{SPEAKERS[speaker]}"
            pitch, speed = (int(draw.integers(*bounds)) for bounds in (PITCHES, SPEEDS))
            samples, rate = _spoken(program, (voice, pitch, speed), NAMES[digit], file)
            yield Item(samples, NAMES[digit], held_out, rate)


def _require_voices(program: str, file: Path) -> None:
    """ValueError if two voices sound alike. espeak-ng ignores a speaker or an accent that it does
    not know, and then held-out sounds would be among those of training."""
    heard: dict[bytes, str] = {}
    for accent, speaker in product(ACCENTS, SPEAKERS):
        voice = f"{accent}+{speaker}"
        samples, _ = _spoken(program, (voice, 50, 175), NAMES[0], file)
        if (other := heard.setdefault(samples.tobytes(), voice)) != voice:
            raise ValueError(
                f"{program} lacks a voice: {other} and {voice} sound the same; {REMEDY}"
            )


def _spoken(
    program: str, voice: tuple[str, int, int], word: str, file: Path
) -> tuple[np.ndarray, int]:
    """(samples int16 [N], samples a second) of a word in a voice, (its name, pitch, speed). Writes
    and deletes `file`."""
    name, pitch, speed = voice
    options = ["-v", name, "-p", str(pitch), "-s", str(speed)]
    try:
        done = subprocess.run(
            [program, *options, "-w", str(file), word],
            capture_output=True, text=True, errors="replace", timeout=60,
        )  # fmt: skip
        if done.returncode:
            said = " ".join(done.stderr.split())[:200]
            raise ValueError(
                f"{program} -v {name} failed with exit code {done.returncode}: {said!r}; {REMEDY}"
            )
        with wave.open(str(file)) as sound:
            rate, content = sound.getframerate(), sound.readframes(sound.getnframes())
        file.unlink()
        if not content:
            raise EOFError("no samples")
    except (OSError, EOFError, subprocess.SubprocessError, wave.Error) as error:
        raise ValueError(f"{program} -v {name} wrote no sound ({error}); {REMEDY}") from None
    return np.frombuffer(content, "<i2"), rate
