"""This file is `isoflop sample`: continues a prompt with the model of a run.

isoflop sample --run=runs/tiny --prompt="def " --n=3 --temperature=0.8
isoflop sample --run=runs/tiny --prompt="import " --tokens=20 --show_probabilities

Without --prompt a new document begins. --temperature=0 takes the most likely token every time.
"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rich.console
import rich.table
import rich.text
from absl import flags as absl_flags

from data import tokenizer as tokenizers
from data.tokenizer import Tokenizer
from launch import flags
from launch.errors import DONE, bad_input
from launch.files import read_json, write_json
from model.config import ModelConfig
from model.sample import Sampler, Samples, check, sample
from train.checkpoint import restore_params

TOP = 5  # tokens that --show_probabilities shows at each step


def make_flags() -> absl_flags.FlagValues:
    values = absl_flags.FlagValues()
    text, whole = absl_flags.DEFINE_string, absl_flags.DEFINE_integer
    real, boolean = absl_flags.DEFINE_float, absl_flags.DEFINE_boolean
    text("run", None, "folder of a run of train or sweep", values)
    text("prompt", "", "text to continue; none: a new document", values)
    whole("tokens", 0, "tokens to add; 0: as many as the model's context holds", flag_values=values)
    whole("n", 1, "samples", flag_values=values)
    whole("seed", 0, "equal seeds give equal samples", flag_values=values)
    real("temperature", 1.0, "divides the logits; 0: the most likely token", flag_values=values)
    whole("top_k", 0, "draw among this many most likely tokens; 0: all", flag_values=values)
    real("top_p", 1.0, "draw among the fewest tokens of this probability", flag_values=values)
    boolean("show_probabilities", False, f"print the {TOP} likeliest tokens of each step", values)
    text("json", None, "write the samples, with log-probabilities, to this file", values)
    absl_flags.mark_flags_as_required(["run"], values)
    return values


def main(argv: Sequence[str]) -> int:
    """Prints the samples. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__)
    run = Path(values.run)
    with bad_input():
        cfg, tokenizer = open_run(run)
        sampler = Sampler(
            values.temperature, values.top_k, values.top_p, tokenizer.vocab_size, tokenizer.eod
        )
        prompt = tokenizer.encode(values.prompt).tolist() or [tokenizer.eod]
        n_tokens = values.tokens or max(1, cfg.context_length - len(prompt))
        top = min(TOP, tokenizer.vocab_size) if values.show_probabilities else 0
        check(cfg, [prompt], n_tokens, sampler, values.n, top)
        params, meta = restore_params(
            run / "checkpoints", lambda line: print(line, file=sys.stderr)
        )
    drawn = sample(params, cfg, [prompt], n_tokens, sampler, n=values.n, seed=values.seed, top=top)
    samples = [describe(tokenizer, drawn, row) for row in range(values.n)]
    show(values.prompt, samples)
    if values.json:
        about = {name: values[name].value for name in values if name not in ("json", "help")}
        write_json(Path(values.json), about | {"step": meta["step"], "samples": samples})
    return DONE


def open_run(run: Path) -> tuple[ModelConfig, Tokenizer]:
    """The model and the tokenizer of a run's folder."""
    config = read_json(run / "config.json")
    if config is None:
        raise FileNotFoundError(f"run={run} holds no config.json; give it the folder of a run")
    return ModelConfig(**config["model"]), tokenizers.load(run / "tokenizer")


def describe(tokenizer: Tokenizer, drawn: Samples, row: int) -> dict:
    """One sample as `--json` writes it; log-probabilities in nats."""
    count = int(drawn.lengths_B[row])
    tokens = drawn.tokens_BN[row, :count].tolist()
    logprobs = drawn.logprobs_BN[row, :count].astype(float).tolist()
    about = {
        "text": tokenizer.decode(tokens),
        "tokens": tokens,
        "pieces": [spell(tokenizer, token) for token in tokens],
        "logprobs": logprobs,
        "nats_per_token": -sum(logprobs) / count,
        "ended": tokens[-1] == tokenizer.eod,
    }
    if drawn.top_tokens_BNM.shape[-1]:
        about["top"] = [
            [
                {"token": int(token), "piece": spell(tokenizer, token), "logprob": float(logprob)}
                for token, logprob in zip(*step, strict=True)
                if np.isfinite(logprob)
            ]
            for step in zip(
                drawn.top_tokens_BNM[row, :count], drawn.top_logprobs_BNM[row, :count], strict=True
            )
        ]
    return about


def spell(tokenizer: Tokenizer, token: int) -> str:
    """A token so that it can be seen, spaces and newlines included."""
    if token == tokenizer.eod:
        return "<end>"
    return repr(tokenizer.pieces[int(token)].decode("utf-8", "backslashreplace"))[1:-1].replace(
        " ", "␣"
    )


def show(prompt: str, samples: Sequence[dict]) -> None:
    """The prompt dimmed, its continuation, and the table of probabilities if there is one."""
    console = rich.console.Console(highlight=False)
    for number, about in enumerate(samples, 1):
        if len(samples) > 1 or "top" in about:
            title = f"sample {number} of {len(samples)}, {about['nats_per_token']:.3f} nats/token"
            console.print(title, style="bold", soft_wrap=True)
        line = rich.text.Text(visible(prompt), style="dim")
        line.append(visible(about["text"]), style="not dim")
        if about["ended"]:
            line.append(" <end>", style="dim")
        console.print(line, soft_wrap=True)
        if "top" in about:
            console.print(probabilities(about))
        if number < len(samples):
            console.print()


def visible(text: str) -> str:
    """Text without what would move the terminal's cursor or change its colours."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def probabilities(about: dict) -> rich.table.Table:
    """A row a step: the token drawn, its probability, and the likeliest tokens with theirs."""
    table = rich.table.Table(box=None, header_style="bold", pad_edge=False)
    for column, justify in (("step", "right"), ("drawn", "left"), ("p", "right")):
        table.add_column(column, justify=justify, no_wrap=True)
    for _ in range(max(len(step) for step in about["top"])):
        table.add_column("likeliest" if len(table.columns) == 3 else "", no_wrap=True)
    rows = zip(about["tokens"], about["pieces"], about["logprobs"], about["top"], strict=True)
    for number, (token, piece, logprob, top) in enumerate(rows, 1):
        cells = [str(number), piece, f"{math.exp(logprob):.1%}"]
        cells += [f"{one['piece']} {math.exp(one['logprob']):.1%}" for one in top]
        drawn = [False] * 3 + [one["token"] == token for one in top]
        table.add_row(
            *(
                rich.text.Text(cell, style="bold" if bold else "")
                for cell, bold in zip(cells, drawn, strict=True)
            )
        )
    return table
