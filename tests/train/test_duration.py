"""Tests durations: conversion of every unit to steps, and errors."""

import pytest

from train import duration

UNITS = duration.Units(tokens=4096, examples=32, epochs=0.01, flops=1e9, total_steps=200)


@pytest.mark.parametrize(
    "text, steps",
    [
        ("300 steps", 300),
        ("1 step", 1),
        ("40960 tokens", 10),
        ("1e6 tokens", 244),
        ("3.2e2 examples", 10),
        ("2 epochs", 200),
        ("5 %", 10),
        ("5%", 10),
        ("2.5e10 FLOPs", 25),
        ("0 steps", 0),
    ],
)
def test_units(text, steps):
    assert duration.to_steps("train.duration", text, UNITS) == steps


@pytest.mark.parametrize(
    "text", ["", "300", "steps", "3 weeks", "-5 steps", "1e 5 tokens", "1.2.3 %"]
)
def test_what_is_no_duration_is_refused_by_name(text):
    with pytest.raises(ValueError, match=r"eval\.every=.*is not a duration"):
        duration.to_steps("eval.every", text, UNITS)


def test_the_whole_run_is_no_share_of_itself():
    units = duration.Units(tokens=1, examples=1, epochs=1, flops=1)
    with pytest.raises(ValueError, match="percentage of itself"):
        duration.to_steps("train.duration", "50 %", units)
