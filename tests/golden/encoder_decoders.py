"""Writes encoder_decoder/: tiny T5s of transformers and an nn.Transformer, with their logits.

    python tests/golden/encoder_decoders.py     (torch 2.13, transformers 5.23; 5 s)

Prints how far a flip of each feature moves the logits; README.md describes the arrays.
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention

FOLDER = Path(__file__).parent / "encoder_decoder"
T5 = dict(
    vocab_size=61, d_model=16, d_kv=6, d_ff=28, num_layers=1, num_decoder_layers=2, num_heads=3,
    relative_attention_num_buckets=8, relative_attention_max_distance=12, layer_norm_epsilon=1e-5,
    dropout_rate=0.0, feed_forward_proj="relu",
)  # fmt: skip
CASES = {
    "t5": T5,
    "t5_v1_1": T5 | dict(feed_forward_proj="gated-gelu", tie_word_embeddings=False),
}
FLIPS = {
    "eps 1e-5 → 1e-6": dict(layer_norm_epsilon=1e-6),
    "8 → 4 buckets": dict(relative_attention_num_buckets=4),
    "distance 12 → 16": dict(relative_attention_max_distance=16),
    "relu → gelu_new": dict(feed_forward_proj="gelu_new"),
}
# Distances whose buckets are stored, and the (buckets, longest distance) of each.
DISTANCES, BUCKETS = np.arange(-600, 601), ((32, 128), (8, 12), (16, 64), (64, 400))


def batch() -> dict[str, torch.Tensor]:
    """Source [2, 20] whose second row ends after 13 tokens, and target inputs [2, 17]."""
    draw = torch.Generator().manual_seed(1)
    source = torch.randint(61, (2, 20), generator=draw)
    tokens = torch.randint(61, (2, 17), generator=draw)
    seen = torch.ones(2, 20, dtype=torch.long)
    seen[1, 13:] = 0
    return {"source": source, "tokens": tokens, "seen": seen}


def harden(model: nn.Module, seed: int) -> None:
    """Draws all weights again, so that scores are spread and norms are not 1."""
    draw = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        std = 0.7 / p.shape[-1] ** 0.5 if p.dim() == 2 else 0.3
        std = {"shared.weight": 0.1, "embed.weight": 0.3}.get(name, std)
        std = 1.0 if "relative_attention_bias" in name else std
        is_scale = p.dim() == 1 and name.endswith("weight")
        p.data = torch.randn(p.shape, generator=draw) * std + 1.0 * is_scale
    if hasattr(model, "shared") and model.lm_head.weight is model.shared.weight:
        model.decoder.final_layer_norm.weight.data *= 10  # the tied logits are divided by √d


def t5(name: str, keys: dict) -> None:
    """A folder as transformers writes it, and its logits; gradients of the mean cross-entropy."""
    folder, given = FOLDER / name, batch()
    shutil.rmtree(folder, ignore_errors=True)
    model = T5ForConditionalGeneration(T5Config(**keys)).eval()
    if keys.get("tie_word_embeddings", True) is False:
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.clone())
    harden(model, len(name))
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    for path in folder.iterdir():
        path.chmod(0o644)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, attn_implementation="eager").eval()
    logits = forward(model, given)
    loss = nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), given["tokens"][:, 1:].flatten()
    )
    loss.backward()
    arrays = given | {"logits": logits, "loss": loss}
    if name == "t5":
        arrays |= {f"gradient/{path}": p.grad for path, p in model.named_parameters()}
    save(folder / "expected.npz", arrays)
    show(name, "float32 → float64", forward(model.double(), given), logits)
    weights = model.float().state_dict()
    for flip, changes in FLIPS.items():
        changed = keys | changes
        if name == "t5_v1_1" and "feed_forward_proj" in changes:
            changed["feed_forward_proj"] = "gated-relu"
        if changes.get("relative_attention_num_buckets"):
            weights_of = {k: v[:4] if "relative" in k else v for k, v in weights.items()}
        else:
            weights_of = weights
        other = T5ForConditionalGeneration(T5Config(**changed))
        if keys.get("tie_word_embeddings", True) is False:
            other.lm_head.weight = nn.Parameter(other.lm_head.weight.clone())
        other.load_state_dict(weights_of)
        show(name, flip, forward(other.eval(), given), logits)


def forward(model, given: dict) -> torch.Tensor:
    names = {"input_ids": "source", "attention_mask": "seen", "decoder_input_ids": "tokens"}
    return model(**{theirs: given[ours] for theirs, ours in names.items()}).logits


class Vaswani(nn.Module):
    """Embeddings of width 18 and a post-norm nn.Transformer without norms at the ends, as in the
    paper; interleaved sinusoidal positions; the head is the embedding."""

    def __init__(self):
        super().__init__()
        keys = dict(d_model=18, nhead=3, dim_feedforward=28, dropout=0.0, batch_first=True)
        encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(**keys), 1, enable_nested_tensor=False
        )
        decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**keys), 2)
        self.embed = nn.Embedding(61, 18)
        self.inner = nn.Transformer(
            18, 3, custom_encoder=encoder, custom_decoder=decoder, batch_first=True
        )

    def embedded(self, ids: torch.Tensor) -> torch.Tensor:
        angle = torch.arange(ids.shape[1])[:, None] / 10_000 ** (torch.arange(0, 18, 2) / 18)
        waves = torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
        return self.embed(ids) * 18**0.5 + waves.to(self.embed.weight.dtype)

    def forward(self, given: dict) -> torch.Tensor:
        hidden = given["seen"] == 0
        after = torch.ones(17, 17, dtype=torch.bool).triu(1)
        x = self.inner(
            self.embedded(given["source"]), self.embedded(given["tokens"]), tgt_mask=after,
            src_key_padding_mask=hidden, memory_key_padding_mask=hidden,
        )  # fmt: skip
        return x @ self.embed.weight.T


def vaswani() -> None:
    model, given = Vaswani().eval(), batch()
    harden(model, 3)
    logits = model(given)
    arrays = given | {"logits": logits}
    arrays |= {f"weight/{path}": p for path, p in model.named_parameters()}
    save(FOLDER / "nn_transformer.npz", arrays)
    show("nn_transformer", "float32 → float64", model.double()(given), logits)


def buckets() -> None:
    distances = torch.from_numpy(DISTANCES)
    arrays = {"distances": DISTANCES}
    for count, most in BUCKETS:
        for both_ways in (True, False):
            found = T5Attention._relative_position_bucket(distances, both_ways, count, most)
            arrays[f"{count}/{most}/{both_ways}"] = found.to(torch.int16)
    save(FOLDER / "buckets.npz", arrays)


def save(path: Path, arrays: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {k: v.detach() if isinstance(v, torch.Tensor) else v for k, v in arrays.items()}
    np.savez_compressed(path, **{key: np.asarray(value) for key, value in found.items()})


def show(name: str, flip: str, logits: torch.Tensor, expected: torch.Tensor) -> None:
    print(f"| {name} | {flip} | {(logits - expected).abs().max().item():.1e} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("| case | flip | max abs Δ logits |\n|---|---|---|")
    for name, keys in CASES.items():
        t5(name, keys)
    vaswani()
    buckets()
