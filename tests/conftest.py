"""This file keeps the tests on the CPU, whatever accelerator the machine has.

It also holds what the tests of several rooms share.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

# Before anything imports jax. A test that needs more devices starts its own process.
os.environ.setdefault("JAX_PLATFORMS", "cpu")


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """For modules whose time is that of compiling."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory) -> Path:
    """A folder with text.txt: 20,000 words of a language that is quickly learned."""
    folder = tmp_path_factory.mktemp("text")
    words = np.random.default_rng(0).choice(["to", "be", "or", "not", "that\n\n"], 20_000)
    (folder / "text.txt").write_text(" ".join(words))
    return folder


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory) -> Iterator[Path]:
    """A folder where programs that a module's tests compile are found again."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    caching = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in caching}
    for values in (caching, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if values is caching:
            yield Path(caching["jax_compilation_cache_dir"])
