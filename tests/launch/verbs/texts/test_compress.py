"""Tests of the verbs `compress` and `decompress`, on an untrained decoder and on counted runs."""

import json
import math
import os
import shutil
import subprocess
import sys

import jax
import pytest

from launch.__main__ import main
from launch.checkout import ROOT
from launch.coding import coder, container, description, other_programs, same_bits
from tests import disks
from tests.launch.verbs.models.test_sample import MODEL, counted_run, untrained
from tests.model import golden
from train.checkpoint import Checkpoints
from train.counting import MODEL as COUNTS

TEXT = b"to be or not to be that is the question\n" * 6 + b"\xff\xfe \xc3" + bytes(range(256))


ROWS = [{"name": "xz", "setting": "-9e", "bytes": 99, "seconds": 1.0, "seconds_back": 1.0}]
measured = other_programs.measured


@pytest.fixture(scope="module", autouse=True)
def quick_programs():
    """Other programs take most of the time of a short file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(other_programs, "measured", lambda content: ROWS)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """An untrained decoder with a context of 24 tokens, the same with other weights, and 3-grams of
    bytes; all of them finished trials of one sweep."""
    home = tmp_path_factory.mktemp("runs")
    untrained(home / "decoder", MODEL)
    counted_run(home / "ngram")
    shutil.copytree(home / "decoder", home / "other")
    checkpoints = Checkpoints(home / "other" / "checkpoints", 1, 0)
    params = coder.open_run(home / "decoder").fitted
    checkpoints.save(9, {"params": jax.tree.map(lambda x: x * 1.5, params)}, {})
    checkpoints.wait()
    for run in home.iterdir():
        (run / "result.json").write_text('{"status": "done"}')
    (home / "text").write_bytes(TEXT)
    return home


@pytest.fixture(scope="module")
def compressed(runs):
    """The text, compressed by the decoder, with sizes.json beside it."""
    flags = (f"--run={runs / 'decoder'}", "--streams=3", "--verify", f"--json={runs}/sizes.json")
    assert main(["compress", str(runs / "text"), *flags]) == 0
    return runs / "text.iso"


def test_any_bytes_come_back_from_a_trained_model(runs, compressed, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["decompress", str(compressed), f"--run={runs / 'decoder'}", f"--out={out}"]) == 0
    assert out.read_bytes() == TEXT
    assert "SHA-256 as of the original" in capsys.readouterr().out
    about = json.loads((runs / "sizes.json").read_text())
    assert about["compressed_bytes"] == compressed.stat().st_size and about["verified"]
    assert about["coding_overhead"] == pytest.approx(0, abs=0.01)


def test_any_bytes_come_back_from_counts_in_the_same_file_every_time(runs, tmp_path, capsys):
    run, iso = f"--run={runs / 'ngram'}", tmp_path / "x.iso"
    flags = (run, f"--out={iso}", "--streams=3", f"--json={tmp_path / 'x.json'}")
    assert main(["compress", str(runs / "text"), *flags]) == 0
    printed, first = capsys.readouterr().out, iso.read_bytes()
    about = json.loads((tmp_path / "x.json").read_text())
    assert main(["decompress", str(iso), run]) == 0
    assert (tmp_path / "x").read_bytes() == TEXT
    parts = ("coded_bytes", "gaps_coded_bytes", "header_bytes")
    assert about["compressed_bytes"] == len(first) == sum(about[part] for part in parts)
    assert f"{len(first):,}" in printed and f"{8 * len(first) / len(TEXT):.4f}" in printed
    assert about["gap_bytes"] == TEXT.count(b"\xff") == 2 and not about["verified"]
    assert about["bits_per_byte"] == 8 * len(first) / len(TEXT)
    (tmp_path / "other").write_bytes(TEXT[1:] + TEXT[:1])
    for file, same in ((runs / "text", True), (tmp_path / "other", False)):
        assert main(["compress", str(file), *flags]) == 0
        assert (iso.read_bytes() == first) == same


def test_an_empty_file_comes_back(runs, tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    run = f"--run={runs / 'ngram'}"
    assert main(["compress", str(tmp_path / "empty"), run, "--verify"]) == 0
    (tmp_path / "empty").unlink()
    assert main(["decompress", str(tmp_path / "empty.iso"), run]) == 0
    assert (tmp_path / "empty").read_bytes() == b""


def refused(capsys, *argv) -> str:
    """The one line of a command that is refused."""
    capsys.readouterr()
    assert main([str(word) for word in argv]) == 2
    error = capsys.readouterr().err  # a slow machine shows progress before it
    (line,) = (one for one in error.splitlines() if one.startswith("isoflop "))
    assert error.endswith(f"{line}\n") and "Traceback" not in error
    return line


def test_another_model_another_platform_and_damage_are_refused(
    runs, compressed, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    command = ("decompress", compressed, f"--out={out}")
    line = refused(capsys, *command, f"--run={runs / 'other'}")
    assert "compressed with another model: that of a run called decoder at step 7 with" in line
    assert f"--run={runs / 'other'} is at step 9" in line
    right = f"--run={runs / 'decoder'}"
    damaged = bytearray(compressed.read_bytes())
    damaged[-40] ^= 1
    (tmp_path / "damaged.iso").write_bytes(damaged)
    line = refused(capsys, "decompress", tmp_path / "damaged.iso", right, f"--out={out}")
    assert "damaged.iso is damaged: its checksum does not fit; copy it again" in line
    here = same_bits.here
    monkeypatch.setattr(same_bits, "here", lambda counted: here(counted) | {"jax": "9.9"})
    line = refused(capsys, *command, right)
    assert f"on another platform, which may compute other bits: jax {jax.__version__} there" in line
    assert "add --anyway" in line and not out.exists()
    assert main([str(word) for word in (*command, right, "--anyway")]) == 0
    assert out.read_bytes() == TEXT


def test_other_bits_are_noticed_before_anything_is_written(runs, compressed, tmp_path, capsys):
    """As another platform might compute them: the model differs, but the file claims that it does
    not. With the checks forged too, the SHA-256 of the original tells."""
    header, gaps, content = container.read(compressed.read_bytes(), "x")
    other = coder.open_run(runs / "other")
    for checks, message in (
        (header.checks, "this machine computes other probabilities at step 0 than"),
        (None, "does not have the SHA-256 of the original"),
    ):
        if checks is None:
            made = coder.compress(other, TEXT[::-1], 3, 0, lambda share: None)
            _, gaps, content = container.read(made.file, "x")
            checks = made.header.checks
        about = vars(header) | {"model": other.hash(), "checks": list(checks)}
        about |= {"gaps": len(gaps), "content": len(content)}
        forged = container.write(container.Header(**about), gaps, content)
        (tmp_path / "forged.iso").write_bytes(forged)
        line = refused(capsys, "decompress", tmp_path / "forged.iso", f"--run={runs / 'other'}")
        assert message in line and not (tmp_path / "forged").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["compress", "text"], "--run is not given; add --run=RUN or --sweep=DIR"),
        (["compress"], "--file is not given"),
        (["compress", "none", "--run=decoder"], "--file=none does not exist"),
        (["compress", "decoder", "--run=decoder"], "--file=decoder is no file"),
        (["compress", "text", "--run=none", "--out=x"], "none holds no config.json"),
        (["compress", "text", "--run=decoder", "--sweep=."], "--run and --sweep exclude"),
        (["compress", "text", "--run=decoder", "--out=x", "--overlap=24"], "overlap=24 is out of"),
        (["compress", "text", "--run=ngram", "--out=x", "--overlap=4"], "has no end; drop it"),
        (["compress", "text", "--run=decoder", "--out=x", "--streams=9999"], "use 1 to 4096"),
        (["compress", "text", "--run=decoder", "--max_bytes=9"], "means nothing without --sweep"),
        (["compress", "text", "--sweep=.", "--verify"], "means nothing with --sweep"),
        (["compress", "text", "--sweep=decoder"], "holds no finished trial"),
        (["compress", "text", "--run=decoder"], "text.iso exists; delete it, or name it"),
        pytest.param(
            ["compress", "text", "--run=masked", "--out=x"],
            "'encoder', which continues no text",
            marks=pytest.mark.slow,
        ),
        (["decompress", "text", "--run=decoder", "--out=x"], "was not written by isoflop compress"),
        (["decompress", "none.iso", "--run=decoder"], "--file=none.iso does not exist"),
        (["decompress", "text", "--run=decoder"], "does not end with .iso; name the original"),
        (["decompress", "text.iso", "--run=decoder"], "text exists; delete it, or name it"),
    ],
)
def test_bad_input_is_one_line(runs, compressed, argv, message, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    if "--run=masked" in argv and not (runs / "masked").exists():
        masked = golden.FOLDER / "bert" / "masked"
        assert main(["convert", f"--from_hf={masked}", "--to=masked"]) == 0
    assert message in refused(capsys, *argv)
    assert not (runs / "x").exists()


def test_a_disk_that_cannot_be_written_is_named(runs, compressed, tmp_path, capsys):
    with disks.read_only(tmp_path / "disk", {"a": "b"}) as disk:
        command = ("decompress", compressed, f"--run={runs / 'decoder'}", f"--out={disk}/x")
        assert f"--out={disk}/x cannot be written (" in refused(capsys, *command)


def test_other_programs_give_the_file_back_or_say_how_to_install_them(monkeypatch):
    rows = {row["name"]: row for row in measured(TEXT)}
    assert list(rows) == ["xz", "zstd", "PPMd"]
    assert rows["xz"]["bytes"] < len(TEXT) and rows["zstd"]["bytes"] < len(TEXT)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    rows = {row["name"]: row for row in measured(TEXT)}
    assert rows["PPMd"]["missing"] == "pip install 'isoflop[ppmd]'" and "bytes" not in rows["PPMd"]


def test_a_sweep_of_counted_models_is_described(runs, tmp_path, capsys):
    """A model counts as its file, and rounding to bfloat16 means nothing."""
    shutil.copytree(runs / "ngram", tmp_path / "sweep" / "ngram")
    flags = (f"--sweep={tmp_path / 'sweep'}", f"--json={tmp_path / 'd.json'}", "--max_bytes=100")
    assert main(["compress", str(runs / "text"), *flags]) == 0
    about = json.loads((tmp_path / "d.json").read_text())
    (row,) = about["rows"]
    saved = (runs / "ngram" / "checkpoints" / "1" / COUNTS).stat().st_size
    whole = coder.compress(coder.open_run(runs / "ngram"), TEXT[:100], 0, 0, lambda share: None)
    assert row["text_bytes"] == dict.fromkeys(("float32", "zstd"), len(whole.file))
    assert row["total_bytes"]["float32"] == len(whole.file) + saved
    assert row["total_bytes"]["zstd"] < row["total_bytes"]["float32"]
    assert row["online"] is None and row["pays_from"] is None
    assert f"{row['total_bytes']['zstd']:,}*" in capsys.readouterr().out


def test_the_length_of_text_from_which_a_model_pays():
    row = {"model_bytes": {"zstd": 3000}, "text_bytes": {"zstd": 250}}
    paid = description.breaks_even(row, 1000, 400)
    assert paid == pytest.approx(20_000) and 3000 + 0.25 * paid == pytest.approx(0.4 * paid)
    assert description.breaks_even(row, 1000, 250) is None


def test_the_online_code_is_the_mean_loss_of_the_first_epoch(tmp_path):
    """In intervals of unequal length; what was trained on before is no part of it."""
    rows = [(10, 100, 4.0), (30, 300, 2.0), (40, 400, 1.0), (80, 800, 0.1)]
    lines = [json.dumps({"step": s, "tokens": t, "loss": loss}) for s, t, loss in rows]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    for epochs, nats in ((2.0, (400 + 400 + 100) / 400), (1.0, (400 + 400 + 100 + 40) / 800)):
        (tmp_path / "result.json").write_text(json.dumps({"epochs_of_data": epochs}))
        assert description.online(tmp_path) == pytest.approx(nats / math.log(2))
    (tmp_path / "result.json").write_text("{}")
    assert description.online(tmp_path) is None


@pytest.mark.slow
def test_a_sweep_is_described_by_model_and_text(runs, tmp_path, without_pictures, capsys):
    """Sizes are counted, minima marked; what cannot code is left out, with the reason."""
    sweep = tmp_path / "sweep"
    for name in ("decoder", "ngram"):
        shutil.copytree(runs / name, sweep / name)
    (sweep / "damaged").mkdir()
    (sweep / "damaged" / "result.json").write_text('{"status": "done"}')
    (sweep / "running").mkdir()
    flags = (f"--sweep={sweep}", "--max_bytes=200", "--streams=3")
    flags += (f"--json={tmp_path / 'd.json'}", f"--out={tmp_path / 'page'}")
    assert main(["compress", str(runs / "text"), *flags]) == 0
    printed = capsys.readouterr().out
    about = json.loads((tmp_path / "d.json").read_text())
    rows = {row["run"]: row for row in about["rows"]}
    assert set(rows) == {"decoder", "ngram"} and about["bytes"] == 200
    own = rows["decoder"]
    n = sum(x.size for x in jax.tree.leaves(coder.open_run(runs / "decoder").fitted))
    assert own["params"] == n and own["model_bytes"]["float32"] == 4 * n
    assert own["model_bytes"]["bfloat16"] == 2 * n > own["model_bytes"]["zstd"] > n
    for name, total in own["total_bytes"].items():
        assert total == own["text_bytes"][name] + own["model_bytes"][name]
        assert f"{total:,}" in printed
    whole = coder.compress(coder.open_run(sweep / "ngram"), TEXT[:200], 3, 0, lambda share: None)
    assert rows["ngram"]["text_bytes"]["float32"] == len(whole.file)
    for name, best in about["best"].items():
        able = [row for row in rows.values() if name in row["total_bytes"]]
        assert best == min(able, key=lambda row: row["total_bytes"][name])["run"]
    assert [one["run"] for one in about["left_out"]] == ["damaged"] and "left out" in printed
    page = (tmp_path / "page" / "index.html").read_text()
    assert "Description length of text" in page and f"<b>{own['total_bytes']['bfloat16']:,}" in page
    kept = json.loads((tmp_path / "page" / "description.json").read_text())
    assert kept["rows"] == about["rows"]


@pytest.mark.slow
def test_processes_with_fewer_cores_compute_the_same_bits(runs, compressed, tmp_path):
    """Compressed here, and again and decompressed by a process of one core."""
    run, again = f"--run={runs / 'decoder'}", f"{tmp_path}/again.iso"
    commands = [
        ["compress", f"{runs}/text", run, "--streams=3", f"--out={again}"],
        ["decompress", str(compressed), run, f"--out={tmp_path}/back"],
    ]
    program = (
        "import os; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1]); "
        f"from launch.__main__ import main; raise SystemExit(max(map(main, {commands})))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], check=True, env=env, cwd=ROOT)
    assert (tmp_path / "back").read_bytes() == TEXT
    assert (tmp_path / "again.iso").read_bytes() == compressed.read_bytes()
