"""Tests checkpoints: saving, restoring, retention, and detection of damage."""

import errno
import functools
import gc
import logging
import random
import shutil

import jax
import numpy as np
import pytest

from tests import disks
from train.checkpoint import MANIFEST, Checkpoints, _unraisable, damage, finished, restore_params


def state(value: float) -> dict:
    return {"params": {"kernel": np.full((64, 8), value, np.float32)}, "step": np.int32(value)}


def like() -> dict:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), state(0))


@pytest.fixture
def said() -> list[str]:
    return []


def saved(folder, said, steps=(10, 20), **keep) -> Checkpoints:
    keep = {"keep_last": 2, "keep_best": 0} | keep
    checkpoints = Checkpoints(folder, say=said.append, **keep)
    for step in steps:
        checkpoints.save(
            step, jax.tree.map(jax.numpy.asarray, state(step)), {"eval_loss": 1 / step}
        )
    checkpoints.wait()
    return checkpoints


def test_the_newest_comes_back_with_its_meta(tmp_path, said):
    restored, meta = saved(tmp_path, said).restore(like())
    assert meta == {"eval_loss": 0.05, "step": 20}
    np.testing.assert_array_equal(restored["params"]["kernel"], state(20)["params"]["kernel"])
    params, _ = restore_params(tmp_path)
    np.testing.assert_array_equal(params["kernel"], state(20)["params"]["kernel"])
    assert said == []


def test_nothing_to_restore(tmp_path, said):
    assert Checkpoints(tmp_path / "none", 1, 1, said.append).restore(like()) is None
    with pytest.raises(FileNotFoundError, match="no finished checkpoint"):
        restore_params(tmp_path / "none")


def test_last_and_best_are_kept(tmp_path, said):
    checkpoints = Checkpoints(tmp_path, keep_last=2, keep_best=1, say=said.append)
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 2.5), (5, None)):
        checkpoints.save(step, jax.tree.map(jax.numpy.asarray, state(step)), {"eval_loss": loss})
    checkpoints.wait()
    assert [int(p.name) for p in finished(tmp_path)] == [5, 4, 2]


def test_every_one_of_100_bit_flips_is_found_and_the_previous_one_used(tmp_path, said):
    checkpoints = saved(tmp_path, said)
    newest = finished(tmp_path)[0]
    files = [p for p in newest.rglob("*") if p.is_file() and p.stat().st_size]
    rng = random.Random(0)
    for _ in range(100):
        victim = rng.choice(files)
        content = bytearray(victim.read_bytes())
        bit = rng.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        intact = victim.read_bytes()
        victim.write_bytes(bytes(content))
        assert damage(newest) is not None, f"bit {bit} of {victim}"
        victim.write_bytes(intact)
    assert damage(newest) is None  # control: the intact one passes
    victim.write_bytes(bytes(content))
    restored, meta = checkpoints.restore(like())
    assert meta["step"] == 10 and restored["params"]["kernel"][0, 0] == 10
    assert len(said) == 1 and "damaged" in said[0] and str(newest) in said[0]


def test_a_missing_file_is_damage_and_all_damaged_is_an_error(tmp_path, said):
    checkpoints = saved(tmp_path, said)
    for path in finished(tmp_path):
        next(p for p in path.rglob("*") if p.is_file() and p.name != MANIFEST).unlink()
    with pytest.raises(ValueError, match=r"every checkpoint in .* is damaged"):
        checkpoints.restore(like())


def test_an_unfinished_save_is_ignored_and_written_over(tmp_path, said):
    checkpoints = saved(tmp_path, said)
    (tmp_path / "20" / MANIFEST).unlink()
    assert checkpoints.restore(like())[1]["step"] == 10
    checkpoints.save(20, jax.tree.map(jax.numpy.asarray, state(20)), {})
    checkpoints.wait()
    assert checkpoints.restore(like())[1]["step"] == 20


def leaked(folder) -> list:
    """Creates the partial checkpoints that killed runs leave behind."""
    left = [folder / "30.orbax-checkpoint-tmp", folder / "5.orbax-checkpoint-tmp-7", folder / "7"]
    for path in left:
        (path / "params").mkdir(parents=True)
        (path / "params" / "data").write_bytes(b"half")
    (folder / "40").touch()
    return [*left, folder / "40"]


def test_what_killed_saves_left_is_removed_on_restore_and_after_a_save(tmp_path, said):
    checkpoints = saved(tmp_path, said)
    kept = [tmp_path / "10", tmp_path / "20", tmp_path / "30.damaged", tmp_path / "notes"]
    for path in kept[2:]:
        path.mkdir()
    for act in (
        lambda: checkpoints.restore(like()),
        lambda: checkpoints.save(30, jax.tree.map(jax.numpy.asarray, state(30)), {}),
    ):
        left = leaked(tmp_path)
        act()
        checkpoints.wait()
        assert not any(path.exists() for path in left)
    assert sorted(tmp_path.iterdir()) == sorted([*kept[1:], tmp_path / "30"])
    assert any("removed unfinished checkpoints" in line and "30.orbax" in line for line in said)


def test_a_damaged_checkpoint_that_is_set_aside_again_gets_another_name(tmp_path, said):
    checkpoints = saved(tmp_path, said)
    for name in ("20.damaged", "20.damaged1"):
        checkpoints.save(20, jax.tree.map(jax.numpy.asarray, state(20)), {})
        checkpoints.wait()
        (tmp_path / "20" / "_METADATA").unlink()
        assert checkpoints.restore(like())[1]["step"] == 10
        assert (tmp_path / name).is_dir()


def test_a_damaged_manifest_of_an_older_checkpoint_does_not_stop_training(tmp_path, said):
    checkpoints = saved(tmp_path, said, keep_best=1)
    (tmp_path / "10" / MANIFEST).write_text("[" * 100_000)
    checkpoints.save(30, jax.tree.map(jax.numpy.asarray, state(30)), {"eval_loss": 1.0})
    checkpoints.wait()
    assert checkpoints.restore(like())[1]["step"] == 30


@pytest.mark.parametrize("name", ["checkpoint", "params", "d/more"])
def test_a_stray_file_in_a_checkpoint_is_damage(tmp_path, said, name):
    """Orbax takes a folder with a file `checkpoint` for an older format and fails to read it."""
    checkpoints = saved(tmp_path, said)
    (tmp_path / "20" / name).write_bytes(b"")
    (tmp_path / "10" / ".DS_Store").write_bytes(b"")  # control: hidden files do no harm
    assert checkpoints.restore(like())[1]["step"] == 10
    assert f"{name} does not belong to it" in said[0]


def test_a_renamed_checkpoint_is_damage(tmp_path, said):
    checkpoints = saved(tmp_path, said)
    (tmp_path / "20").rename(tmp_path / "30")
    assert checkpoints.restore(like())[1]["step"] == 10
    assert "it is the checkpoint of step 20" in said[0]


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, said, monkeypatch):
    checkpoints = saved(tmp_path, said, steps=(10,))

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("train.checkpoint.write_manifest", full)
    checkpoints.save(20, jax.tree.map(jax.numpy.asarray, state(20)), {})
    with pytest.raises(OSError, match="No space left"):
        checkpoints.wait()
    assert [p.name for p in finished(tmp_path)] == ["10"]
    assert not (tmp_path / "20").exists()
    shutil.rmtree(tmp_path)


def test_too_little_space_is_noticed_before_anything_is_written(tmp_path, said, monkeypatch):
    """Orbax writes more than the arrays, and prints a traceback for each that does not fit."""
    checkpoints = saved(tmp_path, said, steps=(10,))
    size = sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(state(20)))
    for free, fits in ((size, False), (size + (2 << 20), True)):
        usage = shutil._ntuple_diskusage(10**9, 10**9 - free, free)
        monkeypatch.setattr("train.checkpoints.disk.shutil.disk_usage", lambda folder, u=usage: u)
        if fits:
            checkpoints.save(20, jax.tree.map(jax.numpy.asarray, state(20)), {})
            checkpoints.wait()
        else:
            with pytest.raises(OSError, match="No space left"):
                checkpoints.save(20, jax.tree.map(jax.numpy.asarray, state(20)), {})
        assert (tmp_path / "20").exists() == fits


@pytest.mark.parametrize("size", ["16k", "36k", "60k"])
def test_a_disk_that_fills_up_during_a_save_logs_nothing(tmp_path, said, monkeypatch, caplog, size):
    usage = shutil._ntuple_diskusage(10**9, 0, 10**9)
    monkeypatch.setattr("train.checkpoints.disk.shutil.disk_usage", lambda folder: usage)
    hook = functools.partial(_unraisable, show=said.append)
    monkeypatch.setattr("sys.unraisablehook", hook)
    with disks.small(tmp_path / "small", size) as small:
        checkpoints = Checkpoints(small, 3, 0, said.append)
        with pytest.raises(OSError, match="No space left"):
            for step in range(1, 9):
                checkpoints.save(step, jax.tree.map(jax.numpy.asarray, state(step)), {})
        gc.collect()  # an error that nobody has read is logged when its task is deleted
        assert "ERROR" not in caplog.text and said == []
        assert [damage(path) for path in finished(small)] == [None] * len(finished(small))
        assert {path.name for path in small.iterdir()} == {p.name for p in finished(small)}


@pytest.mark.parametrize(("place", "shown"), [("1.orbax-checkpoint-tmp/a", False), ("1/a", True)])
def test_a_late_write_to_a_failed_save_logs_nothing(caplog, tmp_path, place, shown):
    try:
        (tmp_path / place).write_text("")
    except FileNotFoundError as error:
        logging.getLogger("asyncio").error("Future exception was never retrieved", exc_info=error)
    assert bool(caplog.records) == shown


def test_a_save_is_not_disturbed_by_donation(tmp_path, said):
    checkpoints = Checkpoints(tmp_path, 1, 0, said.append)
    double = jax.jit(lambda x: jax.tree.map(lambda y: 2 * y, x), donate_argnums=0)
    live = jax.tree.map(jax.numpy.asarray, {"kernel": np.ones((2000, 2000), np.float32)})
    checkpoints.save(1, live, {})
    for _ in range(5):
        live = double(live)
    checkpoints.wait()
    restored, _ = checkpoints.restore(
        jax.tree.map(np.empty_like, {"kernel": np.ones((2000, 2000), "f4")})
    )
    assert np.all(np.asarray(restored["kernel"]) == 1) and np.all(np.asarray(live["kernel"]) == 32)
