"""Tests of the page of a sweep: what it carries, and how it behaves in a browser."""

import json
import re
import shutil

import pytest

from scaling.fits.analysis import analyse
from scaling.ranking.trials import read_sweeps
from scaling.report import frame
from scaling.report.explorer.loss_curves import loss_curves, read_rows, thinned
from scaling.report.explorer.sweep_page import read_law, write_sweep_page
from scaling.report.explorer.trial_columns import curve_columns, trial_columns
from scaling.report.frame import HERE, MODULES, code
from scaling.report.number_text import amount, nats, three_digits
from scaling.runs import read_runs
from scaling.settings import Settings
from tests.bench.sweeps.page import browser, dump
from tests.scaling.ladder import simulate, write_runs

HOSTILE = "</script><img src=x onerror=window.hacked=1>\x1b[31m"
RATES, LOSSES = (0.001, 0.01, 0.1, 1.0), (2.5, 2.25, 2.75, 900.0)


def write_sweep(folder, names=("a", "b", "c", "bad"), copies=1):
    """Trials of four rates at one width each; the last diverges."""
    trials = {}
    for copy in range(copies):
        for place, name in enumerate(names):
            key = f"{name}{copy}"
            rate, loss = RATES[place], LOSSES[place] + 0.01 * copy
            values = {
                "optimizer.learning_rate": rate,
                "model.act": HOSTILE if place % 2 else "relu",
            }
            trials[key] = {"overrides": values | {"seed": copy}}
            home = folder / f"{key}"
            home.mkdir(parents=True)
            ratio = 40 if place == 3 else 1
            rows = [
                {"step": s, "tokens": 8000 * s, "loss": ratio * loss + 1 / s, "seconds": s / 2}
                for s in range(1, 41)
            ]
            rows.append({"step": 40, "tokens": 320_000, "eval_loss": loss})
            (home / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            result = {"status": "diverged" if place == 3 else "done", "seed": copy, "id": key}
            measured = {"value": loss, "se": 0.01, "unit": "nats/token", "better": "lower"}
            result |= {"metrics": {"loss": measured}, "params": {"mlp": 1000}, "tokens": 320_000}
            (home / "result.json").write_text(
                json.dumps(result | {"flops": {"6nd": 1.92e9}, "eval_loss": loss})
            )
    plan = {"config": "c.py", "base": {"seed": 0, "model": {"act": "relu"}}, "trials": trials}
    (folder / "sweep.json").write_text(json.dumps(plan))
    return read_sweeps(folder)[0]


def ranking_of(sweep):
    """A ranking as `scaling.ranking.ranking.rank` writes it: by loss, nothing tested."""
    done = sorted((t for t in sweep.trials if t.status == "done"), key=lambda t: t.metric()[0])
    groups = {}
    for trial in done:
        groups.setdefault(trial.settings["optimizer.learning_rate"], []).append(trial)
    rows = [
        {"mean": sum(t.metric()[0] for t in group) / len(group), "spread": 0.01, "se": 0.007,
         "eval_se": 0.01, "p": None, "among_best": i == 0, "trials": [t.id for t in group]}
        for i, group in enumerate(groups.values())
    ]  # fmt: skip
    keys = [
        {
            "key": "optimizer.learning_rate",
            "name": "learning_rate",
            "scale": "log",
            "values": list(RATES),
        },
        {"key": "model.act", "name": "act", "scale": "category", "values": [HOSTILE, "relu"]},
    ]
    effects = [
        {"key": key["key"], "importance": {"value": 0.5, "lo": 0.4, "hi": 0.6}, "method": "m",
         "marginal": [], "p": None, "note": HOSTILE} for key in keys
    ]  # fmt: skip
    optimum = {"key": "optimizer.learning_rate", "at": {}, "value": 0.012, "lo": 0.01, "hi": 0.02}
    return {
        "metric": "loss", "unit": "nats/token", "better": "lower", "level": 0.95, "keys": keys,
        "configurations": rows, "effects": effects, "interactions": [], "confounding": [],
        "optima": [optimum | {"loss": 2.2, "inside": True, "reason": ""}],
        "best": {"verdict": f"best: {HOSTILE}", "among_best": 1, "more_seeds": None, "test": None},
        "warnings": [], "not_ranked": [],
    }  # fmt: skip


@pytest.fixture
def sweep(tmp_path):
    return write_sweep(tmp_path / "s", copies=2)


def test_the_columns_say_of_each_trial_what_its_files_say(sweep):
    curves = curve_columns(sweep, "loss")
    data = trial_columns(sweep, ranking_of(sweep), curves)
    trials = data["trials"]
    assert trials["id"] == ["a0", "b0", "c0", "bad0", "a1", "b1", "c1", "bad1"]
    assert data["status"] == {"done": 6, "diverged": 2}
    assert trials["value"][:4] == [2.5, 2.25, 2.75, 900.0] and trials["error"][0] == 0.01
    assert trials["keys"]["optimizer.learning_rate"] == [0, 1, 2, 3] * 2
    assert trials["seed"] == [0] * 4 + [1] * 4 and trials["flops"][0] == 1.92e9
    assert data["configurations"]["trials"] == [[1, 5], [0, 4], [2, 6]]
    (label,) = (label for label in data["keys"][1]["labels"] if label != "relu")
    assert label == HOSTILE.replace("\x1b", "\\x1b")
    assert (curves[0]["per_step"], curves[0]["evaluated"]["value"]) == (8000, [2.5])
    assert len(curves[0]["train"]["step"]) == 40 and curves[0]["train"]["seconds"][-1] == 20
    (sweep.folder / "a0" / "result.json").unlink()
    unfinished = trial_columns(
        read_sweeps(sweep.folder)[0], ranking_of(sweep) | {"configurations": []}, curves
    )
    assert unfinished["trials"]["latest"][0] == 2.5 and unfinished["trials"]["value"][0] is None


def test_thinning_keeps_the_ends_and_every_spike():
    values = [1.0] * 1000
    values[437], values[700] = 50.0, None
    kept = thinned(values, 40)
    assert kept[0] == 0 and kept[-1] == 999 and 437 in kept and len(kept) <= 42
    assert kept == sorted(kept) and thinned(values[:40], 40) == list(range(40))


def test_a_file_that_is_being_written_is_read_up_to_its_last_whole_row(tmp_path, sweep):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": NaN}\n[3]\n{"step": 2, "loss": 2.0}\n{"step": 3, "lo')
    assert [row["step"] for row in read_rows(file)] == [1, 2]
    assert read_rows(tmp_path / "none.jsonl") == []
    shutil.copy(file, sweep.trials[0].folder / "metrics.jsonl")
    assert loss_curves(sweep.trials[0], "loss", 10)["train"]["value"] == [None, 2.0]


def test_every_module_is_in_the_page_once_after_those_it_imports():
    files = {path.stem for path in (HERE / "explorer").glob("*.js")}
    assert files == set(MODULES)
    exported = []
    for place, name in enumerate(MODULES):
        text = (HERE / "explorer" / f"{name}.js").read_text()
        used = re.findall(r'from "\./(\w+)\.js"', text)
        assert set(used) <= set(MODULES[:place]), name
        exported += re.findall(r"^export (?:async )?(?:function|const) (\w+)", text, re.M)
        assert all(len(line) <= 100 for line in text.splitlines())
    assert len(exported) == len(set(exported))  # one scope holds them all
    assert not re.search(r"^(?:import|export)\b", code(), re.M)


def test_the_page_needs_nothing_else_and_no_name_becomes_markup(sweep, monkeypatch):
    monkeypatch.setattr(frame, "library", lambda: "")  # tests of the law's page read it
    text = write_sweep_page(sweep, ranking_of(sweep)).read_text()
    markup = re.sub(r"(<script[^>]*>).*?</script>", r"\1", text, flags=re.DOTALL)
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", markup)
    assert markup.count("<script") == 5 and "</script><img" not in text and "\x1b" not in text
    assert "No law has been fitted to these trials" in markup


def test_a_law_of_other_trials_is_not_shown(sweep):
    report = sweep.folder / "report"
    report.mkdir()
    (report / "law.json").write_text(
        '{"settings": {"law": "parametric"}, "points": {"sha256": "x"}}'
    )
    assert "was fitted to other points" in read_law(sweep, report).html
    (report / "law.json").write_text("[")
    assert "cannot be shown" in read_law(sweep, report).html


def test_the_law_of_these_trials_is_part_of_the_page(tmp_path):
    """A fit of the same runs is shown with its figures, and a negative control with one run less is
    not; where no law is possible, the page says why."""
    pytest.importorskip("altair")
    runs = write_runs(tmp_path / "runs", simulate())
    report = tmp_path / "report"
    law = analyse(read_runs(runs), Settings(draws=0)) | {"made": {}}
    report.mkdir()
    (report / "law.json").write_text(json.dumps(law))
    (sweep,) = read_sweeps(runs)
    part = read_law(sweep, report)
    assert "The scaling law" in part.html and {"frontier", "isoflop"} <= set(part.specs)
    assert '<details class="panel tables" id="analyses"><summary><h2>Sensitivity' in part.html
    shutil.rmtree(sweep.trials[0].folder)
    assert "was fitted to other points" in read_law(sweep, report).html
    few = write_sweep(tmp_path / "few")
    law = analyse(read_runs(few.folder), Settings(draws=0)) | {"made": {}}
    (report / "law.json").write_text(json.dumps(law))
    assert "No scaling law from these trials: parametric:" in read_law(few, report).html


NUMBERS = (
    0.0,
    1e-5,
    0.003,
    0.00123456,
    0.35,
    1.0,
    12.0,
    99.95,
    999.6,
    2085.43,
    50_000,
    999_900,
    1e13,
    9.999e13,
)
SCRIPT = """
const told = {}, wait = () => new Promise((done) => setTimeout(done, 100));
const one = (query) => document.querySelector(query);
const all = (query) => [...document.querySelectorAll(query)];
const ids = () => all("#trials tbody td:nth-child(2)").map((cell) => cell.textContent);
const type = async (text) => {
  const filter = one("#trials input");
  filter.value = text;
  filter.dispatchEvent(new Event("input"));
  await wait();
};
const run = async () => {
  told.rows = all("#trials tbody tr[data-trial]").length;
  told.count = one("#trials [role=status]").textContent;
  told.first = ids().slice(0, 3);
  one('#trials [data-column="loss"]').click();
  one('#trials [data-column="loss"]').click();
  told.worst = ids()[0];
  told.sorted = one("#trials th[aria-sort=descending]").textContent;
  await type("learning_rate == 0.01 and loss < 2.26");
  told.filtered = ids();
  await type("learning_rat > 3");
  told.error = one("#trials [role=alert]").textContent;
  await type("");
  const handle = one('[data-handle="optimizer.learning_rate low"]');
  handle.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowUp" }));
  await wait();
  told.brushed = one("#trials [role=status]").textContent;
  told.plots = all("canvas").length;
  told.note = one("#curves p[role=status]").textContent;
  told.contents = all("#contents a").map((link) => link.textContent);
  told.hacked = window.hacked === undefined;
  told.verdict = one(".verdict").textContent;
  told.label = all("#trials td").some((cell) => cell.textContent.startsWith("<\\/script><img"));
  told.numbers = VALUES.map((v) => [amount(v), threeDigits(v), nats(v)]);
  document.documentElement.dataset.told = JSON.stringify(told);
};
setTimeout(run, 1500);
"""


def test_a_reader_sorts_filters_and_brushes(tmp_path):
    """The page in Chromium, with a script that does what a reader does and notes what it sees."""
    if not browser():
        pytest.skip("this machine has no Chromium")
    sweep = write_sweep(tmp_path / "s", copies=20)
    page = write_sweep_page(sweep, ranking_of(sweep))
    numbers = re.sub("^export ", "", (HERE / "explorer/numbers.js").read_text(), flags=re.M)
    script = f"{numbers}\n{SCRIPT.replace('VALUES', json.dumps(NUMBERS))}"
    page.write_text(f"{page.read_text()}<script type=module>{script}</script>")
    text, console = dump(page, "--virtual-time-budget=6000", "--window-size=1300,3600")
    assert console == []
    told = json.loads(
        re.search('data-told="([^"]*)"', text)[1].replace("&quot;", '"').replace("&amp;", "&")
        .replace("&lt;", "<").replace("&gt;", ">")
    )  # fmt: skip
    assert told["count"] == "80 of 80 trials" and 15 < told["rows"] < 60
    assert told["first"] == ["b0", "b1", "b2"]
    assert (told["worst"], told["sorted"]) == ("bad19", "loss ▾")
    assert told["filtered"] == ["b0"]
    assert told["error"] == "“learning_rat” is no column; did you mean learning_rate?"
    assert told["brushed"] == "60 of 80 trials"
    assert told["plots"] >= 5 and "20 trials leave the plot at the top" in told["note"]
    assert told["contents"][:3] == ["Which is best", "Trials", "All keys at once"]
    assert told["hacked"] and told["label"] and told["verdict"].startswith("Best: </script>")
    expected = [[amount(v), three_digits(v), nats(v)] for v in NUMBERS]
    assert told["numbers"] == expected
