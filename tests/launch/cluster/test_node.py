"""Tests of what a machine does: roles as real processes, Ray as a fake program that listens."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from launch.checkout import ROOT
from launch.cluster import node
from tests.golden.cluster.cases import files
from tests.launch.cluster import tools

# Listens on the port of --port, or connects to --address and stays while the head does.
RAY = """
import socket, sys, time
given = dict(part.lstrip("-").partition("=")[::2] for part in sys.argv[2:])
print('["ray", "' + " ".join(sys.argv[1:]) + '"]', file=open("calls", "a"), flush=True)
if "head" in given:
    server = socket.create_server(("", int(given["port"])))
    while True:
        server.accept()[0].close()
host, port = given["address"].rsplit(":", 1)
while True:
    try:
        socket.create_connection(("127.0.0.1", int(port)), 1).close()
    except OSError:
        sys.exit(1)
    time.sleep(0.05)
"""
# Ends with the next code of the file `codes`, by a signal if it is negative.
COMMAND = """
import os, pathlib, signal, sys, time
file = pathlib.Path("codes")
first, *rest = file.read_text().split()
file.write_text(" ".join(rest))
print('["command"]', file=open("calls", "a"), flush=True)
if first == "wait":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))
    while True:
        time.sleep(0.02)
if int(first) < 0:
    os.kill(os.getpid(), -int(first))
sys.exit(int(first))
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Starts a role of a machine, with short pauses; ends what is left of it."""
    place = tools.install(tmp_path, ray=RAY, command=COMMAND)
    started = []

    def start(role, *command, codes="0", pause=0.1):
        (tmp_path / "codes").write_text(codes)
        quick = f"import launch.cluster.node as n; n.POLL = {pause}; n.SETTLE = 0.0; import sys; "
        argv = [role, f"--home={tmp_path / 'home'}", f"--port={start.port}", "--", *command]
        code = quick + f"sys.exit(n.main({argv!r}))"
        environment = os.environ | {"PATH": tools.path_with(place), "PYTHONPATH": str(ROOT)}
        started.append(subprocess.Popen([sys.executable, "-c", code], env=environment))
        return started[-1]

    with socket.create_server(("127.0.0.1", 0)) as probe:
        start.port = probe.getsockname()[1]
    yield start
    for process in started:
        process.terminate()
        process.wait(20)


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def read(folder, name):
    file = folder / "home" / name
    return json.loads(file.read_text()) if file.exists() else None


@pytest.mark.parametrize(
    ("codes", "runs", "last"),
    [
        ("42 -9 42 1", 4, 1),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in (("0", 1, 0), ("-15 43", 2, 43))),
        pytest.param("2 0", 1, 2, marks=pytest.mark.slow),
    ],
)
def test_a_run_goes_on_after_preemption_and_ends_for_good_otherwise(
    codes, runs, last, machine, tmp_path
):
    assert machine("train", "command", codes=codes).wait(20) == last
    assert tools.calls(tmp_path) == [["command"]] * runs
    assert read(tmp_path, "exit.json")["code"] == last
    # A host that starts again afterwards does nothing.
    assert machine("train", "command", codes="1").wait(20) == last
    assert tools.calls(tmp_path) == [["command"]] * runs


def test_workers_join_the_head_and_all_end_with_its_command(machine, tmp_path):
    worker = machine("worker")
    head = machine("head", "command", codes="42 wait 0")
    joined = until(lambda: any("--address" in str(call) for call in tools.calls(tmp_path)))
    assert joined and read(tmp_path, "head.json")["address"].endswith(f":{machine.port}")
    assert until(lambda: tools.calls(tmp_path).count(["command"]) == 2)
    # The command is killed: it runs again, and its success ends the head and the worker.
    (child,) = until(lambda: children(head.pid, "command"))
    os.kill(child, signal.SIGKILL)
    assert head.wait(20) == 0 and worker.wait(20) == 0
    assert read(tmp_path, "exit.json")["code"] == 0


@pytest.mark.slow
def test_a_head_that_is_lost_comes_back_and_workers_find_it(machine, tmp_path):
    machine("worker")
    head = machine("head", "command", codes="wait wait")
    assert until(lambda: tools.calls(tmp_path).count(["command"]) == 1)
    (ray,) = children(head.pid, "ray")
    os.kill(ray, signal.SIGKILL)
    assert until(lambda: tools.calls(tmp_path).count(["command"]) == 2)
    joins = lambda: sum("--address" in str(call) for call in tools.calls(tmp_path))  # noqa: E731
    assert until(lambda: joins() >= 2)
    assert read(tmp_path, "exit.json") is None


def test_a_read_that_fails_once_moves_nobody(tmp_path, monkeypatch):
    """A worker leaves the head that it has joined only for another one, or at the end."""
    here, other = {"address": "a:1", "token": "t"}, {"address": "b:1", "token": "t"}
    heads = iter([here, here, None, here, other, other, other])
    ends = iter([None] * 8)
    reads = {"head.json": heads, "exit.json": ends}
    monkeypatch.setattr(node, "read", lambda home, name: next(reads[name], {"code": 0}))
    joined = []
    ray = SimpleNamespace(poll=lambda: None)
    start = lambda argv: joined.append(argv[2]) or ray  # noqa: E731
    children = SimpleNamespace(stopped=False, start=start, pause=lambda s: None, end=lambda r: None)
    assert node.worker(tmp_path, children) == 0
    assert joined == ["--address=a:1", "--address=b:1"]


def test_sigterm_saves_and_starts_nothing_again(machine, tmp_path):
    run = machine("train", "command", codes="wait 0", pause=0.05)
    assert until(lambda: tools.calls(tmp_path))
    run.terminate()
    assert run.wait(20) == 42 and read(tmp_path, "exit.json") is None
    assert tools.calls(tmp_path) == [["command"]]


@pytest.mark.parametrize(
    ("case", "file", "host", "role"),
    [
        ("tpu-sweep", "ladder-0a1b2c-0.json", 0, "head"),
        ("tpu-sweep", "ladder-0a1b2c-0.json", 3, "worker"),
        ("tpu-sweep", "ladder-0a1b2c-15.json", 0, "worker"),
        ("tpu-train", "ladder-0a1b2c.json", 2, "train"),
    ],
)
def test_a_startup_script_installs_until_it_works_and_takes_its_role(
    case, file, host, role, tmp_path
):
    """With fakes of gcloud, uv and curl. The first download, install and look at the metadata
    fail."""
    once = "[ -e $0.tried ] || { touch $0.tried; exit 1; }\n"
    python = f"#!/bin/bash\\necho $PWD $@ >{tmp_path}/ran"
    place = tools.install(
        tmp_path,
        gcloud=f"#!/bin/bash\n{once}touch setup.py; tar -czf $4 setup.py\n",
        curl=f"#!/bin/bash\n{once}echo {host}\n",
        sleep="#!/bin/bash\n",
        uv=f"#!/bin/bash\n[ $1 = venv ] && exec mkdir -p .venv/bin\n{once}"
        f"touch .venv/bin/isoflop; chmod +x .venv/bin/isoflop\n"
        f"printf '{python}' >.venv/bin/python; chmod +x .venv/bin/python\n",
    )
    body = json.loads(files(case)[file])
    script = body["tpu"]["node_spec"][0]["node"]["metadata"]["startup-script"]
    script = script.replace("/opt/isoflop", f"{tmp_path}/opt").replace("HOME=/root", "HOME=/none")
    environment = os.environ | {"PATH": tools.path_with(place)}
    assert subprocess.run(["bash", "-c", script], env=environment, timeout=20).returncode == 0
    ran = (tmp_path / "ran").read_text()
    assert ran.startswith(f"{tmp_path}/opt/code -m launch.cluster.node {role} --home=gs://bucket")
    assert ("isoflop sweep" in ran, "isoflop train" in ran) == (role == "head", role == "train")


def children(pid, name):
    """The process ids of the children that run the program `name`."""
    found = []
    for line in subprocess.check_output(["ps", "-ewwo", "pid,ppid,args"], text=True).splitlines()[
        1:
    ]:
        child, parent, args = line.split(maxsplit=2)
        if int(parent) == pid and f"bin/{name}" in args:
            found.append(int(child))
    return found
