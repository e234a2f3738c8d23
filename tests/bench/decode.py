"""Measures greedy decoding speed against transformers' `generate`.

    python -m tests.bench.decode --torch_python=PATH [--vocab=256] [--rounds=5] [--json=FILE]

The model is a LLaMA in float32 with random weights: 6 layers, width 384, 6 heads, MLP width 1024.
Prompts have 128 tokens and are continued by 128, in batches of 1 and 8, on two threads. The two
implementations alternate, and ratios compare the same round, so that noise on the machine affects
both. PATH is a Python with torch and transformers. Prefill is the time of one new token; decoding
is the time of the other 127.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SIZES = dict(layers=6, width=384, heads=6, mlp=1024, context=1024)
PROMPT, NEW, BATCHES, THREADS = 128, 128, (1, 8), 2
TARGET = 1.5
REPOSITORY = Path(__file__).parents[2]
Generate = Callable[[list[list[int]], int], None]  # prompts, new tokens


def ours(vocab: int) -> Generate:
    import jax

    from model.generation.sample import prepare, sample
    from model.generation.samplers import Sampler
    from model.transformer.config import ModelConfig
    from model.transformer.decoder import init

    cfg = ModelConfig(
        vocab_size=vocab, context_length=SIZES["context"], n_layers=SIZES["layers"],
        d_model=SIZES["width"], n_heads=SIZES["heads"], n_kv_heads=SIZES["heads"],
        head_dim=SIZES["width"] // SIZES["heads"], d_ff=SIZES["mlp"], norm="rmsnorm",
        positions="rotary", activation="silu", gated=True, attention_bias=False, mlp_bias=False,
        tie_embeddings=False,
    )  # fmt: skip
    params = prepare(jax.jit(init, static_argnums=0)(cfg, jax.random.key(0)), cfg)

    def generate(prompts, new):
        sample(params, cfg, prompts, new, Sampler(temperature=0.0))

    return generate


def theirs(vocab: int) -> Generate:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(THREADS)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab,
            hidden_size=SIZES["width"],
            intermediate_size=SIZES["mlp"],
            num_hidden_layers=SIZES["layers"],
            num_attention_heads=SIZES["heads"],
            max_position_embeddings=SIZES["context"],
            tie_word_embeddings=False,
        )
    ).eval()

    def generate(prompts, new):
        tokens = torch.tensor(prompts)
        with torch.inference_mode():
            model.generate(
                tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=new,
                min_new_tokens=new, do_sample=False, pad_token_id=0, eos_token_id=None,
            )  # fmt: skip

    return generate


CONTESTANTS = {"ours": ours, "transformers": theirs}


def contest(name: str, vocab: int) -> None:
    """Reads batch sizes from stdin and prints the seconds of prefill and of the whole call."""
    import random

    generate, warm = CONTESTANTS[name](vocab), set()
    for line in sys.stdin:
        rows = int(line)
        draw = random.Random(0).randrange
        prompts = [[draw(vocab) for _ in range(PROMPT)] for _ in range(rows)]
        seconds = []
        if rows not in warm:
            generate(prompts, 1)
            generate(prompts, NEW)
            warm.add(rows)
        for new in (1, NEW):
            begun = time.perf_counter()
            generate(prompts, new)
            seconds.append(time.perf_counter() - begun)
        print(json.dumps(seconds), flush=True)


def compete(vocab: int, batches: Sequence[int], rounds: int, torch_python: str) -> dict:
    """Milliseconds of prefill and decoded tokens per second in each round, by batch size."""
    pythons = {"ours": sys.executable, "transformers": torch_python}
    with tempfile.TemporaryFile() as errors:
        teams = {
            name: subprocess.Popen(
                [python, "-m", "tests.bench.decode", f"--vocab={vocab}", f"--contestant={name}"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                cwd=REPOSITORY,
            )
            for name, python in pythons.items()
        }  # fmt: skip
        try:
            return {batch: _batch(teams, batch, rounds) for batch in batches}
        finally:
            for process in teams.values():
                process.kill()
                process.wait()


def _batch(teams: dict[str, subprocess.Popen], batch: int, rounds: int) -> dict:
    found = {name: {"prefill_ms": [], "tokens_per_second": []} for name in teams}
    for _ in range(rounds):
        for name, process in teams.items():
            process.stdin.write(f"{batch}\n")
            process.stdin.flush()
            prefill, whole = json.loads(process.stdout.readline())
            found[name]["prefill_ms"].append(1e3 * prefill)
            found[name]["tokens_per_second"].append(batch * (NEW - 1) / (whole - prefill))
    ratios = {
        "tokens_per_second": _ratios(found, "tokens_per_second", "ours", "transformers"),
        "prefill": _ratios(found, "prefill_ms", "transformers", "ours"),
    }
    return found | {"ours_is": ratios}


def _ratios(found: dict, key: str, above: str, below: str) -> list[float]:
    return [a / b for a, b in zip(found[above][key], found[below][key], strict=True)]


def report(found: dict) -> None:
    for batch, measured in found.items():
        for name in CONTESTANTS:
            prefill, rate = (statistics.median(measured[name][k]) for k in measured[name])
            print(f"batch {batch}  {name:12}  prefill {prefill:6.1f} ms  {rate:7.1f} tokens/s")
        for what, ratios in measured["ours_is"].items():
            goal = f" (target {TARGET})" if what == "tokens_per_second" else ""
            spread = f"{min(ratios):.2f}–{max(ratios):.2f}"
            print(
                f"batch {batch}  ours is {statistics.median(ratios):.2f}× in {what}, {spread}{goal}"
            )


def main() -> None:
    # Not absl: the other Python may not have it.
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--torch_python", default=sys.executable, help="has transformers")
    parser.add_argument("--vocab", type=int, default=256, help="tokens of the vocabulary")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="prompts at once")
    parser.add_argument("--json", help="file to write all measurements to")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contestant:
        return contest(given.contestant, given.vocab)
    found = compete(given.vocab, given.batches, given.rounds, given.torch_python)
    report(found)
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
