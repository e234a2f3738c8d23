"""Tests that quantised matrices are those of bitsandbytes, bit by bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.adapters import int8, nf4
from tests.model.golden import FOLDER

CASES = ("wide", "tall")


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "adapters" / "quantised.npz") as file:
        return {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in file.items()}


def dense(matrix) -> np.ndarray:
    return np.asarray(jax.jit(lambda matrix: matrix.dense(jnp.float32))(matrix))


@pytest.mark.parametrize("case", CASES)
def test_nf4_equals_bitsandbytes(golden, case):
    offset = golden[f"{case}_offset"]
    found = nf4.quantised(golden[f"{case}_kernel"], offset)
    for name in ("codes", "scales", "outer"):
        np.testing.assert_array_equal(getattr(found, name), golden[f"{case}_{name}"])
    np.testing.assert_array_equal(dense(found)[:, ::6], golden[f"{case}_dense"])
    # torch's mean depends on its order of summation: ours may differ in the last bit.
    own = nf4.quantised(golden[f"{case}_kernel"]).offset
    assert abs(int(own.view(np.int32)) - int(offset.view(np.int32))) <= 1


@pytest.mark.parametrize("case", CASES)
def test_int8_equals_bitsandbytes(golden, case):
    found = int8.quantised(golden[f"{case}_kernel"])
    np.testing.assert_array_equal(found.codes, golden[f"{case}_int8"])
    np.testing.assert_array_equal(found.scales, golden[f"{case}_int8_scales"])
    np.testing.assert_array_equal(dense(found)[:, ::6], golden[f"{case}_int8_dense"])


def test_a_flipped_code_is_seen(golden):
    found = nf4.quantised(golden["wide_kernel"], golden["wide_offset"])
    flipped = found.replace(codes=found.codes ^ np.eye(*found.codes.shape, dtype=np.uint8))
    assert (dense(flipped) != dense(found)).sum() == min(found.codes.shape)


def test_layers_are_quantised_one_by_one(golden):
    kernel = golden["tall_kernel"]
    stack = nf4.quantised(np.stack([kernel, 2 * kernel]))
    np.testing.assert_array_equal(dense(stack)[1], dense(nf4.quantised(2 * kernel)))
    shapes = nf4.shapes((2, *kernel.shape))
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), stack, shapes)
    assert all(jax.tree.leaves(same)) and len(jax.tree.leaves(same)) == 4


def test_a_matrix_of_zeros_stays_zero():
    zeros = np.zeros((64, 8), np.float32)
    assert not dense(nf4.quantised(zeros)).any() and not dense(int8.quantised(zeros)).any()


def test_inputs_that_64_does_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiples of 64, not 96"):
        nf4.quantised(np.ones((96, 8), np.float32))
