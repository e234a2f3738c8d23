"""Tests of the live page of a sweep, and of `isoflop report`."""

import fcntl
import http.client
import json
from types import SimpleNamespace

import pytest

from launch.errors import PREEMPTED, BadInput
from launch.runners.tasks import Resources
from launch.sweep import serving
from launch.verbs.models import sweep
from launch.verbs.results import report
from scaling.report import frame
from tests.scaling.report.test_sweep_page import write_sweep


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(frame, "library", lambda: "")  # a megabyte that these tests do not read
    write_sweep(tmp_path / "s", copies=2)
    return tmp_path / "s"


def get(address, path, host="127.0.0.1"):
    """The status, version and content of a path."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", int(address.rstrip("/").rpartition(":")[2])
    )
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    return answer.status, answer.getheader("ETag"), answer.read()


def test_a_served_page_follows_the_files(folder, monkeypatch, capsys):
    monkeypatch.setattr(serving, "PAUSE", 0.0)
    monkeypatch.setattr(serving, "LONGEST", 0.0)
    result = (folder / "a0" / "result.json").read_text()
    (folder / "a0" / "result.json").unlink()
    with serving.serving(folder, browse=False) as address:
        assert address in capsys.readouterr().err
        status, _, page = get(address, "/")
        assert status == 200 and b'id="trials"' in page
        status, version, content = get(address, "/data.json")
        trials = json.loads(content)["trials"]
        assert trials["status"][0] == "waiting" and trials["value"][0] is None
        assert get(address, f"/data.json?have={version}")[0] == 204
        assert json.loads(get(address, "/curves.json")[2])[0]["evaluated"]["value"] == [2.5]
        (folder / "a0" / "result.json").write_text(result)
        status, newer, content = get(address, f"/data.json?have={version}")
        assert (status, json.loads(content)["trials"]["value"][0]) == (
            200,
            2.5,
        ) and newer != version
        (folder / "sweep.json").write_text("{")  # what was last good stays
        assert get(address, "/data.json")[2] == content
    with pytest.raises(OSError):
        get(address, "/")


@pytest.mark.parametrize(
    "path", ["/../sweep.json", "/%2e%2e/sweep.json", "//etc/passwd", "/x.py", "/none.csv"]
)
def test_only_the_page_and_what_lies_beside_it_is_served(folder, path):
    (folder / "report").mkdir()
    (folder / "report" / "x.py").write_text("")
    (folder / "report" / "points.csv").write_text("a,b")
    with serving.serving(folder, browse=False) as address:
        assert get(address, "/points.csv")[2] == b"a,b"
        assert get(address, path)[0] == 404
        assert get(address, "/data.json", host="evil.example:80")[0] == 403


def test_a_folder_without_a_plan_yet_and_a_machine_without_ports(tmp_path, monkeypatch, capsys):
    with serving.serving(tmp_path, browse=False) as address:
        assert b"asks again" in get(address, "/")[2]

    def refuse(*_):
        raise OSError("no port")

    monkeypatch.setattr(serving, "_Server", refuse)
    with serving.serving(tmp_path) as address:
        assert address is None
    assert "the page is not served (no port)" in capsys.readouterr().err


@pytest.mark.parametrize("display", ["", ":0"])
def test_a_browser_opens_only_where_there_is_a_screen(monkeypatch, display):
    opened = []
    monkeypatch.setattr(serving.sys, "platform", "linux")
    monkeypatch.setattr(serving.webbrowser, "open", opened.append)
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    serving.open_browser("http://127.0.0.1:1/")
    assert opened == (["http://127.0.0.1:1/"] if display else [])


def test_a_fault_of_the_page_is_one_line_and_a_lost_browser_is_none(folder, monkeypatch, capsys):
    with serving.serving(folder, browse=False) as address:
        capsys.readouterr()
        for error in (ConnectionResetError("gone"), KeyError("params")):

            def fail(_, error=error):
                raise error

            monkeypatch.setattr(serving._Handler, "do_GET", fail)
            with pytest.raises((OSError, http.client.HTTPException)):
                get(address, "/")
        assert capsys.readouterr().err == "live page: KeyError: 'params'\n"


def test_a_trial_that_a_process_holds_is_running(folder):
    (folder / "a0" / "result.json").unlink()
    (folder / "a0" / "config.json").write_text("{}")
    assert serving.sweep_in(folder).trials[0].status == "unfinished"
    with open(folder / "a0" / "lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert serving.sweep_in(folder).trials[0].status == "running"


def test_the_verb_writes_a_page_for_each_sweep(folder, capsys):
    assert report.main([str(folder)]) == 0
    assert capsys.readouterr().out == f"report: {folder / 'report' / 'index.html'}\n"
    write_sweep(folder.parent / "t", copies=1)
    assert report.main([f"--runs={folder.parent}", f"--out={folder.parent / 'pages'}"]) == 0
    shown = capsys.readouterr().out
    assert "2 sweeps in" in shown
    assert {p.parent.name for p in (folder.parent / "pages").glob("*/index.html")} == {"s", "t"}


def test_bad_input_is_named(folder, tmp_path):
    write_sweep(tmp_path / "t")
    for argv, words in (
        ([str(tmp_path / "none")], "holds no run"),
        ([str(folder / "a0")], f"is one run; give the folder of its sweep: {folder}"),
        ([str(tmp_path), "--watch"], "holds 2 sweeps; watch one"),
        ([str(folder), "--metric=los"], "metric=los is in no result"),
        ([], "runs"),
    ):
        with pytest.raises(BadInput, match=words):
            report.main(argv)


def test_watching_ends_with_the_page_on_disk(folder, monkeypatch, capsys):
    def stop(_):
        address = capsys.readouterr().err.removeprefix("live page: ").strip()
        assert get(address, "/data.json")[0] == 200
        raise KeyboardInterrupt

    monkeypatch.setattr(report.time, "sleep", stop)
    assert report.main([str(folder), "--watch", "--nobrowser"]) == 0
    assert capsys.readouterr().out == f"report: {folder / 'report' / 'index.html'}\n"


@pytest.mark.parametrize("flags", [["--open"], []])
def test_a_sweep_serves_its_page_while_the_trials_run(folder, flags, monkeypatch, capsys):
    def run(*_):
        shown = capsys.readouterr().err
        assert shown.startswith("live page: ") == bool(flags)
        if flags:
            assert get(shown.removeprefix("live page: ").strip(), "/data.json")[0] == 200
        return PREEMPTED

    monkeypatch.setattr(serving, "open_browser", lambda _: None)
    there = SimpleNamespace(resources=Resources(), require_all_used=lambda _: None)
    monkeypatch.setattr(sweep, "machine", lambda *_: there)
    monkeypatch.setattr(sweep, "plan", lambda *_: (SimpleNamespace(trials=()), None))
    monkeypatch.setattr(sweep, "run_sweep", run)
    assert sweep.main(["--config=c.py", f"--workdir={folder}", *flags]) == PREEMPTED
