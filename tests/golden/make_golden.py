"""Writes the golden files: tiny transformers models with their logits and other outputs.

    python tests/golden/make_golden.py [CASE …]     (torch 2.13, transformers 5.23; 20 s)

Writes hf/CASE/ for each case of cases.py, switches/CASE.npz for each case of switches.py, and
samplers.npz. Prints how far a flip of each feature moves the logits. README.md describes the
arrays. The tests need only the files written here, not torch or transformers.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import samplers
import torch
from cases import CASES, COMMON
from generation import beams, greedy
from reference import build, gradients, harden, logits
from safetensors.torch import load_file, save_file
from switches import SWITCHES
from tokenizers import Tokenizer, decoders, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

FOLDER = Path(__file__).parent
TOKENS = torch.randint(COMMON["vocab_size"], (2, 24), generator=torch.Generator().manual_seed(1))
ROUNDING = "float32 → float64"
VISIBLE = (
    5e-4  # ten times the tolerance of the tests; a flip must move the logits at least this far
)


def write(name: str, case: dict) -> list[tuple[str, str, float]]:
    """Writes the directory of a case and returns its rows of the table of flips."""
    folder = FOLDER / "hf" / name
    write_checkpoint(folder, name, case)
    model, vocab_size = load(folder), case["config"]["vocab_size"]
    arrays = {"tokens": TOKENS, "logits": logits(model, TOKENS)}
    if case.get("grads"):
        arrays |= gradients(model, TOKENS)
    arrays |= greedy(model, case.get("prompts", (11, 5)), vocab_size)
    if case.get("beams"):
        arrays |= beams(model, (9, 5), vocab_size)
    if "short" in case:
        arrays["short_logits"] = logits(model, TOKENS[:, : case["short"]])
        crossing = greedy(model, (case["short"],), vocab_size)
        arrays |= {f"crossing_{key}": value for key, value in crossing.items()}
    if case["config"]["model_type"].startswith("gemma"):
        embed = load(folder, torch.bfloat16).get_input_embeddings()
        arrays["embedded_bfloat16"] = embed(TOKENS).float().detach()
    if "older" in case:
        write_older_config(folder, case["older"])
        older = load_older(folder)
        assert torch.equal(older, arrays["logits"]), f"{name}: the older config is another model"
    save(folder / "expected.npz", arrays)
    return table(name, case, model, arrays["logits"])


def write_checkpoint(folder: Path, name: str, case: dict) -> None:
    """config.json, safetensors and tokenizer, as transformers saves them."""
    shutil.rmtree(folder, ignore_errors=True)
    model = build(case["config"], dtype=case.get("dtype", "float32"))
    harden(model, name, case.get("embedding", 0.04))
    model.save_pretrained(folder, max_shard_size="60KB" if case.get("shards") else "5GB")
    if case.get("published"):
        publish(folder / "model.safetensors", case["config"])
    if case.get("tokenizer"):
        characters().save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)


def publish(path: Path, config: dict) -> None:
    """Renames the tensors as in OpenAI's GPT-2 on the hub: no prefix, plus causal masks."""
    tensors = {key.removeprefix("transformer."): value for key, value in load_file(path).items()}
    mask = torch.ones(config["n_positions"], config["n_positions"]).tril()[None, None]
    masks = {f"h.{i}.attn.bias": mask.clone() for i in range(config["n_layer"])}
    save_file(tensors | masks, path, metadata={"format": "pt"})


def write_switch(name: str, case: dict) -> list[tuple[str, str, float]]:
    """Writes the npz of a case of switches.py and returns its rows of the table of flips."""
    model = build(case["config"])
    harden(model, name, 0.04)
    arrays = {"config": json.dumps(case["config"])}
    arrays |= {"tokens": TOKENS, "logits": logits(model, TOKENS)}
    arrays |= {f"weight/{path}": p.detach() for path, p in model.named_parameters()}
    save(FOLDER / "switches" / f"{name}.npz", arrays)
    return table(name, case, model, arrays["logits"])


def load(folder: Path, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager"
    ).eval()


def save(path: Path, arrays: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **{key: np.asarray(value) for key, value in arrays.items()})


def characters() -> PreTrainedTokenizerFast:
    """A tokenizer of 97 tokens: the 95 printable ASCII characters between two special tokens."""
    tokens = ["<s>", *map(chr, range(32, 127)), "</s>"]
    model = models.BPE({token: i for i, token in enumerate(tokens)}, [])
    tokenizer = Tokenizer(model)
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=tokens[0], eos_token=tokens[-1]
    )


def write_older_config(folder: Path, changes: dict) -> None:
    """Writes older_config.json: config.json with rope keys as before transformers 5."""
    keys = json.loads((folder / "config.json").read_text()) | changes
    keys["torch_dtype"] = keys.pop("dtype")
    keys = {key: value for key, value in keys.items() if changes.get(key, 0) is not None}
    (folder / "older_config.json").write_text(json.dumps(keys, indent=2) + "\n")


def load_older(folder: Path) -> torch.Tensor:
    """The logits that transformers computes from the older config and the same weights."""
    newer = (folder / "config.json").read_text()
    try:
        shutil.copy(folder / "older_config.json", folder / "config.json")
        return logits(load(folder), TOKENS)
    finally:
        (folder / "config.json").write_text(newer)


def table(name: str, case: dict, model, expected) -> list[tuple[str, str, float]]:
    """Rows of (case, flip, max |Δ logits|). The first row compares float32 with float64."""
    weights = model.state_dict()
    double = build(case["config"], weights).double()
    rows = [(name, ROUNDING, distance(logits(double, TOKENS), expected))]
    for flip, changes in case["flips"].items():
        other = build(case["config"] | changes, weights)
        rows.append((name, flip, distance(logits(other, TOKENS), expected)))
    return rows


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    names = sys.argv[1:] or [*CASES, *SWITCHES, "samplers"]
    rows = []
    for name in names:
        if name == "samplers":
            samplers.write(FOLDER / "samplers.npz")
        else:
            rows += (
                write(name, CASES[name]) if name in CASES else write_switch(name, SWITCHES[name])
            )
    print("| case | flip | max abs Δ logits |\n|---|---|---|")
    for name, flip, moved in rows:
        weak = "  **too little**" if flip != ROUNDING and moved < VISIBLE else ""
        print(f"| {name} | {flip} | {moved:.1e}{weak} |")


if __name__ == "__main__":
    main()
