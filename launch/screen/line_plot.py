"""Line plots in a terminal, with eight braille dots a character, or ASCII where there are none."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import rich.text

from scaling.report.number_text import three_digits

DOT_BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""The bit of each dot of a braille character, 4 rows by 2 columns (Unicode block U+2800)."""
MARGIN = 9  # characters left of the axis


@dataclass(frozen=True)
class Series:
    """A curve through the points (x, y), in a style of rich; `mark` stands for it in ASCII."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str
    mark: str


def plot(
    series: Sequence[Series],
    width: int,
    height: int = 12,
    log: str = "",
    x_text: Callable[[float], str] = three_digits,
    encoding: str = "utf-8",
) -> rich.text.Text:
    """The curves in `width` by `height` characters and an axis line; "x", "y" or "xy" in `log` are
    logarithmic. Points that are not finite, or not positive on a logarithmic axis, are left out.
    Empty text if no point is left. Later curves cover earlier ones.
    """
    scales = [np.log if axis in log else np.asarray for axis in "xy"]
    curves = [_scaled(one, scales) for one in series]
    points = np.concatenate([*curves, np.empty((2, 0))], axis=1)
    if not points.size:
        return rich.text.Text()
    braille = encoding.lower().startswith("utf")
    rows, columns = (4, 2) if braille else (1, 1)
    low, high = points.min(axis=1), points.max(axis=1)
    span = np.where(high > low, high - low, 1.0)
    inside = max(10, width - MARGIN)
    size = np.array([inside * columns, height * rows])
    cells, styles = np.zeros((height, inside), int), np.full((height, inside), -1)
    for number, curve in enumerate(curves):
        dots = np.round((curve - low[:, None]) / span[:, None] * (size - 1)[:, None]).astype(int)
        for x, y in _joined(dots):
            row, column = size[1] - 1 - y, x
            at = row // rows, column // columns
            cells[at] |= DOT_BITS[row % rows, column % columns] if braille else 1
            styles[at] = number
    back = [np.exp if axis in log else np.asarray for axis in "xy"]
    return _drawn(series, cells, styles, braille, [
        [float(back[axis](low[axis] + share * span[axis])) for share in (0, 0.5, 1)]
        for axis in (0, 1)
    ], x_text)  # fmt: skip


def _scaled(series: Series, scales: Sequence[Callable]) -> np.ndarray:
    """The valid points of a series [2, n] on linear or logarithmic axes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        points = np.array(
            [
                scale(np.asarray(values, float))
                for scale, values in zip(scales, (series.x, series.y), strict=True)
            ]
        ).reshape(2, -1)
    return points[:, np.isfinite(points).all(axis=0)]


def _joined(dots: np.ndarray) -> np.ndarray:
    """All dots [n, 2] on the straight lines between consecutive dots [2, m]."""
    parts = [dots.T]
    for a, b in zip(dots.T, dots.T[1:], strict=False):
        count = int(np.abs(b - a).max()) + 1
        parts.append(np.round(np.linspace(a, b, count)).astype(int))
    return np.concatenate(parts)


def _drawn(
    series: Sequence[Series],
    cells: np.ndarray,
    styles: np.ndarray,
    braille: bool,
    ticks: Sequence[Sequence[float]],
    x_text: Callable[[float], str],
) -> rich.text.Text:
    """The characters of the cells with the axes; `ticks` are the low, middle and high x and y."""
    height, width = cells.shape
    labels = {height - 1: ticks[1][0], height // 2: ticks[1][1], 0: ticks[1][2]}
    text = rich.text.Text()
    side, corner, line = ("│", "└", "─") if braille else ("|", "+", "-")
    for row in range(height):
        label = f"{labels[row]:.4g}" if row in labels else ""
        text.append(f"{label:>{MARGIN - 1}}{side}", style="dim")
        for cell, number in zip(cells[row], styles[row], strict=True):
            if number < 0:
                text.append(" ")
            else:
                one = series[number]
                text.append(chr(0x2800 + cell) if braille else one.mark, style=one.style)
        text.append("\n")
    text.append(f"{' ' * (MARGIN - 1)}{corner}{line * width}\n", style="dim")
    low, middle, high = map(x_text, ticks[0])
    gap = width - len(low) - len(middle) - len(high)
    left = max(1, gap // 2)
    below = f"{low}{' ' * left}{middle}{' ' * max(1, gap - left)}{high}"
    text.append(f"{' ' * MARGIN}{below}", style="dim")
    return text
