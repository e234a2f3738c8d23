"""Tests of how numbers are formatted for the terminal."""

import pytest

from launch.amounts import amount, byte_size, clock, flops, with_interval


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((999, "999"), (1234, "1.23k"), (2.5e6, "2.5M"), (6.738e9, "6.74B"), (1e12, "1T")),
        *((0.5, "0.5"), (0, "0"), (999_499, "999k"), (999_600, "1M"), (1.5e15, "1.5e3T")),
    ],
)
def test_amount(value, text):
    assert amount(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0B"), (12, "12B"), (-1234, "-1.23kB"), (4.02e10, "40.2GB"), (999_600, "1MB")],
)
def test_byte_size(value, text):
    assert byte_size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e12, "1e12"), (2.7e12, "2.7e12"), (5.7649e23, "5.76e23"), (500, "500"), (0.5, "0.5")],
)
def test_flops(value, text):
    assert flops(value) == text


def test_clock():
    assert [clock(s) for s in (0, 59.6, 61, 3661)] == ["0:00", "1:00", "1:01", "1:01:01"]
    assert [clock(86_400 * days) for days in (3, 4, 1250)] == ["72:00:00", "4 days", "1.25k days"]


def test_an_estimate_has_its_interval_where_one_is_known():
    assert with_interval({"value": 42_700, "lo": 4e4, "hi": 1e6}, amount) == "42.7k [40k, 1M]"
    assert with_interval({"value": 3e12, "lo": None, "hi": None}, flops) == "3e12"
    assert with_interval({"value": None, "lo": None, "hi": None}, flops) == "—"
    assert with_interval({"value": 0.351234, "lo": 0.31, "hi": 0.4}) == "0.351 [0.31, 0.4]"
