"""Writes the golden files of adapters and quantised matrices: tests/golden/adapters/.

    python tests/golden/adapters.py

It needs torch, transformers, peft and bitsandbytes. The reference of NF4 is bitsandbytes' portable
implementation, whose second level finds the nearest of 256 values, as its GPU kernels do. Its
library for CPUs takes the nearest of a table of 65,536 bins and so differs by one code at times.
"""

import ctypes
import os
from pathlib import Path

import numpy as np

os.environ["HF_HUB_OFFLINE"] = "1"  # PEFT would ask the hub for the base's config
os.environ["TORCHDYNAMO_DISABLE"] = "1"  # bitsandbytes would compile it, for minutes
_load = ctypes.cdll.LoadLibrary


def _portable(name):
    if "bitsandbytes" in str(name):
        raise OSError("the portable implementation is the reference")
    return _load(name)


ctypes.cdll.LoadLibrary = _portable

import bitsandbytes.functional as bnb  # noqa: E402
import torch  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

HERE = Path(__file__).parent
OUT = HERE / "adapters"
TOKENS = np.random.default_rng(0).integers(0, 97, (2, 12), np.int32)
# base → keys of LoraConfig. Every feature of the format that isoflop reads is in one of them.
CASES = {
    "gpt2": dict(r=3, lora_alpha=6, target_modules=["attn.c_attn", "mlp.c_proj"]),
    "llama_gqa": dict(
        r=2,
        lora_alpha=5,
        target_modules=["q_proj", "v_proj", "down_proj"],
        use_dora=True,
        use_rslora=True,
        rank_pattern={"v_proj": 4},
        alpha_pattern={"v_proj": 3},
    ),
}


def quantised() -> dict[str, np.ndarray]:
    """Matrices [I, O] of normal numbers with what bitsandbytes makes of their transposes. Of the
    dequantised matrices, every sixth column."""
    rng, found = np.random.default_rng(1), {}
    for name, (fan_in, outputs), scale in (("wide", (64, 96), 0.02), ("tall", (256, 72), 3.0)):
        kernel = (rng.standard_normal((fan_in, outputs)) * scale).astype(np.float16)
        weight = torch.tensor(kernel.T.astype(np.float32))
        packed, state = bnb.quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
        codes, stats, _ = bnb.int8_vectorwise_quant(weight.clone())
        found |= {
            f"{name}_kernel": kernel,
            f"{name}_codes": packed.numpy().reshape(outputs, -1),
            f"{name}_scales": state.absmax.numpy().reshape(outputs, -1),
            f"{name}_outer": state.state2.absmax.numpy(),
            f"{name}_offset": state.offset.numpy(),
            f"{name}_dense": bnb.dequantize_4bit(packed, state).numpy().T[:, ::6],
            f"{name}_int8": codes.numpy().T,
            f"{name}_int8_scales": stats.numpy(),
            f"{name}_int8_dense": bnb.int8_vectorwise_dequant(codes, stats).numpy().T[:, ::6],
        }
    return found


def logits(model: torch.nn.Module) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(TOKENS).long()).logits.numpy()


def write_adapter(base: str) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(HERE / "hf" / base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **CASES[base])).eval()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    model.peft_config["default"].base_model_name_or_path = f"../../hf/{base}"
    model.save_pretrained(OUT / base)
    (OUT / base / "README.md").unlink()
    np.savez_compressed(OUT / base / "expected.npz", tokens=TOKENS, logits=logits(model))


if __name__ == "__main__":
    OUT.mkdir(exist_ok=True)
    np.savez_compressed(OUT / "quantised.npz", **quantised())
    for case in CASES:
        write_adapter(case)
