"""Tests of plots in the terminal."""

import numpy as np

from launch.screen.line_plot import MARGIN, Series, plot


def drawn(x, y, width=MARGIN + 10, height=4, **options) -> list[str]:
    """The characters right of the axis, row by row."""
    text = plot([Series("one", x, y, "", "*")], width, height, **options).plain
    return [line[MARGIN:] for line in text.splitlines()[:height]]


def test_a_falling_line_goes_from_the_upper_left_to_the_lower_right():
    # 20 by 16 dots; a straight line through the corners.
    assert drawn([0, 1], [1, 0]) == ["⠑⠤⡀       ", "  ⠈⠢⢄     ", "     ⠑⠢⡀  ", "       ⠈⠒⢄"]
    # Without braille one character is one dot.
    plain = drawn([0, 1, 2, 3], [3, 2, 1, 0], width=MARGIN + 10, encoding="latin-1")
    assert [row.find("*") for row in plain] == [0, 2, 5, 8]


def test_a_power_law_is_straight_on_logarithmic_axes():
    x = np.arange(1, 1001)
    straight = drawn(np.log(x), -np.log(x), width=40, height=8)
    assert drawn(x, x**-0.5, width=40, height=8, log="xy") == straight
    assert drawn(x, x**-0.5, width=40, height=8) != straight
    assert drawn(x, -np.log(x), width=40, height=8, log="x") == straight


def test_points_that_have_no_place_are_left_out():
    nan = float("nan")
    assert drawn([0, 1, 2, 3], [1, nan, np.inf, 0]) == drawn([0, 3], [1, 0])
    assert drawn([0, 1, 10], [1, 1, 0.5], log="x") == drawn([1, 10], [1, 0.5], log="x")
    assert plot([Series("one", [], [], "", "*")], 40).plain == ""
    assert plot([Series("one", [1], [nan], "", "*")], 40).plain == ""
    assert "⡀" in "".join(drawn([5], [5]))  # one point


def test_the_axes_have_the_values_of_their_ends_and_middles():
    lines = plot([Series("a", [1, 100], [2, 8], "red", "*")], 40, 5, "x", "{:.0f}".format).plain
    *rows, axis, below = lines.splitlines()
    assert [rows[i].split("│")[0].strip() for i in range(5)] == ["8", "", "5", "", "2"]
    assert below.split() == ["1", "10", "100"] and len(below) == len(axis) == 40


def test_later_curves_cover_earlier_ones():
    one, two = (Series(n, [0, 1], [0, 1], n, "*") for n in ("red", "blue"))
    styles = {span.style for span in plot([one, two], 40).spans}
    assert "blue" in styles and "red" not in styles
