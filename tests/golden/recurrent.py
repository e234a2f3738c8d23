"""Writes recurrent.npz: outputs and gradients of PyTorch's recurrent networks.

    python tests/golden/recurrent.py

One and two layers of nn.RNN (tanh), nn.GRU and nn.LSTM, in float32 on one thread. Names are
CELL/LAYERS/ARRAY; the gradients are of the sum of the outputs times `weight`.
"""

from pathlib import Path

import numpy as np
import torch

B, T, D, H = 3, 8, 5, 7
NETWORKS = {"elman": torch.nn.RNN, "gru": torch.nn.GRU, "lstm": torch.nn.LSTM}


def case(cell: str, layers: int) -> dict[str, np.ndarray]:
    """Inputs x [B, T, D], parameters by torch's names, outputs [B, T, H], the last states."""
    torch.manual_seed(layers)
    network = NETWORKS[cell](D, H, layers, batch_first=True)
    for parameter in network.parameters():  # larger than usual: gates must saturate
        parameter.data = 0.8 * torch.randn(parameter.shape)
    x, weight = torch.randn(B, T, D, requires_grad=True), torch.randn(B, T, H)
    outputs, last = network(x)
    (outputs * weight).sum().backward()
    last = last if cell == "lstm" else (last,)
    arrays = {"x": x, "weight": weight, "outputs": outputs, "gradient/x": x.grad}
    arrays |= {f"last/{i}": state for i, state in enumerate(last)}
    arrays |= dict(network.named_parameters())
    arrays |= {f"gradient/{name}": p.grad for name, p in network.named_parameters()}
    return {f"{cell}/{layers}/{name}": a.detach().numpy() for name, a in arrays.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {}
    for cell in NETWORKS:
        for layers in (1, 2):
            found |= case(cell, layers)
    np.savez_compressed(Path(__file__).parent / "recurrent.npz", **found)
