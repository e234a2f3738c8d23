"""Tests the plot of exact matches by length."""

import numpy as np
import pytest

from scaling.report import length_plot
from scaling.settings import LEVEL


def wilson(exact: int, sentences: int, z: float) -> tuple[float, float]:
    """Wilson 1927: the shares p whose score |exact/n - p| / sqrt(p (1 - p) / n) is z."""
    share, square = exact / sentences, z**2 / sentences
    middle = (share + square / 2) / (1 + square)
    half = z * np.sqrt(share * (1 - share) / sentences + square / (4 * sentences)) / (1 + square)
    return middle - half, middle + half


LENGTHS = np.array([3, 3, 4, 5, 24, 30])  # at most 12 bins: 3 words each
EXACT = np.array([1, 0, 1, 1, 0, 0], bool)


def test_bins_count_every_sentence_and_have_wilson_intervals():
    found = length_plot.by_length(LENGTHS, EXACT, 1)
    assert [(one["first"], one["last"]) for one in found] == [(1, 3), (4, 21), (22, 27), (28, 30)]
    assert [(one["exact"], one["sentences"]) for one in found] == [(1, 2), (2, 2), (0, 1), (0, 1)]
    assert [one["words"] for one in found] == [3, 4.5, 24, 30]
    assert LEVEL == 0.9
    for one in found:
        low, high = wilson(one["exact"], one["sentences"], 1.6448536)
        assert (one["lo"], one["hi"]) == (pytest.approx(low, abs=1e-6), pytest.approx(high))
        assert one["lo"] <= one["share"] <= one["hi"] and one["hi"] - one["lo"] > 0.4


def test_small_bins_join_the_one_before():
    found = length_plot.by_length(LENGTHS, EXACT, 2)
    assert [(one["first"], one["last"], one["sentences"], one["exact"]) for one in found] == [
        (1, 3, 2, 1),
        (4, 30, 4, 2),
    ]
    (whole,) = length_plot.by_length(LENGTHS, EXACT)
    assert (whole["first"], whole["last"], whole["share"]) == (1, 30, 0.5)


@pytest.mark.parametrize("suffix", [".svg", ".png", ".html"])
def test_names_of_runs_are_escaped_and_shown(tmp_path, suffix):
    pytest.importorskip("vl_convert", reason="this machine draws no plots")
    bins = length_plot.by_length(np.arange(1, 40), np.arange(39) < 20)
    file = length_plot.write_plot(tmp_path / f"plot{suffix}", {"<b>": bins, "every": bins})
    content = file.read_bytes()
    if suffix == ".png":
        assert content.startswith(b"\x89PNG")
    else:
        assert b"every" in content and b"<b>" not in content
