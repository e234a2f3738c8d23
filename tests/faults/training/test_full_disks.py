"""Tests of disks that fill up while a checkpoint is written."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from tests import disks
from train import checkpoint
from train.checkpoint import Checkpoints, finished

ARRAYS = 6
SIZE = 112 << 10  # bytes of a disk with room for one checkpoint and a part of the next


def state(step: int) -> dict:
    numbers = np.random.default_rng(step)
    return {f"w{i}": numbers.normal(size=(32, 32)).astype(np.float32) for i in range(ARRAYS)}


def bits(tree: dict) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def saved(folder: Path, steps: list[int]) -> int:
    """Saves steps until the disk is full. Returns the last that was saved."""
    checkpoints, last = Checkpoints(folder, 2, 0, lambda line: None), 0
    for step in steps:
        try:
            checkpoints.save(step, jax.tree.map(jax.numpy.asarray, state(step)), {})
            checkpoints.wait()
        except OSError as error:
            assert "No space left" in str(error)
            break
        last = step
    checkpoints.close()
    return last


@pytest.fixture
def crowded(monkeypatch):
    """Others fill the disk after it was asked for its free space, so that a save fails midway."""
    usage = shutil.disk_usage
    monkeypatch.setattr(
        checkpoint.shutil, "disk_usage", lambda path: usage(path)._replace(free=1 << 40)
    )


@pytest.mark.parametrize("filled", range(0, 60, 12))
def test_a_disk_that_fills_in_mid_save_leaves_no_stale_step(tmp_path, crowded, filled):
    with disks.small(tmp_path / "small", str(SIZE)) as small:
        (small / "others").write_bytes(b"x" * (filled << 10))
        folder = small / "checkpoints"
        last = saved(folder, [10, 20, 30, 40])
        assert last < 40 and (last or filled > 12)  # the disk was full, in the first save or later
        names = [path.name for path in finished(folder)]
        assert names[:1] == ([str(last)] if last else [])
        assert {p.name for p in folder.glob("*")} == set(names)  # nothing is left of the failed one
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state(0))
        reader = Checkpoints(folder, 2, 0, lambda line: None)
        restored = reader.restore(like)
        reader.close()
        if last:  # as it is with little on the disk
            assert bits(restored[0]) == bits(state(last)) and restored[1]["step"] == last
        else:
            assert restored is None
        (small / "others").unlink()  # there is room again
        shutil.rmtree(folder)
        assert saved(folder, [50]) == 50


def test_control_a_step_without_its_last_file_would_be_stale(tmp_path, monkeypatch):
    """If a manifest were written whatever the disk did, the newest step could not be restored."""
    folder = tmp_path / "checkpoints"
    saved(folder, [10, 20])
    victim = max((p for p in (folder / "20").rglob("d/*")), key=lambda p: p.stat().st_size)
    victim.unlink()
    assert checkpoint.damage(folder / "20") and not checkpoint.damage(folder / "10")
    monkeypatch.setattr(checkpoint, "damage", lambda path: None)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state(0))
    with pytest.raises(Exception, match=r"(?s).+"):
        Checkpoints(folder, 2, 0, lambda line: None).restore(like)
