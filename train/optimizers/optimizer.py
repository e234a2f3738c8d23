"""This file updates parameters: AdamW, Adafactor, Lion, SGD with momentum, Muon, all from optax.

Hyperparameters come as a dict of scalar arrays, so that the optimiser is built inside the trace and
one compiled program serves every value of them.
"""

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from train.optimizers.update_scales import Factors
from train.rules import Rules, map_with_rules, path_name

# Which parameters weight decay pulls towards zero: matrices and tables, not scales and biases.
DECAY_RULES = (
    (r"kernel$", True),
    (r"embedding$", True),
    (r"(scale|bias)$", False),
)


def _adamw(h: dict) -> optax.GradientTransformation:
    """Loshchilov & Hutter 2019; the decay is added to every optimiser below."""
    return optax.scale_by_adam(b1=h["b1"], b2=h["b2"], eps=h["eps"])


def _adafactor(h: dict) -> optax.GradientTransformation:
    """Shazeer & Stern 2018: factored second moments with the decay 1 - t^-0.8, updates clipped
    to RMS 1; no relative step size."""
    return optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))


def _lion(h: dict) -> optax.GradientTransformation:
    """Chen et al. 2023."""
    return optax.scale_by_lion(b1=h["b1"], b2=h["b2"])


def _sgd(h: dict) -> optax.GradientTransformation:
    return optax.trace(decay=h["b1"])


def _muon(h: dict) -> optax.GradientTransformation:
    """Jordan 2024 for the kernels of blocks, Nesterov Adam for the rest; updates scaled to RMS
    0.2 (Liu et al. 2025, section 2.2), so that one learning rate serves both."""
    return contrib.muon(
        -1.0,  # contrib.muon negates; the learning rate's minus sign comes last, for all alike
        beta=h["b1"],
        adam_b1=h["b1"],
        adam_b2=h["b2"],
        eps=h["eps"],
        consistent_rms=0.2,
        muon_weight_dimension_numbers=_block_matrices,
    )


def _block_matrices(params: dict) -> dict:
    """Stacked kernels [L, in, out] of the blocks are L matrices; everything else is none."""
    matrix = contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=2)

    def mark(path, leaf):
        name = path_name(path)
        return matrix if name.startswith("blocks/") and name.endswith("kernel") else None

    return jax.tree_util.tree_map_with_path(mark, params)


OPTIMIZERS = {
    "adamw": _adamw,
    "adafactor": _adafactor,
    "lion": _lion,
    "sgd": _sgd,
    "muon": _muon,
}


ALIKE: Rules = ((r"", Factors(rate=1, decay=1, eps=1)),)


def build(
    name: str, h: dict[str, jax.Array], factors: Rules = ALIKE
) -> optax.GradientTransformation:
    """Gradients to directions: preconditioned, plus decoupled weight decay by DECAY_RULES.

    The step multiplies directions by minus the learning rate. `h` holds b1, b2, eps, weight_decay;
    `factors` says, by path, what multiplies each and the learning rate for one parameter.
    """
    decay = lambda params: map_with_rules(  # noqa: E731
        lambda name, leaf, value: value, DECAY_RULES, params, "DECAY_RULES"
    )
    alike = optax.chain(
        OPTIMIZERS[name](h), optax.add_decayed_weights(h["weight_decay"], mask=decay)
    )
    return rescaled(alike, factors)


def rescaled(inner: optax.GradientTransformation, factors: Rules) -> optax.GradientTransformation:
    """`inner` with a learning rate, a decay and an epsilon of its own for each parameter.

    Adam with epsilon s ε for gradients g is Adam with ε for g / s, and decay reads nothing but the
    parameter: what `inner` is given is scaled, rather than what it holds.
    """

    def times(tree, factor):
        return map_with_rules(lambda name, leaf, f: leaf * factor(f), factors, tree, "RULES")

    def update(grads, state, params):
        grads, decayed = times(grads, lambda f: 1 / f.eps), times(params, lambda f: f.decay)
        directions, state = inner.update(grads, state, decayed)
        return times(directions, lambda f: f.rate), state

    return optax.GradientTransformation(inner.init, update)


def clip(grads: dict, max_norm: jax.Array) -> tuple[dict, jax.Array]:
    """Gradients scaled to a global norm of at most `max_norm` (inf: never), and their norm before.

    Pascanu et al. 2013, algorithm 1.
    """
    norm = optax.tree.norm(grads)
    scale = jnp.minimum(1.0, max_norm / jnp.maximum(norm, 1e-30))
    return jax.tree.map(lambda g: g * scale, grads), norm
