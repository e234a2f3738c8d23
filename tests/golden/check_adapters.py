"""Checks that PEFT loads the adapters that isoflop writes and computes the same logits.

    python -m tests.golden.check_adapters write FOLDER     (isoflop's environment)
    python tests/golden/check_adapters.py compare FOLDER   (torch's)

The first command writes random adapters of cases of hf/, with the logits of the merged model. The
second loads them with PeftModel and prints how far its logits are apart, and those of the base.
"""

import json
import sys
from pathlib import Path

import numpy as np

HF = Path(__file__).parent / "hf"
CASES = {
    "gpt2": dict(rank=3, alpha=5.0),
    "gpt2-dora": dict(rank=3, alpha=5.0, dora=True, targets="attention"),
    "gpt2-query": dict(rank=2, rslora=True, targets="query|up"),
    "llama_gqa": dict(rank=4, alpha=5.0, rslora=True, dora=True),
    "phi3": dict(rank=2, alpha=3.0, targets="attention|gate"),
}


def write(folder: Path) -> None:
    import jax

    from model.adapters.adapted import Adapted, Adapter
    from model.huggingface import peft, weights
    from model.transformer import family as decoder

    rng = np.random.default_rng(0)
    for name, keys in CASES.items():
        base = HF / name.partition("-")[0]
        cfg, params = weights.load(base)
        model_type = json.loads((base / "config.json").read_bytes())["model_type"]
        adapted = Adapted(decoder, Adapter("lora", **keys))
        params = jax.device_get(params)
        trained, _ = adapted.split(cfg, params, 0)
        move = lambda x: x + 0.1 * rng.standard_normal(x.shape).astype(x.dtype)  # noqa: E731
        trained = jax.tree.map(move, trained)
        target = folder / name
        peft.save(target, adapted.adapter, cfg, trained, str(base), "unknown", model_type)
        tokens = rng.integers(0, 97, (2, 12), np.int32)
        merged = adapted.merged(params, trained)
        x_BTD = decoder.hidden(cfg, merged, {"tokens": tokens})
        logits = decoder.logits(cfg, decoder.head(cfg, merged), x_BTD)
        np.savez(target / "expected.npz", tokens=tokens, logits=logits)


def compare(folder: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    print("| adapter | max abs Δ logits | of the base |\n|---|---|---|")
    for name in CASES:
        base = AutoModelForCausalLM.from_pretrained(
            HF / name.partition("-")[0], dtype=torch.float32, attn_implementation="eager"
        ).eval()
        expected = np.load(folder / name / "expected.npz")
        tokens = torch.tensor(expected["tokens"]).long()
        with torch.no_grad():
            plain = base(tokens).logits.numpy()
            found = PeftModel.from_pretrained(base, folder / name).eval()(tokens).logits.numpy()
        far = [np.abs(x - expected["logits"]).max() for x in (found, plain)]
        print(f"| {name} | {far[0]:.1e} | {far[1]:.1e} |")


if __name__ == "__main__":
    {"write": write, "compare": compare}[sys.argv[1]](Path(sys.argv[2]))
