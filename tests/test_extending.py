"""Tests the examples of docs/extending.md: each is read from the page, registered and used."""

import ast
import importlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from configs import space
from launch.config import config_file
from launch.runners import RUNNERS
from launch.search.asked import Asked
from launch.sweep.search import SEARCHES
from launch.trial import run as trial
from launch.trial.identity import identity, trial_id
from launch.trial.resolve import prepare, resolve, resolve_sizes
from launch.verbs.models import sweep
from launch.verbs.results import fit
from model.families import FAMILIES
from scaling.laws import LAWS
from scaling.runs import read_runs
from tests.test_imports import wrong
from train.ahead_of_time.compiled import abstract_chunk
from train.checkpoint import restore_params
from train.loop import step_config
from train.objectives import OBJECTIVES
from train.parallel.mesh import MeshError, make_mesh
from train.parallel.sharding import parameter_specs

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"
LONGEST = 60  # lines of an example, not counting blank lines
PARTS = (
    "A model family",
    "An objective",
    "A kind of data",
    "A runner",
    "A search",
    "A law",
    "An optimiser",
)
FILE = re.compile(r"^File `(\S+\.py)`:\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EDIT = re.compile(
    r"^In `(\S+)\.py`, add the import and an entry of `(\w+)`:\n\n    (from .+)\n    (.+)$",
    re.MULTILINE,
)

# A trial with the example family, objective and data, whose entropy is KNOWN nats per token.
KEYS = {
    "model.family": "context_mean", "objective.name": "focal", "data.kind": "counting",
    "model.context_length": 16, "model.d_model": 16, "model.d_ff": 32, "model.span": 2,
    "data.noise": 0.25, "train.batch_size": 32, "train.duration": "40 steps", "train.chunk": 10,
    "eval.sequences": 32, "eval.every": "50 %", "log.every": "10 steps", "log.tensorboard": False,
    "optimizer.learning_rate": 0.02,
}  # fmt: skip
FAMILY_KEYS = ("model.d_model", "model.d_ff", "model.span")
JUMP = 0.25 / 16
KNOWN = -(0.75 + JUMP) * np.log(0.75 + JUMP) - 15 * JUMP * np.log(JUMP)


def sections(page: str) -> dict[str, str]:
    """The text under each heading of a part that is added to the repository."""
    pieces = re.split(r"^## (.+)$", page, flags=re.MULTILINE)[1:]
    found = dict(zip(pieces[::2], pieces[1::2], strict=True))
    del found["In a file of your own"]  # tests/test_extending_by_import.py
    return found


def example(text: str) -> tuple[str, str, re.Match]:
    """(path, source, edit of the table's file) of the example in a section.

    Raises ValueError unless the section has exactly one example and it is short enough.
    """
    files, edits = FILE.findall(text), list(EDIT.finditer(text))
    if len(files) != 1 or text.count("```") != 2 or len(edits) != 1:
        raise ValueError(f"{len(files)} files and {len(edits)} edits in place of one of each")
    path, source = files[0]
    size = sum(bool(line.strip()) for line in source.splitlines())
    if size > LONGEST:
        raise ValueError(f"{path} has {size} lines, more than {LONGEST}")
    return path, source, edits[0]


def edited(file: str, table: str, imports: str, entry: str) -> tuple[ModuleType, ModuleType]:
    """The module of the table, and a copy of it with the page's edits applied to its source."""
    home = importlib.import_module(file.removesuffix("/__init__").replace("/", "."))
    tree = ast.parse(Path(home.__file__).read_text())
    added = ast.parse(f"{{{entry}}}").body[0].value
    targets = [(getattr(node, "target", None) or getattr(node, "targets", [None])[0])
               for node in tree.body]  # fmt: skip
    place = [getattr(target, "id", "") for target in targets].index(table)
    literal = tree.body[place].value
    for field in ("keys", "values", "elts"):
        getattr(literal, field, []).extend(getattr(added, field, []))
    tree.body[place:place] = ast.parse(imports).body
    copy = ModuleType(home.__name__)
    copy.__package__ = home.__package__
    exec(compile(tree, home.__file__, "exec"), vars(copy))
    return home, copy


@pytest.fixture(scope="module", autouse=True)
def added() -> Iterator[dict[str, ModuleType]]:
    """The example modules by name, registered as the page says."""
    found, patch = {}, pytest.MonkeyPatch()
    for text in sections(PAGE.read_text()).values():
        path, source, edit = example(text)
        name = path.removesuffix(".py").replace("/", ".")
        module = ModuleType(name)
        patch.setitem(sys.modules, name, module)
        exec(compile(source, path, "exec"), vars(module))
        home, copy = edited(*edit.groups())
        table = "LAWS" if edit[2] == "FILES" else edit[2]  # LAWS is made from the tuple FILES
        known, changed = getattr(home, table), getattr(copy, table)
        (new,) = set(changed) - set(known)
        assert new == Path(path).stem
        patch.setitem(known, new, changed[new])
        found[new] = module
    yield found
    patch.undo()


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of a trial with the example family, objective and kind of data."""
    workdir = tmp_path_factory.mktemp("runs") / "trained"
    assert trial.run(config(), workdir) == 0
    return workdir


def config(**changes):
    keys = KEYS | changes
    if keys["model.family"] == "ngram":
        keys = {key: value for key, value in keys.items() if key not in FAMILY_KEYS}
    return config_file.load_config("configs/base.py", keys)


def result(workdir: Path) -> dict:
    return json.loads((workdir / "result.json").read_text())


def losses(workdir: Path) -> list[float]:
    rows = [json.loads(line) for line in open(workdir / "metrics.jsonl")]
    return [row["loss"] for row in rows if "loss" in row]


def test_every_part_has_one_short_example_that_imports_downwards():
    found = sections(PAGE.read_text())
    assert tuple(found) == PARTS
    for text in found.values():
        path, source, _ = example(text)
        assert wrong(path.partition("/")[0], source) == set()
        assert not (PAGE.parents[1] / path).exists()  # the examples are not part of the code
    for broken in (
        found["A law"].replace("```python", "```"),
        found["A law"].replace("add the import", "add"),
        found["A law"].replace("LAWS = (", "x = 1\n" * 60 + "LAWS = ("),
    ):
        with pytest.raises(ValueError):
            example(broken)


@pytest.mark.parametrize("part", PARTS)
def test_an_entry_needs_the_import_that_the_page_shows(part):
    file, table, imports, entry = example(sections(PAGE.read_text())[part])[2].groups()
    assert len(getattr(edited(file, table, imports, entry)[1], table)) > 1
    with pytest.raises(NameError, match=imports.rpartition(" ")[2]):
        edited(file, table, "", entry)


def test_a_family_an_objective_and_a_kind_of_data_are_trained(trained):
    written = result(trained)
    names = [written[key] for key in ("family", "objective", "status")]
    assert names == ["context_mean", "focal", "done"]
    values = losses(trained)
    assert values[0] > values[-1] + 0.5
    assert KNOWN - 0.1 < written["eval_loss"] < values[0] - 0.5
    assert set(written["metrics"]) == {"loss", "accuracy"}  # no bytes, so no bits per byte
    accuracy = written["metrics"]["accuracy"]
    assert accuracy["better"] == "higher" and 0 < accuracy["se"] < accuracy["value"] <= 0.9
    assert written["epochs_of_data"] == 0 and written["dataset"] == "counting-1-16-0.25"
    params, _ = restore_params(trained / "checkpoints")
    sizes = {"embedding": params["embed"], "mlp": params["up"], "head": params["head"]}
    assert written["params"] == {
        name: sum(x.size for x in jax.tree.leaves(part)) for name, part in sizes.items()
    }
    assert set(params) == {"embed", "up", "head"}


def test_the_family_is_causal_and_sees_its_span(trained):
    params, _ = restore_params(trained / "checkpoints")
    family, cfg = FAMILIES["context_mean"], FAMILIES["context_mean"].Config(16, 16, 16, 32, 2)
    tokens = np.arange(16)[None] % 16
    plain = family.hidden(cfg, params, {"tokens": tokens})
    changed = family.hidden(cfg, params, {"tokens": np.where(tokens == 5, 0, tokens)})
    differs = np.abs(np.asarray(plain - changed)).max((0, 2)) > 0
    assert np.flatnonzero(differs).tolist() == [5, 6]


def test_the_objective_without_focus_is_cross_entropy():
    sums = {}
    for gamma in (0.0, 2.0):
        step, params, batch = parts(**{"objective.gamma": gamma})
        objective = OBJECTIVES["focal"]
        minimised, found = jax.jit(objective.loss, static_argnums=(0, 3))(
            FAMILIES["context_mean"], params, {}, step, batch, jax.random.key(0)
        )
        sums[gamma] = [float(minimised), float(found["loss"][0])]
    assert sums[0.0][0] == pytest.approx(sums[0.0][1], rel=1e-6)
    assert sums[2.0][0] < 0.99 * sums[2.0][1] and sums[2.0][1] == pytest.approx(sums[0.0][1])


def parts(**changes):
    """StepConfig, initial parameters and one batch of a trial."""
    resolved = resolved_trial(**changes)
    step = step_config(resolved)
    params = FAMILIES[step.family].init(step.model, jax.random.key(0))
    batch = prepare(resolved).for_run(resolved).batch("train", 0, 0)
    return step, params, batch


def resolved_trial(**changes):
    given = config(**changes)
    return resolve(given, prepare(given))


def test_batches_are_a_pure_function_of_seed_step_and_row():
    resolved = resolved_trial()
    one, two = (prepare(resolved).for_run(resolved) for _ in range(2))
    batch = one.batch("train", 0, 3)
    assert {name: array.shape for name, array in batch.items()} == dict.fromkeys(
        ("tokens", "targets", "weights"), (32, 16)
    )
    for name, field in one.spec().items():
        assert batch[name].dtype == field.dtype and batch[name].shape[1:] == field.shape
        assert (two.batches("train", 0, 2, 2)[name][1] == batch[name]).all()
        assert (two.batch("train", 0, 3, np.array([5, 30]))[name] == batch[name][[5, 30]]).all()
    for other in (("train", 1, 3), ("train", 0, 4), ("validation", 0, 3)):
        assert (one.batch(*other)["tokens"] != batch["tokens"]).any()
    assert (batch["targets"][:, :-1] == batch["tokens"][:, 1:]).all()
    follows = (batch["tokens"] + 1) % 16 == batch["targets"]
    assert follows.mean() == pytest.approx(0.75 + JUMP, abs=0.06)


def test_a_key_at_its_default_is_not_in_the_id():
    default = resolved_trial(**{"data.noise": 0.1})
    keys = identity(default)
    assert {"model.family", "objective.name", "data.kind", "data.hash"} <= set(keys)
    assert not {"objective.gamma", "data.noise", "data.symbols"} & set(keys)
    assert identity(resolved_trial(**{"objective.gamma": 1.0}))["objective.gamma"] == 1.0
    ids = {trial_id(resolved_trial(**{"objective.gamma": gamma})) for gamma in (0.5, 1.0, 2.0)}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.span": 0}, "model.span=0 must be at least 1"),
        ({"objective.gamma": -1.0}, "objective.gamma=-1.0 must be 0 or more"),
        ({"model.vocab_size": 8}, "smaller than the 16 tokens of data.kind='counting'; use 16"),
        ({"train.duration": "2 epochs"}, "train.duration='2 epochs': this run has no epochs"),
        (
            {"model.family": "ngram"},
            "'ngram' is counted from whole texts, which data.kind='counting' does not",
        ),
    ],
)
def test_bad_values_are_one_line(tmp_path, capsys, changes, message):
    assert trial.run(config(**changes), tmp_path / "refused") == 2
    error = capsys.readouterr().err.splitlines()
    assert message in error[-1] and error[-1].startswith("isoflop: ")


def test_it_is_traced_without_data_and_sharded():
    resolved = resolve_sizes(config(), 1)
    _, state, batches, _ = abstract_chunk(resolved, make_mesh({"fsdp": 1}, jax.devices()[:1]))
    assert batches["tokens"].shape == (10, 32, 16)
    assert state.params["head"]["kernel"].shape == (32, 16)
    axes = FAMILIES["context_mean"].PARAMETER_AXES
    specs = parameter_specs(state.params, axes, AbstractMesh((2, 4), ("fsdp", "tensor")))
    spread = PartitionSpec(("fsdp",), ("tensor",))
    assert specs["up"]["kernel"] == specs["head"]["kernel"] == spread
    assert specs["embed"]["embedding"] == PartitionSpec(("tensor",), ("fsdp",))
    with pytest.raises(MeshError, match=r"embed/embedding: dimension 'vocab' = 16 .* divisible by"):
        parameter_specs(state.params, axes, AbstractMesh((2, 3), ("fsdp", "tensor")))


def test_an_unknown_logical_axis_is_named(tmp_path, monkeypatch, capsys, added):
    axes = ((r"^embed/embedding$", ("vocab", "width")), (r"", ("embed", "vocab")))
    monkeypatch.setattr(added["context_mean"], "PARAMETER_AXES", axes)
    assert trial.run(config(), tmp_path / "axes") == 2
    assert (
        "embed/embedding: the logical axis 'width' is not in MESH_AXES" in capsys.readouterr().err
    )


def test_the_optimiser_trains(tmp_path, trained):
    assert trial.run(config(**{"optimizer.name": "adabelief"}), tmp_path / "belief") == 0
    values = losses(tmp_path / "belief")
    assert values[0] > values[-1] + 0.5
    assert result(tmp_path / "belief")["hyperparameters"]["optimizer"] == "adabelief"
    assert values[-1] != losses(trained)[-1]


def test_a_law_of_its_own_metric_reads_its_runs(trained):
    law = replace(LAWS["params_only_without_floor"], response="accuracy", better="up")
    points, accuracy = read_runs(trained, law), result(trained)["metrics"]["accuracy"]
    assert points.other["accuracy"].tolist() == [accuracy["value"]]
    assert points.other["accuracy_se"].tolist() == [accuracy["se"]]


def test_the_runner_runs_a_sweep(tmp_path, capsys, monkeypatch):
    trials = [{"seed": 1}, {"seed": 2, "train.batch_size": 64}]
    content = {"config": "configs/base.py", "overrides": KEYS, "trials": trials, "doc": ""}
    (tmp_path / "sweep.json").write_text(json.dumps(content))
    command = [f"--config={tmp_path}/sweep.json", f"--workdir={tmp_path}/runs", "--on=inline"]
    assert sweep.main([*command, "--dry_run"]) == 0
    assert "2 trials" in capsys.readouterr().out
    assert sweep.main([*command, "--nofit"]) == 0
    found = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/result.json")]
    assert sorted(one["seed"] for one in found) == [1, 2]
    assert all(one["status"] == "done" and one["sweep"] == "runs" for one in found)
    # A trial that raises is recorded as failed, with its log, and the sweep continues.
    monkeypatch.setattr(trial, "run", lambda *_: 1 / 0)
    (tmp_path / "sweep.json").write_text(json.dumps(content | {"trials": [{"seed": 3}]}))
    assert sweep.main([*command, "--nofit"]) == 1
    failed = [one for path in tmp_path.glob("runs/*/result.json")
              if (one := json.loads(path.read_text()))["status"] == "failed"]  # fmt: skip
    assert len(failed) == 1 and "ZeroDivisionError" in failed[0]["log"][-1]
    assert RUNNERS["inline"].slots(3, RUNNERS["inline"].resources(0))[0].cores == (0,)


def test_the_search_chooses_in_its_ranges_and_goes_on():
    axes = {"a": space.uniform(0, 1), "b": [1, 2], "c": 7}
    whole = SEARCHES["halton"].ask(space.search("halton", axes, trials=8), [])
    assert len(whole) == 8 and {one["b"] for one in whole} == {1, 2}
    assert sorted(int(8 * one["a"]) for one in whole) == list(range(8))  # one in each eighth
    some = SEARCHES["halton"].ask(space.search("halton", axes, trials=8), [Asked(whole[0])])
    assert some == whole[1:]


def test_the_law_is_fitted_by_the_verb(tmp_path, capsys):
    true = {"A": 30.0, "E": 1.5, "alpha": 0.3, "beta": 0.1}
    n, x = (v.ravel() for v in np.meshgrid(np.geomspace(1e5, 1e8, 6), [1, 2, 4, 8]))
    loss = true["E"] + true["A"] * n ** -true["alpha"] * x ** -true["beta"]
    lines = [f"{a},{b},{c}" for a, b, c in zip(n.tolist(), x.tolist(), loss.tolist(), strict=True)]
    table, out = tmp_path / "points.csv", tmp_path / "law.json"
    table.write_text("\n".join(["params,num_experts,loss", *lines]) + "\n")
    assert fit.main([f"--table={table}", "--law=experts", f"--json={out}", "--draws=0"]) == 0
    found = json.loads(out.read_text())["parametric"]
    assert found["constants"] == ["A", "E", "alpha", "beta"]
    for name, value in true.items():
        assert found[name]["value"] == pytest.approx(value, rel=1e-3)
    assert "L(N, X) = E + A N^-α X^-β" in capsys.readouterr().out
