"""This file takes the training step: a pure function of (state, batch), and K of them in one call.

Everything that a sweep varies without changing a shape is an array in the state: one compiled
program serves all such trials. Everything else is a field of StepConfig, static under jit.
"""

import functools
from dataclasses import dataclass

import flax.struct
import jax
import jax.numpy as jnp
import optax

from model.transformer.config import ModelConfig
from model.transformer.decoder import Decoder, head_of, init, logits
from train.objectives import loss_in_chunks
from train.objectives.cross_entropy import cross_entropy, training_loss
from train.optimizers import optimizer
from train.optimizers import update_scales as parametrization
from train.optimizers.moments import stored
from train.optimizers.schedule import learning_rate
from train.parallel.precision import as_computed
from train.parallel.sharding import constrain_parameters, constrain_state

Batch = dict[str, jax.Array]  # tokens, targets, weights; where packed: segments, positions [B, T]


@dataclass(frozen=True)
class StepConfig:
    """What the compiled program depends on."""

    model: ModelConfig
    optimizer: str = "adamw"
    schedule: str = "cosine"
    accumulation: int = 1  # micro-batches of a step
    z_loss: float = 0.0
    label_smoothing: float = 0.0
    loss_chunk: int = 0  # tokens of each sequence whose logits are held at a time; 0: all
    moments: str = "float32"

    def __post_init__(self):
        loss_in_chunks.require(self.loss_chunk, self.model.context_length)


@flax.struct.dataclass
class TrainState:
    """All that training remembers. `hyper` holds float32 scalars: learning_rate, warmup, decay,
    total (steps), final, b1, b2, eps, weight_decay, clip_norm (inf: none)."""

    step: jax.Array  # int32: updates done
    params: dict
    opt_state: tuple
    hyper: dict[str, jax.Array]
    seed: jax.Array  # uint32: of initialisation and dropout


def init_state(cfg: StepConfig, hyper: dict[str, jax.Array], seed: jax.Array) -> TrainState:
    """The state before the first step; pure, so that it can be jitted, sharded and vmapped."""
    params = init(cfg.model, jax.random.key(seed))
    opt_state = _optimizer(cfg, hyper).init(params)
    return TrainState(jnp.int32(0), params, opt_state, hyper, seed)


def _optimizer(cfg: StepConfig, hyper: dict[str, jax.Array]) -> optax.GradientTransformation:
    factors = parametrization.factors(cfg.model, cfg.optimizer)
    return stored(optimizer.build(cfg.optimizer, hyper, factors), cfg.moments)


def loss_sums(
    params: dict, cfg: StepConfig, batch: Batch, key: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """(weighted sum of the training loss, (weighted sum of nats, sum of weights)) of a batch."""
    params = as_computed(params, cfg.model)
    model = Decoder(cfg.model, train=True)
    inputs = batch["tokens"], batch.get("positions"), batch.get("segments")
    x_BTD, _ = model.apply({"params": params}, *inputs, rngs={"dropout": key}, method="hidden")

    def score(head, x_BTD, targets_BT, w_BT):
        logits_BTV = logits(cfg.model, head, x_BTD)
        loss_BT, nll_BT = training_loss(logits_BTV, targets_BT, cfg.z_loss, cfg.label_smoothing)
        return (loss_BT * w_BT).sum(), (nll_BT * w_BT).sum()

    scored = head_of(cfg.model, params), x_BTD, batch["targets"], batch["weights"]
    if cfg.loss_chunk:
        loss, nll = loss_in_chunks.sums(score, cfg.loss_chunk, *scored)
    else:
        loss, nll = score(*scored)
    return loss, (nll, batch["weights"].sum())


def gradients(
    params: dict, cfg: StepConfig, batch: Batch, key: jax.Array
) -> tuple[dict, jax.Array]:
    """(gradient of the mean training loss, mean nats a token), over `accumulation` micro-batches.

    Sums are accumulated and divided once, so the result is that of one large batch even where
    the micro-batches' weights differ.
    """
    grad = jax.grad(loss_sums, has_aux=True)
    if cfg.accumulation == 1:
        grads, (nll, weight) = grad(params, cfg, batch, key)
        grads = constrain_parameters(grads)
    else:
        micro = jax.tree.map(lambda x: x.reshape(cfg.accumulation, -1, *x.shape[1:]), batch)
        keys = jax.random.split(key, cfg.accumulation)

        def add(sums, xs):
            grads, counts = grad(params, cfg, *xs)
            parts = constrain_parameters(grads), counts
            return jax.tree.map(jnp.add, sums, parts), None

        zeros = constrain_parameters(jax.tree.map(jnp.zeros_like, params))
        zeros = zeros, (jnp.float32(0), jnp.float32(0))
        (grads, (nll, weight)), _ = jax.lax.scan(add, zeros, (micro, keys))
    weight = jnp.maximum(weight, 1e-8)
    return jax.tree.map(lambda g: g / weight, grads), nll / weight


def train_step(
    cfg: StepConfig, state: TrainState, batch: Batch
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update. Metrics: loss (nats a token), grad_norm before clipping, learning_rate."""
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    grads, loss = gradients(state.params, cfg, batch, key)
    grads, grad_norm = optimizer.clip(grads, state.hyper["clip_norm"])
    update = _optimizer(cfg, state.hyper).update
    directions, opt_state = update(grads, state.opt_state, state.params)
    rate = learning_rate(cfg.schedule, state.step, state.hyper)
    params = jax.tree.map(lambda p, d: p - rate * d, state.params, directions)
    metrics = {"loss": loss, "grad_norm": grad_norm, "learning_rate": rate}
    return state.replace(step=state.step + 1, params=params, opt_state=opt_state), metrics


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def train_chunk(
    cfg: StepConfig, state: TrainState, batches: Batch, steps: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The first `steps` of K batches [K, B, T] in one call; metrics [K], zeros past `steps`.

    `steps` is an array, so that the short chunk before an evaluation needs no second compilation.
    """
    length = batches["tokens"].shape[0]
    metrics = {k: jnp.zeros(length, jnp.float32) for k in ("loss", "grad_norm", "learning_rate")}

    def body(i, carry):
        state, metrics = carry
        state, row = train_step(cfg, state, jax.tree.map(lambda x: x[i], batches))
        return constrain_state(state), {k: metrics[k].at[i].set(row[k]) for k in metrics}

    state, metrics = jax.lax.fori_loop(0, steps, body, (state, metrics))
    # Once more: what is asked inside the loop does not bind what leaves it.
    return constrain_state(state), metrics


@functools.partial(jax.jit, static_argnums=0)
def eval_sums(cfg: StepConfig, params: dict, batches: Batch) -> tuple[jax.Array, jax.Array]:
    """(nats, weights) summed over each sequence [E, B] of E evaluation batches [E, B, T]."""

    params = as_computed(params, cfg.model)
    score = lambda x_BTD, targets_BT: cross_entropy(  # noqa: E731
        logits(cfg.model, head_of(cfg.model, params), x_BTD), targets_BT
    )[0]

    def one(_, batch):
        x_BTD, _ = Decoder(cfg.model).apply({"params": params}, batch["tokens"], method="hidden")
        nll_BT = loss_in_chunks.each(score, cfg.loss_chunk, x_BTD, batch["targets"])
        return None, ((nll_BT * batch["weights"]).sum(-1), batch["weights"].sum(-1))

    return jax.lax.scan(one, None, batches)[1]
