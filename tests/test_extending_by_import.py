"""The example of docs/extending.md that needs no edit: it is imported, trained and fitted."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from launch import __main__
from tests.launch.config.tables import restored
from tests.test_extending import PAGE, example, sections

PART = re.search(
    r"^## In a file of your own\n(.*?)^## ", PAGE.read_text(), re.MULTILINE | re.DOTALL
)[1]
FILE = re.search(r"^File `my_lab\.py`:\n\n```python\n(.*?)^```$", PART, re.MULTILINE | re.DOTALL)[1]
TINY = {
    "model.context_length": 8, "train.batch_size": 4, "train.duration": "6 steps",
    "eval.sequences": 4, "eval.batch_size": 4, "log.tensorboard": False, "log.every": "2 steps",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def tables() -> Iterator[None]:
    with restored():
        yield


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("lab") / "my_lab.py"
    file.write_text(FILE)
    return file


def command_of(page: str, verb: str, lab: Path, **instead: object) -> list[str]:
    """The first command of a verb on the page, with the file's place and other values of flags."""
    (line,) = re.findall(rf"^    isoflop ({verb} .*--import=my_lab\.py.*)$", page, re.MULTILINE)
    words = [w.replace("=my_lab.py", f"={lab}") for w in line.split()]
    names = tuple(f"--{name}=" for name in instead)
    return [w for w in words if not w.startswith(names)] + [
        f"--{name}={value}" for name, value in instead.items()
    ]


def tiny(text_folder: Path) -> list[str]:
    keys = TINY | {"data.corpora": text_folder / "text.txt", "data.cache": text_folder / "cache"}
    return [f"--config.{key}={value}" for key, value in keys.items()]


def test_the_commands_of_the_page_train_and_fit(lab, text_folder, tmp_path, capsys):
    small = ["--config.model.n_layers=1", "--config.model.d_model=8", "--config.model.n_heads=1"]
    command = command_of(PART, "train", lab, workdir=tmp_path / "ours")
    more = [*tiny(text_folder), *small, "--config.schedule.name=halved"]
    assert __main__.main([*command, *more]) == 0
    written = json.loads((tmp_path / "ours" / "result.json").read_text())
    assert written["objective"] == "confidence_penalty"
    assert written["hyperparameters"]["optimizer"] == "adabelief"
    rows = [json.loads(line) for line in open(tmp_path / "ours" / "metrics.jsonl")]
    logged = [row for row in rows if "entropy" in row]
    assert 0 < logged[-1]["entropy"] < np.log(257)
    rates = [row["learning_rate"] for row in logged]
    assert rates[-1] == pytest.approx(rates[0] / 2)  # the schedule is halved after the middle
    assert (tmp_path / "ours" / "imports" / "my_lab.py").read_text() == FILE
    # The law is fitted to a table, and law.json says which file it came from.
    steps = np.geomspace(100, 1e5, 8)
    rows = [f"1000,{s * 32},{s},{1.5 + 8 * s**-0.4}" for s in steps]
    table, out = tmp_path / "curve.csv", tmp_path / "law.json"
    table.write_text("\n".join(["params,tokens,steps,loss", *rows]) + "\n")
    fit = command_of(PART, "fit", lab, table=table, json=out, draws=0)
    assert __main__.main(fit) == 0
    law = json.loads(out.read_text())
    for name, value in {"A": 8, "E": 1.5, "alpha": 0.4}.items():
        assert law["parametric"][name]["value"] == pytest.approx(value, rel=1e-3)
    assert law["made"]["imports"] == {
        "my_lab.py": json.loads((tmp_path / "ours" / "config.json").read_text())["imports_hash"][0]
    }
    assert "L(S) = E + A S^-α" in capsys.readouterr().out


def test_a_config_file_of_ones_own_chooses_an_imported_family(tmp_path, text_folder, capsys):
    path, source, _ = example(sections(PAGE.read_text())["A model family"])
    entry = re.search(r'`(FAMILIES\["context_mean"\] =\nsys\.modules\[__name__\])`', PART)[1]
    file = tmp_path / Path(path).name
    table = "import sys\nfrom model.families import FAMILIES\n"
    file.write_text(f"{source}\n{table}{entry.replace(chr(10), ' ')}\n")
    mine = tmp_path / "mine.py"
    text = (
        "from configs import base\n"
        "def get_config():\n"
        "    config = base.get_config(family='context_mean')\n"
        f"    config.imports = ({str(file)!r},)\n"
        "    config.model.d_model, config.model.span = 8, 2\n"
        "    return config\n"
        "def get_sweep(config):\n"
        "    return [{'model.span': 2}, {'model.span': 3}]\n"
    )
    mine.write_text(text)
    command = [f"--config={mine}", f"--workdir={tmp_path}/runs", "--dry_run", *tiny(text_folder)]
    plan = tmp_path / "plan.json"
    assert __main__.main(["sweep", *command, f"--json={plan}"]) == 0
    trials = json.loads(plan.read_text())["trials"]
    assert {trial["family"] for trial in trials} == {"context_mean"} and len(trials) == 2
    assert all(sum(trial["params"].values()) == 256 * 8 + 8 * 256 + 256 * 256 for trial in trials)
    mine.write_text(text.replace("model.d_model", "model.d_modle"))
    assert __main__.main(["sweep", *command]) == 2
    assert "model.family='context_mean' has no key d_modle" in capsys.readouterr().err
