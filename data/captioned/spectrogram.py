"""Reads one WAV file as a log-mel spectrogram, uint8 [mels, frames, 1].

    S = |STFT|²      frames of `window` samples every `hop`, a periodic Hann window, the sound
                     padded with zeros by half a window on both sides
    M = F S          `mels` triangles F on the scale of Slaney 1998, each of area 1; librosa's
                     melspectrogram with pad_mode="constant" is the same, with one frame more
    image            log10 M from 8 below its largest number to that number, as 0 to 255

The last line is that of Whisper (Radford et al. 2023) at 8 bits, 0.31 dB a step. Loudness is lost.
"""

import io
import math
import wave
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from data.captioned.pictures import Unreadable

RANGE = 8.0  # of the logarithm to the base 10, which is 80 dB
SMALLEST = 1e-10  # energy that counts as silence
RATES = (1_000, 768_000)  # samples a second that a file may have
# Slaney's scale is linear to LINEAR Hz, then logarithmic; in mels per Hz, and per factor e.
LINEAR, PER_HZ, PER_E = 1000.0, 3 / 200, 27 / math.log(6.4)


@dataclass(frozen=True)
class Spectrogram:
    """How a sound becomes an image. Raises ValueError for impossible numbers, naming the key."""

    sample_rate: int
    seconds: float
    mels: int
    window: int
    hop: int

    def __post_init__(self):
        for key, least in (("sample_rate", 1000), ("mels", 1), ("window", 2), ("hop", 1)):
            if getattr(self, key) < least:
                raise ValueError(f"data.{key}={getattr(self, key)} must be {least} or more")
        if not self.seconds > 0 or not self.frames:
            raise ValueError(
                f"data.seconds={self.seconds} has no frame of data.hop={self.hop} samples; use "
                f"{self.hop / self.sample_rate:g} or more"
            )

    @property
    def samples(self) -> int:
        return round(self.seconds * self.sample_rate)

    @property
    def frames(self) -> int:
        return self.samples // self.hop

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.mels, self.frames, 1

    def image(self, raw: bytes) -> np.ndarray:
        """The image of a WAV file's bytes. A shorter sound is followed by silence; Unreadable for
        a longer one, and for a file that is not a WAV file of integer samples."""
        x = resampled(*samples(raw, self.seconds), self.sample_rate)[: self.samples]
        return eight_bits(self.mel(np.pad(x, (0, self.samples - len(x)))))[:, :, None]

    def mel(self, x_N: np.ndarray) -> np.ndarray:
        """The energies M [mels, frames] of samples."""
        half = self.window // 2
        padded = np.pad(x_N, (half, half + self.window))
        starts = np.arange(self.frames) * self.hop
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.window)[starts]
        power_FB = np.abs(np.fft.rfft(windows * hann(self.window))) ** 2
        # Without BLAS, whose last bits depend on the machine, and so would a hash of the images.
        return np.einsum("mb,fb->mf", filters(self.sample_rate, self.window, self.mels), power_FB)


def samples(raw: bytes, seconds: float) -> tuple[np.ndarray, int]:
    """(the samples [N] of a WAV file from -1 to 1, the mean of its channels, samples a second).
    Unreadable for a damaged file, and for one that is longer."""
    try:
        with wave.open(io.BytesIO(raw)) as file:
            rate, width, channels = file.getframerate(), file.getsampwidth(), file.getnchannels()
            if not RATES[0] <= rate <= RATES[1]:
                raise Unreadable(f"it has {rate:,} samples a second; resample it")
            if not 1 <= width <= 4:
                raise Unreadable(
                    f"its samples have {8 * width} bits; convert it to 8, 16, 24 or 32"
                )
            if (length := file.getnframes() / rate) > seconds + 1e-9:
                raise Unreadable(f"it lasts {length:.2f} s, longer than data.seconds={seconds}")
            content, size = file.readframes(file.getnframes()), width * channels
            if len(content) < file.getnframes() * size:
                raise Unreadable(
                    f"it ends too early: {len(content) // size:,} of {file.getnframes():,} samples"
                )
    except (wave.Error, EOFError, RuntimeError, ZeroDivisionError) as error:
        said = str(error).encode("unicode_escape").decode()[:120] or "it ends too early"
        raise Unreadable(f"it is not a WAV file of integer samples ({said})") from None
    if not content:
        raise Unreadable("it has no samples")
    return whole_numbers(content, width).reshape(-1, channels).mean(1), rate


def whole_numbers(content: bytes, width: int) -> np.ndarray:
    """Little-endian samples of `width` bytes as numbers from -1 to 1; those of one byte have no
    sign."""
    if width == 1:
        return np.frombuffer(content, np.uint8) / 128.0 - 1
    bytes_NW = np.frombuffer(content, np.uint8).reshape(-1, width)
    wide_N4 = np.zeros((len(bytes_NW), 4), np.uint8)
    wide_N4[:, 4 - width :] = bytes_NW
    return wide_N4.view("<i4")[:, 0] / 2.0**31


def resampled(x_N: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """The sound at another number of samples a second."""
    if rate == wanted:
        return x_N
    from scipy.signal import resample_poly  # slow to import

    divisor = math.gcd(rate, wanted)
    return resample_poly(x_N, wanted // divisor, rate // divisor)


def hann(size: int) -> np.ndarray:
    """The periodic Hann window."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)


@lru_cache(maxsize=4)
def filters(rate: int, window: int, mels: int) -> np.ndarray:
    """The triangles F [mels, window // 2 + 1] over the frequencies of a transform, by Slaney."""
    hertz_B = np.arange(window // 2 + 1) * rate / window
    edges = to_hertz(np.linspace(0, to_mels(np.array(rate / 2)), mels + 2))
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising, falling = (hertz_B - low) / (middle - low), (high - hertz_B) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling)) * (2 / (high - low))


def to_mels(hertz: np.ndarray) -> np.ndarray:
    """Slaney 1998, Auditory Toolbox."""
    above = LINEAR * PER_HZ + PER_E * np.log(np.maximum(hertz, LINEAR) / LINEAR)
    return np.where(hertz < LINEAR, hertz * PER_HZ, above)


def to_hertz(mels: np.ndarray) -> np.ndarray:
    """The inverse of `to_mels`."""
    above = LINEAR * np.exp((mels - LINEAR * PER_HZ) / PER_E)
    return np.where(mels < LINEAR * PER_HZ, mels / PER_HZ, above)


def eight_bits(mel: np.ndarray) -> np.ndarray:
    """Energies as uint8: RANGE decades below the largest are 0, that is 255; silence is 0."""
    if mel.max() <= SMALLEST:
        return np.zeros(mel.shape, np.uint8)
    log = np.log10(np.maximum(mel, SMALLEST))
    share = np.maximum(log - log.max() + RANGE, 0) / RANGE
    return np.round(share * 255).astype(np.uint8)
