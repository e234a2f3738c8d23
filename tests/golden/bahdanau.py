"""Writes bahdanau.npz: a GRU encoder–decoder with additive attention (Bahdanau et al. 2015).

python tests/golden/bahdanau.py

torch's GRU and GRUCell, attention and readout as in the paper's appendix A; random weights, sources
of unequal lengths. The file has the inputs, the logits, the attention's weights, the gradients of
the mean cross-entropy, and every parameter by its name below.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

V, S, T, D, H, A = 23, 9, 7, 10, 12, 8
SOURCES, TARGETS = (9, 5, 1), (7, 4, 6)  # tokens of each row


class Bahdanau(nn.Module):
    """The RNNsearch of the paper; gates as in torch.nn.GRU."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(V, D)
        self.encoder = nn.GRU(D, H, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(H, H)  # W_s
        self.query = nn.Linear(H, A, bias=False)  # W_a
        self.key = nn.Linear(2 * H, A, bias=False)  # U_a
        self.score = nn.Linear(A, 1, bias=False)  # v_a
        self.decoder = nn.GRUCell(D + 2 * H, H)
        self.state = nn.Linear(H, 2 * D)  # U_o
        self.embedded = nn.Linear(D, 2 * D, bias=False)  # V_o
        self.context = nn.Linear(2 * H, 2 * D, bias=False)  # C_o
        self.head = nn.Linear(D, V, bias=False)  # W_o

    def forward(self, source, lengths, tokens):
        packed = pack_padded_sequence(
            self.embed(source), lengths, batch_first=True, enforce_sorted=False
        )
        outputs, last = self.encoder(packed)
        outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=source.shape[1])
        state = torch.tanh(self.bridge(last[1]))  # the backward direction's, at the first word
        keys = self.key(outputs)
        padding = torch.arange(source.shape[1]) >= lengths[:, None]
        logits, weights = [], []
        for step in range(tokens.shape[1]):
            before = self.embed(tokens[:, step])
            energy = self.score(torch.tanh(self.query(state)[:, None] + keys))[..., 0]
            alpha = energy.masked_fill(padding, -torch.inf).softmax(-1)
            context = (alpha[..., None] * outputs).sum(1)
            state = self.decoder(torch.cat([before, context], -1), state)
            both = self.state(state) + self.embedded(before) + self.context(context)
            maxout = both.reshape(len(both), D, 2).amax(-1)
            logits.append(self.head(maxout))
            weights.append(alpha)
        return torch.stack(logits, 1), torch.stack(weights, 1)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Bahdanau()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    source, tokens = torch.randint(V, (3, S)), torch.randint(V, (3, T))
    targets, lengths = torch.randint(V, (3, T)), torch.tensor(SOURCES)
    real = torch.arange(T) < torch.tensor(TARGETS)[:, None]
    logits, weights = model(source, lengths, tokens)
    loss = nn.functional.cross_entropy(logits[real], targets[real])
    loss.backward()
    arrays = {"source": source, "source_lengths": lengths, "tokens": tokens, "targets": targets}
    arrays |= {"real": real, "logits": logits, "attention": weights, "loss": loss}
    for name, parameter in model.named_parameters():
        arrays |= {f"weight/{name}": parameter, f"gradient/{name}": parameter.grad}
    path = Path(__file__).parent / "bahdanau.npz"
    np.savez_compressed(path, **{name: x.detach().numpy() for name, x in arrays.items()})
    print(f"{path.stat().st_size:,} bytes, logits up to {logits.abs().max():.2f}, loss {loss:.4f}")


if __name__ == "__main__":
    main()
