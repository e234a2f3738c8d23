"""Writes samplers.npz: random logits and the output of transformers' logits processors."""

from pathlib import Path

import numpy as np
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

ROWS, VOCABULARY, SEEN = 8, 50, 12
SAMPLERS = {
    "temperature": (TemperatureLogitsWarper, (0.5, 1.7)),
    "top_k": (TopKLogitsWarper, (1, 5, 50)),
    "top_p": (TopPLogitsWarper, (0.05, 0.5, 0.9)),
    "min_p": (MinPLogitsWarper, (0.02, 0.2)),
    "typical": (TypicalLogitsWarper, (0.1, 0.5, 0.95)),
    "repetition_penalty": (RepetitionPenaltyLogitsProcessor, (0.8, 1.3)),
}
# All samplers, in the order in which `generate` applies them.
CHAIN = dict(
    repetition_penalty=1.3, temperature=0.7, top_k=30, top_p=0.95, min_p=0.02, typical=0.9
)  # fmt: skip


def write(path: Path) -> None:
    """Writes `logits`, `input_ids` (earlier tokens), `NAME:VALUE` for all SAMPLERS, and `chain`."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.linspace(0.5, 6.0, ROWS)[:, None]  # from nearly uniform to nearly certain
    logits = scale * torch.randn(ROWS, VOCABULARY, generator=generator)
    seen = torch.randint(VOCABULARY, (ROWS, SEEN), generator=generator)
    arrays = {"logits": logits, "input_ids": seen}
    for name, (sampler, values) in SAMPLERS.items():
        for value in values:
            arrays[f"{name}:{value}"] = sampler(value)(seen, logits.clone())
    chain = LogitsProcessorList(SAMPLERS[name][0](value) for name, value in CHAIN.items())
    arrays["chain"] = chain(seen, logits.clone())
    arrays |= {f"chain/{name}": value for name, value in CHAIN.items()}
    np.savez_compressed(path, **{name: np.asarray(value) for name, value in arrays.items()})
