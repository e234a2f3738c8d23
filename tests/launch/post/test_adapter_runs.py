"""Tests of whole runs that train adapters: files, resuming, other bases, conversion."""

import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from launch.__main__ import main as isoflop
from launch.restored import family_of, restored
from launch.trial import run as trial
from launch.trial import start
from model import parameters
from tests.launch import toy
from tests.launch.trial.test_seams import process
from train.checkpoint import restore_params

KEYS = {
    "model.family": "decoder", "objective.name": "next_token", "model.d_model": "64",
    "model.n_layers": "1", "model.n_heads": "2", "train.duration": "8 steps",
    "eval.every": "8 steps", "checkpoint.every": "4 steps",
}  # fmt: skip


@pytest.fixture(scope="module")
def home(text_folder, compiled_once) -> Path:
    """A folder with a run `base` and a run `lora` on top of it."""
    assert trial.run(toy.config(text_folder, **KEYS), text_folder / "base") == 0
    assert trial.run(toy.config(text_folder, **adapted(text_folder)), text_folder / "lora") == 0
    return text_folder


def adapted(home: Path, **keys) -> dict[str, str]:
    lora = {
        "train.init_from": str(home / "base"), "adapter.name": "lora", "adapter.rank": "2",
        "adapter.base_dtype": "nf4", "adapter.dropout": "0.1",
    }  # fmt: skip
    return KEYS | lora | keys


def flat(run: Path) -> dict[str, np.ndarray]:
    return parameters.flat(restore_params(run / "checkpoints")[0])


def result(run: Path) -> dict:
    return json.loads((run / "result.json").read_text())


@pytest.mark.slow
def test_a_run_holds_its_adapters_alone_and_counts_them(home):
    held, told, of_base = flat(home / "lora"), result(home / "lora"), result(home / "base")
    assert all("/lora_" in path for path in held)
    assert told["params_trained"] == told["params"]["adapter"] == sum(x.size for x in held.values())
    assert told["params"].items() >= of_base["params"].items()
    assert told["parent"]["init_hash"] == start.hash_of(start.load(home / "base").params)
    n, added = sum(of_base["params"].values()), told["params_trained"]
    assert told["flops"]["6nd"] == (4 * n + 6 * added) * told["tokens"]
    assert told["id"] != of_base["id"] and told["eval_loss"] < of_base["eval_loss"]


@pytest.mark.slow
def test_verbs_read_the_merged_model(home):
    family, cfg = family_of(home / "lora")
    params, step = restored(home / "lora", family, cfg)
    assert step == 8 and params.keys() == start.load(home / "base").params.keys()
    found = {}
    for run in ("lora", "base"):
        report = home / f"{run}.json"
        assert isoflop(["evaluate", f"--run={home / run}", "--ngram=0", f"--json={report}"]) == 0
        found[run] = json.loads(report.read_text())["bits_per_byte"]
    assert found["lora"] < found["base"]


@pytest.mark.slow
def test_adapters_of_other_weights_are_refused(home, capsys):
    shutil.copytree(home / "base", home / "moved")
    keys = adapted(home, **{"train.init_from": str(home / "moved")})
    assert trial.run(toy.config(home, **keys), home / "on_moved") == 0
    shutil.rmtree(home / "moved")
    other = toy.config(home, **KEYS, seed="3")
    assert trial.run(other, home / "moved") == 0
    start._load.cache_clear()  # it knows folders by the names of their checkpoints
    with pytest.raises(ValueError, match="holds adapters of weights with the hash"):
        start.of_run(home / "on_moved")
    capsys.readouterr()


def test_weights_are_read_again_when_the_base_of_an_adapter_changes(tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder, name, content in (
        (base, "config.json", {"model_type": "llama"}),
        (base, "model.safetensors", {}),
        (adapter, "adapter_config.json", {
            "peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": str(base)}),
        (adapter, "adapter_model.safetensors", {}),
    ):  # fmt: skip
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    stamps = [start._stamp(adapter, "train.init_from")]
    assert start._stamp(adapter, "train.init_from") == stamps[0]
    for file in (base / "model.safetensors", adapter / "adapter_config.json"):
        os.utime(file, ns=(0, 10**9 * len(stamps)))
        stamps.append(start._stamp(adapter, "train.init_from"))
    assert len(set(stamps)) == 3


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"train.init_from": ""}, "changes the weights of train.init_from, which is empty"),
        ({"adapter.rank": "65"}, "adapter.rank=65 is above the dimensions 64 × 64"),
        ({"adapter.name": ""}, "adapter.rank=2, but adapter.name='' trains no adapter"),
    ],
)
def test_bad_adapters_end_with_one_line(home, capsys, keys, message):
    assert trial.run(toy.config(home, **adapted(home, **keys)), home / "bad") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_memory_of_each_component_is_said_before_the_run(home, capsys):
    for name, keys in (("full", KEYS), ("packed", adapted(home))):
        assert trial.run(toy.config(home, **keys), home / f"told_{name}") == 0
        said = [line for line in capsys.readouterr().out.splitlines() if "memory of one" in line]
        assert len(said) == 1 and "optimizer" in said[0]
        assert ("frozen base" in said[0]) == (name == "packed")


@pytest.mark.slow
def test_a_round_trip_through_peft_keeps_the_model(home, capsys):
    """Of an adapter without a quantised base, whose dequantised values PEFT's folder lacks."""
    keys = adapted(home, **{"adapter.base_dtype": "", "adapter.dora": "True"})
    assert trial.run(toy.config(home, **keys), home / "dora") == 0
    assert isoflop(["convert", f"--from={home / 'dora'}", f"--to_hf={home / 'peft'}"]) == 0
    assert {p.name for p in (home / "peft").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    assert isoflop(["convert", f"--from_hf={home / 'peft'}", f"--to={home / 'again'}"]) == 0
    merged = [parameters.flat(start.of_run(home / name)[0]) for name in ("dora", "again")]
    merged.append(parameters.flat(start.load(home / "peft").params))
    base = parameters.flat(start.load(home / "base").params)
    for path, leaf in merged[0].items():
        for other in merged[1:]:
            np.testing.assert_allclose(other[path], leaf, rtol=1e-5, atol=1e-6)
    assert any(np.abs(leaf - base[path]).max() > 1e-3 for path, leaf in merged[0].items())
    target = home / "whole"
    assert isoflop(["convert", f"--from={home / 'dora'}", "--merged", f"--to_hf={target}"]) == 0
    assert (target / "model.safetensors").exists()
    written = parameters.flat(start.load(target).params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), written, merged[0])
    capsys.readouterr()


@pytest.mark.slow
def test_killed_and_resumed_it_ends_with_the_same_bits(home):
    keys = [f"{key}={value}" for key, value in adapted(home).items()]
    assert process(home, "killed", *keys, "kill_at=4") == -9
    assert not (home / "killed" / "result.json").exists()
    assert trial.run(toy.config(home, **adapted(home)), home / "killed") == 0
    one, two = flat(home / "killed"), flat(home / "lora")
    assert all(np.array_equal(one[path], leaf) for path, leaf in two.items())
