"""Tests of the format of compressed files: what is damaged is refused in one line."""

import json
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launch.coding import container, same_bits
from launch.coding.container import Header

HEADER = Header(
    model="ab" * 32, run="first", step=7, platform={"jax": "0.10.2"}, bytes=11, sha256="cd" * 32,
    tokens=9, streams=2, overlap=4, gaps=3, content=5, checks=[1, 2, 3],
)  # fmt: skip
FILE = container.write(HEADER, b"gap", b"coded")


def test_what_is_written_is_read():
    assert container.read(FILE, "x") == (HEADER, b"gap", b"coded")


def test_every_damaged_byte_and_every_truncation_is_refused_in_one_line():
    for at in range(len(FILE)):
        damaged = FILE[:at] + bytes([FILE[at] ^ 1 << at % 8]) + FILE[at + 1 :]
        for file in (damaged, FILE[:at]):
            with pytest.raises(ValueError, match=r"^x (is|was|has)") as error:
                container.read(file, "x")
            assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"is damaged: .* bytes"):
        container.read(FILE + b"\0", "x")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"", "x was not written by isoflop compress"),
        (b"PK\3\4 a zip file", "x was not written by isoflop compress"),
        (FILE[:5], "x is truncated"),
        (FILE[:11], "x is truncated"),
        (FILE[:8] + b"\2" + FILE[9:], "x has version 2 of the format"),
        (FILE[:-1], r"x is truncated: [0-9]+ of [0-9]+ bytes"),
    ],
)
def test_other_files_are_named_as_what_they_are(file, message):
    with pytest.raises(ValueError, match=message):
        container.read(file, "x")


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": -1}, {"tokens": 10**15}, {"tokens": "9"}, {"streams": 0}, {"streams": 10**9},
        {"step": None}, {"checks": [1.5]}, {"platform": []}, {"model": 3}, {"more": 1},
        {"tokens": True},
    ],
)  # fmt: skip
def test_a_header_of_impossible_fields_is_refused(change):
    content = zlib.compress(json.dumps(vars(HEADER) | change).encode())
    file = struct.pack("<8sBI", container.MAGIC, 1, len(content)) + content
    file += struct.pack("<I", zlib.crc32(file))
    with pytest.raises(ValueError, match="is damaged or truncated in its header"):
        container.read(file, "x")


def test_a_header_that_expands_without_end_is_refused():
    content = zlib.compress(b'{"run": "' + b"a" * 10**7)
    file = struct.pack("<8sBI", container.MAGIC, 1, len(content)) + content
    with pytest.raises(ValueError, match="in its header"):
        container.read(file, "x")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=300))))
def test_gaps_come_back(pairs):
    gaps = sorted(dict(pairs).items())
    most = sum(len(raw) for _, raw in gaps)
    packed = container.pack_gaps(gaps)
    assert container.unpack_gaps(packed, most) == gaps and (packed == b"") == (not gaps)
    if gaps:  # control: those of a file with fewer bytes than gaps
        with pytest.raises(ValueError, match="gaps: "):
            container.unpack_gaps(packed, len(gaps) - 1)


def test_platforms_are_compared_by_name():
    there = {"jax": "0.10.2", "cpu": "x86_64 A 1", "sets": "avx avx2 fma"}
    assert same_bits.differences(there, dict(there)) == ""
    here = there | {"jax": "0.11.0", "sets": "avx avx512f fma"}
    assert same_bits.differences(there, here) == (
        "jax 0.10.2 there, 0.11.0 here; the instruction sets of the CPU differ in avx2, avx512f"
    )
    assert "cpu unknown" not in same_bits.differences(there, {}) and same_bits.differences({}, here)
    assert same_bits.here(counted=True) == {"computes": "numpy float64"}
    assert {"jax", "backend", "cpu", "device"} <= same_bits.here(counted=False).keys()
