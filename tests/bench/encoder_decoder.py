"""Trains a Transformer encoder–decoder against PyTorch's nn.Transformer.

    python -m tests.bench.encoder_decoder --peer_python=PATH [--rounds=5]

Four and four layers of width 128, 4 heads, MLP width 512, ReLU, post-norm, shared and tied
embeddings of 256 tokens, no dropout, 32 rows of 64 source and 64 target tokens, float32. A step is
forward, backward, clipping and AdamW; the rate is of target tokens.
"""

from tests.bench import duel

LAYERS, WIDTH, HEADS, VOCAB, ROWS, LENGTH, STEPS = 4, 128, 4, 256, 32, 64, 4


def ours() -> duel.Advance:
    import numpy as np

    from model.encoder_decoder.config import Config
    from train.objectives import next_token
    from train.step import StepConfig

    cfg = Config(
        vocab_size=VOCAB, source_length=LENGTH, context_length=LENGTH, n_layers=LAYERS,
        decoder_layers=LAYERS, d_model=WIDTH, n_heads=HEADS, head_dim=WIDTH // HEADS,
        d_ff=4 * WIDTH, attention_bias=True,
    )  # fmt: skip

    def fields() -> dict:
        shape = STEPS, ROWS, LENGTH
        drawn = np.random.default_rng(0).integers(0, VOCAB, (3, *shape), np.int32)
        segments = np.ones(shape, np.int32)
        return dict(zip(("source", "tokens", "targets"), drawn, strict=True)) | {
            "source_segments": segments, "segments": segments,
            "weights": np.ones(shape, np.float32),
        }  # fmt: skip

    step = StepConfig(cfg, next_token.Config(), "encoder_decoder", "next_token")
    return duel.ours(step, fields, STEPS, STEPS * ROWS * LENGTH)


def theirs() -> duel.Advance:
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(VOCAB, WIDTH)
            self.register_buffer("position", torch.randn(LENGTH, WIDTH))
            self.stacks = nn.Transformer(
                WIDTH, HEADS, LAYERS, LAYERS, 4 * WIDTH, dropout=0.0, batch_first=True
            )
            # The original has no norm after a stack of post-norm layers.
            self.stacks.encoder.norm = self.stacks.decoder.norm = None
            mask = self.stacks.generate_square_subsequent_mask(LENGTH)
            self.register_buffer("mask", mask)

        def forward(self, source_BS, target_BT):
            source, target = (
                self.embed(x) * WIDTH**0.5 + self.position for x in (source_BS, target_BT)
            )
            x_BTD = self.stacks(source, target, tgt_mask=self.mask, tgt_is_causal=True)
            return x_BTD @ self.embed.weight.T

    def loss(model, batch):
        source_BS, tokens_BT, targets_BT = batch
        logits_BTV = model(source_BS, tokens_BT)
        return nn.functional.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())

    torch.manual_seed(0)
    batches = list(torch.randint(VOCAB, (STEPS, 3, ROWS, LENGTH)))
    return duel.torch_trained(Model(), loss, batches, STEPS * ROWS * LENGTH)


CONTESTANTS = {"ours": ours, "torch": theirs}

if __name__ == "__main__":
    duel.main("tests.bench.encoder_decoder", CONTESTANTS, {"ours": "torch"}, target=1.0)
