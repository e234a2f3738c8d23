"""Trains the same networks in eager PyTorch with fused AdamW: nn.LSTM, nn.GRU, nn.RNN, and
nn.Transformer with norms after each branch and no norm at the ends, without padding masks.

OMP_NUM_THREADS=1 python -m tests.bench.families.peer_torch lstm 5
"""

import sys

import torch
import torch.nn.functional as F
from torch import nn

from tests.bench.families.networks import NETWORKS, EncoderDecoder, Network, Recurrent
from tests.bench.race import contestant

CELLS = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class LanguageModel(nn.Module):
    def __init__(self, network: Recurrent):
        super().__init__()
        self.embed = nn.Embedding(network.vocab, network.width)
        width, layers = network.width, network.n_layers
        self.cells = CELLS[network.name](width, width, layers, batch_first=True)

    def forward(self, source_BS: torch.Tensor, tokens_BT: torch.Tensor) -> torch.Tensor:
        return self.cells(self.embed(tokens_BT))[0] @ self.embed.weight.T


class Translator(nn.Module):
    def __init__(self, network: EncoderDecoder):
        super().__init__()
        D, H, T = network.width, network.n_heads, network.context
        keys = dict(d_model=D, nhead=H, dim_feedforward=network.d_ff, dropout=0.0, batch_first=True)
        encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(**keys), network.n_layers, enable_nested_tensor=False
        )
        decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**keys), network.n_layers)
        self.inner = nn.Transformer(
            D, H, custom_encoder=encoder, custom_decoder=decoder, batch_first=True
        )
        self.embed = nn.Embedding(network.vocab, D)
        angle = torch.arange(T)[:, None] / 10_000 ** (torch.arange(0, D, 2) / D)
        self.waves_TD = torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
        self.mask_TT = nn.Transformer.generate_square_subsequent_mask(T)

    def forward(self, source_BS: torch.Tensor, tokens_BT: torch.Tensor) -> torch.Tensor:
        scale = self.embed.embedding_dim**0.5
        x_BSD, y_BTD = (self.embed(ids) * scale + self.waves_TD for ids in (source_BS, tokens_BT))
        z_BTD = self.inner(x_BSD, y_BTD, tgt_mask=self.mask_TT, tgt_is_causal=True)
        return z_BTD @ self.embed.weight.T


MODELS = {Recurrent: LanguageModel, EncoderDecoder: Translator}


def prepare(network: Network) -> contestant.Advance:
    torch.manual_seed(0)
    model = MODELS[type(network)](network)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    batches = torch.randint(network.vocab, (network.steps, 3, network.batch, network.context))

    def advance() -> None:
        for source_BS, tokens_BT, targets_BT in batches:
            logits_BTV = model(source_BS, tokens_BT)
            loss = F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        loss.item()

    return advance


if __name__ == "__main__":
    contestant.serve(NETWORKS[sys.argv[1]], prepare(NETWORKS[sys.argv[1]]))
