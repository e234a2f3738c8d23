"""Tests of imports: executed once, part of the id, copied, never executed unasked."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from data.buckets.lease import Unlocked
from launch import __main__
from launch.config import config_file, imports
from launch.errors import BadInput
from launch.trial.identity import identity, trial_id
from launch.trial.resolve import prepare, resolve
from launch.trial.run import begin
from model.families import FAMILIES
from scaling.laws import LAWS
from tests.launch.config.tables import restored
from train.optimizers.optimizer import OPTIMIZERS

SOURCE = """
import optax
from train.optimizers.optimizer import OPTIMIZERS

def own(h, matrices):
    return optax.trace(decay=h["b1"])

OPTIMIZERS["own"] = own
"""
KEYS = {
    "model.n_layers": 1, "model.d_model": 8, "model.n_heads": 1, "model.context_length": 8,
    "train.batch_size": 4, "train.duration": "4 steps", "eval.sequences": 4,
    "eval.batch_size": 4, "log.tensorboard": False, "optimizer.name": "own",
}  # fmt: skip


@pytest.fixture(autouse=True)
def tables() -> Iterator[None]:
    with restored():
        yield


@pytest.fixture
def lab(tmp_path) -> Path:
    """A file that registers the optimiser `own`."""
    file = tmp_path / "lab.py"
    file.write_text(SOURCE)
    return file


def config(folder: Path, **changes):
    text = {"data.corpora": str(folder / "text.txt"), "data.cache": str(folder / "cache")}
    return config_file.load_config("configs/base.py", KEYS | text | changes)


def command(verb: str, folder: Path, *more: str) -> int:
    """The exit code of a verb with the config of `config`, on the command line."""
    keys = {"data.corpora": f"{folder}/text.txt", "data.cache": f"{folder}/cache"} | KEYS
    given = [f"--config.{key}={value}" for key, value in keys.items()]
    return __main__.main([verb, "--config=configs/base.py", *given, *more])


def resolved(config):
    return resolve(config, prepare(config))


def test_a_file_is_executed_once_before_the_config_is_resolved(lab, text_folder):
    lab.write_text(SOURCE + f"open({str(lab.parent / 'count')!r}, 'a').write('x')\n")
    for _ in range(3):
        found = config(text_folder, imports=(str(lab),))
    assert (lab.parent / "count").read_text() == "x"
    assert found.imports_hash == (hashlib.sha256(lab.read_bytes()).hexdigest()[:16],)
    copy = lab.parent / "else" / "lab.py"
    copy.parent.mkdir()
    shutil.copy(lab, copy)
    assert config(text_folder, imports=(str(copy),)).imports_hash == found.imports_hash
    assert (lab.parent / "count").read_text() == "x"


def test_the_bytes_are_part_of_the_id_and_the_path_is_not(lab, text_folder):
    plain = {"optimizer.name": "adamw"}
    without = resolved(config(text_folder, **plain))
    assert "imports_hash" not in identity(without)
    # The id is what it was before there were imports.
    data = {key: value for key, value in identity(without).items() if not key.startswith("imports")}
    assert identity(without) == data
    here = resolved(config(text_folder, imports=(str(lab),), **plain))
    assert set(identity(here)) - set(data) == {"imports_hash"}
    other = lab.with_name("other.py")
    other.write_text(SOURCE)
    assert trial_id(resolved(config(text_folder, imports=(str(other),), **plain))) == trial_id(here)
    other.write_text(SOURCE.replace('"own"', '"mine"') + "# a comment\n")
    changed = resolved(config(text_folder, imports=(str(other),), **plain))
    assert len({trial_id(one) for one in (without, here, changed)}) == 3


def test_the_command_line_adds_to_the_config_and_replaces_equal_names(tmp_path):
    assert imports.joined(("a/x.py", "b.py"), ("c.py", "run/x.py")) == ("run/x.py", "b.py", "c.py")
    with pytest.raises(ValueError, match=r"two imports are called x\.py"):
        imports.joined((), ("a/x.py", "b/x.py"))


def test_a_run_keeps_a_copy_resumes_with_it_and_refuses_another_file(lab, text_folder, tmp_path, capsys):  # fmt: skip  # noqa: E501
    run = tmp_path / "run"
    train = ["train", text_folder, f"--workdir={run}", "--dry_run", f"--import={lab}"]
    given = config(text_folder, imports=(str(lab),))
    dataset = prepare(given)
    begin(resolve(given, dataset), run, dataset, Unlocked())  # what training does first
    assert (run / "imports" / "lab.py").read_text() == SOURCE
    written = json.loads((run / "config.json").read_text())
    assert written["imports"] == [str(lab)] and len(written["imports_hash"]) == 1
    # The file is gone: the same command reads the copy.
    lab.unlink()
    with restored():
        imports._executed.clear()
        OPTIMIZERS.pop("own")
        assert command(*train) == 0
        assert f"{lab} is gone; using the copy {run}/imports/lab.py" in capsys.readouterr().err
    # Without the copy there is no way, and nothing else is lost.
    (run / "imports" / "lab.py").rename(tmp_path / "kept.py")
    with restored():
        assert command(*train) == 2
        assert "there is no such file" in capsys.readouterr().err
    # A changed file is refused, with the remedy, which works.
    (tmp_path / "kept.py").rename(run / "imports" / "lab.py")
    lab.write_text(SOURCE + "# changed\n")
    remedy = f"--import={run}/imports/lab.py"
    with restored():
        OPTIMIZERS.pop("own")
        assert command(*train) == 2
        error = capsys.readouterr().err
        assert f"made with another lab.py; add {remedy}" in error
    with restored():
        OPTIMIZERS.pop("own", None)
        assert command(*train[:-1], remedy) == 0


def test_the_workers_of_a_sweep_use_the_copy_of_a_file_that_changed(lab, text_folder, tmp_path, capsys):  # fmt: skip  # noqa: E501
    planned = config(text_folder, imports=(str(lab),))
    imports.keep(planned, tmp_path / "sweep")
    lab.write_text("raise SystemExit('edited meanwhile')\n")
    imports._executed.clear()
    OPTIMIZERS.pop("own")
    trial = tmp_path / "sweep" / "trial"
    imports.execute(planned, (trial, trial.parent))
    assert "own" in OPTIMIZERS and "has changed; using the copy" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "sweep")
    imports._executed.clear()
    with pytest.raises(ValueError, match=r"lab.py has changed: its hash is not [0-9a-f]{16}"):
        imports.execute(planned, (trial, trial.parent))


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("x = 1\n\ndef f():\n    return x / 0\n\nf()\n", "line 4: ZeroDivisionError: division"),
        ("x = 1\ndef f(:\n", "line 2: SyntaxError: invalid syntax"),
        ("import sys\nsys.exit('no')\n", "line 2: SystemExit: no"),
        ("import no_such_package\n", "line 1: ModuleNotFoundError: No module named"),
    ],
)
def test_a_file_that_fails_is_one_line_and_its_traceback(source, line, lab, text_folder, capsys):
    lab.write_text(source)
    assert command("train", text_folder, "--workdir=none", f"--import={lab}") == 2
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.startswith(f"isoflop train: --import={lab}, {line}")
    assert any(f'File "{lab}", line ' in one for one in rest)
    assert not any("launch/" in one for one in rest)  # the traceback begins in the file


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\n", "adds nothing to FAMILIES, OBJECTIVES"),
        ("OPTIMIZERS['adamw'] = lambda h, m: None\n", "replaces OPTIMIZERS['adamw']"),
        ("OPTIMIZERS.clear()\n", "replaces OPTIMIZERS['adamw']"),
        ("OPTIMIZERS['own'] = 3\n", "OPTIMIZERS['own'] is not a function"),
        ("import math\nFAMILIES['own'] = math\n", "FAMILIES['own'] has no Config, INPUTS, derive"),
    ],
)
def test_wrong_entries_are_refused_and_undone(source, message, lab):
    before = dict(OPTIMIZERS), dict(FAMILIES)
    tables = "from model.families import FAMILIES\n"
    tables += "from train.optimizers.optimizer import OPTIMIZERS\n"
    lab.write_text(tables + source)
    with pytest.raises(ValueError, match=r"import=.*lab\.py") as refused:
        imports.load([str(lab)])
    assert message in str(refused.value) and not isinstance(refused.value, BadInput)
    assert (OPTIMIZERS, FAMILIES) == before


def test_a_sweep_may_not_vary_its_imports(lab, text_folder, tmp_path, capsys):
    sweep = {"config": "configs/base.py", "trials": [{"imports": [str(lab)]}]}
    (tmp_path / "s.json").write_text(json.dumps(sweep))
    code = __main__.main(["sweep", f"--config={tmp_path}/s.json", f"--workdir={tmp_path}/s"])
    assert code == 2 and "imports cannot differ between trials" in capsys.readouterr().err


def test_reading_a_run_executes_nothing_and_says_what_to_add(tmp_path, capsys):
    run = tmp_path / "theirs" / "a"
    (run / "imports").mkdir(parents=True)
    marker = tmp_path / "executed"
    (run / "imports" / "law.py").write_text(f"open({str(marker)!r}, 'w')\n")
    (run / "config.json").write_text(json.dumps({"model": {"family": "theirs"}}))
    (run / "result.json").write_text("{}")
    named = f"--import={run}/imports/law.py"
    assert __main__.main(["fit", f"--runs={run.parent}", "--law=theirs"]) == 2
    error = capsys.readouterr().err
    assert named in error and "run as code: read it first" in error
    code = command("train", tmp_path, f"--workdir={tmp_path}/b", f"--config.train.init_from={run}")
    assert code == 2 and named in capsys.readouterr().err
    assert __main__.main(["sample", f"--run={run}"]) == 2
    assert "the family 'theirs', which this version" in capsys.readouterr().err
    assert not marker.exists()
    assert "theirs" not in LAWS
    # What the message says is what executes it: here a file that adds nothing.
    assert __main__.main(["fit", f"--runs={run.parent}", "--law=theirs", named]) == 2
    assert "adds nothing" in capsys.readouterr().err and marker.exists()


def test_help_says_that_files_run_as_code(capsys):
    # Rewards, raw text, what is drawn, and JSON of runs, never a model; a cleaning config registers
    # nothing.
    only_read = {"clean", "runs", "show", "rank", "report", "overoptimisation", "synthesise"}
    for verb in __main__.VERBS:
        with pytest.raises(SystemExit):
            __main__.main([verb, "--help"])
        printed = " ".join(capsys.readouterr().out.split())
        executes = "it runs as code" in printed and "--import=…" in printed
        assert executes == (verb not in only_read)
    assert __main__.main(["--help"]) == 0
    assert "executed only if you name them" in " ".join(capsys.readouterr().out.split())
