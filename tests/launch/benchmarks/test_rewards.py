"""Tests of `isoflop rewards`, whose rewards and log-probabilities equal those of training, and of
`isoflop evaluate --reward`, which picks the best of n answers by them."""

import csv
import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from data import tokenizer
from data.tasks import exact
from data.tasks.checkers import Checker
from launch.__main__ import main
from launch.benchmarks import answered, answerer, best, checked, judged, listing
from launch.benchmarks.reward_model import RewardModel
from launch.evaluation import scored_model
from launch.texts import opened
from launch.verbs.results import overoptimisation
from scaling.estimators import best_of_n
from train.objectives.policy import responses
from train.objectives.preference import reward
from train.step import StepConfig

PAIRS = [("describe sun and sea:", "The sun.", "a sea"), ("describe hill and lamp:", "Hill", "x")]
# A policy with the template "ASSISTANT: …" draws the space too.
TINY = (
    *("--config=configs/base.py", "--config.model.n_layers=1", "--config.model.d_model=16"),
    *("--config.model.n_heads=2", "--config.model.context_length=80", "--config.data.cache=cache"),
    *("--config.data.corpora=task:style:size=1:examples=200", "--config.train.duration=2 steps"),
    *(
        "--config.data.tokenizer=bytes",
        "--config.data.too_long=drop",
        "--config.train.batch_size=8",
    ),
    *("--config.eval.sequences=8", "--config.eval.every=100%", "--config.checkpoint.every=100%"),
    "--config.optimizer.learning_rate=0.03",
)


def answers(run: str, shift: int = 0) -> dict:
    """What `isoflop evaluate --tasks=style --json` writes, with two answers to each prompt."""
    listed = [
        {
            "prompt": prompt,
            "responses": [f" {text}" for text in pair][:: 1 - 2 * shift],
            "scores": [1.0, 0.5 - shift / 4],
        }
        for prompt, *pair in PAIRS
    ]
    return {"run": run, "tasks": [{"tokens": 20, "temperature": 1.0, "responses": listed}]}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Runs `policy` and `other`, which continue text, and `judge`; answers of both policies."""
    home = tmp_path_factory.mktemp("rewards")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        repository = Path(__file__).parents[3]
        tiny = [part.replace("configs/", f"{repository}/configs/") for part in TINY]
        for name, seed in (("policy", 0), ("other", 1)):
            kind = ("--config.data.kind=conversations", f"--config.seed={seed}")
            assert main(["train", *tiny, *kind, f"--workdir={name}"]) == 0
        kind = ("--config.data.kind=preferences", "--config.objective.name=reward")
        assert main(["train", *tiny, *kind, "--workdir=judge"]) == 0
    for number, name in enumerate(("policy", "other")):
        (home / f"{name}.json").write_text(json.dumps(answers(name, number)))
    return home


@pytest.fixture(autouse=True)
def here(home, monkeypatch):
    monkeypatch.chdir(home)


@pytest.mark.slow
def test_rewards_equal_those_of_the_objective(home, capsys):
    assert main(["rewards", "--answers=policy.json", "--reward=small=judge", "--out=out"]) == 0
    found = np.load(home / "out" / "small.npz")
    model = opened.open_run(Path("judge"), "pooled", "")
    encoder = answered.encoder_of(Path("judge"), model.tokenizer)
    rows = {name: np.zeros((2, 80), np.int32) for name in ("chosen", "rejected")}
    weights = {f"{name}_weights": np.zeros((2, 80), np.float32) for name in rows}
    for row, (prompt, *pair) in enumerate(PAIRS):
        for name, text in zip(rows, pair, strict=True):
            ids, tail = encoder.encode(prompt, text)
            end = len(ids) + len(tail)
            rows[name][row, :end] = [*ids, *tail]
            weights[f"{name}_weights"][row, len(ids) - 1 : end - 1] = 1
    cfg = StepConfig(model.cfg, None, "decoder", "reward")
    batch = {name: jnp.array(x) for name, x in (rows | weights).items()}
    wanted = np.stack(reward.rewards(model.family, model.params, cfg, batch, None), 1)
    np.testing.assert_allclose(found["proxy"], wanted, atol=1e-5)
    assert np.ptp(wanted) > 1e-3  # the tolerance tells answers apart
    assert found["gold"].tolist() == [[1.0, 0.5]] * 2
    result = json.loads((home / "judge" / "result.json").read_text())
    assert int(found["size"]) == sum(result["params"].values())
    assert int(found["comparisons"]) == 16  # 2 steps of 8 pairs, none twice
    read = overoptimisation.read("small", home / "out" / "small.npz")
    assert (read.size, read.comparisons) == (int(found["size"]), 16)
    assert "correlation" in capsys.readouterr().out


@pytest.mark.slow
def test_policies_have_the_kl_of_the_objectives_and_their_gain(home, capsys):
    flags = ("--answers=policy.json", "--policy=policy.json", "--policy=late=other.json")
    assert main(["rewards", *flags, "--out=out"]) == 0
    with open(home / "out" / "policies.csv", newline="") as file:
        same, late = csv.DictReader(file)
    assert (same["run"], late["run"]) == ("policy", "late")
    assert float(same["kl"]) == float(same["gold_reward"]) == 0
    assert float(late["gold_reward"]) == pytest.approx((0.25 - 0.5) / 2)
    encoder = answered.encoder_of(
        Path("policy"), opened.open_run(Path("policy"), "hidden", "").tokenizer
    )
    ratios = {}
    for name in ("policy", "other"):
        model = opened.open_run(Path(name), "hidden", "")
        sums = []
        for prompt, *pair in PAIRS:
            for text in pair:
                ids, tail = encoder.encode(prompt, text)
                batch = {
                    "tokens": jnp.array([[*ids, *tail]]),
                    "prompt_length": jnp.array([len(ids)]),
                    "response": jnp.array([tail]),
                    "mask": jnp.ones((1, len(tail))),
                }
                logp_RN, _ = responses.logprobs(model.family, model.params, model.cfg, batch, 1.0)
                sums.append(float(logp_RN.sum()))
        ratios[name] = np.array(sums)
    kl = (ratios["other"] - ratios["policy"]).mean()
    assert abs(kl) > 1e-2
    assert float(late["kl"]) == pytest.approx(kl, abs=1e-4)


def encoded(answers, encoder):
    return answered.encoded(answers.prompts, answers.texts, answers.most, encoder)


@pytest.mark.slow
def test_an_answer_that_was_cut_has_no_end(home):
    model = scored_model.open_model(Path("policy"))
    encoder = answered.encoder_of(Path("policy"), model.tokenizer)
    whole = answered.read(Path("policy.json"), "answers")
    lengths = [len(ids) - n for ids, n in encoded(whole, encoder)]
    about = answers("policy")
    about["tasks"][0]["tokens"] = lengths[0] - 1  # the longest answer, without its end
    Path("cut.json").write_text(json.dumps(about))
    cut = encoded(answered.read(Path("cut.json"), "answers"), encoder)
    assert [len(ids) - n for ids, n in cut] == [lengths[0] - 1, *lengths[1:]]
    logp = judged.log_probabilities(model, cut)
    assert logp.shape == (4,) and (logp < 0).all()


JUDGE = ["--answers=policy.json", "--out=o"]
BAD = [
    (["--out=o", "--reward=judge"], "--answers is not given"),
    (JUDGE, "--reward is not given"),
    (["--answers=none.json", "--out=o", "--reward=judge"], "--answers=none.json does not exist"),
    (["--answers=list.json", "--out=o", "--reward=judge"],
     "--answers=list.json holds no JSON object; write it by isoflop evaluate"),
    (["--answers=judge/tokenizer", "--out=o", "--reward=judge"], "Is a directory"),
    (["--answers=two.json", "--out=o", "--reward=judge"], "the answers to 2 tasks, not to one"),
    (["--answers=odd.json", "--out=o", "--reward=judge"], "different numbers of answers"),
    ([*JUDGE, "--reward=policy"], "--reward=policy has model.n_classes=0,"),
    ([*JUDGE, "--reward=nowhere"], "--reward=nowhere holds no config"),
    (["--answers=long.json", "--out=o", "--reward=judge"], "fewer --tokens"),
    ([*JUDGE, "--policy=hot.json"], "temperature 2"),
    ([*JUDGE, "--policy=fewer.json"], "answers to other prompts"),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "message"), BAD)
def test_bad_input_is_one_line(argv, message, capsys):
    made = {name: answers("policy") for name in ("two", "odd", "long", "hot", "fewer")}
    made["two"]["tasks"] *= 2
    made["odd"]["tasks"][0]["responses"][0]["scores"].append(1.0)
    made["odd"]["tasks"][0]["responses"][0]["responses"].append("x")
    made["long"]["tasks"][0] |= {"tokens": 99}
    made["long"]["tasks"][0]["responses"][0]["responses"] = ["x" * 80, "y"]
    made["hot"]["tasks"][0]["temperature"] = 2.0
    made["fewer"]["tasks"][0]["responses"].pop()
    for name, about in made.items():
        Path(f"{name}.json").write_text(json.dumps(about))
    Path("list.json").write_text("[]")
    assert main(["rewards", *argv]) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1


PICKED = ("--tasks=odd.jsonl", "--samples=5", "--tokens=4", "--k=1,2", "--json=best.json")


@pytest.fixture
def asked(here):
    """Prompts whose answers are judged by the first letter, which an untrained model may hit."""
    rows = [{"prompt": f"say {word}", "answer": "a"} for word in ("sun", "sea", "hill", "lamp")]
    Path("odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("odd_rule.py").write_text(
        "def score(prompt, answer, response):\n    return len(response) % 3 / 2\n"
    )


@pytest.mark.slow
def test_the_pick_is_the_best_of_all_subsets(asked, capsys, monkeypatch):
    monkeypatch.syspath_prepend(".")
    flags = (*PICKED, "--checker=odd_rule:score", "--reward=judge")
    flags += ("--template=judge/chat_template.jinja",)  # both have it
    assert main(["evaluate", "--run=policy", *flags]) == 0
    printed = capsys.readouterr().out
    assert "best of n answers to odd.jsonl by the reward of judge" in printed
    (task,) = json.loads(Path("best.json").read_text())["tasks"]
    rewards = np.array([one["rewards"] for one in task["responses"]])
    scores = np.array([one["scores"] for one in task["responses"]])
    assert rewards.shape == scores.shape == (4, 5) and np.ptp(scores) and np.ptp(rewards)
    assert [row["n"] for row in task["best_of_n"]] == [1, 2, 4, 5]
    for row in task["best_of_n"]:
        values = {"accuracy": [], "score": [], "pass_at_n": []}
        for proxy, score in zip(rewards, scores, strict=True):
            subsets = [list(s) for s in itertools.combinations(range(5), row["n"])]
            first = [[i for i in s if proxy[i] == proxy[s].max()] for s in subsets]
            values["score"].append(np.mean([score[b].mean() for b in first]))
            values["accuracy"].append(np.mean([(score[b] == 1).mean() for b in first]))
            values["pass_at_n"].append(np.mean([(score[s] == 1).any() for s in subsets]))
        for name, of_prompts in values.items():
            assert row[name] == pytest.approx(np.mean(of_prompts), abs=1e-9)
            assert row[f"{name}_se"] == pytest.approx(np.std(of_prompts, ddof=1) / 2, abs=1e-9)
        assert f"{row['accuracy']:.1%} ± {row['accuracy_se']:.1%}" in printed
        interval = [f"{row[f'pass_at_n{end}']:.1%}" for end in ("", "_lo", "_hi")]
        assert "{} [{}, {}]".format(*interval) in printed
        assert row["kl_at_most"] == pytest.approx(best_of_n.kl(row["n"]))
    assert "KL, at most" in printed and "5 samples of each prompt" in printed
    one, *_, whole = task["best_of_n"]
    assert one["score"] == pytest.approx(task["score"]) != pytest.approx(whole["score"])
    # The rewards are those of `isoflop rewards` for the same answers.
    assert main(["rewards", "--answers=best.json", "--reward=judge", "--out=same"]) == 0
    np.testing.assert_allclose(np.load("same/judge.npz")["proxy"], rewards, atol=1e-6)


REFUSED = [
    (["--reward=policy"], "reward=policy has model.n_classes=0,"),
    (["--reward=nowhere"], "reward=nowhere holds no config.json"),
    (["--reward=letters"], "reward=letters has the tokenizer 'chars' of 5 tokens"),
    (
        ["--reward=judge", "--template=chatml"],
        "was trained with another chat template than the answers of --run=policy; add "
        "--template=judge/chat_template.jinja",
    ),
    (
        ["--reward=judge", "--template=none"],
        "was trained with a chat template, but the answers of --run=policy use none",
    ),
    (
        ["--reward=bare"],
        "reward=bare was trained without a chat template, but the answers of --run=policy use one",
    ),
    (["--reward=judge", "--tasks=core:bundle"], "draws none; add a task such as sorting"),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "message"), REFUSED)
def test_bad_judges_are_refused_before_any_answer(argv, message, asked, capsys, monkeypatch):
    for name in ("letters", "bare"):
        if not Path(name).exists():
            shutil.copytree("judge", name)
    shutil.rmtree("letters/tokenizer")
    tokenizer.train("chars", ["abc"]).save("letters/tokenizer")
    Path("bare/chat_template.jinja").unlink(missing_ok=True)
    monkeypatch.setattr("launch.benchmarks.answerer.Answerer.answers", None)
    assert main(["evaluate", "--run=policy", *PICKED, *argv]) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1


def test_the_export_of_a_run_answers_as_the_run_does(home, tmp_path):
    """Its template names the end token of its tokenizer, so its source differs and its tokens do
    not."""
    assert main(["convert", "--from=policy", f"--to_hf={tmp_path / 'exported'}"]) == 0
    drawn = answerer.open_answerer(tmp_path / "exported")
    judge = best.open_judge(Path("judge"), drawn)
    assert judge.encoder.chat.template.source != drawn.encoder.chat.template.source
    file = tmp_path / "exported" / "chat_template.jinja"
    file.write_text(file.read_text().replace("USER: ", "USER:"))  # control
    with pytest.raises(ValueError, match="with another chat template"):
        best.open_judge(Path("judge"), answerer.open_answerer(tmp_path / "exported"))


def test_the_bar_runs_once_and_certain_shares_have_an_interval(capsys):
    """2 prompts whose answers are all right, drawn and judged by stand-ins."""
    tokens = np.zeros(3, np.int32)

    def drawn(prompts, n_tokens, samples, temperature, seed, count):
        for _ in prompts:
            count(1)
        return [["x"] * samples for _ in prompts]

    def rewards(prompts, texts, most, advance):
        assert (prompts, most) == (["a", "b"], 4)
        advance(0.5)
        advance(1.0)
        return np.array([[float(n) for n, _ in enumerate(row)] for row in texts])

    encoder = SimpleNamespace(encode=lambda *_: (tokens, tokens[:1]), chat=None)
    policy = SimpleNamespace(encoder=encoder, most=9, answers=drawn, run="policy")
    judge = SimpleNamespace(
        run="judge", rewards=rewards, model=SimpleNamespace(cfg=SimpleNamespace(context_length=9))
    )
    asked = checked.Questions("t", [("a", "x"), ("b", "x")], Checker("exact", exact.score))
    for samples in (1, 4):
        shares, how = [], checked.How(samples=samples, ks=(1,), tokens=4)
        task = checked.evaluate(policy, asked, how, shares.append, judge)
        assert shares == [0.25, 0.5, 0.75, 1.0]
        listing.show({"run": "policy", "step": 1, "tasks": [task], "core": [], "lm_eval": []}, 0)
        printed = capsys.readouterr().out
        # 1 - 0.1^(1/2) of the prompts may have no right answer.
        assert printed.count("100.0% [31.6%, 100.0%]") == 1 + len(task["best_of_n"])
        assert ("1 sample of each prompt" in printed) == (samples == 1)
    plain = []
    checked.evaluate(policy, asked, how, plain.append)
    assert plain == [0.5, 1.0]


def test_a_reward_model_of_a_short_context_is_refused():
    cfg = SimpleNamespace(context_length=30)
    judge = RewardModel(Path("judge"), SimpleNamespace(cfg=cfg), None)
    best.require_room(judge, 25, 5, "sorting")
    with pytest.raises(ValueError, match=r"reward=judge reads 30 tokens.*prompts of 25.*up to 6"):
        best.require_room(judge, 25, 6, "sorting")
