"""Text that a model writes while it trains: continuations of fixed prompts, with fixed seeds.

Where the data have a chat template, a prompt is a user's message and the text the answer, as
`isoflop sample` has them. The draws only read the parameters, so they change no number of the run.
Each is a row of samples.jsonl and a text in TensorBoard.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import jax

from data.chat.encoding import ChatEncoder, template_of
from model import families
from train import duration
from train.parallel import sharding

SEED = 0  # of every draw, so that texts of different steps differ by their parameters alone


class Spelling(Protocol):
    """What drawing needs of a tokenizer."""

    prefix: tuple[int, ...]
    eod: int
    vocab_size: int

    def encode_prompt(self, text: str) -> Any: ...
    def decode(self, ids: Any) -> str: ...


def check(config: Any, tokenizer: Spelling | None) -> None:
    """ValueError if a config asks for samples that its family or its data cannot give, or for more
    than fits the context. `config` has the sizes of the model."""
    log, family = config.log, families.find(config.model.family)
    if not log.samples or not duration.parse("log.samples", log.samples)[0]:
        return
    if not hasattr(family, "generate"):
        able = [name for name, other in families.FAMILIES.items() if hasattr(other, "generate")]
        raise ValueError(
            f"log.samples={log.samples!r}, but model.family={config.model.family!r} does not "
            f"generate text; use {' or '.join(able)}, or log.samples=''"
        )
    if tokenizer is None:
        raise ValueError(
            f"log.samples={log.samples!r}, but data.kind={config.data.kind!r} has no tokenizer to "
            "spell tokens with; use log.samples=''"
        )
    room = config.model.context_length - log.sample_tokens
    for prompt in log.prompts:
        if len(tokens := start(config, tokenizer, prompt)[0]) > room:
            raise ValueError(
                f"log.sample_tokens={log.sample_tokens} after {prompt!r} of log.prompts (tokens: "
                f"{len(tokens)}) do not fit model.context_length="
                f"{config.model.context_length}; use fewer"
            )


def start(config: Any, tokenizer: Spelling, prompt: str) -> tuple[list[int], tuple[int, ...]]:
    """(the tokens that a sample continues, those that end it, as `isoflop sample` has them). An
    empty prompt begins a new document."""
    if prompt and (template := config.data.get("template", "")):
        encoder = ChatEncoder(tokenizer, template_of(template))
        ids = encoder.prompt([{"role": "user", "content": prompt}]).tolist()
        return ids, tuple(sorted({tokenizer.eod, encoder.end}))
    typed = tokenizer.encode_prompt(prompt).tolist()
    return [*tokenizer.prefix, *typed] or [tokenizer.eod], (tokenizer.eod,)


def draw(
    config: Any, model: Any, params: Mapping, tokenizer: Spelling, device: jax.Device
) -> list[dict[str, str]]:
    """The prompts of the section `log` with the text that follows each; `params` are arrays of the
    host, and `model` is the Config of the family."""
    log, family = config.log, families.FAMILIES[config.model.family]
    started = [start(config, tokenizer, prompt) for prompt in log.prompts]
    mesh, drawn = sharding.make_mesh({"data": 1}, [device]), {}
    for stop in dict.fromkeys(stop for _, stop in started):
        alike = [place for place, (_, other) in enumerate(started) if other == stop]
        with sharding.activation_rules(mesh):
            found = family.generate(
                *(model, jax.device_put(params, device), [started[place][0] for place in alike]),
                *(log.sample_tokens, SEED),
                vocab_size=tokenizer.vocab_size,
                stop=stop,
            )
        drawn |= dict(zip(alike, found, strict=True))
    rows = []
    for place, (prompt, (context, _)) in enumerate(zip(log.prompts, started, strict=True)):
        # The text of a token may depend on those before it.
        context = context if prompt else []
        before = len(tokenizer.decode(context))
        text = tokenizer.decode([*context, *drawn[place]])[before:]
        rows.append({"prompt": prompt, "text": text})
    return rows
