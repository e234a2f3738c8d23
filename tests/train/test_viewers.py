"""Samples of text and TensorBoard files: what they hold, and that they change no number."""

import json
import shutil
import struct
from pathlib import Path

import jax
import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from configs import base
from configs.chat import TEMPLATES
from data import tokenizer as tokenizers
from data.chat.encoding import ChatEncoder, template_of
from launch.config import config_file
from launch.trial import run as trial
from launch.trial.identity import trial_id
from launch.trial.resolve import prepare, resolve
from model.transformer import family as decoder
from train.metrics import MetricsLog
from train.viewers import samples
from train.viewers.tensorboard import hyperparameters

pytestmark = pytest.mark.usefixtures("compiled_once")
KEYS = {
    "model.n_layers": 1, "model.d_model": 8, "model.n_heads": 1, "model.context_length": 16,
    "train.batch_size": 4, "train.duration": "12 steps", "train.chunk": 4, "log.every": "4 steps",
    "eval.sequences": 4, "eval.batch_size": 4, "eval.every": "12 steps",
    "checkpoint.every": "4 steps", "checkpoint.keep_last": 3, "optimizer.learning_rate": 0.1,
}  # fmt: skip
SAMPLED = {"log.samples": "25 %", "log.prompts": ("to ", ""), "log.sample_tokens": 6}


def config(home: Path, **changes):
    text = {"data.corpora": str(home / "text.txt"), "data.cache": str(home / "cache")}
    return config_file.load_config("configs/base.py", KEYS | text | changes)


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in open(file)]


def events(folder: Path) -> list[Event]:
    """The events of every file of a TensorBoard folder: length, two checksums and the message."""
    found = []
    for file in sorted(folder.glob("events*")):
        raw, at = file.read_bytes(), 0
        while at < len(raw):
            (size,) = struct.unpack("<Q", raw[at : at + 8])
            found.append(Event.FromString(raw[at + 12 : at + 12 + size]))
            at += 16 + size
    return found


@pytest.fixture(scope="module")
def pair(text_folder) -> tuple[Path, Path]:
    """The folders of the same trial without and with samples and TensorBoard."""
    folders = text_folder / "plain", text_folder / "sampled"
    assert trial.run(config(text_folder, **{"log.tensorboard": False}), folders[0]) == 0
    assert trial.run(config(text_folder, **SAMPLED), folders[1]) == 0
    return folders


@pytest.mark.slow
def test_samples_change_no_number_and_no_id(pair):
    timing = ("seconds", "tokens_per_second", "model_flops_per_second", "mfu")
    found = []
    for folder in pair:
        logged = rows(folder / "metrics.jsonl")
        found.append([{k: v for k, v in row.items() if k not in timing} for row in logged])
    plain, sampled = [{row["step"]: row for row in one if "loss" in row} for one in found]
    # Samples end a chunk, not a row: the same rows, bit for bit.
    assert plain == sampled and len(plain) == 3
    losses = [json.loads((folder / "result.json").read_text())["eval_loss"] for folder in pair]
    assert losses[0] == losses[1]
    ids = [json.loads((folder / "result.json").read_text())["id"] for folder in pair]
    assert ids[0] == ids[1]
    assert not (pair[0] / "samples.jsonl").exists()


def test_each_prompt_has_a_text_at_each_time(pair):
    found = rows(pair[1] / "samples.jsonl")
    assert [(row["step"], row["prompt"]) for row in found] == [
        (step, prompt) for step in (3, 6, 9, 12) for prompt in ("to ", "")
    ]
    assert {row["tokens"] for row in found} == {step * 4 * 16 for step in (3, 6, 9, 12)}
    assert len({row["text"] for row in found}) > 2  # the model changes


@pytest.mark.slow
def test_the_last_samples_are_those_that_the_verb_draws_with_seed_0(pair):
    from launch.verbs.models import sample

    found = rows(pair[1] / "samples.jsonl")
    out = pair[1] / "drawn.json"
    command = [f"--run={pair[1]}", "--prompt=to ", "--tokens=6", "--seed=0", f"--json={out}"]
    assert sample.main(command) == 0
    assert json.loads(out.read_text())["samples"][0]["text"] == found[-2]["text"]
    # The second prompt draws as the second sample does, not as the first.
    command = [f"--run={pair[1]}", "--n=2", "--tokens=6", "--seed=0", f"--json={out}"]
    assert sample.main(command) == 0
    first, second = json.loads(out.read_text())["samples"]
    assert second["text"] == found[-1]["text"] != first["text"]


def test_a_resumed_run_has_every_sample_once(pair, tmp_path):
    log, home = MetricsLog(tmp_path), rows(pair[1] / "samples.jsonl")
    log.rewind(0)
    for row in home:
        log.write_sample(row)
    (tmp_path / "samples.jsonl").open("a").write('{"step": 12, "text": "cut off by a ki')
    resumed = MetricsLog(tmp_path)
    resumed.rewind(8)
    assert rows(tmp_path / "samples.jsonl") == home[:4]


@pytest.mark.slow
def test_a_run_resumed_from_an_earlier_checkpoint_writes_the_same_samples(pair, text_folder):
    again = text_folder / "again"
    shutil.copytree(pair[1], again)
    (again / "result.json").unlink()
    for later in (again / "checkpoints").glob("[0-9]*"):
        if int(later.name) > 4:
            shutil.rmtree(later)
    assert trial.run(config(text_folder, **SAMPLED), again) == 0
    assert rows(again / "samples.jsonl") == rows(pair[1] / "samples.jsonl")
    kinds = [value.tag for event in events(again / "tensorboard") for value in event.summary.value]
    assert kinds.count("_hparams_/session_start_info") == 1


def test_tensorboard_has_scalars_texts_and_one_row_of_hyperparameters(pair):
    found: dict[str, list] = {}
    for event in events(pair[1] / "tensorboard"):
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value))
    assert [step for step, _ in found["loss"]] == [4, 8, 12] and "step" not in found
    assert {"samples/text_summary", "samples/to /text_summary"} <= set(found)
    (_, last) = found["samples/to /text_summary"][-1]
    drawn = rows(pair[1] / "samples.jsonl")[-2]
    shown = last.tensor.string_val[0].decode()
    assert shown.replace("\n    ", "\n")[4:-1] == drawn["prompt"] + drawn["text"]
    hparams = {}
    assert "_hparams_/experiment" not in found  # it would hide which keys differ
    for tag in ("session_start_info", "session_end_info"):
        ((_, value),) = found[f"_hparams_/{tag}"]  # once each
        hparams[tag] = HParamsPluginData.FromString(value.metadata.plugin_data.content)
    given = hparams["session_start_info"].session_start_info.hparams
    resolved = json.loads((pair[1] / "config.json").read_text())
    assert set(given) == set(hyperparameters(resolved)) and {"eval_loss", "loss"} <= set(found)
    assert given["train.duration"].number_value == 12  # steps
    assert given["optimizer.learning_rate"].number_value == 0.1
    assert given["model.qk_norm"].WhichOneof("kind") == "bool_value"


def test_hyperparameters_have_the_same_keys_and_types_in_all_trials(text_folder):
    changes = [
        {},
        {"optimizer.learning_rate": 1, "model.qk_norm": True, "optimizer.clip_norm": 0},
        {"schedule.name": "wsd", "train.duration": "256 tokens", "model.positions": "rotary"},
    ]
    kinds = []
    for change in changes:
        given = config(text_folder, **change)
        found = hyperparameters(resolve(given, prepare(given)))
        kinds.append({key: type(value) for key, value in found.items()})
    assert kinds[0] == kinds[1] == kinds[2] and set(kinds[0].values()) == {bool, float, str}
    assert not any(key.startswith(("log.", "checkpoint.", "data.")) for key in kinds[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"log.samples": "often"}, "log.samples='often' is not a duration"),
        ({"log.sample_tokens": 20}, "log.sample_tokens=20 after '' of log.prompts"),
        ({"log.prompts": ("to be or not that",)}, "(tokens: 17) do not fit"),
    ],
)
def test_samples_that_cannot_be_drawn_are_refused(changes, message, text_folder):
    given = config(text_folder, **SAMPLED | {"log.prompts": ("",)} | changes)
    with pytest.raises(ValueError, match=r"log\.") as refused:
        resolve(given, prepare(given))
    assert message in str(refused.value)


@pytest.mark.parametrize("kind", ["conversations", "tasks"])
def test_prompts_of_a_run_with_a_template_are_messages(kind, tmp_path, monkeypatch):
    """What is drawn from is what the model is trained on: the encoder's own prompt, up to its end
    token, which is not the end of a document here."""
    chatml = TEMPLATES["chatml"]
    golden = Path(__file__).parents[1] / "golden" / "chat_templates.json"
    (tmp_path / "tokenizer.json").write_text(
        json.dumps(json.loads(golden.read_text())["tokenizer"])
    )
    tokenizer = tokenizers.from_spec(str(tmp_path / "tokenizer.json"))
    given = base.get_config(objective="grpo" if kind == "tasks" else "next_token", kind=kind)
    given.data.template, given.log.prompts = chatml, ("hi", "", "ho")
    encoder = ChatEncoder(tokenizer, template_of(chatml))
    assert encoder.end != tokenizer.eod
    ends = tuple(sorted({tokenizer.eod, encoder.end}))  # those of `isoflop sample`
    asked = {}

    def generate(cfg, params, prompts, n_tokens, seed, vocab_size, stop):
        asked[stop] = prompts
        return [[*tokenizer.encode(f" {len(prompt)}")] for prompt in prompts]

    monkeypatch.setattr(decoder, "generate", generate)
    drawn = samples.draw(given, None, {}, tokenizer, jax.devices()[0])
    messages = [[{"role": "user", "content": text}] for text in ("hi", "ho")]
    assert asked == {
        ends: [encoder.prompt(one).tolist() for one in messages],
        (tokenizer.eod,): [[tokenizer.eod]],
    }
    said = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert asked[ends][0] == tokenizer.encode_prompt(said).tolist()
    length = len(asked[ends][0])
    assert drawn == [
        {"prompt": "hi", "text": f" {length}"},
        {"prompt": "", "text": " 1"},
        {"prompt": "ho", "text": f" {length}"},
    ]
    # Without a template a prompt is running text, as in a run of text.
    given.data.template = ""
    plain = tokenizer.encode_prompt("hi").tolist()
    assert samples.start(given, tokenizer, "hi") == (plain, (tokenizer.eod,))


def test_samples_of_a_family_or_data_without_text_are_refused(text_folder, monkeypatch):
    given = config(text_folder, **SAMPLED)
    with pytest.raises(ValueError, match=r"data\.kind='text' has no tokenizer"):
        samples.check(given, None)
    from model.transformer import family

    monkeypatch.delattr(family, "generate")
    with pytest.raises(ValueError, match=r"model\.family='decoder' does not generate text"):
        samples.check(given, object())


def test_no_samples_is_the_same_trial(text_folder):
    ids = set()
    for change in ({}, SAMPLED, {"log.samples": "0 %"}):
        given = config(text_folder, **change)
        resolved = resolve(given, prepare(given))
        ids.add(trial_id(resolved))
    assert len(ids) == 1 and resolved.log.samples == ""
