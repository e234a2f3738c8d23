"""Compares training speed with one peer: one process and one thread each, on one core, in turn.

Rates are per second of CPU time, all threads of the process together. On an idle core that is the
wall time of one thread; on a busy machine it leaves out the time of other processes. Imports no
framework, so that any Python can run it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ONE_THREAD = {
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "false",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}

Advance = Callable[[], int]  # trains for a while, waits for the result, returns tokens or words
Contestants = Mapping[str, Callable[[], Advance]]


def main(module: str, contestants: Contestants, pairs: Mapping[str, str], target: float) -> None:
    """Measures every contestant in `module`. `pairs`: a contestant of ours → its peer's name.

    Peers run in the Python of --peer_python. Nothing else may be imported before a contestant is
    prepared, so the modules import their frameworks inside functions.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__.split("\n\n")[0])
    parser.add_argument("--peer_python", default=sys.executable, help="a Python that has the peer")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU seconds of a round")
    parser.add_argument("--only", nargs="+", choices=pairs, default=list(pairs), help="ours")
    parser.add_argument("--json", help="file to write all measurements to")
    parser.add_argument("--contestant", choices=contestants, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contestant:
        return _contest(contestants[given.contestant])
    pairs = {name: pairs[name] for name in given.only}
    pythons = dict.fromkeys(pairs, sys.executable)
    pythons |= dict.fromkeys(pairs.values(), given.peer_python)
    found = _compete(module, pythons, given.rounds, given.seconds)
    for name, measured in found.items():
        rate, compiled = statistics.median(measured["rates"]), measured["compile_seconds"]
        print(f"{name:16} {rate:10,.0f} a second   first call {compiled:5.1f} s longer")
    for name, peer in pairs.items():
        rounds = zip(found[name]["rates"], found[peer]["rates"], strict=True)
        ratios = [ours / theirs for ours, theirs in rounds]
        found[name]["ratios"] = ratios
        spread = f"{min(ratios):.2f}–{max(ratios):.2f}"
        median = statistics.median(ratios)
        print(f"{name:16} is {median:.2f}× {peer} ({spread}), target {target}")
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=1) + "\n")


def _contest(prepare: Callable[[], Advance]) -> None:
    """Prints the seconds of compilation, then a rate for each line of stdin, its CPU seconds."""
    advance = prepare()
    first, steady = _seconds(advance), _seconds(advance)
    print(json.dumps(max(0.0, first - steady)), flush=True)
    for line in sys.stdin:
        done, begun = 0, time.process_time()
        while (elapsed := time.process_time() - begun) < float(line):
            done += advance()
        print(json.dumps(done / elapsed), flush=True)


def _seconds(advance: Advance) -> float:
    begun = time.process_time()
    advance()
    return time.process_time() - begun


def _compete(module: str, pythons: Mapping[str, str], rounds: int, seconds: float) -> dict:
    """The seconds of compilation and the rates of each contestant."""
    core = sorted(os.sched_getaffinity(0))[-1:] if hasattr(os, "sched_setaffinity") else []
    pin = (lambda: os.sched_setaffinity(0, core)) if core else None
    with tempfile.TemporaryFile("w+") as errors:
        teams, found = {}, {}
        try:
            for name, python in pythons.items():
                teams[name] = subprocess.Popen(
                    [python, "-m", module, f"--contestant={name}"],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                    cwd=REPOSITORY, env=os.environ | ONE_THREAD, preexec_fn=pin,
                )  # fmt: skip
                found[name] = {"compile_seconds": _answer(teams[name], errors), "rates": []}
            for _ in range(rounds):
                for name, process in teams.items():
                    process.stdin.write(f"{seconds}\n")
                    process.stdin.flush()
                    found[name]["rates"].append(_answer(process, errors))
        finally:
            for process in teams.values():
                process.kill()
                process.wait()
    return found


def _answer(process: subprocess.Popen, errors) -> float:
    line = process.stdout.readline()
    if not line:
        errors.seek(0)
        cause = errors.read().strip().splitlines()[-1:] or ["no message"]
        raise RuntimeError(f"{' '.join(process.args[1:])} ended: {cause[0]}")
    return json.loads(line)


def ours(cfg, fields: Callable[[], dict], steps: int, counted: int) -> Advance:
    """Trains `steps` steps a call on the same batches [steps, B, ...], with clipping at 1."""
    import jax
    import jax.numpy as jnp

    from tests.bench.ours import HYPER
    from train.step import init_state, train_chunk

    hyper = {name: jnp.float32(value) for name, value in HYPER.items()}
    state = jax.jit(init_state, static_argnums=0)(cfg, hyper, jnp.uint32(0))
    host = fields()

    def advance() -> int:
        nonlocal state
        state, metrics = train_chunk(cfg, state, jax.device_put(host), jnp.int32(steps))
        metrics["loss"].block_until_ready()
        return counted

    return advance


def torch_trained(model, loss: Callable, batches: list, counted: int) -> Advance:
    """The same in eager PyTorch: fused AdamW and clipping; `loss(model, batch)` is the mean."""
    import torch

    torch.set_num_threads(1)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )

    def advance() -> int:
        for batch in batches:
            value = loss(model, batch)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        value.item()
        return counted

    return advance
