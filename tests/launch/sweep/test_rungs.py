"""Tests that rungs compare like with like, and that what cannot be compared is refused."""

import json
import re
from pathlib import Path

import pytest

from launch.errors import BadInput
from launch.files import write_json
from launch.runners import RUNNERS
from launch.sweep import expand
from launch.sweep.rungs import Rungs, rung_steps
from launch.sweep.stopping import stopping
from launch.verbs.models import sweep
from tests.launch.inline import Inline
from tests.launch.sweep.test_stopping import CONFIG

WSD = {"schedule.name": "wsd", "schedule.decay": "20 %"}
LENGTHS = [{"train.duration": "90 steps"}, {"train.duration": "180 steps"}]
BATCHES = [{"train.batch_size": 8}, {"train.batch_size": 32}]
FINALS = [{"schedule.final": 0.1}, {"schedule.final": 0.2}]
DECAYS = [{"schedule.decay": "10 %"}, {"schedule.decay": "20 %"}]
WARMUPS = [{"schedule.warmup": "1 steps"}, {"schedule.warmup": "4 steps"}]
TOKENS = {"train.duration": "16000 tokens"}


@pytest.fixture(scope="module")
def base(text_folder) -> Path:
    (text_folder / "s.py").write_text(CONFIG.replace("text.txt", f"{text_folder}/text.txt"))
    return text_folder / "s.py"


def rungs(base: Path, tmp_path: Path, trials: list, overrides: dict, text: str) -> Rungs:
    content = {"config": str(base), "trials": trials}
    content["overrides"] = {"data.cache": f"{base.parent}/cache"} | overrides
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    plan = expand.plan(str(tmp_path / "sweep.json"), {})
    return Rungs(plan.trials, stopping("asha", text, ""), tmp_path)


@pytest.mark.parametrize(
    "trials,overrides,text",
    [
        ([{"seed": 0}, {"seed": 1}], {}, "10 steps,50 %"),
        (BATCHES, TOKENS, "2000 tokens,5000 tokens"),
        (BATCHES, TOKENS, "10 %,30 %"),
        (LENGTHS, {"schedule.name": "constant"}, "10 steps"),
        (LENGTHS, WSD, "2000 tokens"),
        ([{"optimizer.learning_rate": 0.1}, {"optimizer.learning_rate": 0.2}], WSD, "95 %"),
        (WARMUPS, {}, "50 %"),
    ],
)
def test_equal_tokens_of_schedules_that_agree_so_far_are_compared(
    base, tmp_path, trials, overrides, text
):
    found = rungs(base, tmp_path, trials, overrides, text)
    assert set(found.counts.values()) == {len(text.split(","))}


@pytest.mark.parametrize(
    "trials,overrides,text,message",
    [
        (LENGTHS, {}, "10 steps", "train.duration is 11.5k tokens in t-.* and 23k tokens in t-.*; "
         "schedule.name='cosine' depends on it up to the rung '10 steps', so use wsd or constant, "
         "or let it be the same in all"),
        (LENGTHS, {"schedule.name": "linear"}, "10 %", "schedule.name='linear' depends on it"),
        (LENGTHS, WSD, "10000 tokens", "train.duration is .* let the rungs end before the decay"),
        (LENGTHS, {"schedule.name": "constant"}, "10 %", "the rung '10 %' is 1.15k tokens in "
         ".* and 2.3k tokens in .*; give --rungs in tokens"),
        (BATCHES, TOKENS, "10 steps", "the rung '10 steps' is .*; give --rungs in tokens"),
        ([{"schedule.name": "cosine"}, WSD], {}, "10 %", "schedule.name is 'cosine' in"),
        (FINALS, {}, "10 %", "schedule.final is 0.1 in"),
        (DECAYS, WSD, "85 %", "schedule.decay is"),
        (WARMUPS, {}, "3 steps", "schedule.warmup is 128 tokens in .* and 512 tokens in .*; let "
         "the rung '3 steps' come after it"),
        ([{"eval.sequences": 8}, {"eval.sequences": 16}], {}, "10 %", "eval.sequences is 8 in"),
        (LENGTHS, WSD | {"checkpoint.share_trunks": True, "schedule.warmup": "2 steps"}, "10 steps",
         "drop checkpoint.share_trunks=True"),
        ([{"seed": 0}], {}, "50 %,10 %", "rungs=50 %,10 % is steps [45, 9] of t-.*; let them rise"),
        ([{"seed": 0}], {}, "0 steps", "rungs=0 steps is steps [0] of"),
    ],
)  # fmt: skip
def test_what_is_not_comparable_is_refused(base, tmp_path, trials, overrides, text, message):
    pattern = re.escape(message).replace(r"\.\*", ".*")
    with pytest.raises(ValueError, match=pattern):
        rungs(base, tmp_path, trials, overrides, text)


def test_held_out_trials_are_never_stopped_nor_compared(base, tmp_path):
    larger = {"train.duration": "900 steps", "holdout": True}
    found = rungs(base, tmp_path, [{"seed": 0}, {"seed": 1}, larger], {}, "10 %")
    found.look(set())
    taken = iter(found.take, None)
    assert [planned.config.checkpoint.stop_at for planned in taken] == ["9 steps", "9 steps"]


def test_a_trial_that_ends_before_a_rung_has_fewer_rungs(base, tmp_path):
    found = rungs(
        base, tmp_path, LENGTHS, WSD | {"schedule.decay": "1 steps"}, "60 steps,100 steps"
    )
    assert sorted(found.counts.values()) == [1, 2]


def test_the_outlook_counts_what_each_rung_lets_go_on(base, tmp_path):
    found = rungs(base, tmp_path, [{"seed": s} for s in range(9)], {}, "10 steps,30 steps")
    (planned, *_) = found.trials.values()
    assert rung_steps(planned, found.rule) == (10, 30)
    # 9 trials to 10 steps, 3 to 30, 1 to 90
    spent, whole = planned.flops * (90 + 60 + 60) / 90, 9 * planned.flops
    assert f"about {spent:.3g} of {whole:.3g} FLOPs".replace("+0", "") in found.outlook()


def test_a_folder_keeps_its_rungs(base, tmp_path, monkeypatch):
    write_json(tmp_path / "stopping.json", {"rungs": ["10 %"], "table": []})
    assert rungs(base, tmp_path, [{"seed": 0}], {}, "10 %")
    message = f"rungs=20 %, but --workdir={tmp_path} has trials that were stopped at 10 %; give it"
    with pytest.raises(ValueError, match=re.escape(message)):
        rungs(base, tmp_path, [{"seed": 0}], {}, "20 %")


@pytest.mark.parametrize(
    "flags,message",
    [
        (["--stop=ahsa"], "stop=ahsa is unknown; use one of successive_halving, asha, median"),
        (["--stop=asha", "--keep=3"], "keep=3 is not a share of the trials between 0 and 1"),
        (["--stop=asha", "--keep=1/0"], "keep=1/0 is not a share"),
        (["--stop=median", "--keep=1/2"], "keep=1/2 is not for stop=median"),
        (["--rungs=10 %"], "rungs=10 % says how trials are stopped; add --stop=asha"),
        (["--keep=1/2"], "keep=1/2 says how trials are stopped; add --stop=asha"),
        (["--stop=asha", "--rungs=1e6"], "rungs='1e6' is not a duration"),
        (["--stop=asha", "--rungs=1 epochs"], "rungs='1 epochs' is in none of tokens, %, steps"),
        (["--stop=asha", "--population=4"], "population=4 trains trials together to their end"),
    ],
)
def test_bad_flags_are_refused(base, tmp_path, monkeypatch, flags, message):
    monkeypatch.setitem(RUNNERS, "local", Inline())
    given = [f"--config={base}", f"--workdir={tmp_path}/runs", *flags]
    with pytest.raises(BadInput, match=re.escape(message)):
        sweep.main(given)
    assert not (tmp_path / "runs").exists()
