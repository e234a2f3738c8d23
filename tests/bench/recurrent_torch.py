"""Trains the same recurrent networks in eager PyTorch: nn.LSTM, nn.GRU, nn.RNN, fused AdamW.

OMP_NUM_THREADS=1 python -m tests.bench.recurrent_torch lstm 5
"""

import sys

import torch
import torch.nn.functional as F
from torch import nn

from tests.bench import contestant
from tests.bench.networks import NETWORKS, Network

CELLS = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class LanguageModel(nn.Module):
    def __init__(self, network: Network):
        super().__init__()
        self.embed = nn.Embedding(network.vocab, network.width)
        width, layers = network.width, network.n_layers
        self.cells = CELLS[network.name](width, width, layers, batch_first=True)

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        return self.cells(self.embed(tokens_BT))[0] @ self.embed.weight.T


def prepare(network: Network) -> contestant.Advance:
    torch.manual_seed(0)
    model = LanguageModel(network)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    batches = torch.randint(network.vocab, (network.steps, 2, network.batch, network.context))

    def advance() -> None:
        for tokens_BT, targets_BT in batches:
            loss = F.cross_entropy(model(tokens_BT).flatten(0, 1), targets_BT.flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        loss.item()

    return advance


if __name__ == "__main__":
    contestant.serve(NETWORKS[sys.argv[1]], prepare(NETWORKS[sys.argv[1]]))
