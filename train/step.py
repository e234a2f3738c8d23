"""The training step, a pure function of (state, batch), and K steps in one call.

Settings that a sweep can vary without changing a shape are arrays in the state, so one compiled
program serves all such trials. All other settings are fields of StepConfig, static under jit.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from model import families
from model.adapters.adapted import Adapted, Adapter
from model.beside import Beside, apart
from train import objectives
from train.objectives.carrying import Carrying
from train.optimizers import optimizer
from train.optimizers.moments import stored
from train.optimizers.offload import offloaded
from train.optimizers.schedule import learning_rate
from train.parallel.precision import cast_for_compute
from train.parallel.sharding import constrain_parameters, constrain_rows, constrain_state
from train.recovery import spikes
from train.rules import Rules

Batch = Mapping[str, jax.Array]
"""The fields of the data kind, arrays [B, ...]."""


@dataclass(frozen=True)
class StepConfig:
    """What the compiled program depends on."""

    model: Any  # the Config of the family
    loss: Any  # what the objective's `configure` returned
    family: str
    objective: str
    optimizer: str = "adamw"
    schedule: str = "cosine"
    accumulation: int = 1  # micro-batches per step
    moments: str = "float32"
    offload: bool = False  # moments in the host's memory between updates
    carried_rows: int = 0  # rows of a step whose states go on in the next; 0: none
    skips: bool = False  # whether the update of a step with a spike is left out
    # (name, family, Config) of each set of frozen parameters.
    frozen: tuple[tuple[str, str, Any], ...] = ()
    adapter: Adapter | None = None  # what is trained instead of the parameters
    from_base: tuple[str, ...] = ()  # frozen parameters that are the base, without its adapters
    # (name, family, Config) of each model that is trained beside, as a subtree of the parameters.
    beside: tuple[tuple[str, str, Any], ...] = ()

    @property
    def trained(self) -> Any:
        """The family of the trained parameters: an Adapted one if there is an adapter, a Beside one
        if other models are trained too."""
        family = families.FAMILIES[self.family]
        if self.beside:
            return Beside(family, self.beside)
        return Adapted(family, self.adapter) if self.adapter else family

    @property
    def axes(self) -> Rules:
        """The logical axes of the trained parameters."""
        return self.trained.PARAMETER_AXES

    @property
    def frozen_axes(self) -> dict[str, Rules]:
        """The logical axes of the frozen parameters."""
        found = {name: families.FAMILIES[of].PARAMETER_AXES for name, of, _ in self.frozen}
        return found | ({BASE: self.axes} if self.adapter else {})


BASE = "base"
"""The name, among the frozen parameters, of those that adapters change."""


@flax.struct.dataclass
class TrainState:
    """The complete state of training. `hyper` holds float32 scalars: learning_rate, warmup, decay,
    total (steps), final, b1, b2, eps, weight_decay, clip_norm (inf: no clipping). `frozen` holds
    parameters, by name, that the objective reads but training does not update. `carry` is the state
    of a recurrent model after each row [B, ...] of the step before; {} if it carries none. `ahead`
    has the batches [K, B, ...] of the next rollout in a checkpoint of a run that draws it ahead; {}
    otherwise, and while training. `spikes` holds the losses that a step is compared with where
    updates are skipped; {} elsewhere."""

    step: jax.Array  # int32, number of updates done
    params: dict
    opt_state: tuple
    hyper: dict[str, jax.Array]
    seed: jax.Array  # uint32, for initialisation and dropout
    frozen: dict = flax.struct.field(default_factory=dict)
    carry: dict = flax.struct.field(default_factory=dict)
    ahead: dict = flax.struct.field(default_factory=dict)
    spikes: dict = flax.struct.field(default_factory=dict)


def init_state(
    cfg: StepConfig,
    hyper: dict[str, jax.Array],
    seed: jax.Array,
    params: dict | None = None,
    frozen: dict | None = None,
) -> TrainState:
    """The state before the first step, with new parameters if `params` is None. Pure, so that it
    can be jitted, sharded and vmapped."""
    family = cfg.trained
    if params is None:
        params = family.init(cfg.model, jax.random.key(seed))
    opt_state = _optimizer(cfg, hyper).init(params)
    carry = family.initial_carry(cfg.model, cfg.carried_rows) if cfg.carried_rows else {}
    losses = spikes.no_losses() if cfg.skips else {}
    return TrainState(
        jnp.int32(0), params, opt_state, hyper, seed, frozen or {}, carry, spikes=losses
    )


def _optimizer(cfg: StepConfig, hyper: dict[str, jax.Array]) -> optax.GradientTransformation:
    family, scales = cfg.trained, optimizer.UNSCALED
    if hasattr(family, "update_scales"):
        scales = family.update_scales(cfg.model, cfg.optimizer)
    matrices = getattr(family, "MATRICES", None)
    built = stored(optimizer.build(cfg.optimizer, hyper, scales, matrices), cfg.moments)
    return offloaded(built) if cfg.offload else built


def whole(
    cfg: StepConfig, params: dict, frozen: dict, key: jax.Array | None = None
) -> tuple[dict, dict]:
    """(all parameters of the model, rounded for the computation; the others that the objective
    reads: frozen ones, and those trained beside the model). With a `key`, adapters have dropout."""
    if not cfg.adapter:
        params, others = apart(cfg.beside, params)
        return cast_for_compute(params, cfg.model, cfg.axes), frozen | others
    params = cast_for_compute(cfg.trained.scaled(params), cfg.model, cfg.axes)
    base = frozen[BASE]
    return cfg.trained.whole(base, params, key), frozen | dict.fromkeys(cfg.from_base, base)


def loss_sums(
    params: dict, frozen: dict, cfg: StepConfig, batch: Batch, key: jax.Array
) -> tuple[jax.Array, objectives.Sums]:
    """(the sum to minimise, the objective's Sums) of a batch. If the batch has a "carry", the Sums
    have the one after it."""
    objective, family = objectives.OBJECTIVES[cfg.objective], families.FAMILIES[cfg.family]
    params, frozen = whole(cfg, params, frozen, jax.random.fold_in(key, ADAPTERS))
    if "carry" not in batch:
        return objective.loss(family, params, frozen, cfg, batch, key)
    family = Carrying(family, batch["carry"])
    total, sums = objective.loss(family, params, frozen, cfg, batch, key)
    return total, sums | {"carry": family.carry}


def gradients(
    params: dict, frozen: dict, cfg: StepConfig, batch: Batch, key: jax.Array
) -> tuple[dict, dict[str, jax.Array]]:
    """(gradient of the mean training loss, mean of each metric), over `accumulation` micro-batches.

    Sums are accumulated and divided once, so the result equals that of one large batch even if the
    weights of the micro-batches differ. The means have the carry after the batch, if it has one.
    """
    grad = jax.grad(loss_sums, has_aux=True)
    if cfg.accumulation == 1:
        grads, sums = grad(params, frozen, cfg, batch, key)
        carry = sums.pop("carry", {})
        grads = constrain_parameters(grads, cfg.axes)
    else:
        micro = jax.tree.map(lambda x: x.reshape(cfg.accumulation, -1, *x.shape[1:]), batch)
        keys = jax.random.split(key, cfg.accumulation)

        def add(total, xs):
            grads, sums = grad(params, frozen, cfg, *xs)
            carry = sums.pop("carry", {})
            parts = constrain_parameters(grads, cfg.axes), sums
            return jax.tree.map(jnp.add, total, parts), carry

        zeros = constrain_parameters(jax.tree.map(jnp.zeros_like, params), cfg.axes)
        trained = objectives.OBJECTIVES[cfg.objective].TRAINED
        zeros = zeros, {name: (jnp.float32(0), jnp.float32(0)) for name in trained}
        (grads, sums), carry = jax.lax.scan(add, zeros, (micro, keys))
        carry = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), carry)
    sums = {name: (total, jnp.maximum(weight, 1e-8)) for name, (total, weight) in sums.items()}
    weight = sums["loss"][1]
    means = {name: total / weight for name, (total, weight) in sums.items()}
    means |= {"carry": carry} if carry else {}
    return jax.tree.map(lambda g: g / weight, grads), means


def train_step(
    cfg: StepConfig, state: TrainState, batch: Batch
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update. Metrics: the objective's means, including "loss"; grad_norm before clipping;
    learning_rate; "skipped", where updates are skipped at spikes."""
    key = jax.random.fold_in(jax.random.key(state.seed), state.step)
    batch = batch | {"carry": state.carry} if state.carry else batch
    grads, means = gradients(state.params, state.frozen, cfg, batch, key)
    carry = means.pop("carry", {})
    grads, grad_norm = optimizer.clip(grads, state.hyper["clip_norm"])
    update = _optimizer(cfg, state.hyper).update
    directions, opt_state = update(grads, state.opt_state, state.params)
    rate = learning_rate(cfg.schedule, state.step, state.hyper)
    params = jax.tree.map(lambda p, d: p - rate * d, state.params, directions)
    metrics = means | {"grad_norm": grad_norm, "learning_rate": rate}
    new = dict(step=state.step + 1, params=params, opt_state=opt_state, carry=carry)
    new = state.replace(**new)
    if cfg.skips:
        new, skipped = spikes.guarded(state, new, metrics)
        metrics |= {"skipped": skipped.astype(jnp.float32)}
    return new, metrics


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def train_chunk(
    cfg: StepConfig, state: TrainState, batches: Batch, steps: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Trains on the first `steps` of K batches [K, B, ...]; metrics [K], zeros past `steps`.

    `steps` is an array, so that the short chunk before an evaluation needs no second compilation.
    """
    length = len(jax.tree.leaves(batches)[0])
    names = (*objectives.OBJECTIVES[cfg.objective].TRAINED, "grad_norm", "learning_rate")
    names += ("skipped",) if cfg.skips else ()
    metrics = {name: jnp.zeros(length, jnp.float32) for name in names}

    def body(i, carry):
        state, metrics = carry
        state, row = train_step(cfg, state, jax.tree.map(lambda x: x[i], batches))
        state = constrain_state(state, cfg.axes, cfg.frozen_axes, cfg.offload)
        return state, {name: metrics[name].at[i].set(row[name]) for name in metrics}

    state, metrics = jax.lax.fori_loop(0, steps, body, (state, metrics))
    # Again, because a constraint inside the loop does not apply to the loop's result.
    return constrain_state(state, cfg.axes, cfg.frozen_axes, cfg.offload), metrics


@functools.partial(jax.jit, static_argnums=0)
def eval_sums(cfg: StepConfig, params: dict, frozen: dict, batches: Batch) -> dict[str, jax.Array]:
    """The objective's sums for each row [E, B] of E evaluation batches [E, B, ...]. A carry goes
    from each batch to the next."""
    objective, family = objectives.OBJECTIVES[cfg.objective], families.FAMILIES[cfg.family]
    params, frozen = whole(cfg, params, frozen)
    if not cfg.carried_rows:
        one = lambda _, batch: (None, objective.evaluate(family, params, frozen, cfg, batch))  # noqa: E731
        return jax.lax.scan(one, None, batches)[1]

    def carrying(carry, batch):
        model = Carrying(family, carry)
        sums = objective.evaluate(model, params, frozen, cfg, batch)
        return model.carry, sums

    rows = jax.tree.leaves(batches)[0].shape[1]
    return jax.lax.scan(carrying, family.initial_carry(cfg.model, rows), batches)[1]


@functools.partial(jax.jit, static_argnums=0)
def roll_out(cfg: StepConfig, state: TrainState, batch: Batch, ahead: jax.Array | int = 0) -> Batch:
    """The rows [R, ...] that the objective makes from data and the parameters, for the updates that
    begin `ahead` steps later."""
    objective, family = objectives.OBJECTIVES[cfg.objective], families.FAMILIES[cfg.family]
    params, frozen = whole(cfg, state.params, state.frozen)
    batch = objective.rollout(family, params, frozen, cfg, batch, _rollout_key(state, ahead))
    return constrain_rows(batch)


@functools.partial(jax.jit, static_argnums=0)
def updates_of(cfg: StepConfig, state: TrainState, batch: Batch) -> Batch:
    """The batches [K, B, ...] of the updates on a rollout [R, ...]. Each epoch has its own order of
    the rows, unless there is one update only."""
    objective = objectives.OBJECTIVES[cfg.objective]
    if hasattr(objective, "advantages"):
        batch = objective.advantages(cfg, batch)
    epochs, minibatches = passes(cfg)
    rows = len(jax.tree.leaves(batch)[0])
    keys = jax.random.split(jax.random.fold_in(_rollout_key(state), 1), epochs)
    order_ER = jax.vmap(lambda key: jax.random.permutation(key, rows))(keys)
    if epochs * minibatches == 1:
        order_ER = jnp.arange(rows)
    order_KB = order_ER.reshape(epochs * minibatches, -1)
    return constrain_rows(jax.tree.map(lambda x: x[order_KB], batch), leading=1)


@functools.partial(jax.jit, static_argnums=0)
def respond(cfg: StepConfig, params: dict, frozen: dict, batches: Batch) -> Batch:
    """Evaluation batches [E, B, ...] with a response to each row, drawn with the key of its number
    in the evaluation set, whatever the size of a batch."""
    objective, family = objectives.OBJECTIVES[cfg.objective], families.FAMILIES[cfg.family]
    params, frozen = whole(cfg, params, frozen)
    E, B = jax.tree.leaves(batches)[0].shape[:2]
    numbers_EB = jnp.arange(E * B).reshape(E, B)
    keys_EB = jax.vmap(jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(ROLLOUT))))(
        numbers_EB
    )
    one = lambda xs: objective.respond(family, params, frozen, cfg, *xs)  # noqa: E731
    return constrain_rows(jax.lax.map(one, (batches, keys_EB)), leading=1)


def passes(cfg: StepConfig) -> tuple[int, int]:
    """(epochs, minibatches) of the updates on a rollout."""
    objective = objectives.OBJECTIVES[cfg.objective]
    return objective.passes(cfg.loss) if hasattr(objective, "passes") else (1, 1)


def _rollout_key(state: TrainState, ahead: jax.Array | int = 0) -> jax.Array:
    key = jax.random.key(state.seed ^ jnp.uint32(ROLLOUT))
    return jax.random.fold_in(key, state.step + ahead)


ROLLOUT = 0x9E3779B9
"""Makes the random numbers of rollouts differ from those of dropout."""

ADAPTERS = 0x85EBCA6B
"""Makes the random numbers of the adapters' dropout differ from those of the model's."""
