"""Responses drawn from a model, and their log-probabilities by the forward pass of training.

    P prompts, R = P * n responses, S tokens of a prompt with its padding, N tokens of a response

A batch of responses has, besides the fields of its prompts, these arrays:

    tokens    [R, S + N] int32: the prompt, the response, then zeros
    response  [R, N] int32: the response, then zeros
    mask      [R, N] float32: 1 for its tokens, the end token included

Nothing precedes a prompt in its row, so causal attention alone hides the padding, and every family
reads the rows as it reads text.
"""

from typing import Any

import jax
import jax.numpy as jnp

from model import families
from model.families import Trained
from model.generation import samplers
from model.generation.sample import advance, begin
from model.generation.samplers import Sampler

PROMPT = ("prompt", "prompt_length", "answer", "answer_length")
"""The fields of the data, of each prompt."""

MAKES = ("tokens",)
"""The fields that a family needs and responses bring."""

NEVER = -1e30  # the logit of a token that is never drawn; finite, so that its entropy is 0


def draw(
    model: Trained, params: dict, cfg: Any, batch: dict, key: jax.Array, n: int, temperature: Any
) -> dict:
    """`n` responses to each prompt, drawn with the key/value cache; temperature 0 is greedy. Those
    to a prompt are neighbours, and the draws of a row depend on the key and its number alone; `key`
    may be the keys of the rows instead. The field "number" has the numbers of the prompts where the
    batch is a part of a rollout. A response ends with the last token of an answer, or after
    `max_tokens`."""
    N, S = cfg.loss.max_tokens, batch["prompt"].shape[1]
    prompts_PS = _from_the_left(batch["prompt"], batch["prompt_length"])
    time_S = jnp.arange(S, dtype=jnp.int32)
    positions_PS = jnp.where(time_S < batch["prompt_length"][:, None], time_S, -1)
    reader = families.reader(model)
    known = {"vocab_size": cfg.loss.vocab_size} if cfg.loss.vocab_size else {}
    sampler = samplers.as_arrays(Sampler(temperature=temperature, **known))
    sampler = sampler.replace(stop=jnp.full(samplers.STOPS, end_token(batch)))
    prepared = reader.prepare(params, cfg.model)
    if "number" in batch:
        number_R = (batch["number"][:, None] * n + jnp.arange(n)).ravel()
        key = jax.vmap(jax.random.fold_in, (None, 0))(key, number_R)
    state, first = begin(
        prepared, cfg.model, prompts_PS, positions_PS, key, sampler, n, S + N, 0, reader=reader
    )
    response_RN, length_R = first.tokens_BN, first.lengths_B
    if N > 1:
        _, more = advance(
            prepared, cfg.model, state, sampler, jnp.int32(N - 1), N - 1, 0, reader=reader
        )
        response_RN = jnp.concatenate([response_RN, more.tokens_BN], axis=1)
        length_R = length_R + more.lengths_B
    rows = {name: jnp.repeat(batch[name], n, axis=0) for name in PROMPT}
    tokens_RT = jnp.concatenate([jnp.repeat(prompts_PS, n, axis=0), jnp.zeros_like(response_RN)], 1)
    place_RN = rows["prompt_length"][:, None] + jnp.arange(N)
    tokens_RT = tokens_RT.at[jnp.arange(len(tokens_RT))[:, None], place_RN].set(response_RN)
    mask_RN = (jnp.arange(N) < length_R[:, None]).astype(jnp.float32)
    return rows | {"tokens": tokens_RT, "response": response_RN, "mask": mask_RN}


def end_token(batch: dict) -> jax.Array:
    """The token that ends every answer, int32."""
    lengths_P, row = batch["answer_length"], batch["answer_length"].argmax()
    return batch["answer"][row, lengths_P[row] - 1]


def _from_the_left(prompt_PS: jax.Array, length_P: jax.Array) -> jax.Array:
    """Prompts that are padded on the left with the padding moved to the right."""
    S = prompt_PS.shape[1]
    place_PS = jnp.arange(S) + S - length_P[:, None]
    moved_PS = jnp.take_along_axis(prompt_PS, jnp.minimum(place_PS, S - 1), axis=1)
    return jnp.where(place_PS < S, moved_PS, 0)


def states(model: Trained, params: dict, cfg: Any, batch: dict) -> jax.Array:
    """The hidden state [R, N, D] before each token of the responses, without dropout. `cfg` is the
    Config of the family."""
    x_RTD = model.hidden(cfg, params, {"tokens": batch["tokens"]})
    N, T = batch["response"].shape[1], batch["tokens"].shape[1]
    place_RN = jnp.minimum(batch["prompt_length"][:, None] - 1 + jnp.arange(N), T - 1)
    return jnp.take_along_axis(x_RTD, place_RN[..., None], axis=1)


def scored(
    model: Trained,
    params: dict,
    cfg: Any,
    x_RND: jax.Array,
    response_RN: jax.Array,
    temperature: float,
    vocab_size: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """(log-probability, entropy of the distribution) [R, N] of each token, nats, given the states
    before them, of the distribution that draws: at its temperature, over the tokens below
    `vocab_size` (0: all), since higher ones are padding."""
    logits_RNV = model.logits(cfg, model.head(cfg, params), x_RND) / temperature
    if 0 < vocab_size < logits_RNV.shape[-1]:
        known_V = jnp.arange(logits_RNV.shape[-1]) < vocab_size
        logits_RNV = jnp.where(known_V, logits_RNV, NEVER)
    logp_RNV = jax.nn.log_softmax(logits_RNV)
    logp_RN = jnp.take_along_axis(logp_RNV, response_RN[..., None], axis=-1)[..., 0]
    return logp_RN, -(jnp.exp(logp_RNV) * logp_RNV).sum(-1)


def logprobs(
    model: Trained,
    params: dict,
    cfg: Any,
    batch: dict,
    temperature: float,
    vocab_size: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """`scored` of a batch of responses; both are 0 where the mask is."""
    x_RND = states(model, params, cfg, batch)
    found = scored(model, params, cfg, x_RND, batch["response"], temperature, vocab_size)
    return tuple(x_RN * batch["mask"] for x_RN in found)
