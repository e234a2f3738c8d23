"""Tests captioned sounds: the spectrogram against librosa's, WAV files, tones, spoken digits."""

import io
import os
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest

from data.captioned import spectrogram
from data.captioned.pictures import Unreadable
from data.captioned.spectrogram import Spectrogram
from data.sources.drawn import spoken_digits, tones, written
from data.sources.drawn.written import Item

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "spectrogram.npz")
RATE, WINDOW, HOP, MELS = GOLDEN["sizes"].tolist()
SPECTROGRAM = Spectrogram(RATE, len(GOLDEN["sound"]) / RATE, MELS, WINDOW, HOP)


def wav(samples: np.ndarray, width: int = 2, rate: int = RATE, channels: int = 1) -> bytes:
    """A WAV file of numbers from -1 to 1."""
    content = io.BytesIO()
    wide = np.round(samples * (2.0**31 - 1)).astype("<i4").reshape(-1, 1).view(np.uint8)
    raw = wide[:, 4 - width :]
    with wave.open(content, "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes((raw ^ 128 if width == 1 else raw).tobytes())
    return content.getvalue()


def of_64_bits(raw: bytes) -> bytes:
    """A WAV file of 16 bits whose header says 64."""
    header = bytearray(raw)
    header[32:36] = (8).to_bytes(2, "little") + (64).to_bytes(2, "little")
    return bytes(header)


def test_mel_energies_are_those_of_librosa():
    mel = SPECTROGRAM.mel(GOLDEN["sound"] / 32768.0)
    np.testing.assert_allclose(mel, GOLDEN["mel"], rtol=2e-5, atol=1e-9)
    other = Spectrogram(RATE, SPECTROGRAM.seconds, MELS, WINDOW - 2, HOP)  # control
    assert abs(other.mel(GOLDEN["sound"] / 32768.0) / GOLDEN["mel"] - 1).max() > 0.01


def test_eight_bits_are_steps_of_a_third_of_a_decibel():
    mel = GOLDEN["mel"]
    image = SPECTROGRAM.image(wav(GOLDEN["sound"] / 32767.0))
    assert image.shape == SPECTROGRAM.shape == (MELS, 25, 1) and image.dtype == np.uint8
    decibel = 10 * np.log10(mel / mel.max())
    back = image[:, :, 0] / 255 * 80 - 80
    np.testing.assert_allclose(back, np.maximum(decibel, -80), atol=0.5 * 80 / 255 + 0.01)
    assert (SPECTROGRAM.image(wav(np.zeros(400))) == 0).all()


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_samples_of_every_width_and_the_mean_of_channels(width):
    x = np.sin(np.arange(100))
    found, rate = spectrogram.samples(wav(x, width), 1.0)
    np.testing.assert_allclose(found, x, atol=2.0 ** (2 - 8 * width))
    assert rate == RATE
    stereo, _ = spectrogram.samples(wav(np.repeat(x, 2), width, channels=2), 1.0)
    np.testing.assert_allclose(stereo, found, atol=1e-9)


def test_another_rate_is_resampled():
    time = np.arange(4_000) / RATE
    fine = np.sin(2 * np.pi * 700 * np.arange(8_000) / (2 * RATE))
    image = SPECTROGRAM.image(wav(fine, rate=2 * RATE)).astype(int)
    same = SPECTROGRAM.image(wav(np.sin(2 * np.pi * 700 * time))).astype(int)
    assert np.abs(image - same)[same > 128].max() <= 2
    other = SPECTROGRAM.image(wav(np.sin(2 * np.pi * 770 * time))).astype(int)
    assert np.abs(image - other)[same > 128].max() > 9


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not a WAV file of integer samples"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "not a WAV file of integer samples"),
        (wav(np.zeros(0)), "no samples"),
        (wav(np.zeros(9_000)), r"lasts 0.56 s, longer than data.seconds=0.25"),
        (wav(np.zeros(9), rate=99), "has 99 samples a second"),
        (of_64_bits(wav(np.zeros(8))), "samples have 64 bits; convert it to 8, 16, 24 or 32"),
        (wav(np.zeros(100))[:-50], "ends too early: 75 of 100 samples"),
        (wav(np.zeros(100), channels=2)[:-1], "ends too early: 49 of 50 samples"),
    ],
)
def test_what_cannot_be_read_says_why(raw, reason):
    with pytest.raises(Unreadable, match=reason):
        SPECTROGRAM.image(raw)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"mels": 0}, "data.mels=0 must be 1 or more"),
        ({"seconds": 0.01}, r"data.seconds=0.01 has no frame of data.hop=256"),
        ({"sample_rate": 10}, "data.sample_rate=10 must be 1000 or more"),
    ],
)
def test_bad_keys_are_refused(opened, played, changes, fault):
    with pytest.raises(ValueError, match=fault):
        opened(played, "sounds", **changes)


def test_rows_are_those_of_images(opened, played):
    dataset = opened(played, "sounds")
    batch = dataset.batch("train", 0, 0)
    assert batch["image"].shape == (8, 64, 64, 1) and batch["image"].max() == 255
    assert {name: x.shape[1:] for name, x in batch.items()} == {
        name: field.shape for name, field in dataset.spec().items()
    }


def test_a_tone_has_its_pitch_and_held_out_pairs_stay_out():
    held = tones.held_out(2)
    for item in tones.items(60, 2):
        words = [part.split()[1:] for part in item.caption.split(" then ")]
        assert (tuple(map(tuple, words)) in held) == item.held_out
        if len(words) == 1:
            spectrum = np.abs(np.fft.rfft(item.content.astype(float)))
            loudest = spectrum.argmax() * item.rate / len(item.content)
            assert loudest == pytest.approx(tones.NOTES[words[0][1]], rel=0.02)


@pytest.fixture
def espeak(tmp_path, monkeypatch):
    """Puts a program in the place of espeak-ng. It writes the name of the voice as samples, after
    `extra`, shell commands, and what it was asked for to the file `said`."""
    header = written.wav(Item(np.zeros(16, np.int16), "", False, 22_050))[:44]
    (tmp_path / "header").write_bytes(header)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def place(extra: str = "") -> None:
        program = tmp_path / "espeak-ng"
        program.write_text(
            f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n{extra}\n'
            f'{{ cat {tmp_path}/header; printf "%-32s" "$2"; }} > "$8"\n'
        )
        program.chmod(0o755)

    place()
    return place


def test_spoken_digits_call_espeak(espeak, tmp_path):
    found = list(spoken_digits.items(100, 0))
    said = [line.split() for line in open(tmp_path / "said")]
    voices, said = said[: -len(found)], said[-len(found) :]
    assert len({line[1] for line in voices}) == len(voices) == 50  # every voice was tried
    assert [item.held_out for item in found] == ([False] * 9 + [True]) * 10
    sides: dict[tuple[str, str], bool] = {}
    for line, item in zip(said, found, strict=True):
        assert line[::2] == ["-v", "-p", "-s", "-w", item.caption]
        assert item.rate == 22_050 and item.content.tobytes().decode().strip() == line[1]
        speaker = line[1].split("+")[1]
        assert sides.setdefault((speaker, item.caption), item.held_out) == item.held_out
    held = [pair for pair, held_out in sides.items() if held_out]
    assert len(dict(held)) == len({digit for _, digit in held}) == len(held) > 5


@pytest.mark.parametrize(
    ("extra", "fault"),
    [
        ("echo no data >&2; exit 3", "-v en.m1 failed with exit code 3: 'no data'; install"),
        ('set -- -v "${2%%+*}" a b c d e "$8"', "lacks a voice: en.m1 and en.m2 sound the same"),
        ("exit 0", r"-v en.m1 wrote no sound \(.*No such file"),
        ('echo RIFF > "$8"; exit 0', r"-v en.m1 wrote no sound"),
        ('head -c 40 header > "$8"; printf "\\0\\0\\0\\0" >> "$8"; exit 0', "no samples"),
    ],
)
def test_another_espeak_is_refused(espeak, tmp_path, monkeypatch, extra, fault):
    """One that fails, one without the speakers, and ones that write no sound."""
    monkeypatch.chdir(tmp_path)
    espeak(extra)
    with pytest.raises(ValueError, match=fault):
        next(spoken_digits.items(1, 0))


def test_no_espeak_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="espeak-ng, which is not installed; install it"):
        next(spoken_digits.items(1, 0))


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="this machine has no espeak-ng")
def test_espeak_speaks_no_sound_of_both_sides():
    sounds = {False: set(), True: set()}
    for item in spoken_digits.items(400, 0):
        sounds[item.held_out].add(item.content.tobytes())
        assert 0.3 < len(item.content) / item.rate < 1.28  # what the config has room for
    assert not sounds[False] & sounds[True]
    assert len(sounds[True]) > 35 and len(sounds[False]) > 350
