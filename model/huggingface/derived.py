"""Tensors of older checkpoints that follow from config.json: causal masks, rotary frequencies.

They are read and compared with what the model computes, so that no difference goes unnoticed.
"""

import re
from collections.abc import Callable, Iterable

import numpy as np

from model.huggingface import safetensors
from model.huggingface.safetensors import Tensor
from model.transformer.config import ModelConfig
from model.transformer.positions import SCALINGS, base_frequencies

FLAGS = {"BOOL": np.dtype(bool), "U8": np.dtype(np.uint8)}  # dtypes that only masks have
LARGE_NEGATIVE = -9e3  # a mask adds -1e4, rounded, or less to the scores of hidden keys


def names(tensors: Iterable[str]) -> list[str]:
    """The names of derived tensors among `tensors`."""
    return [name for name in tensors if any(re.search(pattern, name) for pattern in DERIVED)]


def check(tensor: Tensor, cfg: ModelConfig) -> None:
    """Raises ValueError unless `tensor` has the values that the model computes from `cfg`."""
    kind = (safetensors.DTYPES | FLAGS).get(tensor.dtype)
    same = next(same for pattern, same in DERIVED.items() if re.search(pattern, tensor.name))
    if kind is not None:
        count = int(np.prod(tensor.shape, dtype=np.int64))
        raw = np.fromfile(tensor.file, np.uint8, count * kind.itemsize, offset=tensor.start)
        values = raw.view(kind).reshape(tensor.shape).astype(np.float64)
    if kind is None or not same(values, cfg, kind.itemsize):
        raise ValueError(
            f"{tensor.file}: {tensor.name} differs from the values that follow from config.json, "
            "and would be ignored; correct config.json, or remove the tensor"
        )


def _causal(mask: np.ndarray, cfg: ModelConfig, itemsize: int) -> bool:
    size = mask.shape[-1]
    return mask.size == size * size and np.array_equal(mask.reshape(size, size), np.tri(size))


def _hides(value: np.ndarray, cfg: ModelConfig, itemsize: int) -> bool:
    return value.size == 1 and value.item() <= LARGE_NEGATIVE


def _frequencies(values: np.ndarray, cfg: ModelConfig, itemsize: int) -> bool:
    """Compares with frequencies before and after scaling. In half precision they have two or three
    digits.
    """
    known = [
        base_frequencies(cfg, theta) for theta in (cfg.rope_theta, cfg.rope_theta_local) if theta
    ]
    known += [SCALINGS[cfg.rope_scaling](cfg, cfg.context_length)[0]]
    tolerance = dict(rtol=1e-2, atol=1e-7) if itemsize == 2 else dict(rtol=1e-5, atol=0)
    return any(
        values.shape == wanted.shape and np.allclose(values, wanted, **tolerance)
        for wanted in known
    )


DERIVED: dict[str, Callable[[np.ndarray, ModelConfig, int], bool]] = {
    r"h\.\d+\.attn\.bias$": _causal,
    r"h\.\d+\.attn\.masked_bias$": _hides,
    r"rotary_emb\.inv_freq$": _frequencies,
}
"""{pattern of names: function that returns whether the values are correct}."""
