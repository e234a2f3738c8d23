"""Continues the prompts of many requests at once over one key/value cache.

A thread of its own runs the device. Before each step it admits waiting requests into free slots
(`model/generation/slots.py`); each step draws one token of every request. A step is dispatched
before the tokens of the last one are read, so that text is made while the device computes.
"""

import functools
import math
import threading
from collections import deque
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data.tokenizer import Tokenizer
from launch.chat.request import CANCELLED, FAILED, Request, Token
from model.generation import sample, slots
from model.generation.sample import Reader
from model.generation.samplers import Sampler

TOP = 20  # most likely tokens that a request may ask for
SHORTEST = 32  # tokens; a prompt is padded to the next power of two, from this on


class Busy(Exception):
    """As many requests wait as may."""


class Ended(Exception):
    """The engine serves nothing any more."""


class Model(NamedTuple):
    """A trained model that draws tokens, and how it reads them."""

    reader: Reader
    params: Any
    cfg: Any
    tokenizer: Tokenizer
    stop: frozenset[int]  # tokens that end a reply


class Engine:
    """Serves requests until `close`. Methods may be called from any thread.

    At most `n_slots` requests draw at once, in contexts of `length` tokens, and at most `waiting`
    more wait for a slot.
    """

    def __init__(self, model: Model, n_slots: int, length: int, waiting: int = math.inf):
        self.model, self.n_slots, self.length, self.waiting = model, n_slots, length, waiting
        self.queue: deque[Request] = deque()
        self.owners: list[Request | None] = [None] * n_slots
        self.changed, self.closed = threading.Condition(), False
        self.steps = self.drawn = 0  # what the device has done so far
        self.failure: Exception | None = None  # what ended the engine, if an error did
        self.programs: dict[int, Any] = {}  # those that admit prompts, by their padded length
        self.slots = self._empty()
        self.thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self.thread.start()

    def check(self, prompt: list[int], max_tokens: int, sampler: Any, top: int = 0) -> None:
        """ValueError, in one line, for a request that cannot be served."""
        if not 0 <= top <= TOP:
            raise ValueError(f"top={top} is out of range; use 0 to {TOP}")
        sample.check(self.model.cfg, [prompt], max_tokens, sampler, bounded=False)
        if len(prompt) + max_tokens > self.length:
            room = max(0, self.length - len(prompt))
            raise TooLong(
                f"the prompt has {len(prompt)} tokens and the reply may have {max_tokens}; "
                f"the context holds {self.length}: shorten the prompt, or ask for at most {room}"
            )

    def submit(self, *requests: Request) -> None:
        """Queues requests, all or none. Raises Busy where they would exceed the limit,
        Ended after the end."""
        with self.changed:
            taken = sum(owner is not None for owner in self.owners)
            free = self.n_slots - taken
            if self.closed:
                why = f" ({in_one_line(self.failure)})" if self.failure else ""
                raise Ended(f"the engine has ended{why}; start it again")
            if len(self.queue) + len(requests) > free + self.waiting:
                raise Busy(f"{taken} requests are served and {len(self.queue)} wait; try later")
            self.queue += requests
            self.changed.notify()

    def cancel(self, *requests: Request) -> None:
        """Frees the slots of requests that nobody wants; requests that ended have none."""
        with self.changed:
            for request in requests:
                request.cancelled = True
            self.changed.notify()

    def buckets(self) -> list[int]:
        """The padded lengths of prompts, the shortest first."""
        found = [SHORTEST]
        while found[-1] < self.length - 1:
            found.append(2 * found[-1])
        return list(dict.fromkeys(min(bucket, self.length) for bucket in found))

    def compile(self, bucket: int) -> None:
        """Compiles what admits prompts of a padded length, without running it; otherwise the first
        such prompt waits for that, and so do all requests."""
        model, as_shapes = self.model, functools.partial(jax.tree.map, jax.typeof)
        state = jax.eval_shape(self._empty)
        about = slots.request([0], bucket, Sampler(), 0, 0)
        self.programs[bucket] = slots.admit.lower(
            as_shapes(model.params), model.cfg, slots=state, slot=jnp.int32(0), **about,
            length=self.length, reader=model.reader,
        ).compile()  # fmt: skip

    def close(self) -> None:
        """Ends all requests and the thread."""
        with self.changed:
            self.closed = True
            self.changed.notify()
        self.thread.join()

    def active(self) -> tuple[int, int]:
        """(requests that draw, requests that wait)."""
        with self.changed:
            return sum(owner is not None for owner in self.owners), len(self.queue)

    def _empty(self) -> slots.Slots:
        return _emptied(self.model, self.n_slots, self.length)

    def _serve(self) -> None:
        last: tuple[list[Request | None], slots.Drawn] | None = None
        while True:
            try:
                admitted = self._next(idle=last is None)
                if admitted is None:
                    return
                for slot, request in admitted:
                    self._admit(slot, request)
                drawing = self._dispatch()
                if last:
                    self._deliver(*last)
                last = drawing
            except Exception as error:
                last = None
                if not self._recovers(error):
                    return

    def _next(self, idle: bool) -> list[tuple[int, Request]] | None:
        """Requests to admit, with their slots; waits for one if nothing is to do. None: closed."""
        with self.changed:
            while True:
                wanted = [*self.queue, *filter(None, self.owners)]
                for request in wanted:
                    if (request.cancelled or self.closed) and request.ended is None:
                        request.finish(CANCELLED)
                self.queue = deque(request for request in self.queue if request.ended is None)
                self.owners = [None if o is None or o.ended else o for o in self.owners]
                if self.closed:
                    return None
                if self.queue or any(self.owners) or not idle:
                    break
                self.changed.wait()
            admitted = []
            for slot, owner in enumerate(self.owners):
                if owner is None and self.queue:
                    self.owners[slot] = self.queue.popleft()
                    admitted.append((slot, self.owners[slot]))
            return admitted

    def _admit(self, slot: int, request: Request) -> None:
        model = self.model
        request.begin(model.tokenizer)
        bucket = min(bucket_of(len(request.prompt) - 1), self.length)
        prompt = list(request.prompt)
        about = slots.request(prompt, bucket, request.sampler, request.seed, request.row)
        if program := self.programs.get(bucket):
            self.slots = program(model.params, slots=self.slots, slot=jnp.int32(slot), **about)
            return
        self.slots = slots.admit(
            model.params, model.cfg, self.slots, jnp.int32(slot), **about,
            length=self.length, reader=model.reader,
        )  # fmt: skip

    def _dispatch(self) -> tuple[list[Request | None], slots.Drawn] | None:
        """Starts a step of all requests that want another token."""
        owners = [
            o if o and not o.ended and o.dispatched < o.max_tokens else None for o in self.owners
        ]
        if not any(owners):
            return None
        live_B = np.array([owner is not None for owner in owners])
        top = min(TOP, self.model.cfg.vocab_size) if any(o and o.top for o in owners) else 0
        for owner in filter(None, owners):
            owner.dispatched += 1
        self.slots, drawn = slots.advance(
            self.model.params, self.model.cfg, self.slots, live_B, top, self.model.reader
        )
        self.steps, self.drawn = self.steps + 1, self.drawn + int(live_B.sum())
        return owners, drawn

    def _deliver(self, owners: list[Request | None], drawn: slots.Drawn) -> None:
        """Gives each request its token of a step."""
        drawn = jax.tree.map(lambda x: np.asarray(x).tolist(), drawn)
        rows = zip(
            owners, drawn.tokens_B, drawn.logprobs_B, drawn.top_tokens_BM, drawn.top_logprobs_BM,
            strict=True,
        )  # fmt: skip
        for owner, token, logprob, top_tokens, top_logprobs in rows:
            if owner is None or owner.ended:
                continue
            if not math.isfinite(logprob):
                owner.finish(FAILED, "the model's logits are not finite")
                continue
            top = zip(top_tokens[: owner.top], top_logprobs[: owner.top], strict=True)
            owner.add(Token(token, logprob, tuple(top)))

    def _recovers(self, error: Exception) -> bool:
        """Ends all requests after an error, such as one of memory; whether the engine goes on, with
        an empty cache."""
        self._fail_all(error)
        try:
            self.slots = None  # frees the memory that may have run out
            self.slots = self._empty()
        except Exception as failure:
            with self.changed:
                self.closed, self.failure = True, failure
            self._fail_all(failure)  # those that came in between
            return False
        return True

    def _fail_all(self, error: Exception) -> None:
        with self.changed:
            for request in (*self.queue, *filter(None, self.owners)):
                request.text = None  # the error may be that of spelling it
                request.finish(FAILED, in_one_line(error))
            self.queue.clear()
            self.owners = [None] * self.n_slots


def in_one_line(error: Exception) -> str:
    """The type and the message of an error, without the lines that XLA adds."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".rstrip(": ")


def cache_bytes(model: Model, n_slots: int, length: int) -> int:
    """Bytes of what an engine keeps of its contexts, without allocating them."""
    shapes = jax.eval_shape(lambda: _emptied(model, n_slots, length))
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))


def _emptied(model: Model, n_slots: int, length: int) -> slots.Slots:
    how = dict(slots=n_slots, length=length, reader=model.reader)
    return slots.empty(model.params, model.cfg, vocab_size=model.tokenizer.vocab_size, **how)


class TooLong(ValueError):
    """A prompt and its reply do not fit the context."""


def bucket_of(tokens: int) -> int:
    """The padded length of a prompt, so that few programs are compiled."""
    return max(SHORTEST, 1 << max(0, tokens - 1).bit_length())
