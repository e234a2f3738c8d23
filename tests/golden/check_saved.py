"""Checks that transformers loads the checkpoints that isoflop writes and computes the same logits.

    python -m tests.golden.check_saved write FOLDER              (isoflop's environment)
    python tests/golden/check_saved.py compare FOLDER            (torch's)

The first command reads every case of hf/ and writes it again, in its original family and, if that
differs, in the family that isoflop would choose. The second loads the original and the copies with
AutoModelForCausalLM. It prints how far their logits are apart and whether all tensors are equal bit
by bit.
"""

import json
import sys
from pathlib import Path

HF = Path(__file__).parent / "hf"


def write(folder: Path) -> None:
    from model.huggingface import config_json, weights

    for case in sorted(HF.iterdir()):
        cfg, params = weights.load(case)
        original = json.loads((case / "config.json").read_text())["model_type"]
        for model_type in sorted({original, config_json.write(cfg)["model_type"]}):
            weights.save(folder / f"{case.name}-{model_type}", cfg, params, model_type)


def compare(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    tokens = torch.randint(97, (2, 24), generator=torch.Generator().manual_seed(2))
    bits = {torch.float32: torch.int32, torch.bfloat16: torch.int16}
    worst = 0.0
    print("| case | written as | max abs Δ logits | tensors |\n|---|---|---|---|")
    for saved in sorted(folder.iterdir()):
        case, model_type = saved.name.split("-")
        models = [
            AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager").eval()
            for path in (HF / case, saved)
        ]
        assert models[1].config.model_type == model_type
        first, second = (model.state_dict() for model in models)
        same = first.keys() == second.keys() and all(
            torch.equal(
                first[name].view(bits[first[name].dtype]),
                second[name].view(bits[first[name].dtype]),
            )
            for name in first
        )
        with torch.no_grad():
            a, b = (model.float()(tokens, use_cache=False).logits for model in models)
        distance = (a - b).abs().max().item()
        worst = max(worst, distance)
        print(f"| {case} | {model_type} | {distance:.1e} | {'equal' if same else 'differ'} |")
    print(f"largest: {worst:.1e}")


if __name__ == "__main__":
    {"write": write, "compare": compare}[sys.argv[1]](Path(sys.argv[2]))
