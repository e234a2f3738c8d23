"""Tests hyperparameter transfer (μP, CompleteP): rule tables and coordinate checks."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.transformer.config import BASE_SIZES, ModelConfig, derive
from model.transformer.decoder import Block, Decoder, init
from model.transformer.parametrization import scores
from model.transformer.update_scales import update_scales
from tests.train.steps import decoder_step
from train.optimizers import optimizer
from train.rules import map_with_rules, path_name
from train.step import init_state, train_step

SMALL = ModelConfig(
    vocab_size=32, context_length=16, n_layers=2, d_model=32, n_heads=4, n_kv_heads=4, head_dim=8,
    d_ff=128,
)  # fmt: skip
LLAMA = dataclasses.replace(
    SMALL, norm="rmsnorm", positions="rotary", gated=True, activation="silu", tie_embeddings=False,
    attention_bias=False, mlp_bias=False, init="fan_in",
)  # fmt: skip
BASE = dict(base_width=32, base_head_dim=8, base_depth=2)
HYPER = dict(
    learning_rate=0.01, warmup=0, decay=0, total=10, final=1.0, b1=0.9, b2=0.95, eps=1e-8,
    weight_decay=0.1, clip_norm=np.inf,
)  # fmt: skip
# These tests spend most of their time on compilation.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
scaled = pytest.mark.parametrize("name", ["mup", "completep"])


def under(name: str, cfg: ModelConfig, **base: int) -> ModelConfig:
    """The same sizes under another parametrisation, with the base sizes that it uses."""
    return derive({**vars(cfg), **BASE, **base, "parametrization": name})


def wider(cfg: ModelConfig, m: int) -> ModelConfig:
    """The model at m times the width, with heads m times as wide."""
    return dataclasses.replace(
        cfg, d_model=m * cfg.d_model, head_dim=m * cfg.head_dim, d_ff=m * cfg.d_ff
    )


def train(cfg: ModelConfig, seed: int, **changes: float) -> tuple[dict, dict]:
    """Parameters before and after 8 steps of AdamW on tokens of unequal frequency."""
    step = decoder_step(cfg, schedule="constant")
    hyper = {k: jnp.float32(v) for k, v in HYPER.items()} | changes
    state = init_state(step, hyper, jnp.uint32(seed))
    logits_V = -jnp.log(1.0 + jnp.arange(cfg.vocab_size))
    tokens = jax.random.categorical(jax.random.key(1), logits_V, shape=(8, 4, 17))
    batches = {"tokens": tokens[..., :-1], "targets": tokens[..., 1:]}
    batches["weights"] = jnp.ones_like(tokens[..., 1:], jnp.float32)
    end, _ = jax.lax.scan(lambda s, batch: train_step(step, s, batch), state, batches)
    return state.params, end.params


def program(cfg: ModelConfig) -> str:
    """The lowered program that trains `cfg`."""
    return jax.jit(train, static_argnums=0).lower(cfg, 0).as_text()


@pytest.mark.parametrize(
    "cfg, name",
    [(SMALL, "mup"), pytest.param(LLAMA, "completep", marks=pytest.mark.slow)],
    ids=["gpt", "llama"],
)
def test_at_the_base_shape_training_is_the_standard_programs(cfg, name):
    cfg, base = dataclasses.replace(cfg, n_layers=1), BASE | {"base_depth": 1}
    standard = program(cfg)
    assert program(under(name, cfg, **base)) == standard
    for size in BASE_SIZES[name]:  # control: each size is used
        assert program(under(name, cfg, **base | {size: 2 * base[size]})) != standard


@pytest.mark.parametrize("cfg, name", [(SMALL, "mup"), (LLAMA, "completep")], ids=["gpt", "llama"])
def test_initial_values_and_logits_scale_as_table_8(cfg, name):
    m, fresh = 4, jit(init, static_argnums=0)
    wide = under(name, wider(cfg, m))
    params = jax.device_get((fresh(cfg, jax.random.key(0)), fresh(wide, jax.random.key(1))))
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(params[0]), jax.tree.leaves(params[1]), strict=True
    ):
        if re.search("kernel|embedding", path_name(path)):
            factor = m**-0.5 if path_name(path).startswith("blocks") else 1
            assert np.std(other) / np.std(one) == pytest.approx(factor, rel=0.1), path_name(path)
    x_BTD = jax.random.normal(jax.random.key(2), (1, 3, wide.d_model))
    plain = dataclasses.replace(wide, parametrization="standard", **dict.fromkeys(BASE, 0))
    logits, plain_logits = (
        jit(functools.partial(Decoder(c).apply, method="logits"))({"params": params[1]}, x_BTD)
        for c in (wide, plain)
    )
    np.testing.assert_allclose(logits, plain_logits / m, rtol=1e-6)
    assert scores(wide) == pytest.approx(scores(cfg) / m) and scores(plain) > 1.9 * scores(wide)


def test_an_update_is_that_of_adamw_with_these_rates_decays_and_epsilons():
    m, depth = 4.0, 3.0
    cfg = under("completep", dataclasses.replace(wider(LLAMA, 4), n_layers=6))
    shapes = jax.eval_shape(lambda: init(cfg, jax.random.key(0)))
    rng = np.random.default_rng(0)
    params, grads = (
        jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes) for _ in "12"
    )
    h = dict(b1=0.9, b2=0.95, eps=0.5, weight_decay=0.1)
    build = optimizer.build("adamw", h, update_scales(cfg, "adamw"))
    out, _ = jit(lambda: build.update(grads, build.init(params), params))()
    expected = {  # (learning rate factor, decay, epsilon)
        ("blocks", "attention", "query", "kernel"): (1 / m, 0.1 * m, 0.5 / m / depth),
        ("blocks", "mlp", "down", "kernel"): (1 / m, 0.1 * m, 0.5 / m / depth),
        ("blocks", "mlp_norm", "scale"): (1, 0, 0.5 / m / depth),
        ("final_norm", "scale"): (1, 0, 0.5 / m),
        ("embed", "embedding"): (1, 0.1, 0.5 / m),
        ("head", "kernel"): (1, 0.1, 0.5 / m),
    }
    for path, (rate, decay, eps) in expected.items():  # atol, because the two terms may cancel
        p, g, d = (functools.reduce(lambda t, k: t[k], path, tree) for tree in (params, grads, out))
        np.testing.assert_allclose(
            d, rate * (g / (np.abs(g) + eps) + decay * p), rtol=1e-4, atol=1e-6
        )


@scaled
def test_a_parameter_without_a_rule_is_an_error(name):
    rules = update_scales(under(name, SMALL), "adamw")
    for cfg in (SMALL, LLAMA):
        params = jax.eval_shape(lambda cfg=cfg: init(cfg, jax.random.key(0)))
        map_with_rules(lambda path, leaf, scales: scales[0], rules, params, "RULES")
    with pytest.raises(ValueError, match=r"blocks/mlp/gadget.*RULES"):
        map_with_rules(lambda *_: 0, rules, {"blocks": {"mlp": {"gadget": 1}}}, "RULES")


@pytest.mark.parametrize("name", optimizer.OPTIMIZERS)
def test_optimizers_without_rules_are_refused_by_name(name):
    cfg = decoder_step(under("mup", SMALL), optimizer=name)
    make = lambda: jax.eval_shape(lambda: init_state(cfg, HYPER, jnp.uint32(0)))  # noqa: E731
    if name in ("adamw", "lion"):
        make()
    else:
        with pytest.raises(
            ValueError, match=rf"optimizer.name='{name}' .*'mup'; use adamw or lion"
        ):
            make()


def test_base_sizes_are_asked_for_and_those_ignored_are_dropped():
    with pytest.raises(
        ValueError, match=r"model.base_width=0, but .*'mup' scales .* give the width"
    ):
        under("mup", SMALL, base_width=0)
    with pytest.raises(ValueError, match=r"model.base_depth=0, but .*'completep'"):
        under("completep", SMALL, base_depth=0)
    with pytest.raises(ValueError, match=r"model.base_width=32 has no effect with .*'standard'"):
        dataclasses.replace(SMALL, base_width=32)
    assert under("standard", SMALL) == SMALL
    assert under("mup", SMALL).base_depth == 0


def coordinates(cfg: ModelConfig, params: dict, tokens_BT: jax.Array) -> dict[str, jax.Array]:
    """Outputs of attention, MLP and residual stream in the last block, and the logits."""
    positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
    x_BTD = params["embed"]["embedding"][tokens_BT] + params["position"]["embedding"][positions_BT]
    for layer in range(cfg.n_layers):
        block = {"params": jax.tree.map(lambda p: p[layer], params["blocks"])}  # noqa: B023
        (x_BTD, _), inside = Block(cfg).apply(
            block, x_BTD, positions_BT, capture_intermediates=True, mutable=["intermediates"]
        )
    found = {k: inside["intermediates"][k]["__call__"][0] for k in ("attention", "mlp")}
    return {
        "attention": found["attention"][0],
        "mlp": found["mlp"],
        "stream": x_BTD,
        "logits": Decoder(cfg).apply({"params": params}, tokens_BT),
    }


@functools.partial(jit, static_argnums=0)
def _changes(cfg: ModelConfig, seed: int) -> dict[str, jax.Array]:
    tokens_BT = jax.random.randint(jax.random.key(2), (4, 16), 0, cfg.vocab_size)
    states = jax.tree.map(lambda *xs: jnp.stack(xs), *train(cfg, seed, learning_rate=0.002))
    found = jax.lax.map(lambda params: coordinates(cfg, params, tokens_BT), states)
    return jax.tree.map(lambda x: jnp.square(x[1] - x[0]).mean(), found)


def changes(cfg: ModelConfig, seeds: int = 6) -> dict[str, float]:
    """Root mean square change of each of `coordinates` by 8 steps, over entries and seeds."""
    found = [_changes(cfg, seed) for seed in range(seeds)]
    return {k: float(np.sqrt(np.mean([f[k] for f in found]))) for k in found[0]}


NARROW = ModelConfig(
    vocab_size=32, context_length=16, n_layers=1, d_model=32, n_heads=4, n_kv_heads=4, head_dim=8,
    d_ff=128,
)  # fmt: skip


def growth(name: str, m: int) -> dict[str, float]:
    """Ratio of the changes at m times the base width to those at the base width."""
    base, wide = (changes(under(name, cfg)) for cfg in (NARROW, wider(NARROW, m)))
    return {k: wide[k] / base[k] for k in base}


@pytest.mark.slow
def test_activations_move_alike_at_eight_times_the_width_under_mup_alone():
    for ratio in growth("mup", 8).values():
        assert ratio == pytest.approx(1, rel=0.1)
    standard = growth("standard", 8)  # control: 46, 18, 22, 2.4
    assert min(standard.values()) > 1.5 and standard["stream"] > 8


@pytest.mark.slow
@pytest.mark.parametrize("m", [2, 4])
def test_activations_move_alike_at_the_widths_between(m):
    for ratio in growth("mup", m).values():
        assert ratio == pytest.approx(1, rel=0.1)


@pytest.mark.slow
def test_the_stream_moves_alike_at_four_times_the_depth_under_completep_alone():
    ratios = {}
    for name in ("mup", "completep"):
        shallow, deep = (
            changes(under(name, dataclasses.replace(NARROW, n_layers=n))) for n in (2, 8)
        )
        ratios[name] = deep["stream"] / shallow["stream"]
    assert ratios["completep"] == pytest.approx(1, rel=0.1) and ratios["mup"] > 2
