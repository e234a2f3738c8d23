"""The configurations in the tables of docs/scaling-up.md, as data.

A row is a name of configs/families.py, a topology and the keys that are set, as in
`isoflop compile --config=configs/pretrain.py:NAME --topology=… --config.KEY=…`. `make
scaling-table` compiles them all and writes the tables. Batches are those of one optimiser step.
"""

_SCAN = {"model.scan_layers": True, "train.batch_per_device": 1}
_FULL = _SCAN | {"model.remat": "full"}
_ATTENTION = _SCAN | {"model.remat": "attention"}
_PROJECTIONS = _SCAN | {"model.remat": "projections"}
_DOTS = _SCAN | {"model.remat": "dots"}
_DOTS_ATTENTION = _SCAN | {"model.remat": "dots_attention"}
_ONE_B = {"model.d_model": 2048, "model.n_layers": 16, "model.n_heads": 16, "model.d_ff": 5632}
# With a vocabulary of 32,000 and one row of 4,096 tokens per device, all logits take no more memory
# than the head's gradients summed over chunks, so chunks pay only for longer rows and more rows.
_LONG = {
    "model.context_length": 131_072,
    "mesh.fsdp": 16,
    "mesh.sequence": 16,
    "train.loss_chunk": 8192,
}

COMPILED: dict[str, tuple[str, str, dict]] = {
    "125m-v5e4": ("gpt3-125m", "v5e:2x2", _DOTS_ATTENTION | {"train.batch_per_device": 8}),
    "1b-v5e16": ("llama2-7b", "v5e:4x4", _FULL | _ONE_B),
    "1b-v5e16-short": ("llama2-7b", "v5e:4x4", _FULL | _ONE_B | {"optimizer.moments": "bfloat16"}),
    "1b-v5e16-dots-attention": ("llama2-7b", "v5e:4x4", _DOTS_ATTENTION | _ONE_B),
    "1.3b-v5e16": ("gpt3-1.3b", "v5e:4x4", _FULL | {"train.batch_per_device": 4}),
    "7b-v5e256": ("llama2-7b", "v5e:16x16", _FULL),
    "7b-v5e256-projections": ("llama2-7b", "v5e:16x16", _PROJECTIONS),
    "7b-v5e256-dots": ("llama2-7b", "v5e:16x16", _DOTS),
    "7b-v5e256-dots-attention": ("llama2-7b", "v5e:16x16", _DOTS_ATTENTION),
    "7b-v5e256-long": ("llama2-7b", "v5e:16x16", _ATTENTION | _LONG),
    "13b-v6e64": ("llama2-13b", "v6e:8x8", _FULL),
    "70b-v5p256": ("llama2-70b", "v5p:4x8x8", _FULL),
    "70b-v5p256-dots-attention": ("llama2-70b", "v5p:4x8x8", _DOTS_ATTENTION),
    "70b-v5p512": ("llama2-70b", "v5p:8x8x8", _FULL),
    "175b-v5p1024": ("gpt3-175b", "v5p:8x8x16", _FULL | {"train.batch_per_device": 2}),
}

_16B = {"model.context_length": 2048, "model.head_dim": 128, "model.d_ff": 28_672}
_16B |= {"model.d_model": 4096, "model.n_heads": 64, "model.n_layers": 32}
_32B = _16B | {"model.d_model": 8192}
_64B = _32B | {"model.n_layers": 64}
_128B = _64B | {"model.n_heads": 128, "model.d_ff": 57_344}
_256B = _128B | {"model.d_model": 16_384}
_512B = _256B | {"model.n_layers": 128}


def _mesh(rows: int, tensor: int = 1) -> dict:
    """FSDP over groups of `tensor` devices; each group has `rows` rows."""
    sizes = {"mesh.fsdp": -1, "mesh.tensor": tensor} if tensor > 1 else {}
    return {"train.batch_per_device": rows} | sizes


# Runs of MaxText on TPUs with the measurements of its authors: TFLOP/s per chip of the products
# that the model needs, attention's in full. From MaxText/configs/v5e/README.md, v5p/README.md and
# the scripts beside them. Included are all runs on one slice except 128B on v5e, whose policy
# isoflop lacks; 32B on v5p, which needs 104 of 96 GiB here; and 1024B.
PUBLISHED: dict[str, tuple[str, str, dict, float]] = {
    "maxtext-16b-v5e256": ("llama2-7b", "v5e:16x16", _FULL | _16B | _mesh(6), 120),
    "maxtext-32b-v5e256": ("llama2-7b", "v5e:16x16", _FULL | _32B | _mesh(4), 132),
    "maxtext-64b-v5e256": ("llama2-7b", "v5e:16x16", _FULL | _64B | _mesh(2), 118),
    "maxtext-64b-v5p64": ("llama2-7b", "v5p:4x4x4", _DOTS | _64B | _mesh(12, 4), 323),
    "maxtext-128b-v5p128": ("llama2-7b", "v5p:4x4x8", _DOTS | _128B | _mesh(8, 8), 315),
    "maxtext-128b-v5p256": ("llama2-7b", "v5p:4x8x8", _DOTS | _128B | _mesh(8, 8), 316),
    "maxtext-256b-v5p512": ("llama2-7b", "v5p:8x8x8", _DOTS | _256B | _mesh(8, 8), 308),
    "maxtext-512b-v5p512": ("llama2-7b", "v5p:8x8x8", _FULL | _512B | _mesh(16, 8), 294),
}
