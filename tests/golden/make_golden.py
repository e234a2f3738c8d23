"""This file writes the golden files: tiny models of transformers with their logits and more.

    python tests/golden/make_golden.py [CASE …]     (torch 2.13, transformers 5.23; minutes)

Writes hf/CASE/ for each case of cases.py and prints how far a flip of each feature moves the logits
(README.md of this folder describes the arrays). torch and transformers are imported nowhere else in
the project; whoever runs the tests needs only what is written here.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from cases import CASES
from generation import beams, greedy
from reference import build, gradients, harden, logits
from tokenizers import Tokenizer, decoders, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

FOLDER = Path(__file__).parent / "hf"
ROWS, LENGTH = 2, 24
VISIBLE = 5e-4  # ten times the tolerance of the tests: a flip that moves less proves nothing


def write(name: str, case: dict) -> list[tuple[str, str, float]]:
    """Writes the directory of a case; returns rows of the table of flips."""
    folder, dtype = FOLDER / name, case.get("dtype", "float32")
    shutil.rmtree(folder, ignore_errors=True)
    model = build(case["config"], dtype=dtype)
    harden(model, name, case.get("embedding", 0.04))
    model.save_pretrained(folder, max_shard_size="60KB" if case.get("shards") else "5GB")
    for path in folder.iterdir():
        path.chmod(0o644)
    if case.get("tokenizer"):
        characters().save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    vocab_size = case["config"]["vocab_size"]
    tokens = torch.randint(vocab_size, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    arrays = {"tokens": tokens, "logits": logits(model, tokens)}
    if "short" in case:
        arrays["short_logits"] = logits(model, tokens[:, : case["short"]])
    if case.get("grads"):
        arrays |= gradients(model, tokens)
    arrays |= greedy(model, case.get("prompts", (11, 5)), vocab_size)
    if case.get("beams"):
        arrays |= beams(model, (9, 5), vocab_size)
    if "older" in case:
        write_older_config(folder, case["older"])
        older = load_older(folder, tokens)
        assert torch.equal(older, arrays["logits"]), f"{name}: the older config is another model"
    np.savez_compressed(folder / "expected.npz", **{k: np.asarray(v) for k, v in arrays.items()})
    return table(name, case, model, tokens, arrays["logits"])


def characters() -> PreTrainedTokenizerFast:
    """A tokenizer of 97: the 95 printable characters of ASCII between two special tokens."""
    tokens = ["<s>", *map(chr, range(32, 127)), "</s>"]
    model = models.BPE({token: i for i, token in enumerate(tokens)}, [])
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=tokens[0], eos_token=tokens[-1]
    )


def write_older_config(folder: Path, changes: dict) -> None:
    """older_config.json: config.json with its rope keys as they were before transformers 5."""
    keys = json.loads((folder / "config.json").read_text()) | changes
    keys["torch_dtype"] = keys.pop("dtype")
    keys = {key: value for key, value in keys.items() if changes.get(key, 0) is not None}
    (folder / "older_config.json").write_text(json.dumps(keys, indent=2) + "\n")


def load_older(folder: Path, tokens: torch.Tensor) -> torch.Tensor:
    """The logits that transformers computes from the older config and the same weights."""
    newer = (folder / "config.json").read_text()
    try:
        shutil.copy(folder / "older_config.json", folder / "config.json")
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        return logits(model.eval(), tokens)
    finally:
        (folder / "config.json").write_text(newer)


def table(name: str, case: dict, model, tokens, expected) -> list[tuple[str, str, float]]:
    """(case, flip, max |Δ logits|); the first row is how far float32 is from float64."""
    weights = model.state_dict()
    double = build(case["config"], weights, "float32").double()
    rows = [(name, "float32 → float64", distance(logits(double, tokens), expected))]
    for flip, changes in case["flips"].items():
        other = build(case["config"] | changes, weights)
        rows.append((name, flip, distance(logits(other, tokens), expected)))
    return rows


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    names = sys.argv[1:] or list(CASES)
    rows = [row for name in names for row in write(name, CASES[name])]
    print("| case | flip | max abs Δ logits |\n|---|---|---|")
    for name, flip, moved in rows:
        weak = "  **too little**" if "float64" not in flip and moved < VISIBLE else ""
        print(f"| {name} | {flip} | {moved:.1e}{weak} |")


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main()
