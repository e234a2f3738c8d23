"""isoflop sample: continues a prompt with the model of a run.

isoflop sample --run=runs/tiny --prompt="def " --n=3 --temperature=0.8
isoflop sample --run=runs/tiny --prompt="import " --tokens=20 --show_probabilities
isoflop sample --run=runs/large --draft=runs/tiny --prompt="def " --stop="\\n\\n"
isoflop sample --run=runs/tiny --prompt="def " --beams=4 --tokens=30
isoflop sample --run=runs/shapes --image=picture.png --temperature=0
isoflop sample --run=runs/tiny --prompt="def read" --retrieve=runs/docs-index --passages=2

Without --prompt a new document begins. Where the run was trained on conversations, the prompt is a
user's message and the sample is the assistant's turn; --notemplate continues the text itself.
--temperature=0 takes the most likely token every time. The repetition penalty, temperature, top-k,
top-p, min-p and typical apply to the logits in this order; the log-probabilities shown are those of
the model before them. On a terminal a single sample appears while it is drawn; Ctrl-C ends it and
keeps what was drawn (exit code 130).

--stop may be repeated; \\n in it is a newline. The text ends before the stop string, the list of
tokens after it.
--draft names the run of a smaller model with the same tokenizer. It guesses --ahead tokens, which
the large model checks at once; samples keep exactly the large model's distribution.
--retrieve puts the passages of an index that fit the prompt best before it, and names their sources
on stderr. They leave at least a quarter of the context to the sample.
--beams searches for the likeliest continuations, prints them all, best first, and draws nothing.
--image names the file that a run with model.family=captioner reads: an image or, where the run was
trained on sounds, a WAV file. --prompt is then the beginning of the caption.
"""

import contextlib
import functools
import math
import sys
from collections.abc import Callable, Sequence

from absl import flags as absl_flags

from data.files import to_path
from data.tokenizer import Tokenizer
from launch import flags
from launch.alive import alive
from launch.captions import captioner
from launch.chat.template import prompt_of
from launch.converted import end_tokens
from launch.errors import DONE, bad_input, writing
from launch.files import write_json
from launch.retrieval import options
from launch.retrieval.retriever import Found, described, fitting, show_sources
from launch.sampling.continuation import Continuation, describe, describe_beam
from launch.sampling.draw import draw, is_bounded, open_draft, open_run, restored, stream_of
from launch.sampling.terminal import Echo, show
from model import families
from model.generation import beam, sample
from model.generation.samplers import Sampler
from model.transformer import family as decoder

TOP = 5  # tokens that --show_probabilities shows at each step
AT_ONCE = 4  # tokens between two looks at the text, where it is streamed or may hold a stop string
MOST_TOKENS = 1024  # by default: the cache grows with them, up to gigabytes at long contexts
INTERRUPTED = 130  # what a shell reports of a program that Ctrl-C ended
# A search does not draw, so flags on drawing exclude it; a draft shows no probabilities.
NOT_WITH = {
    "beams": (
        *("temperature", "top_k", "top_p", "min_p", "typical", "repetition_penalty"),
        *("n", "seed", "stop", "draft", "stream", "show_probabilities"),
    ),
    "draft": ("show_probabilities",),
}


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    text, whole = absl_flags.DEFINE_string, absl_flags.DEFINE_integer
    real, boolean = absl_flags.DEFINE_float, absl_flags.DEFINE_boolean
    flags.define_path(
        "run", None, "folder of the run, or of Hugging Face weights, to sample from", values
    )
    text("prompt", "", "text to continue; default: a new document", values)
    flags.define_path("image", None, "image or sound to caption, of a captioner's run", values)
    usual = f"tokens to add; 0: until the model's context is full, at most {MOST_TOKENS}"
    whole("tokens", 0, usual, flag_values=values)
    whole("n", 1, "number of samples", flag_values=values)
    whole("seed", 0, "seed of the draws; equal seeds give equal samples", flag_values=values)
    real("temperature", 1.0, "divides the logits; 0: the most likely token", flag_values=values)
    whole("top_k", 0, "draw among the K most likely tokens; 0: all", flag_values=values)
    real(
        "top_p",
        1.0,
        "draw among the fewest tokens whose probabilities sum to P",
        flag_values=values,
    )
    real(
        "min_p",
        0.0,
        "draw among tokens with at least P times the probability of the likeliest one",
        flag_values=values,
    )
    real("typical", 1.0, "draw among the tokens of most typical surprisal whose probabilities sum to P", flag_values=values)  # fmt: skip  # noqa: E501
    real(
        "repetition_penalty",
        1.0,
        "divides the logits of tokens that occurred; 1: off",
        flag_values=values,
    )
    absl_flags.DEFINE_multi_string(
        "stop", [], "text that ends a sample; may be repeated", flag_values=values
    )
    whole("beams", 0, "beam search with this many beams; 0: draw samples", flag_values=values)
    real(
        "length_penalty",
        1.0,
        "beams: a score is divided by its number of tokens to this power",
        flag_values=values,
    )
    boolean("early_stopping", False, "beams: stop once as many texts as beams have ended", values)
    flags.define_path(
        "draft", None, "folder of the run of a smaller model, for speculative decoding", values
    )
    whole("ahead", 4, "draft: tokens that the draft model guesses at a time", flag_values=values)
    usual = "default: if the run was trained with one"
    boolean("template", None, f"--prompt is a message, put in the chat template; {usual}", values)
    boolean("stream", None, "print while drawing (default: one sample on a terminal)", values)
    boolean("show_probabilities", False, f"print the {TOP} likeliest tokens of each step", values)
    options.define(values, passages=3)
    flags.define_path(
        "json", None, "write the samples, with log-probabilities, to this file", values
    )
    flags.define_import(values)
    absl_flags.mark_flags_as_required(["run"], values)
    return values


def main(argv: Sequence[str]) -> int:
    """Prints the samples. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__)
    run = to_path(values.run)
    with bad_input(), alive("loading the model"):
        refuse(values)
        reads = captioner.sampled(run, values.image, values.prompt) if values.image else None
        family, cfg, tokenizer = reads.model if reads else open_run(run)
        bounded = is_bounded(family)
        stream = stream_of(family, AT_ONCE if streams(values) or values.stop else sample.CHUNK)
        refuse_searches(values, family)
        if reads:
            (prompt, ends), retrieved = reads.prompt, ()
        else:
            of_text = functools.partial(prompt_of, run, tokenizer, values.prompt, values.template)
            longest = most_of_prompt(values, cfg.context_length) if bounded else math.inf
            before, retrieved = passages(values, lambda text: len(of_text(text)[0]), longest)
            prompt, ends = of_text(before)
        room = max(1, cfg.context_length - len(prompt)) if bounded else MOST_TOKENS
        n_tokens = values.tokens or min(room, MOST_TOKENS)
        sampler = make_sampler(values, tokenizer, end_tokens(run) | ends)
        sample.check(cfg, [prompt], n_tokens, sampler, values.n, bounded=bounded)
        model, step = reads.weights if reads else restored(run, family, cfg)
        draft = None
        if values.draft:
            draft = open_draft(values.draft, run, cfg, tokenizer, prompt, n_tokens, values.ahead)
        if values.beams:
            beam.check_beams(cfg, sampler, values.beams)
    context = prompt if values.prompt else []
    if values.retrieve:
        show_sources(retrieved, values.passages)
    code = DONE
    if values.beams:
        with alive("searching"):
            found = beam.search(
                *model, [prompt], n_tokens, values.beams, length_penalty=values.length_penalty,
                early_stopping=values.early_stopping, stop=sampler.stop,
                vocab_size=sampler.vocab_size,
            )  # fmt: skip
        samples = [
            describe_beam(tokenizer, context, found, place, values.length_penalty)
            for place in range(values.beams)
        ]
        show(values.prompt, samples)
    else:
        rows = [Continuation(tokenizer, context, stops(values)) for _ in range(values.n)]
        # What is streamed shows by itself that it goes on.
        with contextlib.nullcontext() if streams(values) else alive("drawing"):
            drawn, accepted, interrupted = draw(
                *(stream, model, draft, [prompt], n_tokens, sampler, rows),
                seed=values.seed,
                ahead=values.ahead,
                top=min(TOP, sampler.vocab_size) if values.show_probabilities else 0,
                echo=Echo(values.prompt) if streams(values) else None,
            )
        code = INTERRUPTED if interrupted else DONE
        if drawn is None:
            return code
        if accepted is not None:
            share = f"accepted {accepted:.0%} of the tokens drafted by {values.draft}"
            print(share, file=sys.stderr)
        samples = [describe(tokenizer, row, drawn, number) for number, row in enumerate(rows)]
        if not streams(values):
            show(values.prompt, samples)
    if values.json:
        about = {name: values[name].value for name in values if name not in ("json", "help")}
        with writing("json", values.json):
            write_json(
                to_path(values.json),
                about | {"step": step, "retrieved": described(retrieved), "samples": samples},
            )
    return code


def most_of_prompt(values: absl_flags.FlagValues, context: int) -> int:
    """The tokens of a prompt with passages that leave room for the sample."""
    return context - (values.tokens or min(MOST_TOKENS, max(1, context // 4)))


def passages(
    values: absl_flags.FlagValues, length_of: Callable[[str], int], longest: float
) -> tuple[str, list[Found]]:
    """(the text of --retrieve before the prompt, the passages in it); `length_of` counts the tokens
    of the prompt with a text before it. ValueError for --retrieve without a prompt."""
    if (index := options.opened(values)) is None:
        return "", []
    if not values.prompt:
        raise ValueError("retrieve finds passages for a prompt; add --prompt=TEXT, or drop it")
    return fitting(index.search(values.prompt, values.passages), length_of, longest)


def refuse(values: absl_flags.FlagValues) -> None:
    """ValueError for flags that exclude one another."""
    for flag, others in NOT_WITH.items():
        for other in others if values[flag].value else ():
            if values[other].value != values[other].default:
                raise ValueError(f"--{other} means nothing with --{flag}; drop one of them")
    if values.stream and (values.n > 1 or values.show_probabilities):
        raise ValueError("--stream shows one sample and no probabilities; drop it, or use --n=1")
    for flag in ("template", "retrieve") if values.image else ():
        if values[flag].value:
            raise ValueError(f"--{flag} is for text, and --image begins a caption; drop one")
    if "" in values.stop:
        raise ValueError("--stop= is empty, which every text holds; give it some text, or drop it")


def refuse_searches(values: absl_flags.FlagValues, family: families.Family) -> None:
    """ValueError for what only decoders can do."""
    for flag in ("beams", "draft"):
        if values[flag].value and family is not decoder:
            raise ValueError(
                f"--{flag} needs a decoder, and run={values.run} holds another model; drop it"
            )


def make_sampler(values: absl_flags.FlagValues, tokenizer: Tokenizer, stop: set[int]) -> Sampler:
    """How the flags say to draw; a token of `stop` or the end of a document ends a sample."""
    return Sampler(
        temperature=values.temperature,
        top_k=values.top_k,
        top_p=values.top_p,
        min_p=values.min_p,
        typical=values.typical,
        repetition_penalty=values.repetition_penalty,
        vocab_size=tokenizer.vocab_size,
        stop=tuple(sorted({tokenizer.eod, *stop})),
    )


def stops(values: absl_flags.FlagValues) -> list[str]:
    """The stop strings, with newlines in place of \\n."""
    return [stop.replace("\\n", "\n") for stop in values.stop]


def streams(values: absl_flags.FlagValues) -> bool:
    """Whether the text is printed while it is drawn."""
    if values.stream is not None:
        return values.stream
    return sys.stdout.isatty() and values.n == 1 and not values.show_probabilities
