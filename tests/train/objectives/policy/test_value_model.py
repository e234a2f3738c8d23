"""Tests of PPO with a value model of its own, beside a policy of another size."""

import functools
import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch.compile import frozen_models
from launch.config import config_file
from launch.trial import run as trial
from launch.trial import start as weights
from launch.trial.resolve import describe, prepare, resolve, resolve_sizes
from model import classes, families
from model.beside import Beside, apart
from model.transformer import family as decoder
from tests.train.objectives.policy import prompts
from tests.train.objectives.policy.test_trials import EIGHT, PPO, pairs, process, rows
from tests.train.objectives.policy.test_updates import MODEL, SETTINGS
from train.ahead_of_time import rollout_shapes
from train.checkpoint import Checkpoints, restore_params
from train.loop import hyperparameters, initial_state, step_config
from train.objectives.policy import experience, ppo
from train.parallel.sharding import make_mesh
from train.rules import lookup
from train.step import StepConfig, whole

POLICY = replace(MODEL, n_classes=0)
VALUE = replace(MODEL, d_model=8, n_heads=1, n_kv_heads=1, d_ff=16)
BESIDE = Beside(decoder, (("value", "decoder", VALUE),))
R, S, N = 4, 5, 6
SHARED = StepConfig(MODEL, replace(SETTINGS, kl=0.0, entropy=0.0), "decoder", "ppo")
OWN = replace(SHARED, model=POLICY, beside=BESIDE.models)


def drawn(family, cfg, seed: int) -> dict:
    """Parameters without the time to compile their initialisation."""
    shapes = jax.eval_shape(lambda: family.init(cfg, jax.random.key(0)))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(x.dtype), shapes)


@functools.cache
def params() -> dict:
    """Those of a policy and its value model, and, for the control, the policy's own head."""
    return drawn(BESIDE, POLICY, 0) | {"classes": drawn(decoder, MODEL, 1)["classes"]}


@functools.cache
def batch() -> dict:
    """A rollout that was drawn by another policy, with ragged prompts and responses."""
    rng = np.random.default_rng(0)
    draw = lambda: rng.normal(size=(R, N)).astype(np.float32)  # noqa: E731
    return {
        "tokens": rng.integers(0, 17, (R, S + N)).astype(np.int32),
        "response": rng.integers(0, 17, (R, N)).astype(np.int32),
        "prompt_length": np.array([5, 1, 3, 4], np.int32),
        "mask": (np.arange(N) < np.array([6, 3, 5, 1])[:, None]).astype(np.float32),
        **{name: draw() for name in ("values", "returns", "advantages")},
        **dict.fromkeys(("logprobs", "reference"), np.full((R, N), -2.5, np.float32)),
        **{name: np.zeros(R, np.float32) for name in ("reward", "explained")},
    }


@functools.partial(jax.jit, static_argnums=0)
def gradients(cfg: StepConfig, params: dict, batch: dict, weights: jax.Array) -> tuple:
    """(gradients of the weighted policy loss and value loss, `ppo.scored`)."""

    def total(params):
        own, others = whole(cfg, params, {})
        _, sums = ppo.loss(decoder, own, others, cfg, batch, jax.random.key(0))
        scored = ppo.scored(decoder, own, others, cfg, batch)
        losses = jnp.stack([sums["policy_loss"][0], sums["value_loss"][0]])
        return (weights * losses).sum(), scored

    return jax.grad(total, has_aux=True)(params)


def scored(params: dict) -> tuple:
    """(log-probabilities, values) [R, N]."""
    logp_RN, _, values_RN = gradients(OWN, params, batch(), np.ones(2))[1]
    return logp_RN, values_RN


def largest(tree: dict) -> float:
    return max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


@pytest.mark.slow
def test_each_loss_trains_its_own_model():
    """The gradient of the policy loss is 0 at the value model, and that of the value loss at the
    policy. With a head on the trunk both reach the trunk."""
    policy, value = (gradients(OWN, params(), batch(), w)[0] for w in np.eye(2))
    (of_policy, at_value), (at_policy, of_value) = (
        apart(OWN.beside, grads) for grads in (policy, value)
    )
    assert largest(at_value) == largest(at_policy) == 0
    assert largest(of_policy) > 1e-3 < largest(of_value)
    trunk = gradients(SHARED, params(), batch(), np.eye(2)[1])[0]["blocks"]  # control
    assert largest(trunk) > 1e-3


def test_log_probabilities_are_the_policys_and_values_the_value_models():
    (logp_RN, values_RN), larger = (
        scored(params()),
        lambda tree: jax.tree.map(lambda x: 1.1 * x, tree),
    )
    same_RN, other_RN = scored(params() | {"value": larger(params()["value"])})
    assert np.array_equal(same_RN, logp_RN) and np.abs(other_RN - values_RN).max() > 1e-2
    other_RN, same_RN = scored(params() | {"embed": larger(params()["embed"])})  # control
    assert np.array_equal(same_RN, values_RN) and np.abs(other_RN - logp_RN).max() > 1e-2


def test_values_are_what_the_reward_model_gives_the_tokens_so_far():
    _, values_RN = scored(params())
    given, own = batch(), params()["value"]
    length_RN = given["prompt_length"][:, None] + np.arange(N)
    segments = (np.arange(S + N) < length_RN.reshape(-1, 1)).astype(np.int32)
    read = {"tokens": np.repeat(given["tokens"], N, axis=0), "segments": segments}
    x_ED = jax.jit(decoder.pooled, static_argnums=0)(VALUE, own, read)
    expected = classes.logits(own, x_ED)[:, 0].reshape(R, N) * given["mask"]
    np.testing.assert_allclose(values_RN, expected, rtol=0, atol=1e-6)
    assert np.abs(expected).max() > 0.1 and np.abs(values_RN[:, 1:] - expected[:, :-1]).max() > 0.1


def test_each_model_computes_in_its_own_type():
    """The dtypes of the kernels in the forward pass, of the policy and of its value model."""
    for policy, value in (("float32", "bfloat16"), ("bfloat16", "float32")):
        models = (("value", "decoder", replace(VALUE, dtype=value)),)
        cfg = replace(OWN, model=replace(POLICY, dtype=policy), beside=models)

        def cast(params, cfg=cfg):
            own, others = whole(cfg, params, {})
            return own, experience.frozen_model(others, cfg, "value")[2]

        for tree, dtype in zip(jax.eval_shape(cast, params()), (policy, value), strict=True):
            assert tree["blocks"]["mlp"]["up"]["kernel"].dtype == dtype


def paths(cfg) -> dict:
    shapes = jax.eval_shape(lambda: decoder.init(cfg, jax.random.key(0)))
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in leaves}


def test_the_rules_of_each_family_hold_for_its_own_parameters():
    """Sharding, matrices and, in muP, scales by the width of each model."""
    mup = {"parametrization": "mup", "base_width": 8, "base_head_dim": 8}
    policy, value = (replace(cfg, **mup) for cfg in (POLICY, VALUE))
    both = Beside(decoder, (("value", "decoder", value),))
    rules = {
        "axes": (both.PARAMETER_AXES, decoder.PARAMETER_AXES, decoder.PARAMETER_AXES),
        "matrices": (both.MATRICES, decoder.MATRICES, decoder.MATRICES),
        "scales": (
            both.update_scales(policy, "adamw"),
            *(decoder.update_scales(cfg, "adamw") for cfg in (policy, value)),
        ),
    }
    for name, (found, of_policy, of_value) in rules.items():
        for path in paths(policy):
            assert lookup(found, path, name) == lookup(of_policy, path, name)
        for path in paths(value):
            assert lookup(found, f"value/{path}", name) == lookup(of_value, path, name)
    kernel, scales = "blocks/mlp/up/kernel", rules["scales"][0]
    assert lookup(scales, kernel, "") != lookup(scales, f"value/{kernel}", "")  # control


def saved(folder: Path, seed: int, name: str = "decoder", **keys) -> Path:
    """A run of fresh weights, with as little of its config as other runs read."""
    common = {"vocab_size": 256, "context_length": 12, "n_layers": 1, "d_model": 16, "n_heads": 2}
    known = families.keys(families.find(name))
    given = known | {key: value for key, value in common.items() if key in known} | keys
    family, cfg = families.derive({"family": name} | given)
    (folder / "config.json").parent.mkdir(parents=True)
    section = {"family": name} | vars(cfg)
    (folder / "config.json").write_text(json.dumps({"model": section}))
    checkpoints = Checkpoints(folder / "checkpoints", keep_last=1, keep_best=0)
    checkpoints.save(0, {"params": drawn(family, cfg, seed)}, {})
    checkpoints.close()
    return folder


SMALL = {"n_layers": 2, "d_model": 8, "n_heads": 1}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Path:
    """A policy to start from, and a smaller reward model."""
    home = tmp_path_factory.mktemp("fresh")
    saved(home / "policy", 0)
    saved(home / "judge", 1, n_classes=1, **SMALL)
    return home


def config(home: Path, **keys: str):
    given = {"train.init_from": f"{home}/policy", "objective.name": "ppo", "data.kind": "tasks"}
    given |= {"objective.value_model": f"{home}/judge", "data.template": "", "data.size": "1"}
    given |= {"data.prompt_length": "6", "data.answer_length": "4", "objective.max_tokens": "4"}
    given |= {"train.batch_size": "8", "eval.sequences": "8", "eval.batch_size": "8"}
    given |= {"train.duration": "8 steps"}
    return config_file.load_config("configs/base.py", given | keys)


def test_a_run_counts_and_starts_from_both_models(fresh):
    asked = config(fresh)
    dataset = prepare(asked, progress=False)
    resolved = resolve(asked, dataset)
    judge = weights.load(fresh / "judge")
    _, value = families.read(judge.section)
    _, policy = families.read(resolved.model)
    about = describe(resolved, dataset)
    assert resolved.objective.value_model_hash == judge.hash and resolved.model.n_classes == 0
    assert about["params"]["value"] == sum(x.size for x in jax.tree.leaves(judge.params))
    for name, flops in about["flops"].items():
        both = decoder.flops(policy)[name] + decoder.flops(value)[name]
        assert flops == about["tokens"] * both > about["tokens"] * decoder.flops(policy)[name]

    begin = weights.start(resolved)
    assert weights.hash_of(begin.params["value"]) == judge.hash
    assert "value" not in weights.load(fresh / "policy").params  # the cached ones are as they were
    cfg, mesh = step_config(resolved, begin), make_mesh({"fsdp": 1}, jax.devices()[:1])
    alone = replace(cfg, beside=())
    more = R * (6 + 4) * decoder.flops(value)["palm"] / 3 * 2  # of 8 rows, read once
    found = rollout_shapes.forward_flops(resolved, cfg)
    assert found == pytest.approx(rollout_shapes.forward_flops(resolved, alone) + more)

    sizes = resolve_sizes(asked, 1)  # what `isoflop compile` makes without weights
    shapes = frozen_models.start(sizes)
    assert shapes.beside == begin.beside == (("value", "decoder", value),)
    like, _ = initial_state(step_config(sizes, shapes), hyperparameters(sizes), 0, mesh, shapes)
    described = lambda tree: jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree)  # noqa: E731
    assert described(like.params) == described(begin.params)


REFUSED = [
    ({"model.n_classes": "1"}, "has the value head; use 0, or objective.value_model=''"),
    ({"adapter.name": "lora"}, "adapter.name='lora' does not go with objective.value_model="),
    ({"train.init_from": "", "objective.reference": "policy"}, "and train.init_from is empty"),
    ({"objective.value_model": "nowhere"}, "objective.value_model=nowhere holds no config.json"),
    ({"objective.value_model_hash": "0"}, "objective.value_model_hash='0', but the weights in"),
    (
        {"objective.value_model": "policy"},
        "model.n_classes=0; use a run with objective.name=reward",
    ),
    ({"objective.value_model": "larger"}, "model.vocab_size=300, and the policy has 256"),
    ({"objective.value_model": "short"}, "model.context_length=10, and the rows 12 tokens"),
    ({"objective.value_model": "encoder"}, "of the family 'encoder' with model.n_classes=1; use a"),
]


@pytest.fixture(scope="module")
def unfit(fresh) -> Path:
    """Weights that cannot give the values."""
    saved(fresh / "larger", 1, n_classes=1, **SMALL | {"vocab_size": 300})
    saved(fresh / "short", 1, n_classes=1, **SMALL | {"context_length": 10})
    saved(fresh / "encoder", 1, "encoder", n_classes=1)
    return fresh


@pytest.mark.parametrize(("keys", "message"), REFUSED)
def test_what_does_not_go_together_is_refused_in_one_line(unfit, keys, message, capsys):
    keys = {k: str(unfit / v) if (unfit / v).exists() and v else v for k, v in keys.items()}
    assert trial.run(config(unfit, **keys), unfit / "refused") == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


@pytest.fixture(scope="module")
def home(tmp_path_factory, compiled_once) -> Path:
    """With a base and a trained reward model of another size."""
    folder = tmp_path_factory.mktemp("value")
    prompts.base(folder)
    keys = prompts.OFTEN | {f"model.{key}": str(value) for key, value in SMALL.items()} | {
        "objective.name": "reward", "data.kind": "preferences", "data.template": "",
        "data.corpora": "task:addition_reversed:examples=60", "data.validation": "0.4",
        "data.cache": f"{folder}/cache", "model.context_length": "32", "train.batch_size": "8",
        "train.duration": "8 steps", "optimizer.learning_rate": "0.01",
    }  # fmt: skip
    assert trial.run(config_file.load_config("configs/base.py", keys), folder / "judge") == 0
    return folder


def keys_of(home: Path, **keys: str) -> dict:
    """Of a run whose rewards and first values are of one reward model."""
    models = dict.fromkeys(("objective.value_model", "objective.reward_model"), f"{home}/judge")
    return PPO | models | keys


@pytest.fixture(scope="module")
def uninterrupted(home) -> Path:
    shown = {"log.samples": "12 steps", "log.sample_tokens": "2", "log.prompts": "12="}
    asked = prompts.config(home, "ppo", **keys_of(home, **shown))
    assert trial.run(asked, home / "whole") == 0
    return home / "whole"


@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_same_bits(home, uninterrupted):
    keys = keys_of(home)
    assert process(home, "killed", "objective=ppo", *pairs(keys), "kill_at=8") == -9
    assert not (home / "killed" / "result.json").exists()
    assert trial.run(prompts.config(home, "ppo", **keys), home / "killed") == 0
    ends = [restore_params(run / "checkpoints")[0] for run in (home / "killed", uninterrupted)]
    assert weights.hash_of(ends[0]) == weights.hash_of(ends[1])
    measured = ("loss", "reward", "kl", "value_loss", "explained_variance")
    killed, expected = (
        [[row[name] for name in measured] for row in rows(run) if "loss" in row]
        for run in (home / "killed", uninterrupted)
    )
    assert killed == expected and len(expected) == 3
    assert weights.hash_of(ends[1]["value"]) != weights.load(home / "judge").hash  # it is trained
    assert (uninterrupted / "samples.jsonl").read_text()

    from_it = weights.load(uninterrupted).params  # the policy alone, also for other runs
    assert from_it.keys() == weights.load(home / "base").params.keys()
    other = prompts.config(home, "ppo", **keys | {"seed": "1"})  # control
    assert trial.run(other, home / "seed") == 0
    assert weights.hash_of(restore_params(home / "seed" / "checkpoints")[0]) != weights.hash_of(
        ends[1]
    )


@pytest.mark.slow
def test_eight_devices_are_the_same_trial(home, uninterrupted):
    def trained(run: Path) -> np.ndarray:
        wanted = ("loss", "reward", "kl", "entropy", "value_loss")
        return np.array([[row[k] for k in wanted] for row in rows(run) if "loss" in row])

    keys = pairs(keys_of(home) | {"mesh.data": "1", "mesh.fsdp": "-1"})
    assert process(home, "eight", "objective=ppo", *keys, xla_flags=EIGHT) == 0
    assert json.loads((home / "eight" / "result.json").read_text())["devices"] == 8
    np.testing.assert_allclose(trained(home / "eight"), trained(uninterrupted), rtol=0, atol=1e-5)
    assert process(home, "eight-seed", "objective=ppo", *keys, "seed=1", xla_flags=EIGHT) == 0
    assert np.abs(trained(home / "eight-seed") - trained(uninterrupted)).max() > 1e-3  # control


@pytest.mark.slow
def test_a_policy_without_a_head_of_its_family_has_the_values_of_a_decoder(fresh):
    """A recurrent policy, with the matrices of both families given to Muon."""
    saved(fresh / "recurrent", 0, "recurrent")
    asked = {"train.init_from": f"{fresh}/recurrent", "optimizer.name": "muon"}
    assert trial.run(config(fresh, **asked), fresh / "muon") == 0
    told = json.loads((fresh / "muon" / "result.json").read_text())
    assert told["family"] == "recurrent" and told["params"]["value"] > 0
    ends, judge = restore_params(fresh / "muon" / "checkpoints")[0], weights.load(fresh / "judge")
    assert weights.hash_of(ends["value"]) != judge.hash  # it is trained
    alone = asked | {"objective.value_model": ""}  # control: the family has no head of its own
    assert trial.run(config(fresh, **alone), fresh / "alone") == 2
