"""Tests with random faults in checkpoints: a restore returns saved bits or says why not."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from train import checkpoint
from train.checkpoint import Checkpoints, Damaged, finished

FAULTS = 300
STEPS = (10, 20, 30)
NAMES = ("checkpoint", "_METADATA", "manifest.ocdbt", "d/x", "params", "manifest.json", "array_1")


def state(step: int) -> dict:
    numbers = np.random.default_rng(step)
    kernel = numbers.normal(size=(64, 64)).astype(np.float32)
    return {"params": {"kernel": kernel, "bias": kernel[0]}, "step": np.int32(step)}


def bits(tree: dict) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes()) or bytearray(b"\0")
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))


def truncate(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) or 1)] if content else b"x")


def delete(path: Path, rng: random.Random) -> None:
    step = path.parents[len(path.relative_to(_folder(path)).parts) - 2]
    shutil.rmtree(step) if rng.random() < 0.1 else path.unlink()


def empty(path: Path, rng: random.Random) -> None:
    """Leaves nothing in the folder of a step, or in one of its folders."""
    step = _folder(path) / path.relative_to(_folder(path)).parts[0]
    folder = step if rng.random() < 0.5 else path.parent
    for inside in folder.iterdir():
        shutil.rmtree(inside) if inside.is_dir() else inside.unlink()


def add(path: Path, rng: random.Random) -> None:
    target = path.parent / rng.choice(NAMES)
    target.parent.mkdir(exist_ok=True)
    if not target.is_dir():
        target.write_bytes(rng.randbytes(rng.randrange(40)))


def rename(path: Path, rng: random.Random) -> None:
    if rng.random() < 0.3:  # the folder of a step
        step = _folder(path) / path.relative_to(_folder(path)).parts[0]
        target = step.with_name(str(rng.randrange(5, 50)))
        if not target.exists():
            step.rename(target)
    else:
        path.rename(path.with_name(rng.choice((f"{path.name}x", ".hidden", "checkpoint"))))


def _folder(path: Path) -> Path:
    return next(parent for parent in path.parents if parent.name == "checkpoints")


KINDS: tuple[Callable[[Path, random.Random], None], ...] = (
    flip,
    truncate,
    delete,
    empty,
    add,
    rename,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The folder of the finished checkpoints of a run."""
    folder = tmp_path_factory.mktemp("faults") / "checkpoints"
    checkpoints = Checkpoints(folder, keep_last=3, keep_best=0, say=lambda line: None)
    for step in STEPS:
        checkpoints.save(step, jax.tree.map(jax.numpy.asarray, state(step)), {})
    checkpoints.close()
    assert [int(path.name) for path in finished(folder)] == [*reversed(STEPS)]
    return folder


def read_once(read: Callable, known: dict) -> Callable:
    """`read`, but a folder with the same names and bytes as an earlier one is not read again: Orbax
    takes most of the time."""

    def reading(path: Path, like: dict) -> dict:
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        content = tuple((str(file.relative_to(path)), file.read_bytes()) for file in files)
        if content not in known:
            known[content] = read(path, like)
        return known[content]

    return reading


def test_300_faults_never_return_other_bits(whole, tmp_path, monkeypatch):
    known = {}
    monkeypatch.setattr(checkpoint, "_read", read_once(checkpoint._read, known))
    rng, outcomes = random.Random(0), []
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), state(0))
    for number in range(FAULTS):
        folder = tmp_path / str(number) / "checkpoints"
        shutil.copytree(whole, folder)
        # In a third of the cases only one checkpoint is left, so there is nothing to fall back on.
        for step in STEPS[1:] if number % 3 == 0 else ():
            shutil.rmtree(folder / str(step))
        newest = finished(folder)[0]
        for place in (newest, *rng.choice(((), (), (folder, folder, folder)))):
            files = sorted(path for path in place.rglob("*") if path.is_file())
            if files and (victim := rng.choice(files)).exists():
                rng.choice(KINDS)(victim, rng)
        said = []
        reader = Checkpoints(folder, keep_last=3, keep_best=0, say=said.append)
        try:
            restored = reader.restore(like)
        except Damaged as refusal:
            assert "every checkpoint in" in str(refusal) and "\n" not in str(refusal)
            outcomes.append("refused")
            continue
        finally:
            reader.close()
        if restored is None:
            assert not finished(folder)
            outcomes.append("nothing")
            continue
        tree, meta = restored
        assert meta["step"] in STEPS and bits(tree) == bits(state(meta["step"])), number
        if said:
            assert all("\n" not in line for line in said)
        outcomes.append("newest" if meta["step"] == 30 else "older")
        shutil.rmtree(folder)
    # Every outcome occurs, so the faults have the intended effects.
    assert {"older", "refused"} <= set(outcomes), outcomes
    assert outcomes.count("older") > 120 and len(known) >= len(STEPS)


def test_without_verification_other_bits_come_back(whole, tmp_path, monkeypatch):
    """Control: the faulty values would be restored."""
    monkeypatch.setattr("train.checkpoint.damage", lambda path: None)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), state(0))
    rng, wrong = random.Random(0), 0
    for number in range(20):
        folder = tmp_path / str(number) / "checkpoints"
        shutil.copytree(whole, folder)
        files = [path for path in (folder / "30").rglob("d/*") if path.is_file()]
        flip(max(files, key=lambda path: path.stat().st_size), rng)
        try:
            tree, _ = Checkpoints(folder, 3, 0, lambda line: None).restore(like)
        except Exception:
            continue
        wrong += bits(tree) != bits(state(30))
    assert wrong
