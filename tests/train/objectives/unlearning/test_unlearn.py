"""Tests the loss of unlearning by hand, and a run of it: only what is to be forgotten is."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch.__main__ import main as isoflop
from launch.config import config_file
from launch.trial import run as trial
from launch.trial.start import hash_of
from model import families
from tests.launch import toy
from tests.launch.trial.test_seams import params, process
from train.objectives.unlearning import unlearn

STATED = SimpleNamespace(
    hidden=lambda cfg, params, batch, key=None: params["logits"],
    head=lambda cfg, params: {},
    logits=lambda cfg, head, x: x,
)
B, T, V = 3, 4, 5
RNG = np.random.default_rng(0)
MODEL, REFERENCE = RNG.normal(size=(2, B, T, V)).astype(np.float32)
BATCH = {
    "tokens": np.zeros((B, T), np.int32),
    "targets": RNG.integers(V, size=(B, T)).astype(np.int32),
    "weights": np.array([[0, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 0]], np.float32),
    "forget": np.array([1, 0, 0], np.float32),
}


@pytest.fixture(autouse=True)
def stated(monkeypatch):
    monkeypatch.setitem(families.FAMILIES, "stated", STATED)


def lost(loss, logits=MODEL, batch=BATCH):
    cfg = SimpleNamespace(model=None, loss=loss, frozen=(("reference", "stated", None),))
    frozen = {"reference": {"logits": jnp.asarray(REFERENCE)}}

    def mean(params):
        total, sums = unlearn.loss(STATED, params, frozen, cfg, batch, None)
        return total, sums

    descend = jax.jit(jax.value_and_grad(mean, has_aux=True))
    (value, sums), gradient = descend({"logits": jnp.array(logits)})
    return float(value), sums, np.asarray(gradient["logits"])


def by_hand():
    log = lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))  # noqa: E731
    p, q = log(REFERENCE), log(MODEL)
    nats = -np.take_along_axis(q, BATCH["targets"][..., None], -1)[..., 0]
    return nats, (np.exp(p) * (p - q)).sum(-1)


def test_the_loss_by_hand():
    nats, kl = by_hand()
    w, forget = BATCH["weights"], BATCH["forget"][:, None]
    value, sums, _ = lost(unlearn.Loss(kl=0.7, nats=0.2))
    kept = ((0.7 * kl + 0.2 * nats) * w * (1 - forget)).sum()
    assert value == pytest.approx(kept - (nats * w * forget).sum(), rel=1e-5)
    assert float(sums["forget_loss"][0] / sums["forget_loss"][1]) == pytest.approx(
        (nats * w)[0].sum() / 2, rel=1e-5
    )
    assert float(sums["loss"][1]) == 7 and float(sums["divergence"][0]) == pytest.approx(
        (kl * w)[1:].sum(), rel=1e-5
    )


def test_the_gradient_raises_what_is_forgotten_and_stops_at_the_limit():
    nats, _ = by_hand()
    _, _, gradient = lost(unlearn.Loss())
    target = np.take_along_axis(gradient, BATCH["targets"][..., None], -1)[..., 0]
    weighed = BATCH["weights"] > 0
    assert (target[0, weighed[0]] > 0).all()  # descent lowers the logit of the target
    assert not gradient[~weighed].any()
    limit = float(nats[0, 1:3].min()) + 1e-3
    _, _, stopped = lost(unlearn.Loss(limit=limit))
    inside = nats[0] < limit
    assert (np.abs(stopped[0]).max(-1) > 0).tolist() == (inside & weighed[0]).tolist()
    assert (np.abs(gradient[0]).max(-1) > 0).tolist() == weighed[0].tolist()  # control


def test_a_model_that_is_its_reference_has_no_kl():
    _, sums, gradient = lost(unlearn.Loss(), REFERENCE)
    assert abs(float(sums["divergence"][0])) < 1e-5 and np.abs(gradient[1:]).max() < 1e-6
    _, _, gradient = lost(unlearn.Loss(nats=0.5), REFERENCE)  # control
    assert np.abs(gradient[1:][BATCH["weights"][1:] > 0]).max() > 1e-3


@pytest.mark.slow
def test_chunks_change_nothing():
    whole, chunked = (lost(unlearn.Loss(limit=3.0, nats=0.1, chunk=chunk)) for chunk in (0, 2))
    assert chunked[0] == pytest.approx(whole[0], rel=1e-5)
    np.testing.assert_allclose(chunked[2], whole[2], atol=1e-6)


def test_evaluation_keeps_the_parts_apart():
    nats, kl = by_hand()
    cfg = SimpleNamespace(model=None, loss=unlearn.Loss(), frozen=(("reference", "stated", None),))
    frozen, params = {"reference": {"logits": REFERENCE}}, {"logits": MODEL}
    rows = unlearn.evaluate(STATED, params, frozen, cfg, BATCH)
    found = {name: metric({k: np.asarray(v) for k, v in rows.items()})
             for name, metric in unlearn.METRICS.items()}  # fmt: skip
    w = BATCH["weights"]
    assert found["loss"][0] == pytest.approx((nats * w)[1:].sum() / 7, rel=1e-5)
    assert found["forget_loss"][0] == pytest.approx((nats * w)[0].sum() / 2, rel=1e-5)
    assert found["divergence"][0] == pytest.approx((kl * w)[1:].sum() / 7, rel=1e-5)
    assert found["bits_per_byte"] is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("objective.limit", -1.0, "objective.limit=-1.0 must be at least 0"),
        ("objective.kl", -0.5, "objective.kl=-0.5 must be at least 0"),
        ("train.z_loss", 0.1, "train.z_loss=0.1 has no effect with objective.name='unlearn'"),
        ("train.loss_chunk", 3, "train.loss_chunk=3 does not divide"),
    ],
)
def test_bad_keys_are_refused(key, value, message):
    config = config_file.load_config("configs/post/unlearn.py", {key: value})
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        unlearn.configure(config)
    unlearn.configure(config_file.load_config("configs/post/unlearn.py", {}))


WORLD = "world:entities=10:times=2:editions=10:forget=0.3"
SMALL = {
    "data.tokenizer": "words", "model.context_length": 16, "model.n_layers": 1,
    "model.d_model": 16, "model.n_heads": 2, "train.batch_size": 8, "eval.sequences": 8,
    "eval.batch_size": 8, "log.tensorboard": False, "data.validation": 0.2,
    "checkpoint.every": "0 steps", "train.duration": "60 steps", "optimizer.learning_rate": 0.02,
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory, compiled_once):
    """A folder with a run that has read the world."""
    folder = tmp_path_factory.mktemp("unlearning")
    longer = {"data.corpora": WORLD, "train.duration": "300 steps"}
    config = config_file.load_config("configs/base.py", SMALL | cached(folder) | longer)
    assert trial.run(config, folder / "base") == 0
    return folder


def cached(home) -> dict[str, str]:
    return {"data.cache": str(home / "cache")}


def unlearning(home) -> dict:
    """The keys of a run that unlearns a part of the world."""
    keys = {k: v for k, v in SMALL.items() if not k.startswith("model.") and k != "data.tokenizer"}
    return keys | cached(home) | {
        "data.forget": WORLD, "data.corpora": f"{WORLD}:part=retain", "objective.limit": 6.0,
        "objective.kl": 1.0,
    }  # fmt: skip


@pytest.mark.slow
def test_a_run_forgets_its_statements(home, capsys):
    def unlearned(name, **more) -> dict:
        config = config_file.load_config(
            f"configs/post/unlearn.py:{home}/base", unlearning(home) | more
        )
        assert trial.run(config, home / name) == 0
        return json.loads((home / name / "result.json").read_text())["metrics"]

    held = unlearned("held")
    begun = unlearned("begun", **{"train.duration": "1 steps", "optimizer.learning_rate": 0.0})
    free = unlearned("free", **{"objective.kl": 0.0})
    value = lambda metrics, name: metrics[name]["value"]  # noqa: E731
    assert value(begun, "divergence") == pytest.approx(0, abs=1e-6)
    assert value(held, "forget_loss") > value(begun, "forget_loss") + 1
    assert value(held, "loss") < value(begun, "loss") + 0.5
    assert value(free, "divergence") > 3 * value(held, "divergence")  # control
    assert isoflop(["evaluate", f"--run={home / 'held'}"]) == 2
    assert "its data.kind='unlearning' is no running text; give --data=" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_resumes_bit_equal(home, capfd):
    keys = unlearning(home) | {"train.duration": "12 steps", "checkpoint.every": "4 steps"}
    keys |= {"model.family": "decoder", "model.context_length": 16, "model.n_layers": 1,
             "model.n_heads": 2, "objective.name": "unlearn", "data.kind": "unlearning",
             "train.init_from": f"{home}/base"}  # fmt: skip
    keys["data.tokenizer"] = f"{home}/base/tokenizer/tokenizer.json"
    keys = {key: str(value) for key, value in keys.items()}
    assert trial.run(toy.config(home, **keys), home / "straight") == 0
    straight = hash_of(params(home / "straight"))
    given = [f"{key}={value}" for key, value in keys.items()]
    assert process(home, "killed", *given, "kill_at=8") == -9
    assert not (home / "killed" / "result.json").exists()
    assert hash_of(params(home / "killed")) != straight
    assert trial.run(toy.config(home, **keys), home / "killed") == 0
    assert "resuming at step 8 of 12" in "".join(capfd.readouterr())
    assert hash_of(params(home / "killed")) == straight
