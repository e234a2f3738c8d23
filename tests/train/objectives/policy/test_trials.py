"""Tests whole trials: resuming, eight devices, the weight of the KL, what is refused and said."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from data.kinds import tasks
from launch.config import config_file
from launch.trial import run as trial
from launch.trial.start import hash_of, load
from model import families
from model.transformer import family as decoder
from tests.train.objectives.policy import prompts
from train.checkpoint import restore_params
from train.objectives.policy import experience

ROOT = Path(__file__).resolve().parents[4]
EIGHT = "--xla_force_host_platform_device_count=8"
# Rollouts of 16 responses, each with 2 epochs of 2 updates.
PPO = {
    "objective.epochs": "2", "objective.minibatches": "2",
    "train.batch_size": "8", "train.duration": "12 steps", "eval.every": "0 steps",
    "checkpoint.every": "4 steps",
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory, compiled_once) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    prompts.base(folder)
    return folder


def rows(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in open(workdir / "metrics.jsonl")]


def params(workdir: Path) -> dict:
    return restore_params(workdir / "checkpoints")[0]


def run(home: Path, name: str, objective: str = "grpo", **keys: str) -> int:
    return trial.run(prompts.config(home, objective, **keys), home / name)


def process(home: Path, name: str, *keys: str, xla_flags: str = "") -> int:
    environment = os.environ | ({"XLA_FLAGS": xla_flags} if xla_flags else {})
    command = [sys.executable, "-m", prompts.HERE, str(home / name), *keys]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True).returncode


def pairs(keys: dict) -> list[str]:
    return [f"{key}={value}" for key, value in keys.items()]


@pytest.fixture(scope="module")
def whole(home) -> Path:
    """An uninterrupted run of PPO."""
    assert run(home, "whole", "ppo", **PPO) == 0
    return home / "whole"


@pytest.mark.slow
def test_ppo_killed_and_resumed_ends_with_the_same_bits(home, whole):
    """The rollouts after the kill are those of the uninterrupted run: so are their rewards."""
    assert process(home, "killed", "objective=ppo", *pairs(PPO), "kill_at=8") == -9
    assert not (home / "killed" / "result.json").exists()
    assert run(home, "killed", "ppo", **PPO) == 0
    assert hash_of(params(home / "killed")) == hash_of(params(whole))
    measured = ("loss", "reward", "kl", "clip_fraction", "explained_variance")
    found, expected = (
        [[row[name] for name in measured] for row in rows(folder) if "loss" in row]
        for folder in (home / "killed", whole)
    )
    assert found == expected and len(expected) == 3  # a row each rollout
    assert run(home, "seed", "ppo", **PPO | {"seed": "1"}) == 0  # control
    assert hash_of(params(home / "seed")) != hash_of(params(whole))


@pytest.mark.slow
def test_ppo_on_eight_devices_is_the_same_trial(home, whole):
    assert process(home, "eight", "objective=ppo", *pairs(PPO), xla_flags=EIGHT) == 0
    assert json.loads((home / "eight" / "result.json").read_text())["devices"] == 8

    def trained(folder):
        wanted = ("loss", "reward", "kl", "entropy", "value_loss")
        return np.array([[row[k] for k in wanted] for row in rows(folder) if "loss" in row])

    np.testing.assert_allclose(trained(home / "eight"), trained(whole), rtol=0, atol=1e-5)
    seed = [*pairs(PPO), "seed=1"]  # control
    assert process(home, "eight-seed", "objective=ppo", *seed, xla_flags=EIGHT) == 0
    assert np.abs(trained(home / "eight-seed") - trained(whole)).max() > 1e-3


@pytest.mark.slow
def test_frozen_parameters_stay_and_events_are_at_rollouts(home, whole):
    assert load(home / "base").hash == hash_of(params(home / "base"))
    reference = hash_of(params(home / "base"))
    told = json.loads((whole / "result.json").read_text())
    assert told["parent"]["init_hash"] == reference and told["steps"] == 12
    steps = [row["step"] for row in rows(whole)]
    assert steps == [4, 8, 12, 12]
    assert all(step % 4 == 0 for step in steps)


@pytest.mark.slow
def test_rollouts_and_updates_have_rates_of_their_own(home, whole):
    told = json.loads((whole / "result.json").read_text())
    tokens, seconds = {}, {}
    manifest = json.loads((whole / "checkpoints" / "12" / "manifest.json").read_text())
    for part, (count, took) in manifest["meta"]["throughput"].items():
        tokens[part], seconds[part] = count, took
        assert told[f"{part}_tokens_per_second"] == round(count / took, 1)
    drawn = [row["response_length"] for row in rows(whole) if "loss" in row]
    assert tokens["rollout"] == pytest.approx(16 * sum(drawn))  # 16 responses a rollout
    assert tokens["update"] == told["tokens"] == 12 * 8 * (6 + 4)
    # Together they are the time of training, of which compilation is no part.
    assert (
        min(seconds.values()) > 0
        and sum(seconds.values()) <= told["seconds"] < told["compile_seconds"]
    )
    assert all(row["rollout_tokens_per_second"] > 0 for row in rows(whole) if "loss" in row)


def divergence(home: Path, name: str) -> float:
    """KL of a run's next tokens from those of the base, exact, a token of random text."""
    config = json.loads((home / name / "config.json").read_text())
    _, cfg = families.read(config["model"])
    tokens = np.random.default_rng(0).integers(48, 58, (16, 8))

    def logp(params):
        x = decoder.hidden(cfg, params, {"tokens": tokens})
        return jax.nn.log_softmax(decoder.logits(cfg, decoder.head(cfg, params), x))

    p, q = (logp(params(home / run)) for run in (name, "base"))
    return float((np.exp(p) * (p - q)).sum(-1).mean())


@pytest.mark.slow
def test_a_large_weight_of_the_kl_keeps_ppo_at_the_reference(home):
    longer = PPO | {"train.duration": "40 steps", "schedule.name": "linear", "schedule.final": "0"}
    # In the reward, the weight would also scale the value loss, whose gradient moves the trunk.
    longer |= {"objective.kl_in": "loss", "objective.kl_estimator": "k2"}
    longer |= {"checkpoint.every": "0 steps"}
    far = {}
    for weight in ("0", "1000"):
        assert run(home, f"kl{weight}", "ppo", **longer | {"objective.kl": weight}) == 0
        far[weight] = divergence(home, f"kl{weight}")
    assert far["1000"] < 0.02 < 0.2 < far["0"], far


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["grpo", "reinforce", "raft"])
def test_it_learns(home, objective):
    keys = {"train.duration": "40 steps", "log.every": "0 steps"}
    assert run(home, objective, objective, **keys) == 0
    _, last = (row for row in rows(home / objective) if "eval_reward" in row)
    assert last["eval_reward"] > 0.9 and last["eval_pass_at_1"] > 0.8 and last["eval_kl"] > 1
    told = json.loads((home / objective / "result.json").read_text())
    assert told["eval_loss"] == -last["eval_reward"] and told["metrics"]["reward"]["se"] is not None


@pytest.mark.slow
def test_grpo_of_adapters_takes_their_base_as_the_reference(home):
    lora = {"adapter.name": "lora", "adapter.rank": "2"}
    assert run(home, "lora", "grpo", **lora) == 0
    kl = [row["kl"] for row in rows(home / "lora") if "kl" in row]
    assert kl[0] == pytest.approx(0, abs=1e-6) and abs(kl[-1]) > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["", "lora"])
def test_a_reference_in_bfloat16_begins_at_the_policy(home, adapter):
    """It is rounded as the policy is, though the run of its weights computes in float32."""
    keys = {"model.dtype": "bfloat16", "optimizer.learning_rate": "0.1", "objective.kl": "0.1"}
    keys |= {"adapter.name": adapter, "adapter.rank": "2"} if adapter else {}
    name = f"half{adapter}"
    assert run(home, name, "grpo", **keys) == 0
    kl = [row["kl"] for row in rows(home / name) if "kl" in row]
    assert kl[0] == 0 and abs(kl[-1]) > 1e-4


@pytest.mark.slow
def test_rewards_without_variance_are_said_after_twenty_steps(home, capsys):
    keys = {"data.checker": f"{prompts.HERE}:raises", "train.duration": "21 steps"}
    keys |= {"objective.kl": "0", "log.every": "0 steps"}
    assert run(home, "flat", **keys) == 0
    said = capsys.readouterr()
    assert said.out.count("for 20 rollouts all responses to each prompt had the same reward") == 1
    # The checker raises each time: its first traceback is shown, and every response counts as 0.
    assert said.err.count("RuntimeError: cannot judge") == 1
    assert rows(home / "flat")[-1]["eval_reward"] == 0
    assert json.loads((home / "flat" / "result.json").read_text())["checker_failures"] >= 21 * 16


def test_a_reward_that_is_not_finite_ends_the_run(home, monkeypatch, capsys):
    def broken(dataset, batch):
        return np.where(np.arange(len(batch["mask"])) == 3, np.nan, 0)

    assert experience.score is not broken
    from train.objectives.policy import grpo

    monkeypatch.setattr(grpo, "score", broken)
    assert run(home, "nan") == 2
    err = capsys.readouterr().err
    assert "isoflop: the rewards of 1 of 16 responses are not finite numbers" in err


@pytest.mark.slow
def test_epochs_count_each_prompt_once(home):
    """Four steps see the 16 responses of one rollout, two to each of its 8 prompts."""
    (home / "few.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{i}=", "answer": "a"}) + "\n" for i in range(100, 200))
    )
    keys = PPO | {"data.corpora": f"{home}/few.jsonl", "train.duration": "8 steps"}
    assert run(home, "few", "ppo", **keys | {"objective.samples": "2"}) == 0
    told = json.loads((home / "few" / "result.json").read_text())
    held_out = 100 - round(2 * 8 / told["epochs_of_data"])  # two rollouts of 8 prompts
    assert 0 < held_out < 30


def test_tokens_are_those_of_prompts_and_responses(home, whole):
    told = json.loads((whole / "result.json").read_text())
    assert told["context_length"] == 6 + 4 and told["tokens"] == 12 * 8 * (6 + 4)
    longer = prompts.config(home, "ppo", **PPO | {"objective.max_tokens": "5"})
    assert tasks.tokens(longer) == 6 + 5  # not the 4 of an answer


@pytest.mark.slow
def test_weights_that_cannot_judge_or_refer_are_refused(home, capsys):
    larger = prompts.MODEL | {"model.vocab_size": "300", "model.n_classes": "0"}
    several = prompts.MODEL | {"model.n_classes": "2"}
    for name, keys in (("larger", larger), ("several", several)):
        given = prompts.OFTEN | keys | {
            "data.corpora": f"{home}/text.txt", "data.cache": f"{home}/cache",
            "train.duration": "1 steps", "train.batch_size": "4",
        }  # fmt: skip
        assert trial.run(config_file.load_config("configs/base.py", given), home / name) == 0
    for key, name, message in (
        ("reward_model", "base", "model.n_classes=0; use a run with objective.name=reward"),
        ("reward_model", "several", "model.n_classes=2; use a run with objective.name=reward"),
        ("reference", "larger", "model.vocab_size=300, and the policy has 256"),
    ):
        capsys.readouterr()
        assert run(home, "judged", "ppo", **PPO | {f"objective.{key}": str(home / name)}) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1


@pytest.mark.slow
def test_the_reward_model_and_the_reference_have_sizes_of_their_own(home, capsys):
    small, large = {"model.d_model": "8"}, {"model.d_model": "32", "model.n_layers": "2"}
    for name, keys in (("refers", small), ("judges", large | {"model.n_classes": "1"})):
        given = prompts.MODEL | prompts.OFTEN | keys | {
            "data.corpora": f"{home}/text.txt", "data.cache": f"{home}/cache",
            "train.duration": "1 steps", "train.batch_size": "4",
        }  # fmt: skip
        assert trial.run(config_file.load_config("configs/base.py", given), home / name) == 0
    read = {
        "objective.reference": str(home / "refers"),
        "objective.reward_model": str(home / "judges"),
    }
    hashes = {name: load(home / name).hash for name in ("refers", "judges")}
    capsys.readouterr()
    assert run(home, "sizes", "ppo", **PPO | read) == 0
    said = capsys.readouterr().out
    assert "frozen reference" in said and "frozen reward" in said
    sized = [row for row in rows(home / "sizes") if "loss" in row]
    assert abs(sized[0]["kl"]) > 1e-3  # another model than the policy, which starts from the base
    assert "eval_pass_at_1" not in rows(home / "sizes")[-1]  # no checker has scored
    assert {name: load(home / name).hash for name in hashes} == hashes
    assert run(home, "own", "ppo", **PPO) == 0  # control: the base itself is the reference
    kl = next(row["kl"] for row in rows(home / "own") if "loss" in row)
    assert kl == pytest.approx(0, abs=1e-5)
    shapes = [jax.tree.map(np.shape, params(home / name)) for name in ("sizes", "own", "refers")]
    assert shapes[0] == shapes[1] != shapes[2]


REFUSED = [
    ({"objective.samples": "3"}, "objective.samples=3 does not divide the 16 responses"),
    ({"objective.buckets": "3"}, "objective.buckets=3 does not divide the 2 prompts of a rollout"),
    ({"objective.samples": "1"}, "compares the responses to a prompt; use 2 or more"),
    ({"objective.kl_estimator": "k1"}, "has a gradient that is 0 in expectation; use k2 or k3"),
    ({"objective.scale": "std"}, "objective.scale='std' is unknown; use one of group, batch, none"),
    ({"objective.temperature": "0"}, "draws one response only; use more than 0"),
    ({"objective.max_tokens": "12"}, "does not fit model.context_length=12; use 6 or fewer"),
    ({"data.prompt_length": "12"}, "use a smaller data.prompt_length"),
    ({"objective.max_tokens": "3"}, "objective.max_tokens=3 cuts right answers short, which have"),
    (
        {"adapter.name": "lora", "adapter.dropout": "0.1"},
        "adapter.dropout=0.1, but objective.name='grpo' needs the policy that drew the responses",
    ),
    ({"train.chunk": "3"}, "train.chunk=3, but objective.name='grpo' makes the batches of 1 steps"),
    ({"train.z_loss": "0.1"}, "train.z_loss=0.1 has no effect"),
    ({"train.init_from": ""}, "objective.reference is empty, and so is train.init_from; objective"),
    ({"objective.name": "ppo", "model.n_classes": "2"}, "trains a value head of one output"),
]


@pytest.mark.parametrize(("keys", "message"), REFUSED)
def test_what_does_not_go_together_is_refused_in_one_line(home, keys, message, capsys):
    usual = {"objective.kl": "0.1", "model.context_length": "12"}
    keys = dict(keys)
    objective = keys.pop("objective.name", "grpo")
    assert run(home, "refused", objective, **usual | keys) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
