"""Writes spectrogram.npz: a sound and its mel energies as librosa computes them.

pip install librosa==0.11.0
python tests/golden/spectrogram.py
"""

from pathlib import Path

import librosa
import numpy as np

RATE, WINDOW, HOP, MELS = 16_000, 400, 160, 40


def main() -> None:
    time = np.arange(4_000) / RATE
    sound = 0.4 * np.sin(2 * np.pi * (300 * time + 3_000 * time**2))
    sound += np.random.default_rng(0).normal(0, 0.05, len(time))
    sound = np.round(sound * 32767).astype("<i2")
    mel = librosa.feature.melspectrogram(
        y=sound / 32768.0, sr=RATE, n_fft=WINDOW, hop_length=HOP, n_mels=MELS, pad_mode="constant"
    )
    file = Path(__file__).with_name("spectrogram.npz")
    np.savez_compressed(file, sound=sound, mel=mel[:, :-1], sizes=[RATE, WINDOW, HOP, MELS])
    print(file, librosa.__version__, np.__version__)


if __name__ == "__main__":
    main()
