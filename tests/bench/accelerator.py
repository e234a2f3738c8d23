"""Measures the MFU of three GPTs on one accelerator, and the speedup of stacking small trials.

    python -m tests.bench.accelerator [--lanes=8,32,128] [--models=gpt3-125m,gpt3-350m,gpt3-1.3b]
        [--tokens=16384] [--remat=none] [--trace=FOLDER] [--json=FILE]

MFU: bfloat16, the platform's attention kernel, context length 2048, `--tokens` tokens per step,
relative to the vendor's peak for dense bfloat16. Stacking: lanes of the 1M-parameter shape S1 in
float32, compared with the same trials run one after another. This benchmark has not been run on an
accelerator yet. `--trace` also writes a profile of one call of each model for XProf or Perfetto.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from configs import pretrain
from model.transformer.config import ModelConfig, derive
from model.transformer.count import flops_per_token
from tests.bench import stacked
from tests.bench.race import contestant, ours
from tests.bench.race.shapes import SHAPES, Shape
from tests.train.steps import decoder_step
from train.objectives import next_token
from train.parallel.chips import peak_flops
from train.step import StepConfig, init_state, train_chunk

ROUNDS = 5


def seconds(advance: contestant.Advance, rounds: int = ROUNDS) -> float:
    """The median time of a call. The first call, which compiles, does not count."""
    advance()
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        advance()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def stacking(shape: Shape, lanes: list[int]) -> list[dict]:
    """For each number of lanes: seconds per call, and for the same trials one after another."""
    single, _ = ours.prepare(shape)
    alone, found = seconds(single), []
    for count in lanes:
        advance = stacked.prepare(ours.step_config(shape), count, shape.steps, shape.batch)
        together = seconds(advance)
        rate = count * shape.steps * shape.flops / together
        found.append(
            {
                "lanes": count,
                "seconds": together,
                "seconds one after another": count * alone,
                "speed-up": count * alone / together,
                "model_flops_per_second": rate,
            }
        )
    return found


def training(cfg: StepConfig, rows: int, steps: int) -> contestant.Advance:
    """A call that takes `steps` steps of `rows` sequences."""
    hyper = {name: jnp.float32(value) for name, value in ours.HYPER.items()}
    state = jax.jit(init_state, static_argnums=0)(cfg, hyper, jnp.uint32(0))
    size = (2, steps, rows, cfg.model.context_length)
    tokens, targets = np.random.default_rng(0).integers(0, cfg.model.vocab_size, size, np.int32)
    given = {"tokens": tokens, "targets": targets, "weights": np.ones(tokens.shape, np.float32)}
    batches = jax.device_put(given)

    def advance() -> None:
        nonlocal state
        state, metrics = train_chunk(cfg, state, batches, jnp.int32(steps))
        metrics["loss"].block_until_ready()

    return advance


def utilisation(name: str, model: ModelConfig, tokens: int, steps: int, trace: str = "") -> dict:
    """Tokens per second, FLOP/s by PaLM's count, and MFU (None if the peak is unknown)."""
    rows = max(1, tokens // model.context_length)
    loss = next_token.Config(loss_chunk=min(1024, model.context_length))
    advance = training(decoder_step(model, loss), rows, steps)
    each = seconds(advance) / steps
    if trace:
        with jax.profiler.trace(str(Path(trace) / name)):
            advance()
    rate = rows * model.context_length / each
    flops, peak = rate * flops_per_token(model, "palm"), peak_flops(jax.devices()[0].device_kind)
    return {
        "model": name,
        "tokens_per_step": rows * model.context_length,
        "step_seconds": each,
        "tokens_per_second": rate,
        "model_flops_per_second": flops,
        "mfu": flops / peak if peak else None,
    }


def family(name: str, remat: str) -> ModelConfig:
    """A published size such as gpt3-125m, in bfloat16 with scanned layers."""
    keys = pretrain.get_config(name).model.to_dict()
    del keys["family"]  # always a decoder
    return derive(keys | {"dtype": "bfloat16", "scan_layers": True, "remat": remat})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lanes", default="8,32,128")
    parser.add_argument("--models", default="gpt3-125m,gpt3-350m,gpt3-1.3b")
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--remat", default="none")
    parser.add_argument("--trace", default="")
    parser.add_argument("--json", default="")
    given = parser.parse_args()
    found = {"device": jax.devices()[0].device_kind, "jax": jax.__version__}
    found["stacking"] = stacking(SHAPES["S1"], [int(n) for n in given.lanes.split(",") if n])
    found["training"] = []
    for name in filter(None, given.models.split(",")):
        model = family(name, given.remat)
        found["training"].append(utilisation(name, model, given.tokens, 4, given.trace))
    print(json.dumps(found, indent=1))
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
