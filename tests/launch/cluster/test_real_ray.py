"""A head and a worker of a cluster with the real Ray, on one host, run a whole sweep."""

import json
import os
import socket
import subprocess
import sys

import pytest

from launch.checkout import ROOT

SWEEP = """from configs import base
def get_config(arg=None):
    c = base.get_config()
    c.data.corpora, c.data.validation, c.data.tokenizer = ("FOLDER/book.txt",), 0.3, "bytes"
    c.data.cache, c.log.tensorboard = "FOLDER/cache", False
    c.train.duration, c.train.batch_size, c.eval.sequences, c.eval.batch_size = "9 steps", 4, 4, 4
    c.model.n_layers, c.model.n_heads, c.model.context_length, c.model.d_model = 1, 1, 16, 8
    return c
def get_sweep(c):
    return [{"seed": seed} for seed in range(6)]
"""


@pytest.mark.slow
def test_a_head_and_a_worker_run_a_sweep_and_end_with_it(tmp_path):
    pytest.importorskip("ray")
    (tmp_path / "book.txt").write_text("".join(f"Paragraph {i}.\n\n" for i in range(3000)))
    (tmp_path / "s.py").write_text(SWEEP.replace("FOLDER", str(tmp_path)))
    home = tmp_path / "sweep/machines/l-0a1b2c"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    node = [sys.executable, "-m", "launch.cluster.node"]
    sweep = [sys.executable, "-m", "launch.__main__", "sweep", f"--config={tmp_path}/s.py"]
    sweep += [f"--workdir={tmp_path}/sweep", "--on=ray", "--address=auto", "--nofit"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    # `ray` of this environment; sockets in a folder with a short name.
    environment["PATH"] = f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}"
    with open(tmp_path / "log", "w") as log:
        options = {"env": environment, "stdout": log, "stderr": log}
        worker = subprocess.Popen([*node, "worker", f"--home={home}"], **options)
        head = [*node, "head", f"--home={home}", f"--port={port}", "--", *sweep]
        try:
            assert subprocess.run(head, **options, timeout=540).returncode == 0
            assert worker.wait(60) == 0
        finally:
            worker.terminate()
            print((tmp_path / "log").read_text()[-4000:])
    results = [json.loads(file.read_text()) for file in tmp_path.glob("sweep/*/result.json")]
    assert [result["status"] for result in results] == ["done"] * 6


@pytest.mark.slow
def test_a_sweep_from_a_folder_with_files_of_our_names_runs_our_code(tmp_path):
    pytest.importorskip("ray")
    (tmp_path / "book.txt").write_text("".join(f"Paragraph {i}.\n\n" for i in range(3000)))
    (tmp_path / "s.py").write_text(SWEEP.replace("FOLDER", str(tmp_path)).replace("(6)", "(2)"))
    for name in ("train.py", "model.py", "data.py"):
        (tmp_path / name).write_text("raise RuntimeError('not ours')\n")
    sweep = [os.path.join(os.path.dirname(sys.executable), "isoflop"), "sweep", "--config=s.py"]
    sweep += ["--workdir=sweep", "--on=ray", "--nofit"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(sweep, cwd=tmp_path, env=environment, timeout=300, capture_output=True)
    assert done.returncode == 0, done.stderr
    results = [json.loads(file.read_text()) for file in tmp_path.glob("sweep/*/result.json")]
    assert [result["status"] for result in results] == ["done"] * 2
