"""Arithmetic coding with a language model: tokens to bytes and back, without a loss.

The N tokens are cut into B rows of equal length, which the model reads side by side, one token of
each at a time. At every step it gives a table of integer frequencies; the next token of each row is
coded with its row of the table, all rows into one stream of bytes.

Both directions call the same compiled programs with the same shapes, so they see the same bits.
From logits z, float32, the frequency of a token that a text may hold is

    f = 1 + floor(2^30 softmax(z)),

with the softmax over those tokens alone; other tokens have f = 0. The total is the sum of f.

    B rows, S steps, V vocabulary, W tokens that a window overlaps the one before it
"""

import functools
import math
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from model.families import Counted
from model.generation.range_coder import Decoder, Encoder
from model.generation.sample import BUCKET, Reader

SCALE = 1 << 30
# Options of the compiler by backend. On a CPU, products of one thread, so that results do not
# depend on the number of cores; on a GPU, kernels that are not chosen by timing them.
SAME_BITS = {
    "cpu": {"xla_cpu_multi_thread_eigen": False},
    "gpu": {"xla_gpu_deterministic_ops": True, "xla_gpu_autotune_level": 0},
}


class Different(ValueError):
    """The model gives other frequencies than those that the tokens were coded with."""


@dataclass(frozen=True)
class Layout:
    """How tokens are read. `first` are the tokens before every row, `again` those before each
    further window of a model whose context is bounded by `context`; 0: it is not."""

    tokens: int  # N
    rows: int  # B
    context: int
    overlap: int  # W
    first: tuple[int, ...]
    again: tuple[int, ...] = ()

    @property
    def steps(self) -> int:
        """Tokens of a row, S."""
        return -(-self.tokens // self.rows)

    def __post_init__(self):
        if self.context and not 1 <= self.overlap < self.context - len(self.again):
            most = self.context - len(self.again) - 1
            raise ValueError(f"overlap={self.overlap} is out of range; use 1 to {most}")


class Tables(Protocol):
    """The frequencies of the next token of each row, summed: [B, V + 1], int32 or int64, where the
    token v has [v, v + 1]; and its natural logarithms of probabilities [B, V]. Both may be on the
    device."""

    def first(self) -> tuple[Any, Any]:
        """After the tokens that every row begins with."""

    def after(self, tokens_B: np.ndarray) -> tuple[Any, Any]:
        """After one more token of each row."""


class Trained:
    """Tables of a trained model, read by the functions of `reader`."""

    def __init__(self, params: Any, cfg: Any, reader: Reader, usable_V: np.ndarray, layout: Layout):
        self.params, self.cfg, self.reader = params, cfg, reader
        self.usable_V, self.layout = jnp.asarray(usable_V), layout
        longest = len(layout.first) + layout.steps
        bucketed = -(-longest // BUCKET) * BUCKET
        self.length = min(layout.context, bucketed) if layout.context else bucketed
        self.window: list[np.ndarray] = []  # the tokens in the caches, [B] each
        self.caches: Any = None

    def first(self) -> tuple[jax.Array, jax.Array]:
        return self._read([np.full(self.layout.rows, token) for token in self.layout.first])

    def after(self, tokens_B: np.ndarray) -> tuple[jax.Array, jax.Array]:
        layout = self.layout
        if layout.context and len(self.window) == layout.context:
            again = [np.full(layout.rows, token) for token in layout.again]
            kept = self.window[len(self.window) - layout.overlap + 1 :]
            return self._read([*again, *kept, tokens_B])
        positions_B = np.full(layout.rows, len(self.window), np.int32)
        self.window.append(tokens_B)
        _, advance = _programs()
        found, self.caches = advance(
            self.params, self.cfg, jnp.asarray(tokens_B, jnp.int32), positions_B, self.caches,
            self.usable_V, self.reader,
        )  # fmt: skip
        return found

    def _read(self, window: list[np.ndarray]) -> tuple[jax.Array, jax.Array]:
        """Begins a window."""
        tokens_BT = np.stack(window, axis=1).astype(np.int32)
        positions_BT = np.broadcast_to(np.arange(len(window), dtype=np.int32), tokens_BT.shape)
        self.window = window
        begin, _ = _programs()
        found, self.caches = begin(
            self.params, self.cfg, tokens_BT, positions_BT, self.usable_V, self.length, self.reader
        )
        return found


def _tables(logits_BV: jax.Array, usable_V: jax.Array) -> tuple[jax.Array, jax.Array]:
    logp_BV = jax.nn.log_softmax(jnp.where(usable_V, logits_BV, -jnp.inf))
    counts_BV = jnp.floor(jnp.exp(logp_BV) * SCALE).astype(jnp.int32) + usable_V
    return jnp.pad(jnp.cumsum(counts_BV, axis=1, dtype=jnp.int32), ((0, 0), (1, 0))), logp_BV


def _begin(params, cfg, tokens_BT, positions_BT, usable_V, length, reader):
    """(the tables after tokens that begin a window, its caches)."""
    logits_BV, caches = reader.prefill(params, cfg, tokens_BT, positions_BT, length)
    return _tables(logits_BV, usable_V), caches


def _advance(params, cfg, tokens_B, positions_B, caches, usable_V, reader):
    """(the tables after one more token of each row, the caches with it in)."""
    logits_B1V, caches = reader.decode(params, cfg, tokens_B[:, None], positions_B[:, None], caches)
    return _tables(logits_B1V[:, 0], usable_V), caches


@functools.cache
def _programs() -> tuple[Callable, Callable]:
    """`_begin` and `_advance`, jitted with the options of this backend."""
    options = SAME_BITS.get(jax.default_backend())
    begin = jax.jit(_begin, static_argnames=("cfg", "length", "reader"), compiler_options=options)
    static = ("cfg", "reader")
    advance = jax.jit(
        _advance, static_argnames=static, donate_argnames="caches", compiler_options=options
    )
    return begin, advance


class FromCounts:
    """Tables of a counted model, in float64 with numpy."""

    def __init__(
        self, family: Counted, fitted: Any, cfg: Any, usable_V: np.ndarray, layout: Layout
    ):
        self.family, self.fitted, self.most = family, fitted, cfg.context_length
        self.usable_V = usable_V
        self.texts = [list(layout.first) for _ in range(layout.rows)]

    def first(self) -> tuple[np.ndarray, np.ndarray]:
        contexts = [np.array(text[-self.most :]) for text in self.texts]
        p_BV = np.stack([self.family.distribution(self.fitted, one) for one in contexts])
        p_BV = np.where(self.usable_V, p_BV, 0.0)
        p_BV /= p_BV.sum(1, keepdims=True)
        counts_BV = np.floor(p_BV * SCALE).astype(np.int64) + self.usable_V
        with np.errstate(divide="ignore"):
            return np.pad(counts_BV.cumsum(1), ((0, 0), (1, 0))), np.log(p_BV)

    def after(self, tokens_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        for text, token in zip(self.texts, tokens_B.tolist(), strict=True):
            text.append(token)
            del text[: -self.most]
        return self.first()


@dataclass(frozen=True)
class Coded:
    """Coded tokens. `checks` are hashes of the tables of steps 0, 1, 3, 7, …, by which a decoder
    sees at once that its model gives others. `bits` are those of the model's own probabilities."""

    content: bytes
    checks: tuple[int, ...]
    bits: float


def encode(
    tables: Tables, layout: Layout, tokens: Sequence[int], advance: Callable[[float], None]
) -> Coded:
    """Codes tokens. `advance` receives the share that is done. ValueError for a model without
    probabilities."""
    coder, checks, nats = Encoder(), [], 0.0
    rows_BS = np.zeros((layout.rows, layout.steps), np.int64)
    rows_BS.flat[: layout.tokens] = tokens
    for step, (sums_BV, logp_BV) in enumerate(_ahead(tables, rows_BS)):
        sums_BV, live = np.asarray(sums_BV), _live(layout, step)
        if _is_checked(step):
            checks.append(_hash(sums_BV))
        row_R, token_R = np.arange(live), rows_BS[:live, step]
        nats -= float(np.asarray(logp_BV)[row_R, token_R].astype(np.float64).sum())
        if math.isnan(nats):
            raise ValueError("the model gives no probabilities (NaN); it has diverged")
        starts, ends = sums_BV[row_R, token_R].tolist(), sums_BV[row_R, token_R + 1].tolist()
        for start, end, total in zip(starts, ends, sums_BV[:live, -1].tolist(), strict=True):
            coder.add(start, end - start, total)
        advance((step + 1) / layout.steps)
    return Coded(coder.finish(), tuple(checks), nats / math.log(2))


def decode(
    tables: Tables,
    layout: Layout,
    content: bytes,
    checks: Sequence[int],
    advance: Callable[[float], None],
) -> np.ndarray:
    """The tokens [N] that `encode` coded. Raises Different if a table is not the encoder's."""
    coder, left = Decoder(content), iter(checks)
    columns: list[np.ndarray] = []  # [B] of each step; a header may claim any number of them
    for step in range(layout.steps):
        sums_BV = np.asarray((tables.after(columns[-1]) if columns else tables.first())[0])
        if _is_checked(step) and _hash(sums_BV) != next(left, None):
            raise Different(f"other probabilities at step {step}")
        tokens_B = np.zeros(layout.rows, np.int64)
        for row in range(_live(layout, step)):
            sums_V = sums_BV[row]
            target = coder.target(int(sums_V[-1]))
            token = int(sums_V.searchsorted(target, "right")) - 1
            start = int(sums_V[token])
            coder.take(start, int(sums_V[token + 1]) - start)
            tokens_B[row] = token
        columns.append(tokens_B)
        advance((step + 1) / layout.steps)
    rows_BS = np.stack(columns, axis=1) if columns else np.zeros((layout.rows, 0), np.int64)
    return rows_BS.reshape(-1)[: layout.tokens]


def _ahead(tables: Tables, rows_BS: np.ndarray) -> Iterator[tuple[Any, Any]]:
    """The tables of all steps. The next one is computed while one is used."""
    steps = rows_BS.shape[1]
    found = tables.first() if steps else None
    for step in range(steps):
        later = tables.after(rows_BS[:, step]) if step + 1 < steps else None
        yield found
        found = later


def _live(layout: Layout, step: int) -> int:
    """The rows that have a token at this step: all but the last ones at the end. Rows are filled
    in order, so row b has the tokens b S to (b + 1) S - 1."""
    return -(-(layout.tokens - step) // layout.steps)


def _is_checked(step: int) -> bool:
    """Whether step + 1 is a power of two."""
    return not step & (step + 1)


def _hash(sums_BV: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(sums_BV, "<i8"))
