"""Trains recurrent language models against PyTorch's nn.LSTM and nn.GRU.

    python -m tests.bench.recurrent --peer_python=PATH [--only lstm gru] [--rounds=5]

Two layers of width 256, untied head, 256 tokens of vocabulary, 32 rows of 128 tokens, float32.
`lstm_u4` is ours with model.unroll=4. A step is forward, backward, clipping and AdamW.
"""

import functools

from tests.bench import duel

LAYERS, WIDTH, VOCAB, ROWS, LENGTH, STEPS = 2, 256, 256, 32, 128, 2
UNROLLS = (1, 2, 4, 8)


def ours(cell: str, unroll: int) -> duel.Advance:
    import numpy as np

    from model.recurrent.config import Config
    from train.objectives import next_token
    from train.step import StepConfig

    sizes = dict(n_layers=LAYERS, d_model=WIDTH, d_hidden=WIDTH, context_length=LENGTH)
    cfg = Config(vocab_size=VOCAB, cell=cell, unroll=unroll, tie_embeddings=False, **sizes)

    def fields() -> dict:
        shape = STEPS, ROWS, LENGTH
        tokens, targets = np.random.default_rng(0).integers(0, VOCAB, (2, *shape), np.int32)
        return {"tokens": tokens, "targets": targets, "weights": np.ones(shape, np.float32)}

    step = StepConfig(cfg, next_token.Config(), "recurrent", "next_token")
    return duel.ours(step, fields, STEPS, STEPS * ROWS * LENGTH)


def theirs(cell: str) -> duel.Advance:
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](WIDTH, WIDTH, LAYERS)
    model = nn.ModuleList([nn.Embedding(VOCAB, WIDTH), layers, nn.Linear(WIDTH, VOCAB)])

    def loss(model, batch):
        (tokens_TB, targets_TB), (embed, layers, head) = batch, model
        logits_TBV = head(layers(embed(tokens_TB))[0])
        return nn.functional.cross_entropy(logits_TBV.flatten(0, 1), targets_TB.flatten())

    batches = list(torch.randint(VOCAB, (STEPS, 2, LENGTH, ROWS)))
    return duel.torch_trained(model, loss, batches, STEPS * ROWS * LENGTH)


CELLS = ("lstm", "gru")
PAIRS = {
    f"{cell}_u{unroll}": f"torch_{cell}" for cell in CELLS for unroll in UNROLLS
}  # ours → the peer
CONTESTANTS = {
    f"{cell}_u{unroll}": functools.partial(ours, cell, unroll)
    for cell in CELLS
    for unroll in UNROLLS
} | {f"torch_{cell}": functools.partial(theirs, cell) for cell in CELLS}

if __name__ == "__main__":
    duel.main("tests.bench.recurrent", CONTESTANTS, PAIRS, target=1.5)
