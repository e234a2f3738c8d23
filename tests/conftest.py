"""Configures pytest: CPU only, no skips where the reference data exist, shared fixtures."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

# Must run before jax is imported. A test that needs more devices starts a subprocess.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Compilation took most of the tests' time. A program computes the same function without XLA's
# optimizations, and without them XLA's older emitters compile three times as fast as its fusion
# emitters.
# Flags that libtpu does not know would end the process, so these are among those that it does.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
QUICKLY = (
    "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters "
    "--xla_cpu_parallel_codegen_split_count=1"
)
os.environ["XLA_FLAGS"] = f"{QUICKLY} {os.environ.get('XLA_FLAGS', '')}".strip()

pytest_plugins = ["pytester"]
SHARED = Path(__file__).parents[2] / "shared"  # reference data beside the checkout


def complete(report: pytest.TestReport | pytest.CollectReport) -> pytest.TestReport:
    """Turns a skip into a failure if SHARED exists.

    Skips whose reason begins with "this machine" stay skips.
    """
    if report.skipped and not hasattr(report, "wasxfail") and SHARED.is_dir():
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith("this machine"):
            report.outcome = "failed"
            report.longrepr = f"skipped although {SHARED} exists: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    return complete((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    return complete((yield))


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory) -> Path:
    """A folder with text.txt: 20,000 words of a language that a tiny model learns quickly."""
    folder = tmp_path_factory.mktemp("text")
    words = np.random.default_rng(0).choice(["to", "be", "or", "not", "that\n\n"], 20_000)
    (folder / "text.txt").write_text(" ".join(words))
    return folder


@pytest.fixture
def without_pictures(monkeypatch) -> None:
    """Pages keep their figures, but the PNG and SVG files beside them are empty."""
    drawing = pytest.importorskip("vl_convert")
    monkeypatch.setattr(drawing, "vegalite_to_png", lambda *_, **__: b"")
    monkeypatch.setattr(drawing, "vegalite_to_svg", lambda *_: "")


@pytest.fixture(scope="session")
def programs(tmp_path_factory) -> Path:
    """The folder of the session's compiled programs, which its workers share."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"


@pytest.fixture(scope="module")
def compiled_once(programs) -> Iterator[Path]:
    """Keeps the programs that a module's tests and their child processes compile, and reads those
    that other modules have kept."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    caching = {
        "jax_compilation_cache_dir": str(programs),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in caching}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in caching.items():
            patch.setenv(name.upper(), str(value))  # for the children
        for values in (caching, before):
            for name, value in values.items():
                jax.config.update(name, value)
            compilation_cache.reset_cache()
            if values is caching:
                yield programs
