"""Builds optimisers from optax: AdamW, Adafactor, Lion, SGD with momentum and Muon.

An entry of OPTIMIZERS is a function of (hyperparameters, matrices of the family) that returns an
optax transformation of gradients to directions. Hyperparameters are scalar arrays and the optimiser
is built inside the trace, so one compiled program serves all their values.
"""

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from train.rules import Rules, map_with_rules

# Which parameters weight decay pulls towards zero: matrices and tables, not scales and biases.
DECAY_RULES = (
    (r"kernel$", True),
    (r"embedding$", True),
    (r"lora_(a|b)$", True),
    (r"(scale|bias|lora_magnitude)$", False),
)


def _adamw(h: dict, matrices: Rules | None) -> optax.GradientTransformation:
    """Loshchilov & Hutter 2019. `build` adds the decay to every optimiser."""
    return optax.scale_by_adam(b1=h["b1"], b2=h["b2"], eps=h["eps"])


def _adafactor(h: dict, matrices: Rules | None) -> optax.GradientTransformation:
    """Shazeer & Stern 2018: factored second moments with the decay 1 - t^-0.8, updates clipped
    to RMS 1; no relative step size."""
    return optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))


def _lion(h: dict, matrices: Rules | None) -> optax.GradientTransformation:
    """Chen et al. 2023."""
    return optax.scale_by_lion(b1=h["b1"], b2=h["b2"])


def _sgd(h: dict, matrices: Rules | None) -> optax.GradientTransformation:
    return optax.trace(decay=h["b1"])


def _muon(h: dict, matrices: Rules | None) -> optax.GradientTransformation:
    """Jordan 2024 for the family's matrices, Nesterov Adam for the rest; updates scaled to RMS 0.2
    (Liu et al. 2025, section 2.2), so that one learning rate serves both."""
    if matrices is None:
        raise ValueError(
            "optimizer.name='muon' needs a model.family that states its MATRICES; use adamw"
        )

    def dimensions(params: dict) -> dict:
        mark = lambda name, leaf, sides: sides and contrib.MuonDimensionNumbers(*sides)  # noqa: E731
        return map_with_rules(mark, matrices, params, "MATRICES")

    return contrib.muon(
        -1.0,  # undoes the negation in contrib.muon; the training step subtracts the directions
        beta=h["b1"],
        adam_b1=h["b1"],
        adam_b2=h["b2"],
        eps=h["eps"],
        consistent_rms=0.2,
        muon_weight_dimension_numbers=dimensions,
    )


OPTIMIZERS = {
    "adamw": _adamw,
    "adafactor": _adafactor,
    "lion": _lion,
    "sgd": _sgd,
    "muon": _muon,
}


UNSCALED: Rules = ((r"", (1, 1, 1)),)


def build(
    name: str,
    h: dict[str, jax.Array],
    scales: Rules = UNSCALED,
    matrices: Rules | None = None,
) -> optax.GradientTransformation:
    """Gradients to directions: preconditioned, plus decoupled weight decay by DECAY_RULES.

    The step multiplies directions by minus the learning rate. `h` holds b1, b2, eps, weight_decay.
    `scales` has, by path, the factors of the learning rate, weight decay and epsilon. `matrices`
    has the (input, output) dimensions of matrices, and None for other parameters.
    """
    decay = lambda params: map_with_rules(  # noqa: E731
        lambda name, leaf, value: value, DECAY_RULES, params, "DECAY_RULES"
    )
    decayed = optax.add_decayed_weights(h["weight_decay"], mask=decay)
    return rescaled(optax.chain(OPTIMIZERS[name](h, matrices), decayed), scales)


def rescaled(inner: optax.GradientTransformation, scales: Rules) -> optax.GradientTransformation:
    """`inner` with separate factors of learning rate, decay and epsilon for each parameter.

    Adam with epsilon s ε on gradients g equals Adam with ε on g / s, and decay reads only the
    parameters. So it suffices to scale the inputs and outputs of `inner`.
    """

    def times(tree, factor):
        return map_with_rules(lambda name, leaf, s: leaf * factor(*s), scales, tree, "RULES")

    def update(grads, state, params):
        grads = times(grads, lambda rate, decay, eps: 1 / eps)
        decayed = times(params, lambda rate, decay, eps: decay)
        directions, state = inner.update(grads, state, decayed)
        return times(directions, lambda rate, decay, eps: rate), state

    return optax.GradientTransformation(inner.init, update)


def clip(grads: dict, max_norm: jax.Array) -> tuple[dict, jax.Array]:
    """Gradients scaled to a global norm of at most `max_norm` (inf: never), and the original norm.

    Pascanu et al. 2013, algorithm 1.
    """
    norm = optax.tree.norm(grads)
    scale = jnp.minimum(1.0, max_norm / jnp.maximum(norm, 1e-30))
    return jax.tree.map(lambda g: g * scale, grads), norm
