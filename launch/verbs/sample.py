"""This file is `isoflop sample`: continues a prompt with the model of a run.

isoflop sample --run=runs/tiny --prompt="def " --n=3 --temperature=0.8
isoflop sample --run=runs/tiny --prompt="import " --tokens=20 --show_probabilities
isoflop sample --run=runs/large --draft=runs/tiny --prompt="def " --stop="\\n\\n"
isoflop sample --run=runs/tiny --prompt="def " --beams=4 --tokens=30

Without --prompt a new document begins. --temperature=0 takes the most likely token every time.
Logits pass the repetition penalty, temperature, top-k, top-p, min-p and typical, in this order;
log-probabilities that are shown or written are the model's own, before all that. A single sample
appears on a terminal as it is drawn; Ctrl-C ends it, and what was drawn stays (exit code 130).

--stop may be given more than once; \\n is a newline. The text ends before it, the tokens with it.
--draft names the run of a smaller model with the same tokenizer, which guesses --ahead tokens for
the large one to check at once: the distribution of samples is exactly the large model's.
--beams searches for the likeliest continuations and prints them all, best first; it draws nothing.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rich.console
import rich.text
from absl import flags as absl_flags

from data import tokenizer as tokenizers
from data.tokenizer import Tokenizer
from launch import flags
from launch.errors import DONE, bad_input, writing
from launch.files import read_json, read_model, write_json
from launch.sample_text import Continuation, describe, describe_beam, show, visible
from launch.verbs.convert import KEPT
from model import parameters
from model.generation import beam, sample, speculative
from model.generation.samplers import Sampler
from model.transformer.config import ModelConfig
from model.transformer.decoder import shapes
from train.checkpoint import restore_params

TOP = 5  # tokens that --show_probabilities shows at each step
AT_ONCE = 4  # tokens between two looks at the text, where it is streamed or may hold a stop string
INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ended
# What says how to draw means nothing to a search, and a draft shows no probabilities.
NOT_WITH = {
    "beams": (
        *("temperature", "top_k", "top_p", "min_p", "typical", "repetition_penalty"),
        *("n", "seed", "stop", "draft", "stream", "show_probabilities"),
    ),
    "draft": ("show_probabilities",),
}


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
    real(
        "min_p", 0.0, "draw among tokens this times as likely as the likeliest", flag_values=values
    )
    real("typical", 1.0, "draw among tokens of usual surprise, to this probability", flag_values=values)  # fmt: skip  # noqa: E501
    real("repetition_penalty", 1.0, "divides logits of tokens that occurred", flag_values=values)
    absl_flags.DEFINE_multi_string("stop", [], "text that ends a sample", flag_values=values)
    whole("beams", 0, "beams of a search for the likeliest continuations", flag_values=values)
    real("length_penalty", 1.0, "beams: score over tokens to this power", flag_values=values)
    boolean("early_stopping", False, "beams: as soon as so many have ended", values)
    text("draft", None, "folder of a smaller model's run that drafts", values)
    whole("ahead", 4, "draft: tokens guessed at a time", flag_values=values)
    boolean("stream", None, "print while drawing (default: one sample on a terminal)", values)
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
        refuse(values)
        cfg, tokenizer = open_run(run)
        prompt = [*tokenizer.prefix, *tokenizer.encode(values.prompt).tolist()] or [tokenizer.eod]
        n_tokens = values.tokens or max(1, cfg.context_length - len(prompt))
        sampler = make_sampler(values, tokenizer, ends(run))
        sample.check(cfg, [prompt], n_tokens, sampler, values.n)
        model, step = restored(run, cfg)
        draft = open_draft(values, cfg, tokenizer, prompt, n_tokens) if values.draft else None
        if values.beams:
            beam.check_beams(cfg, sampler, values.beams)
    context = prompt if values.prompt else []
    code = DONE
    if values.beams:
        found = beam.search(
            *model, [prompt], n_tokens, values.beams, length_penalty=values.length_penalty,
            early_stopping=values.early_stopping, stop=sampler.stop, vocab_size=sampler.vocab_size,
        )  # fmt: skip
        samples = [
            describe_beam(tokenizer, context, found, place, values.length_penalty)
            for place in range(values.beams)
        ]
        show(values.prompt, samples)
    else:
        rows = [Continuation(tokenizer, context, stops(values)) for _ in range(values.n)]
        drawn, code = draw(values, model, draft, [prompt], n_tokens, sampler, rows)
        if drawn is None:
            return code
        samples = [describe(tokenizer, row, drawn, number) for number, row in enumerate(rows)]
        if not streams(values):
            show(values.prompt, samples)
    if values.json:
        about = {name: values[name].value for name in values if name not in ("json", "help")}
        with writing("json", values.json):
            write_json(Path(values.json), about | {"step": step, "samples": samples})
    return code


def refuse(values: absl_flags.FlagValues) -> None:
    """ValueError for flags that contradict one another."""
    for flag, others in NOT_WITH.items():
        for other in others if values[flag].value else ():
            if values[other].value != values[other].default:
                raise ValueError(f"--{other} means nothing with --{flag}; drop one of them")
    if values.stream and (values.n > 1 or values.show_probabilities):
        raise ValueError("--stream shows one sample and no probabilities; drop it, or use --n=1")
    if "" in values.stop:
        raise ValueError("--stop= is empty, which every text holds; give it some text, or drop it")


def ends(run: Path) -> set[int]:
    """Tokens that end a text by the files that came with converted weights: a turn's end, say."""
    files = [run / KEPT / name for name in ("config.json", "generation_config.json")]
    named = [(read_json(file) or {}).get("eos_token_id") for file in files]
    lists = [ids if isinstance(ids, list) else [ids] for ids in named if ids is not None]
    return {token for ids in lists for token in ids}


def make_sampler(values: absl_flags.FlagValues, tokenizer: Tokenizer, ends: set[int]) -> Sampler:
    return Sampler(
        temperature=values.temperature,
        top_k=values.top_k,
        top_p=values.top_p,
        min_p=values.min_p,
        typical=values.typical,
        repetition_penalty=values.repetition_penalty,
        vocab_size=tokenizer.vocab_size,
        stop=tuple(sorted({tokenizer.eod, *ends})),
    )


def stops(values: absl_flags.FlagValues) -> list[str]:
    return [stop.replace("\\n", "\n") for stop in values.stop]


def streams(values: absl_flags.FlagValues) -> bool:
    """Whether the text is printed while it is drawn."""
    if values.stream is not None:
        return values.stream
    return sys.stdout.isatty() and values.n == 1 and not values.show_probabilities


Model = tuple[dict, ModelConfig]


def draw(
    values: absl_flags.FlagValues,
    model: Model,
    draft: Model | None,
    prompts: list[list[int]],
    n_tokens: int,
    sampler: Sampler,
    rows: Sequence[Continuation],
) -> tuple[sample.Samples | None, int]:
    """What was drawn until the end or Ctrl-C, None if nothing was, and the exit code."""
    console, streaming, pieces = rich.console.Console(highlight=False), streams(values), []

    def read(drawn: sample.Samples) -> None:
        counts = zip(rows, drawn.tokens_BN, drawn.lengths_B, strict=True)
        for row, tokens, count in counts:
            row.add(tokens[:count])
        if streaming:
            console.print(rich.text.Text(visible(rows[0].news())), end="", soft_wrap=True)

    def goes_on(drawn: sample.Samples) -> np.ndarray:
        return np.array([not row.stopped for row in rows])

    how = dict(n=values.n, seed=values.seed, goes_on=goes_on)
    if draft:
        found = speculative.stream(
            *model, *draft, prompts, n_tokens, sampler, ahead=values.ahead, **how
        )
    else:
        top = min(TOP, sampler.vocab_size) if values.show_probabilities else 0
        chunk = AT_ONCE if streaming or values.stop else sample.CHUNK
        found = sample.stream(*model, prompts, n_tokens, sampler, top=top, chunk=chunk, **how)
    if streaming:
        console.print(rich.text.Text(visible(values.prompt), style="dim"), end="", soft_wrap=True)
    code = DONE
    try:
        for piece in found:
            pieces.append(piece)
            read(piece.samples if draft else piece)
    except KeyboardInterrupt:
        code = INTERRUPTED
    if streaming:
        ended = not code and (rows[0].stopped or rows[0].tokens[-1] in sampler.stop)
        console.print(rich.text.Text(visible(rows[0].news(last=True))), end="", soft_wrap=True)
        console.print(rich.text.Text(" <end>" if ended else "", style="dim"))
    if not pieces:
        return None, code
    if draft:
        share = f"{speculative.acceptance(pieces):.0%} of what {values.draft} drafted was accepted"
        print(share, file=sys.stderr)
        pieces = [piece.samples for piece in pieces]
    return sample.join(pieces, n_tokens), code


def open_run(run: Path, flag: str = "run") -> tuple[ModelConfig, Tokenizer]:
    """The model and the tokenizer of a run's folder."""
    return read_model(run, flag), tokenizers.load(run / "tokenizer")


def restored(run: Path, cfg: ModelConfig) -> tuple[Model, int]:
    """The model of a run's last good checkpoint, and its step."""
    params, meta = restore_params(run / "checkpoints", lambda line: print(line, file=sys.stderr))
    try:
        parameters.check(shapes(cfg), params)
    except ValueError as error:
        raise ValueError(
            f"{run / 'checkpoints'}: {error}; put back the config.json that it was trained with"
        ) from None
    return (sample.prepare(params, cfg), cfg), meta["step"]


def open_draft(
    values: absl_flags.FlagValues,
    cfg: ModelConfig,
    tokenizer: Tokenizer,
    prompt: list[int],
    n_tokens: int,
) -> Model:
    """The model that drafts; ValueError for one that can't."""
    folder = Path(values.draft)
    draft_cfg, draft_tokenizer = open_run(folder, "draft")
    if draft_tokenizer.fingerprint != tokenizer.fingerprint:
        raise ValueError(
            f"draft={folder} has another tokenizer ({draft_tokenizer.name}) than run={values.run} "
            f"({tokenizer.name}); draft with a run on the same data"
        )
    speculative.check_draft(cfg, draft_cfg, [prompt], n_tokens, values.ahead)
    return restored(folder, draft_cfg)[0]
