"""Measures the training of other families than the decoder against eager PyTorch.

    python -m tests.bench.families [lstm gru elman encoder_decoder] [--torch_python=PATH]

networks.py has the sizes. Two single-threaded processes of each contestant train in turn, one on
each core, with AdamW and clipping; plain matrix products show what the cores allow. Prints
tokens/s, of targets, and their ratio, round by round, the GFLOP/s of each contestant, and the
seconds that each first call took longer than the second: compilation.
"""

import os
import statistics
import sys

from absl import app, flags

from tests.bench.families.networks import NETWORKS
from tests.bench.race import referee

PYTHON = flags.DEFINE_string("torch_python", sys.executable, "A Python that has PyTorch.")
ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds of each contestant.")
SECONDS = flags.DEFINE_float("seconds", 3.0, "Seconds of a round.")
UNROLL = flags.DEFINE_integer("unroll", 0, "model.unroll of ours; 0: its default.")


def main(argv: list[str]) -> None:
    if unknown := [name for name in argv[1:] if name not in NETWORKS]:
        raise app.UsageError(f"{unknown[0]} is unknown; use {', '.join(NETWORKS)}")
    if UNROLL.value:
        os.environ["ISOFLOP_BENCH_UNROLL"] = str(UNROLL.value)
    module, cores = "tests.bench.families", referee.CORES
    teams = [
        referee.Contestant("ours", f"{module}.ours", cores),
        referee.Contestant("torch", f"{module}.peer_torch", cores, PYTHON.value),
        referee.Contestant(referee.PRODUCTS, f"{module}.products", cores),
    ]
    say = lambda text: print(text, file=sys.stderr)  # noqa: E731
    for name in argv[1:] or NETWORKS:
        network = NETWORKS[name]
        found = referee.compete(network, teams, ROUNDS.value, SECONDS.value, say)
        tokens = network.batch * network.context / network.flops * 1e9  # per GFLOP
        for who, gflops in found["gflops"].items():
            rates = ", ".join(f"{rate * tokens:,.0f}" for rate in gflops["rounds"])
            compiled, speed = found["compile_seconds"][who], gflops["median"]
            print(
                f"{name} {who}: {speed * tokens:,.0f} tokens/s ({rates}), {speed:.0f} GFLOP/s, "
                f"first call {compiled:.1f} s longer"
            )
        ratios = found["ratios"]["torch"]
        target = f", target {ratios['target']}" if ratios["target"] else ""
        low, high = min(ratios["rounds"]), max(ratios["rounds"])
        middle = statistics.median(ratios["rounds"])
        print(f"{name} ours / torch: {middle:.2f} ({low:.2f} to {high:.2f}){target}")


if __name__ == "__main__":
    app.run(main)
