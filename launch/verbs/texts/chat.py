"""isoflop chat: talks with the model of a run, in the terminal or over HTTP.

isoflop chat --run=runs/sft --system="Answer in one sentence."
isoflop chat --run=runs/sft --temperature=0 --tokens=200
isoflop chat --run=runs/sft --serve=8000
isoflop chat --run=Qwen2.5-0.5B-Instruct
isoflop chat --run=runs/sft --retrieve=runs/docs-index --passages=2

--run is the folder of a run, or one of Hugging Face weights with its tokenizer's files.

In the terminal, replies appear while they are drawn; Ctrl-C stops one, /help lists the commands.
Messages go through the chat template that the model was trained with. A base model has none: it
gets the plain template, USER: … ASSISTANT: …, and its reply ends where it begins the next turn.
--retrieve puts the passages of an index that fit a message best before it, in at most half of the
context, and names their sources; the next messages do not see them.
When a conversation outgrows the context, the oldest turns are dropped, and a line says so.

--serve starts an HTTP API that clients of OpenAI's understand (/v1/chat/completions,
/v1/completions, /v1/models) with a web page at /. Only this machine can reach it unless --host says
otherwise, which needs a token: in the environment variable ISOFLOP_TOKEN, or as --token.
"""

import math
import os
import sys
from collections.abc import Sequence

import jax
from absl import flags as absl_flags

from data.files import to_path
from launch import flags
from launch.alive import alive, bar
from launch.amounts import byte_size
from launch.chat import warm
from launch.chat.console import Console, is_utf8, prompt_limit
from launch.chat.conversation import Conversation
from launch.chat.engine import Ended, Engine, cache_bytes
from launch.chat.opened import Opened, open_run
from launch.chat.turns import PLAIN
from launch.errors import BUG, DONE, BadInput, bad_input
from launch.retrieval import options
from launch.retrieval.retriever import source_lines
from launch.retrieval.turns import Passages
from model.generation import sample
from model.generation.samplers import Sampler

MOST_TOKENS = 1024  # of a reply, by default
TOKEN = "ISOFLOP_TOKEN"  # environment variable
LOOPBACK = "127.0.0.1"
# Flags that only one of the two ways to talk reads.
OF_TERMINAL = ("system", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed",
               "stop", "tokens")  # fmt: skip
OF_SERVER = ("host", "token", "slots", "waiting", "max_body")


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    text, whole, real = (
        absl_flags.DEFINE_string,
        absl_flags.DEFINE_integer,
        absl_flags.DEFINE_float,
    )
    flags.define_path(
        "run", None, "folder of the run, or of the Hugging Face weights, to talk with", values
    )
    whole("length", 0, "tokens of a context; 0: the model's, at most 4096", flag_values=values)
    other = "chat template in place of the run's: a name of configs/chat.py, or a file"
    text("template", "", other, values)
    text("system", "", "system prompt: what the model is told before your messages", values)
    usual = f"most tokens of a reply; 0: the rest of the context, at most {MOST_TOKENS}"
    whole("tokens", 0, usual, flag_values=values)
    real("temperature", 0.7, "divides the logits; 0: the most likely token", flag_values=values)
    whole("top_k", 0, "draw among the K most likely tokens; 0: all", flag_values=values)
    likely = "draw among the fewest tokens whose probabilities sum to P"
    real("top_p", 1.0, likely, flag_values=values)
    relative = "draw among tokens with at least P times the probability of the likeliest one"
    real("min_p", 0.0, relative, flag_values=values)
    penalty = "divides the logits of tokens that occurred; 1: off"
    real("repetition_penalty", 1.0, penalty, flag_values=values)
    whole("seed", 0, "seed of the first reply's draws; each later one adds 1", flag_values=values)
    stop = "text that ends a reply, with \\n for a newline; may be repeated"
    absl_flags.DEFINE_multi_string("stop", [], stop, flag_values=values)
    whole("serve", None, "serve HTTP on this port; 0: any free one", flag_values=values)
    text("host", LOOPBACK, "serve: address to listen on; any but loopback needs a token", values)
    text("token", "", f"serve: what clients must send; better in ${TOKEN}", values)
    whole("slots", 8, "serve: requests that draw at once", flag_values=values)
    whole("waiting", 64, "serve: requests that may wait for a slot", flag_values=values)
    whole("max_body", 2**20, "serve: bytes of a request", flag_values=values)
    options.define(values, passages=3)
    flags.define_import(values)
    absl_flags.mark_flags_as_required(["run"], values)
    return values


def main(argv: Sequence[str]) -> int:
    """Talks, or serves, until the user ends it. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__)
    with bad_input():
        refuse(values)
    if values.serve is not None:
        return serve(values)
    with bad_input(), alive("loading the model"):
        opened = open_run(to_path(values.run), values.length, values.template)
        tokens = values.tokens or MOST_TOKENS
        room = prompt_limit(opened.length, tokens)
        passages = with_passages(values, opened, room)
        conversation = Conversation(opened.turns, room, values.system)
        sampler = make_sampler(values, opened)
        sample.check(opened.model.cfg, [[0]], 1, sampler, bounded=False)
        engine = made(opened, 1)
    stops = (*opened.turns.stops, *(stop.replace("\\n", "\n") for stop in values.stop))
    sources = lambda: source_lines(passages.found) if passages else ()  # noqa: E731
    console = Console(engine, conversation, sampler, stops, tokens, values.seed, sources)
    console.note(about(opened))
    warm.step(engine)  # compiles while the user types
    console.talk()
    engine.close()
    return BUG if engine.failure else DONE


def with_passages(values: absl_flags.FlagValues, opened: Opened, longest: int) -> Passages | None:
    """Makes the turns of the model put the passages of --retrieve into prompts of at most `longest`
    tokens. Returns that `Passages`; None without --retrieve."""
    if (index := options.opened(values)) is None:
        return None
    turns = opened.turns
    turns.amend = Passages(index, values.passages, turns, longest, values.serve is not None)
    return turns.amend


def refuse(values: absl_flags.FlagValues) -> None:
    """ValueError for flags that mean nothing here, or hold nothing that can be used."""
    serves = values.serve is not None
    for name in OF_TERMINAL if serves else OF_SERVER:
        if values[name].value != values[name].default:
            remedy = "each request has its own" if serves else "it is for --serve"
            raise ValueError(f"{name}={values[name].value} means nothing here: {remedy}; drop it")
    for name in ("system", "token", "template", "stop"):
        for text in [values[name].value] if name != "stop" else values.stop:
            if not is_utf8(text):
                raise ValueError(f"{name}={text!a} is not UTF-8; write it in UTF-8")
    if "" in values.stop:
        raise ValueError("stop= is empty, which every text holds; give it some text, or drop it")
    bounds = {"length": 0, "tokens": 0, "slots": 1, "waiting": 0, "max_body": 1000, "seed": 0}
    for name, least in bounds.items():
        if values[name].value < least:
            raise ValueError(f"{name}={values[name].value} is out of range; use at least {least}")
    if serves and not 0 <= values.serve <= 65535:
        raise ValueError(f"serve={values.serve} is no port; use 0 to 65535")


def make_sampler(values: absl_flags.FlagValues, opened: Opened) -> Sampler:
    """How the flags say to draw."""
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    return Sampler(
        **{name: values[name].value for name in names},
        vocab_size=opened.model.tokenizer.vocab_size,
        stop=tuple(sorted(opened.model.stop)),
    )


def about(opened: Opened) -> str:
    """The line before the first message."""
    turns = opened.turns
    template = f"template {turns.name}"
    if not turns.trained and turns.name == PLAIN:
        template = "a base model, which was trained on no conversations: the template plain"
        if opened.published:
            template = "no chat_template in its files: the template plain (--template names others)"
    return f"{opened.name}: {template}, a context of {opened.length} tokens; /help lists commands"


def serve(values: absl_flags.FlagValues) -> int:
    """Serves until SIGINT or SIGTERM."""
    try:
        from launch.server import serving
    except ImportError as error:
        raise BadInput(
            f"serve={values.serve} needs the package {error.name}; "
            "run: pip install 'isoflop[serve]'"
        ) from None
    token = values.token or os.environ.get(TOKEN, "")
    with bad_input(), alive("loading the model"):
        listening = serving.bound(serving.Place(values.host, values.serve), token)
        opened = open_run(to_path(values.run), values.length, values.template)
        with_passages(values, opened, prompt_limit(opened.length, MOST_TOKENS))
    print(about(opened), file=sys.stderr)
    with bad_input():
        engine = started(opened, values.slots, values.waiting)
        warmed(engine, opened, values.slots)
    limits = serving.Limits(values.max_body, token)
    well = serving.serve_until_signal(serving.Running(opened, engine, limits, listening))
    return DONE if well else BUG


def started(opened: Opened, slots: int, waiting: int) -> Engine:
    """The engine of a server. ValueError, in one line, if its cache does not fit the memory."""
    size = cache_bytes(opened.model, slots, opened.length)
    contexts = f"{slots} contexts of {opened.length} tokens"
    print(f"the cache of {contexts} takes {byte_size(size)}", file=sys.stderr)
    return made(opened, slots, waiting)


def made(opened: Opened, slots: int, waiting: float = math.inf) -> Engine:
    """An engine. ValueError, in one line, if its cache does not fit the memory."""
    try:
        return Engine(opened.model, slots, opened.length, waiting)
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if is_of_memory(error):
            raise does_not_fit(opened, slots) from None
        raise


def warmed(engine: Engine, opened: Opened, slots: int) -> None:
    """Compiles what an engine runs. ValueError, in one line, if that takes more memory than there
    is, or if the model draws no token."""
    try:
        with alive("compiling") as detail:
            warm.whole(engine, lambda share: detail(bar(share)))
    except (jax.errors.JaxRuntimeError, MemoryError, Ended, warm.Unready) as error:
        engine.close()
        if is_of_memory(error):
            raise does_not_fit(opened, slots) from None
        if isinstance(error, (Ended, warm.Unready)):
            raise ValueError(
                f"run={opened.name} draws no token ({error}); try it by isoflop sample, or use "
                "another run"
            ) from None
        raise


def is_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out: one of JAX, or of an engine that tells of it."""
    text = f"{type(error).__name__}: {error}"
    return "MemoryError" in text or "RESOURCE_EXHAUSTED" in text


def does_not_fit(opened: Opened, slots: int) -> ValueError:
    """The line about contexts that do not fit in memory."""
    contexts = f"slots={slots}: {slots} contexts of {opened.length} tokens do not fit"
    remedy = f"use fewer, or a smaller --length={opened.length}"
    if slots == 1:
        contexts = f"length={opened.length}: a context of that many tokens does not fit"
        remedy = "use a smaller one"
    return ValueError(f"{contexts} in memory; {remedy}")
