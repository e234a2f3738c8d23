"""Times decoding with quantised kernels against float32, in turns, on this machine.

    python -m tests.bench.quantised            # a model of 13M parameters with random weights

Prints seconds of 24 tokens, one row, and what the parameters take in memory.
"""

import sys
from types import SimpleNamespace

import jax
import numpy as np

from launch.quantising import measured
from model import families
from model.quantised import model as kernels
from model.quantised.model import Quantisation
from model.transformer.config import ModelConfig
from model.transformer.decoder import shapes

CFG = ModelConfig(
    vocab_size=256, context_length=64, n_layers=4, d_model=512, n_heads=8, n_kv_heads=8,
    head_dim=64, d_ff=1408, norm="rmsnorm", positions="rotary", activation="silu", gated=True,
    attention_bias=False, mlp_bias=False,
)  # fmt: skip
WAYS = {
    "int8": Quantisation("int8"),
    "int8, int8 inputs": Quantisation("int8", activations="int8"),
    "int4": Quantisation("int4"),
    "nf4": Quantisation("nf4"),
}


def main(tokens: int = 24, repeats: int = 5) -> None:
    family = families.find("decoder")
    draw = np.random.default_rng(0).standard_normal
    params = jax.tree.map(lambda leaf: draw(leaf.shape, np.float32) / 20, shapes(CFG))
    sets = {"float32": params}
    for name, how in WAYS.items():
        sets[name] = kernels.quantised(family, CFG, params, how)
    model = SimpleNamespace(family=family, cfg=CFG, start=(255,))
    sizes = {name: kernels.size(one) for name, one in sets.items()}
    sets = {name: jax.device_put(one) for name, one in sets.items()}
    seconds = measured.decode_seconds(model, sets, tokens, repeats)
    for name in sets:
        speed, size = seconds["float32"] / seconds[name], sizes[name] / sizes["float32"]
        print(f"{name:<18} {seconds[name]:.3f} s  speed {speed:.2f}  memory {size:.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
