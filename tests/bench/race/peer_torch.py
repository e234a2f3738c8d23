"""Trains the same GPT in eager PyTorch, with PyTorch's fused attention and fused AdamW.

OMP_NUM_THREADS=1 python -m tests.bench.race.peer_torch S1 5
"""

import torch
import torch.nn.functional as F
from torch import nn

from tests.bench.race import contestant
from tests.bench.race.shapes import Shape


class Block(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        d, self.heads = shape.d_model, shape.n_heads
        self.attention_norm, self.mlp_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        B, T, D = x_BTD.shape
        qkv = self.qkv(self.attention_norm(x_BTD)).split(D, dim=2)
        q_BHTC, k_BHTC, v_BHTC = (y.view(B, T, self.heads, -1).transpose(1, 2) for y in qkv)
        o_BHTC = F.scaled_dot_product_attention(q_BHTC, k_BHTC, v_BHTC, is_causal=True)
        x_BTD = x_BTD + self.out(o_BHTC.transpose(1, 2).reshape(B, T, D))
        h_BTF = F.gelu(self.up(self.mlp_norm(x_BTD)), approximate="tanh")
        return x_BTD + self.down(h_BTF)


class GPT(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.embed = nn.Embedding(shape.vocab, shape.d_model)
        self.position = nn.Embedding(shape.context, shape.d_model)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.n_layers))
        self.final_norm = nn.LayerNorm(shape.d_model)

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        x_BTD = self.embed(tokens_BT) + self.position(torch.arange(tokens_BT.shape[1]))
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.final_norm(x_BTD) @ self.embed.weight.T


def prepare(shape: Shape) -> tuple[contestant.Advance, int]:
    torch.manual_seed(0)
    model = GPT(shape)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    size = (shape.steps, 2, shape.batch, shape.context)
    batches = torch.randint(shape.vocab, size)

    def advance() -> None:
        for tokens_BT, targets_BT in batches:
            logits_BTV = model(tokens_BT)
            loss = F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        loss.item()

    return advance, sum(p.numel() for p in model.parameters())


if __name__ == "__main__":
    contestant.main(prepare)
