"""This file writes the golden files: logits of tiny random GPTs and LLaMAs by plain PyTorch.

    python tests/golden/plain_torch.py          (any environment with torch and numpy)

The two forward passes below are written from the papers, a loop over heads and positions where that
is plainest, and share nothing with the project but the names of its parameters. Weights are large
and biases and scales random, so that a wrong detail moves the logits by far more than rounding.
"""

from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent
V, S, L, D, H, C = 29, 12, 3, 20, 4, 6  # C is not D / H, so that the two can't be confused
CASES = {
    # name: (forward, width of the MLP, key/value heads, tied head)
    "gpt2": ("gpt", 48, 4, True),
    "llama": ("llama", 36, 4, False),
    "llama_gqa": ("llama", 36, 2, False),
}


def weights(kind: str, F: int, K: int, tied: bool, seed: int) -> dict[str, torch.Tensor]:
    """Random parameters by path; those of the blocks have a leading axis of L."""
    shapes = {
        "embed/embedding": (V, D),
        "blocks/attention/query/kernel": (L, D, H * C),
        "blocks/attention/key/kernel": (L, D, K * C),
        "blocks/attention/value/kernel": (L, D, K * C),
        "blocks/attention/out/kernel": (L, H * C, D),
        "blocks/mlp/up/kernel": (L, D, F),
        "blocks/mlp/down/kernel": (L, F, D),
        "blocks/attention_norm/scale": (L, D),
        "blocks/mlp_norm/scale": (L, D),
        "final_norm/scale": (D,),
    }
    if kind == "gpt":
        shapes["position/embedding"] = (S, D)
        for path in [path for path in shapes if path.endswith(("kernel", "scale"))]:
            layers = (L,) if path.startswith("blocks") else ()
            bias = path.replace("kernel", "bias").replace("scale", "bias")
            shapes[bias] = (*layers, shapes[path][-1])
    else:
        shapes["blocks/mlp/gate/kernel"] = (L, D, F)
    if not tied:
        shapes["head/kernel"] = (D, V)
    generator = torch.Generator().manual_seed(seed)
    values = {p: 0.3 * torch.randn(s, generator=generator) for p, s in sorted(shapes.items())}
    values |= {p: 1 + value for p, value in values.items() if p.endswith("scale")}
    return {p: value.float().double() for p, value in values.items()}  # as stored, computed exactly


def attend(q_THC, k_TKC, v_TKC):
    """Causal attention, one head after the other; query heads in turn share a key head."""
    T, group = len(q_THC), q_THC.shape[1] // k_TKC.shape[1]
    later = torch.triu(torch.ones(T, T, dtype=torch.bool), diagonal=1)
    outputs = []
    for h in range(q_THC.shape[1]):
        score_TS = q_THC[:, h] @ k_TKC[:, h // group].T / C**0.5
        weight_TS = score_TS.masked_fill(later, float("-inf")).softmax(-1)
        outputs.append(weight_TS @ v_TKC[:, h // group])
    return torch.cat(outputs, dim=-1)


def gpt(w: dict, tokens_T: torch.Tensor) -> torch.Tensor:
    """GPT-2: Radford et al. 2019; LayerNorm with epsilon 1e-5, GELU in its tanh form."""
    T = len(tokens_T)

    def norm(x, path, i=...):
        return torch.nn.functional.layer_norm(
            x, (D,), w[f"{path}/scale"][i], w[f"{path}/bias"][i], eps=1e-5
        )

    def linear(x, path, i):
        return x @ w[f"{path}/kernel"][i] + w[f"{path}/bias"][i]

    x = w["embed/embedding"][tokens_T] + w["position/embedding"][:T]
    for i in range(L):
        h = norm(x, "blocks/attention_norm", i)
        q, k, v = (linear(h, f"blocks/attention/{n}", i) for n in ("query", "key", "value"))
        o = attend(q.view(T, H, C), k.view(T, -1, C), v.view(T, -1, C))
        x = x + linear(o, "blocks/attention/out", i)
        h = linear(norm(x, "blocks/mlp_norm", i), "blocks/mlp/up", i)
        h = 0.5 * h * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (h + 0.044715 * h**3)))
        x = x + linear(h, "blocks/mlp/down", i)
    return norm(x, "final_norm") @ w["embed/embedding"].T


def llama(w: dict, tokens_T: torch.Tensor) -> torch.Tensor:
    """LLaMA: Touvron et al. 2023; RMSNorm with epsilon 1e-6, SwiGLU, rotary positions.

    The rotation multiplies complex numbers x[i] + j x[i + C/2], the halves paired as in the weights
    that Hugging Face publishes.
    """
    T = len(tokens_T)

    def norm(x, path, i=...):
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{path}/scale"][i]

    def rotate(x_THC):
        z = torch.complex(x_THC[..., : C // 2], x_THC[..., C // 2 :])
        angle = torch.outer(torch.arange(T), 10000.0 ** (-2 * torch.arange(C // 2) / C))
        z = z * torch.polar(torch.ones_like(angle), angle)[:, None]
        return torch.cat([z.real, z.imag], dim=-1)

    x = w["embed/embedding"][tokens_T]
    for i in range(L):
        h = norm(x, "blocks/attention_norm", i)
        q, k, v = (
            (h @ w[f"blocks/attention/{name}/kernel"][i]).view(T, -1, C)
            for name in ("query", "key", "value")
        )
        x = x + attend(rotate(q), rotate(k), v) @ w["blocks/attention/out/kernel"][i]
        h = norm(x, "blocks/mlp_norm", i)
        gate, up = h @ w["blocks/mlp/gate/kernel"][i], h @ w["blocks/mlp/up/kernel"][i]
        x = x + (gate / (1 + torch.exp(-gate)) * up) @ w["blocks/mlp/down/kernel"][i]
    return norm(x, "final_norm") @ w["head/kernel"]


def main() -> None:
    """Writes NAME.npz for each case: the parameters by path, `tokens` [T] and `logits` [T, V]."""
    torch.set_default_dtype(torch.float64)
    for seed, (name, (kind, F, K, tied)) in enumerate(CASES.items()):
        w = weights(kind, F, K, tied, seed)
        tokens = torch.randint(V, (S,), generator=torch.Generator().manual_seed(seed))
        logits = {"gpt": gpt, "llama": llama}[kind](w, tokens)
        arrays = {path: value.float().numpy() for path, value in w.items()}
        np.savez_compressed(
            FOLDER / f"{name}.npz", tokens=tokens.numpy(), logits=logits.float().numpy(), **arrays
        )


if __name__ == "__main__":
    main()
