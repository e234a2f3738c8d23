"""Tests that a cleaned corpus in a bucket is made here, uploaded at the end, and the same."""

import json
import re
import shutil
from pathlib import Path

import pytest

from data.buckets import copies
from data.cleaning import filter_pass, pipeline, result
from data.files import to_path
from data.sources import corpus
from launch import __main__ as command
from tests.data.cleaning.test_pipeline import Killed, after, config, content, document


@pytest.fixture
def raw(tmp_path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    for part in range(4):
        rows = [json.dumps({"text": document(seed % 9)}) for seed in range(3 * part, 3 * part + 3)]
        (folder / f"{part}.jsonl").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def cfg(raw) -> dict:
    return config(raw, language__on=False, minhash__on=False)


@pytest.fixture
def here(cfg, tmp_path) -> dict[str, bytes]:
    """The files of the same corpus on this machine."""
    pipeline.clean(cfg, tmp_path / "here", 1)
    return content(tmp_path / "here")


def there(out) -> dict[str, bytes]:
    """The files of a folder in a bucket."""
    return {str(p)[len(str(out)) + 1 :]: p.read_bytes() for p, _ in out.files_below()}


def require_same(out, here: dict[str, bytes]) -> None:
    """The result in a bucket is that of this machine, and nothing else is left of the run."""
    assert there(out) == here and len(here) == 4
    assert not result.place_of(out).exists()


@pytest.mark.parametrize("kind", ["shared", pytest.param("shared_s3", marks=pytest.mark.slow)])
def test_a_result_in_a_bucket_is_that_of_this_machine(kind, cfg, here, tmp_path, machine, request):
    out = to_path(f"{request.getfixturevalue(kind)}/out")
    about = pipeline.clean(cfg, out, 1)
    require_same(out, here)
    texts = list(corpus.documents(f"{out}/text"))
    assert texts == list(corpus.documents(str(tmp_path / "here" / "text"))) and len(texts) == 9
    machine("second")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "_cleaned", None)  # nothing is made again
        assert pipeline.clean(cfg, out, 1) == about
    with pytest.raises(ValueError, match=f"^out={out} holds the result of another config"):
        pipeline.clean(cfg | {"skip": ["email"]}, out, 1)
    require_same(out, here)


@pytest.mark.parametrize(
    ("target", "name", "calls", "units", "uploads"),
    [
        (filter_pass.Filter, "unit", 2, 3, 3),
        (copies, "upload", 1, 0, 2),
        (result, "upload", 0, 0, 3),
    ],
)
def test_a_killed_run_goes_on(
    target, name, calls, units, uploads, cfg, here, shared, machine, monkeypatch
):
    out = to_path(f"{shared}/out")
    with monkeypatch.context() as patch:
        patch.setattr(target, name, after(calls, getattr(target, name)))
        with pytest.raises(Killed):
            pipeline.clean(cfg, out, 1)
    assert (out / ".work" / "identity").is_file() and not (out / "cleaning.json").exists()
    with pytest.raises(ValueError, match=f"^out={out} holds an unfinished result of another"):
        pipeline.clean(cfg | {"skip": ["email"]}, out, 1)
    unit, upload, done = filter_pass.Filter.unit, copies.upload, []
    monkeypatch.setattr(filter_pass.Filter, "unit", lambda *a: done.append("unit") or unit(*a))
    monkeypatch.setattr(copies, "upload", lambda *a: done.append("upload") or upload(*a))
    pipeline.clean(cfg, out, 1)
    require_same(out, here)
    assert (done.count("unit"), done.count("upload")) == (units, uploads)


def test_another_machine_finishes_what_one_began(cfg, here, shared, machine, monkeypatch):
    out = to_path(f"{shared}/out")
    with monkeypatch.context() as patch:
        patch.setattr(copies, "upload", after(1, copies.upload))
        with pytest.raises(Killed):
            pipeline.clean(cfg, out, 1)
    machine("second")
    pipeline.clean(cfg, out, 1)
    require_same(out, here)
    machine("first")  # returns after the other has finished
    pipeline.clean(cfg, out, 1)
    require_same(out, here)


def test_input_that_changes_is_read_anew_when_both_folders_are_removed(cfg, raw, shared, machine):
    out = to_path(f"{shared}/out")
    place = result.place_of(out)

    def change(step: str, done: int, total: int) -> None:
        (raw / "0.jsonl").write_text(json.dumps({"text": document(1)}) + "\n")

    match = f"^the input changed while it was read; remove out={out} and {place} and run it again$"
    with pytest.raises(ValueError, match=match):
        pipeline.clean(cfg, out, 1, change)
    out.rmtree()
    shutil.rmtree(place)
    assert pipeline.clean(cfg, out, 1)["read"]["documents"] == 10


def test_work_on_a_folder_within_another_result_stays(cfg, shared, machine, monkeypatch):
    outer, inner = to_path(f"{shared}/web"), to_path(f"{shared}/web/fr")
    with monkeypatch.context() as patch:
        patch.setattr(filter_pass.Filter, "unit", after(2, filter_pass.Filter.unit))
        with pytest.raises(Killed):
            pipeline.clean(cfg, inner, 1)
    work = content(result.place_of(inner))
    cache = copies.folder_of(outer) / "cache" / "tokens"
    cache.mkdir(parents=True)
    other = cfg | {"skip": ["email"]}
    pipeline.clean(other, outer, 1)
    assert content(result.place_of(inner)) == work and len(work) > 4 and cache.is_dir()
    # The command of the outer one is given again while the inner one is made.
    unit = filter_pass.Filter.unit
    again = lambda *a: pipeline.clean(other, outer, 1) and unit(*a)  # noqa: E731
    monkeypatch.setattr(filter_pass.Filter, "unit", again)
    assert pipeline.clean(cfg, inner, 1)["written"]["documents"] == 9
    assert cache.is_dir() and not result.place_of(inner).exists()


def test_work_stays_while_a_process_is_at_it(cfg, here, shared, machine, monkeypatch):
    """Another machine finishes first, and the command is given here once more."""
    out, unit, calls = to_path(f"{shared}/out"), filter_pass.Filter.unit, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 2:
            machine("second")
            pipeline.clean(cfg, out, 1)
            machine("first")
            pipeline.clean(cfg, out, 1)
        return unit(*args)

    monkeypatch.setattr(filter_pass.Filter, "unit", interrupted)
    pipeline.clean(cfg, out, 1)
    require_same(out, here)
    assert len(calls) > 2


def test_places_that_are_refused(cfg, shared, machine):
    (to_path(shared) / "in" / "a.txt").write_text(document(1))
    inside = cfg | {"input": cfg["input"] | {"corpora": [f"{shared}/in"]}}
    with pytest.raises(
        ValueError, match=f"^out={shared}/in/out lies inside input.corpora={shared}"
    ):
        pipeline.clean(inside, to_path(f"{shared}/in/out"), 1)
    pipeline.clean(inside, to_path(f"{shared}/in-out"), 1)
    (to_path(shared) / "used" / "text" / "a.txt").write_text("text of somebody else")
    with pytest.raises(ValueError, match=f"^out={shared}/used has a folder text/ with files in it"):
        pipeline.clean(cfg, to_path(f"{shared}/used"), 1)
    # Work for a result that was removed from the bucket, of another config.
    place = result.place_of(to_path(f"{shared}/gone")) / ".work"
    place.mkdir(parents=True)
    (place / "identity").write_text("another")
    with pytest.raises(
        ValueError, match=r"/cleaning/.*, where out=.*/gone is made, holds an unfinished result"
    ):
        pipeline.clean(cfg, to_path(f"{shared}/gone"), 1)


def test_a_mirror_that_cannot_be_written_is_one_line_before_anything_is_read(
    raw, shared, machine, monkeypatch, tmp_path, capsys
):
    (tmp_path / "machines").write_text("a file in place of the folder")
    monkeypatch.setattr(pipeline, "plan", None)
    argv = ["clean", f"--config.input.corpora={raw}", f"--out={shared}/out", "--workers=1"]
    assert command.main(argv) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(
        rf"the work for --out={shared}/out cannot be written to {tmp_path}/machines/.* \(Not a "
        rf"directory\); set {copies.PLACE} to a folder on another disk$",
        error,
    )
    assert error.count("\n") == 0 and there(to_path(f"{shared}/out")) == {}


def test_the_command(raw, shared, machine, without_pictures, monkeypatch, capsys):
    monkeypatch.setattr("scaling.report.frame.library", lambda: "")  # seconds of Vega's code
    argv = ["clean", f"--config.input.corpora={raw}", f"--out={shared}/out", "--workers=1",
            "--config.language.on=False", "--config.minhash.on=False"]  # fmt: skip
    assert command.main(argv) == 0
    printed = capsys.readouterr().out
    assert f"text: {shared}/out/text\nreport: {shared}/out/index.html" in printed
    files = there(to_path(f"{shared}/out"))
    assert {"cleaning.json", "index.html", "figures/removed.svg"} <= set(files)
    assert command.main(argv) == 0 and files.keys() == there(to_path(f"{shared}/out")).keys()


def test_a_bucket_that_cannot_be_used_is_one_line_before_anything_starts(
    raw, served, machine, monkeypatch, capsys
):
    monkeypatch.setattr(pipeline, "clean", None)
    argv = ["clean", f"--config.input.corpora={raw}", "--out=gs://no-such-bucket/out"]
    assert command.main(argv) == 2
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0 and "there is no bucket no-such-bucket" in error
