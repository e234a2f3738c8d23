"""Writes bert/: tiny BERTs of transformers with their logits and pooled outputs.

    python tests/golden/make_bert.py     (torch 2.13, transformers 5.23; 5 s)

All weights are large and random, as in make_golden.py. Two of the three rows end in padding and
have two sentences, told apart by their token types.
"""

import shutil
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)

FOLDER = Path(__file__).parent / "bert"
SIZES = dict(
    vocab_size=61, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
    intermediate_size=40, max_position_embeddings=20, initializer_range=0.02,
)  # fmt: skip
CASES = {
    "model": (BertModel, {}),
    "masked": (BertForMaskedLM, {}),
    "pretraining": (BertForPreTraining, dict(hidden_act="gelu_new", layer_norm_eps=1e-5)),
    "classifier": (BertForSequenceClassification, dict(num_labels=3)),
    "tagger": (BertForTokenClassification, dict(num_labels=5)),
}
LENGTHS, SECOND = (18, 13, 7), (9, 6, 7)  # tokens of each row, and where its sentence B begins


def inputs() -> dict[str, torch.Tensor]:
    places = torch.arange(18)[None]
    seed = torch.Generator().manual_seed(1)
    mask = (places < torch.tensor(LENGTHS)[:, None]).long()
    types = (places >= torch.tensor(SECOND)[:, None]).long() * mask
    tokens = torch.randint(5, 61, (3, 18), generator=seed) * mask
    return dict(input_ids=tokens, attention_mask=mask, token_type_ids=types)


def harden(model: torch.nn.Module, name: str) -> None:
    """Random weights; small embeddings, so that the epsilon of the first norm matters."""
    seed = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    for path, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=seed)
        if "LayerNorm.weight" in path:  # the tied head multiplies by the small embeddings
            value = (20 if "transform" in path else 1) * (1 + 0.3 * noise)
        elif "embeddings" in path and parameter.ndim == 2:
            value = 0.003 * noise
        else:
            value = 0.2 * noise
        parameter.data.copy_(value)


@torch.no_grad()
def write(name: str) -> None:
    kind, changes = CASES[name]
    model = kind(BertConfig(**SIZES | changes, attn_implementation="eager")).eval()
    harden(model, name)
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    if name == "pretraining":  # as in the file of bert-base-uncased on the hub
        path = folder / "model.safetensors"
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        renamed = {}
        for tensor, value in load_file(path).items():
            for new, former in old.items():
                tensor = tensor.replace(new, former)
            renamed[tensor] = value
        save_file(renamed, path, metadata={"format": "pt"})
    given = inputs()
    arrays = dict(given)
    body = model if name == "model" else model.bert
    arrays["hidden"] = body(**given).last_hidden_state
    if body.pooler is not None:
        arrays["pooled"] = body(**given).pooler_output
    if name != "model":
        found = model(**given)
        arrays["logits"] = found.prediction_logits if name == "pretraining" else found.logits
    np.savez(folder / "expected.npz", **{key: value.numpy() for key, value in arrays.items()})
    for path in folder.iterdir():
        path.chmod(0o644)


if __name__ == "__main__":
    for name in CASES:
        write(name)
        print(name, sum(path.stat().st_size for path in (FOLDER / name).iterdir()), "bytes")
