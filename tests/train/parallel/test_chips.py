"""Tests the table of chips and both notations of a slice."""

import re

import pytest

from train.parallel.chips import CHIPS, parse_slice, peak_flops


@pytest.mark.parametrize(
    ("device_kind", "peak"),
    [
        ("TPU v4", 275e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5e", 197e12),
        ("TPU v5", 459e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
        ("TPU v6e", 918e12),
        ("TPU7x", 1154e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA B200", 2250e12),
        ("cpu", None),
        ("TPU v3", None),
    ],
)
def test_the_peak_of_what_jax_reports(device_kind, peak):
    assert peak_flops(device_kind) == peak


@pytest.mark.parametrize(
    ("text", "kind", "devices", "shape", "number"),
    [
        ("v5e-256", "v5e", 256, (16, 16), 1),
        ("v5e:16x16", "v5e", 256, (16, 16), 1),
        ("2*v5e:16x16", "v5e", 512, (16, 16), 2),
        ("2*v5e-256", "v5e", 512, (16, 16), 2),
        ("V6E-1", "v6e", 1, (1, 1), 1),
        ("v5e-3", "v5e", 3, (), 1),
        ("v5e:3x3", "v5e", 9, (3, 3), 1),
        ("v5p-8", "v5p", 4, (2, 2, 1), 1),  # counts cores, two per device
        ("v4-8", "v4", 4, (2, 2, 1), 1),
        ("tpu7x-8", "tpu7x", 8, (2, 2, 1), 1),  # counts cores, one per device
        ("7x:2x2x1", "tpu7x", 8, (2, 2, 1), 1),
        ("h100-8", "h100", 8, (), 1),
    ],
)
def test_both_notations_of_a_slice(text, kind, devices, shape, number):
    found = parse_slice("tpu", text)
    assert (found.name, found.kind, found.devices) == (text, kind, devices)
    assert (found.shape, found.number) == (shape, number)
    assert found.rate(0.5) == devices * CHIPS[kind].peak * 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "tpu= is unknown"),
        ("v9-8", "tpu=v9-8 is unknown; write one of v4, v5e"),
        ("0*v5e-8", "tpu=0*v5e-8 is unknown"),
        ("v5e", "write v5e- and a whole number of chips, or v5e: and the chips along each axis"),
        ("v5e-", "write v5e- and a whole number"),
        ("v5e-0", "write v5e- and a whole number"),
        ("v5e-8x", "write v5e- and a whole number"),
        ("v5p-7", "8 cores, 4 chips"),
        ("v5e:2x2x2", "a v5e slice has 2 axes of at least one chip; use one of v5e:1x1, v5e:2x2"),
        ("v5e:0x2", "at least one chip"),
        ("h100:2x2", "write h100- and a whole number of chips"),
    ],
)
def test_what_is_no_slice_is_refused(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_slice("tpu", text)


def test_every_number_of_chips_has_one_shape():
    for kind, chip in CHIPS.items():
        counts = {parse_slice("topology", f"{kind}:{shape}").devices for shape in chip.slices}
        assert len(counts) == len(chip.slices)
        assert chip.peak > 1e14 and bool(chip.slices) == bool(chip.hbm) == bool(chip.ici)
