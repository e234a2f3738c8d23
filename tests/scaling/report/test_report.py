"""Tests the report and the verb `fit`: self-contained, complete, fast, and without jax."""

import html
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from launch.errors import BadInput
from launch.law.fitting import fit_runs
from launch.verbs.results.fit import SETTINGS, main
from scaling.csv_file import read_csv, to_csv
from scaling.fits.analysis import analyse
from scaling.report import page as report_page
from scaling.report.number_text import amount, setting, three_digits
from scaling.settings import Settings
from scaling.table import sha256
from tests.scaling.ladder import simulate, true_loss, write_runs

pytest.importorskip("altair")
pytest.importorskip("vl_convert")
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fit")
    runs = write_runs(folder / "runs", simulate())
    flags = [f"--runs={runs}", f"--out={folder / 'report'}", f"--json={folder / 'law.json'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_page, "PNG_SCALE", 0.5)
        assert main([*flags, "--draws=100"]) == 0
    return folder / "report"


def test_the_page_needs_nothing_else(report):
    page = (report / "index.html").read_text()
    markup = re.sub(r"(<script[^>]*>).*?</script>", r"\1", page, flags=re.DOTALL)
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=", markup)
    assert not re.findall(r"(?:import|fetch|from)\s*\(?\s*[\"']https?:", page)
    assert "vegaEmbed" in page
    assert (
        markup.count("<script") == 3
    )  # the figures, one library for all, the code that draws them
    assert not re.search(r"\$[a-z]+\b", markup)


def test_every_figure_is_there_thrice(report):
    page = (report / "index.html").read_text()
    names = {"prediction", "frontier", "isoflop", "optimal_params", "optimal_tokens"}
    names |= {"loss_curves", "residuals", "plane", "sensitivity"}
    names |= {"exponents_cloud", "floor_cloud"}
    assert {path.stem for path in (report / "figures").glob("*.png")} == names
    assert {path.stem for path in (report / "figures").glob("*.svg")} == names
    for name in names:
        assert f'id="{name}"' in page
        assert (report / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert "<svg" in (report / "figures" / f"{name}.svg").read_text()


def test_the_page_says_how_it_was_made_and_what_to_doubt(report):
    """Warnings come before the laws. Methods and the command agree with law.json."""
    page = re.sub(r"<script.*?</script>", "", (report / "index.html").read_text(), flags=re.DOTALL)
    law = json.loads((report / "law.json").read_text())
    places = [page.index(f"<h2>{title}") for title in (
        "Warnings", "The laws", "The optimal split of compute", "Sensitivity",
        "Conventions side by side", "Methods", "How to cite")]  # fmt: skip
    assert places == sorted(places)
    for text in (
        html.escape(law["warnings"][0]["message"]),
        "sum of Huber losses (δ = 1e-3)",
        f"{law['parametric']['objective']:.6e}",
        "100 bootstrap draws, made by redrawing",
        html.escape(law["made"]["command"]),
        law["points"]["sha256"],
        f"{law['kaplan_count']['a']:.3f}",
    ):
        assert text in page, text


def test_hovering_reads_every_run(report):
    page = (report / "index.html").read_text()
    specs = json.loads(re.search(r'id="specs">(.*)</script>\n', page)[1])
    rows = [row for layer in specs["frontier"]["layer"] for row in layer["data"]["values"]]
    shown = {row["Run"]: row["Loss"] for row in rows if row.get("Series") == "runs"}
    points = read_csv(report / "points.csv")
    fitted = points.select(~points.holdout)
    assert shown == dict(zip(fitted.run, fitted.loss, strict=True))
    assert "tooltip" in json.dumps(specs["frontier"])


def test_law_and_points_lie_beside_it(report):
    law = json.loads((report / "law.json").read_text())
    assert law == json.loads((report.parent / "law.json").read_text())
    points = read_csv(report / "points.csv")
    assert sha256(points.select(~points.holdout)) == law["points"]["sha256"]


def test_names_cannot_break_the_page(tmp_path, without_pictures):
    points = simulate()
    points = replace(points, run=np.array(["</script><b>&", *points.run[1:]]))
    (tmp_path / "p.csv").write_text(to_csv(points))
    main([f"--table={tmp_path / 'p.csv'}", f"--out={tmp_path / 'out'}", "--draws=20"])
    page = (tmp_path / "out" / "index.html").read_text()
    assert "</script><b>" not in page
    assert "&lt;/script&gt;&lt;b&gt;&amp;" in page


def test_a_table_that_supports_no_law_still_gets_its_page_and_exit_code_2(tmp_path):
    (tmp_path / "p.csv").write_text("params,tokens,loss\n1e6,2e7,3.1\n2e6,2e7,3.0\n")
    with pytest.raises(BadInput, match="no law: parametric: 2 points are too few for 5 constants"):
        main([f"--table={tmp_path / 'p.csv'}", f"--out={tmp_path / 'out'}"])
    assert "No law: parametric: 2 points are too few" in (tmp_path / "out/index.html").read_text()


@pytest.mark.parametrize("unit", ["bits", "nats"])
def test_losses_in_bits_are_refused_unless_a_unit_is_named(chinchilla, tmp_path, unit):
    """The Chinchilla runs in bits: refused by default, converted or kept with --loss_unit."""
    runs = chinchilla.runs
    bits = replace(runs, loss=runs.loss / np.log(2))
    path, out = tmp_path / "p.csv", tmp_path / "law.json"
    path.write_text(to_csv(bits))
    with pytest.raises(BadInput, match=r"looks like bits .* use --loss_unit=bits"):
        main([f"--table={path}"])
    main([f"--table={path}", f"--loss_unit={unit}", f"--json={out}", "--draws=0"])
    e = json.loads(out.read_text())["parametric"]["E"]["value"]
    expected = chinchilla.expected["huber"]["E"] / {"bits": 1, "nats": np.log(2)}[unit]
    assert e == pytest.approx(expected, rel=1e-4)


def test_the_published_fit_in_one_command(chinchilla, tmp_path):
    """All 245 rows with --drop_worst=5 give the paper's 240 runs, objective and bootstrap."""
    (tmp_path / "p.csv").write_text(to_csv(chinchilla.every))
    out = tmp_path / "law.json"
    flags = [f"--table={tmp_path / 'p.csv'}", "--drop_worst=5", "--draws=4000", f"--json={out}"]
    assert main(flags) == 0
    law = json.loads(out.read_text())
    assert law["points"]["n"] == 240 and law["points"]["left_out"] == {"of highest loss": 5}
    found, expected = law["parametric"], chinchilla.expected
    assert found["objective"] == pytest.approx(expected["objective"], rel=1e-6)
    assert found["standard_errors"]["B"] == pytest.approx(
        expected["standard errors"]["B"], rel=1e-3
    )
    assert law["made"]["command"].startswith("isoflop fit --table=")


@pytest.mark.parametrize(
    "name", ["kaplan_joint", "over_training", "frontier", "parametric_without_floor"]
)
def test_every_law_can_be_asked_for(name, tmp_path):
    (tmp_path / "p.csv").write_text(to_csv(simulate()))
    out, report = tmp_path / "law.json", tmp_path / "report"
    flags = [f"--table={tmp_path / 'p.csv'}", f"--law={name}", f"--json={out}", "--draws=30"]
    main([*flags, f"--out={report}"] if name == "kaplan_joint" else flags)
    law = json.loads(out.read_text())
    assert law["parametric"]["name"] == name and law["optimum"] == []
    codes = {w["code"] for w in law["warnings"]}
    assert ("no_floor_law" in codes) == (name in ("kaplan_joint", "parametric_without_floor"))
    assert (report / "figures/residuals.png").is_file() == (name == "kaplan_joint")


def test_repeated_data_take_the_data_constrained_law(tmp_path):
    """Runs of up to 20 epochs from that law: the fit recovers it, and Hoffmann's law is refused."""
    n, u = np.meshgrid(np.geomspace(1e5, 1e7, 6), np.geomspace(1e6, 1e8, 4))
    n, u, epochs = (v.ravel() for v in (n, u, np.tile([1.0, 3.0, 8.0, 20.0], 6)))
    worth = u * (1 + 15 * (1 - np.exp(-(epochs - 1) / 15)))
    loss = true_loss(n, worth)
    rows = "\n".join(
        f"{a:.9g},{b * e:.9g},{b:.9g},{v:.9g}"
        for a, b, e, v in zip(n, u, epochs, loss, strict=True)
    )
    (tmp_path / "p.csv").write_text(f"params,tokens,unique_tokens,loss\n{rows}\n")
    out, table = tmp_path / "law.json", f"--table={tmp_path / 'p.csv'}"
    with pytest.raises(BadInput, match=r"more than 4 times .* law=data_constrained"):
        main([table])
    main([table, "--law=data_constrained", f"--json={out}", "--draws=0"])
    part = json.loads(out.read_text())["parametric"]
    assert part["R"]["value"] == pytest.approx(15, rel=1e-3)
    assert part["alpha"]["value"] == pytest.approx(0.35, abs=1e-3)


def test_the_summary_is_readable(tmp_path, capsys):
    runs = write_runs(tmp_path / "runs", simulate())
    main([f"--runs={runs}", "--draws=50"])
    text = capsys.readouterr().out
    assert "18 points of 18 runs fitted, 1 held out" in text
    assert re.search(r"α +0\.3\d+ \[0\.3", text)
    assert re.search(r"held out sim-018: .* outcome .* error [+-]0\.\d\d%", text)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give either --runs=FOLDER or --table=FILE.csv"),
        (["--table=none.csv"], "does not exist"),
        (["--table=TABLE", "--holdout=flops>9e99"], "matches no point"),
        (["--table=TABLE", "--holdout=flops>x"], "no number"),
        (["--table=TABLE", "--holdout=flops>1"], "leaves no point to fit"),
        (["--table=TABLE", "--objective=mean"], "objective='mean'"),
        (["--table=TABLE", "--params=non_embedding"], "needs the columns"),
        (["--table=TABLE", "--draws=-1"], "draws=-1"),
        (["--table=TABLE", "--law=chinchilla"], "law='chinchilla' is unknown; use one of param"),
        (["--table=TABLE", "--interpolation=cubic"], "interpolation='cubic' is unknown"),
        (["--table=TABLE", "--drop_worst=18"], "drop_worst=18 of 18 fitted points"),
        (["--table=TABLE", "--loss_unit=bytes"], "loss_unit='bytes' is unknown"),
        (["--table=TABLE", "--law=data_constrained"], "no run repeats its data"),
        (["--table=TABLE", "--config.a=1"], "reads no config"),
    ],
)
def test_bad_input_is_one_line(tmp_path, flags, message):
    (tmp_path / "p.csv").write_text(to_csv(simulate()))
    table = f"--table={tmp_path / 'p.csv'}"
    with pytest.raises(BadInput, match=re.escape(message)) as caught:
        main([table if flag == "--table=TABLE" else flag for flag in flags])
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_runs_are_fitted_by_a_call_as_by_the_command(tmp_path, capsys, monkeypatch):
    """A sweep ends with this call, which gives the same law.json and text as the verb, except for
    the line that names the page: a sweep writes its own."""
    monkeypatch.setattr(report_page, "draw", lambda *_: {})
    runs = write_runs(tmp_path / "runs", simulate())
    law = fit_runs(runs, tmp_path / "called")
    called = capsys.readouterr().out
    assert main([f"--runs={runs}", f"--out={tmp_path / 'asked'}"]) == 0
    asked = json.loads((tmp_path / "asked" / "law.json").read_text())
    command = law.pop("made")["command"]
    assert command == asked.pop("made")["command"].replace("asked", "called")
    assert json.loads(json.dumps(law)) == asked
    page = f"report: {tmp_path / 'called' / 'index.html'}\n"
    assert called + page == capsys.readouterr().out.replace("asked", "called")
    with pytest.raises(BadInput, match="contains no"):
        fit_runs(tmp_path / "none", tmp_path / "out")


def test_holdout_rules(tmp_path):
    points = simulate(held_out=0)
    (tmp_path / "p.csv").write_text(to_csv(points))
    for rule, held in (("largest", 1), ("flops>2e12", 12), ("sim-004", 1)):
        out = tmp_path / "law.json"
        main([f"--table={tmp_path / 'p.csv'}", f"--holdout={rule}", f"--json={out}", "--draws=0"])
        law = json.loads(out.read_text())
        assert (law["points"]["held_out"], law["points"]["n"]) == (held, 18 - held)


def test_exit_code_of_bad_input():
    command = [sys.executable, "-m", "launch", "fit", "--table=/nowhere.csv"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1 and "/nowhere.csv" in done.stderr


@pytest.mark.slow
def test_fitting_a_table_loads_no_jax(tmp_path):
    (tmp_path / "p.csv").write_text(to_csv(simulate()))
    code = (
        "import sys, vl_convert; from launch.__main__ import main;"
        # The pictures are drawn outside Python.
        "vl_convert.vegalite_to_png = vl_convert.vegalite_to_svg = lambda *_, **__: b'';"
        f"main(['fit', '--table={tmp_path / 'p.csv'}', '--out={tmp_path / 'out'}', '--draws=20']);"
        "rooms = {'jax', 'flax', 'model', 'train', 'configs', 'data'};"
        "loaded = {name for name in sys.modules if name.split('.')[0] in rooms};"
        "loaded -= {'data', 'data.files', 'data.local'};"
        "sys.exit(f'loaded {loaded}' if loaded else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_room_is_quick():
    """At most one CPU-second, the best of three, because other programs may slow it down."""
    code = (
        "import time; t = time.process_time();"
        "import scaling.fits.analysis, scaling.design.prediction, scaling.report.page;"
        "import sys; assert 'altair' not in sys.modules; print(time.process_time() - t)"
    )
    times = [
        float(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT)) for _ in range(3)
    ]
    assert min(times) <= 1.0


def test_ten_thousand_points_take_seconds(tmp_path):
    random = np.random.default_rng(0)
    n, d = np.exp(random.uniform(12, 20, 10_000)), np.exp(random.uniform(17, 25, 10_000))
    loss = true_loss(n, d) * np.exp(0.004 * random.standard_normal(10_000))
    path = tmp_path / "p.csv"
    rows = "\n".join(f"{a:.6g},{b:.6g},{c:.6g}" for a, b, c in zip(n, d, loss, strict=True))
    path.write_text(f"params,tokens,loss\n{rows}\n")
    start = time.process_time()
    law = analyse(read_csv(path), Settings(draws=0))
    assert time.process_time() - start <= 5
    assert law["parametric"]["alpha"]["value"] == pytest.approx(0.35, abs=0.002)


def test_every_setting_is_a_flag_with_the_same_default():
    """The flags repeat the defaults, so that --help does not need to import `scaling`."""
    defaults = {name: default for name, default, _ in SETTINGS}
    assert defaults | {"fix": {}} == asdict(Settings())


WITHOUT = (
    "import sys; sys.modules |= dict.fromkeys(('altair', 'vl_convert'));"
    "from launch.__main__ import main; sys.exit(main(sys.argv[1:]))"
)


def without_drawing(*argv):
    """Runs a verb in a process without the drawing packages."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, *argv],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_without_the_packages_that_draw_only_the_page_is_missing(report, tmp_path):
    """The law is printed, and law.json and points.csv are those of the full report.

    An earlier page is removed, because it could show other numbers.
    """
    out = tmp_path / "report"
    shutil.copytree(report, out)
    done = without_drawing("fit", f"--runs={report.parent / 'runs'}", f"--out={out}", "--draws=100")
    assert done.returncode == 0, done.stderr
    assert "L(N, D) = E + A N^-" in done.stdout and "report:" not in done.stdout
    assert done.stdout.endswith(f"\nnumbers: {out / 'law.json'}\n")
    (line,) = done.stderr.strip().splitlines()
    assert "altair is not installed; pip install -e '.[report]'" in line
    assert (out / "points.csv").read_text() == (report / "points.csv").read_text()
    one, other = (json.loads((f / "law.json").read_text()) for f in (out, report))
    assert one | {"made": None} == other | {"made": None}
    left = {path.name for path in out.rglob("*") if path.is_file()}
    assert left == {"law.json", "points.csv"}


def test_without_the_packages_that_draw_a_comparison_is_written(report, tmp_path):
    out, runs = tmp_path / "page", str(report.parent / "runs")
    done = without_drawing("compare", runs, runs, f"--out={out}", "--draws=0")
    assert done.returncode == 0, done.stderr
    assert "is not installed" in done.stderr and done.stderr.count("\n") == 1
    assert [path.name for path in out.iterdir()] == ["comparison.json"]


def test_numbers_have_one_format(report):
    """50k, 3e-3, 1e13: three digits. Losses have four decimals, and constants Greek letters."""
    page = re.sub(r"<script.*?</script>", "", (report / "index.html").read_text(), flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>|<pre>.*?</pre>|<code>.*?</code>", "", page, flags=re.DOTALL)
    methods = text.index("<h2>Methods")
    assert not re.findall(r"\d[eE]\+?-?0\d|\de\+", text[:methods])
    assert not re.findall(r"\b(?:alpha|beta|gamma)\b", text)
    law = json.loads((report / "law.json").read_text())
    assert "E + A N^-α + B D^-β" in text
    assert f"<i>α</i> = {law['parametric']['alpha']['value']:.3g} <small>[" in text
    run = read_csv(report / "points.csv").select(np.array([True] + 18 * [False]))
    assert f"<td>{run.params[0] / 1e3:.3g}k</td><td>{run.tokens[0] / 1e6:.3g}M</td>" in text
    assert f"<td>1e12</td><td>{run.loss[0]:.4f}</td>" in text and "<td>3e-3</td>" in text
    for head in ("N (parameters)", "D (tokens)", "C (FLOPs)", "loss (nats per token)", "time (s)"):
        assert f"<th>{head}</th>" in text


@pytest.mark.parametrize(
    ("text", "value", "shown"),
    [
        (amount, 50_000, "50k"), (amount, 999_900, "1M"), (amount, 7e9, "7B"), (amount, 12.0, "12"),
        (three_digits, 1e13, "1e13"), (three_digits, 1.234e13, "1.23e13"),
        (three_digits, 9.999e13, "1e14"),
        (three_digits, 0.003, "3e-3"), (three_digits, -0.00123456, "-1.23e-3"),
        (three_digits, 0.0, "0"), (three_digits, 0.35, "0.35"), (three_digits, 2085.43, "2.09e3"),
        (three_digits, 100.0, "100"), (setting, 0.003, "3e-3"), (setting, 1.25e-7, "1.25e-7"),
        (setting, 50_000, "50000"), (setting, 0.9, "0.9"), (setting, "a", "a"),
        (setting, [1, "é"], '[1, "é"]'), (setting, None, "None"), (setting, True, "True"),
        (setting, 3e10, "3e10"), (setting, 123456.5, "1.234565e5"),
    ],
)  # fmt: skip
def test_every_kind_of_number(text, value, shown):
    assert text(value) == shown
