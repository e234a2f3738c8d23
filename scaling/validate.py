"""Validates points. Every error is one line that names the rows and the remedy."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from scaling.printable import printable


class Unsupported(ValueError):
    """The points are valid but do not support the analysis; the message says what would."""


def listed(where: list[str], index: Iterable[int], at_most: int = 5) -> str:
    """'row 2, row 7 and 3 more'."""
    index = list(index)
    text = ", ".join(where[i] for i in index[:at_most])
    return text + (f" and {len(index) - at_most} more" if len(index) > at_most else "")


def positive(
    values: np.ndarray, name: str, where: list[str], source: str, gaps: bool = False
) -> None:
    """Raises ValueError for values that are not positive and finite; `gaps` allows nan."""
    wrong = np.flatnonzero(~(np.isfinite(values) & (values > 0) | (np.isnan(values) & gaps)))
    if len(wrong):
        raise ValueError(
            f"{source}: {name} must be positive and finite, but is {values[wrong[0]]:g} in "
            f"{listed(where, wrong)}; correct or remove these rows"
        )


def finite(
    values: np.ndarray, name: str, where: list[str], source: str, gaps: bool = False
) -> None:
    """Raises ValueError for infinite values, and for nan unless `gaps` allows it."""
    wrong = np.flatnonzero(~(np.isfinite(values) | (np.isnan(values) & gaps)))
    if len(wrong):
        raise ValueError(
            f"{source}: {name} must be a finite number, but is {values[wrong[0]]:g} in "
            f"{listed(where, wrong)}; correct or remove these rows"
        )


def one_measure(rows: Iterable[Mapping[str, Any]], source: str) -> None:
    """Raises ValueError unless all losses of these runs are averaged over the same thing: the loss
    of masked tokens, say, says nothing about that of the next token, and losses on the same data
    are those of the same examples. Rows may lack `predicts`, `dataset` and `evaluated`."""
    rows = list(rows)
    kinds = sorted({str(row["predicts"]) for row in rows if row.get("predicts")})
    if len(kinds) > 1:
        raise ValueError(
            f"{source}: these losses cannot be compared: they predict "
            f"{printable(' and '.join(kinds))}; give each kind a folder of its own"
        )
    found = {(row.get("dataset"), row["evaluated"]) for row in rows if row.get("evaluated")}
    if len(found) > len({dataset for dataset, _ in found}):
        raise ValueError(
            f"{source}: these losses cannot be compared: the runs leave out or cut different "
            "validation examples of the same data; give the models the same lengths and "
            "data.too_long, or use data.too_long=refuse"
        )


def misshapen(names: list[str], lines: list[list[str]], where: list[str], source: str) -> None:
    """Raises ValueError for duplicate column names, and for lines with more cells than columns."""
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        column = printable(twice[0])
        raise ValueError(f"{source} has two columns {column}; remove or rename one")
    longer = [i for i, cells in enumerate(lines) if len(cells) > len(names)]
    if longer:
        raise ValueError(
            f"{source}: {where[longer[0]]} has more cells than the header has columns; write "
            "numbers without thousands separators"
        )


def not_negative(values: np.ndarray, name: str, where: list[str], source: str, gaps: bool) -> None:
    """Raises ValueError for values that are negative or infinite; `gaps` allows nan."""
    wrong = np.flatnonzero((values < 0) | np.isinf(values) | (np.isnan(values) & (not gaps)))
    if len(wrong):
        remedy = "leave the cells empty" if gaps else "write 0 if a model lacks the component"
        raise ValueError(
            f"{source}: {name} must not be negative or infinite, but is {values[wrong[0]]:g} in "
            f"{listed(where, wrong)}; correct these rows, or {remedy}"
        )


# Bounds for the median row. Kaplan et al. 2020 went down to .01 tokens per parameter. A table may
# give params or tokens as practically infinite, to study the other count alone.
TOKENS_PER_PARAM = (1e-4, 1e6)
INFINITE = 1e16


def wrong_units(
    params: np.ndarray, tokens: np.ndarray, flops: np.ndarray, loss: np.ndarray, source: str
) -> None:
    """Raises ValueError if a column is in the wrong unit. Columns of nan are not checked."""
    for name, values, floor in (("params", params, 100.0), ("tokens", tokens, 1e4)):
        if np.median(values) < floor:
            raise ValueError(
                f"{source}: {name} has a median of {np.median(values):g}: that looks like "
                "millions or billions; write plain counts such as 7e9"
            )
    ratio = tokens / params
    middle, (least, most) = np.median(ratio), TOKENS_PER_PARAM
    few_tokens = middle < least and ratio.max() < 100 * least and np.median(params) < INFINITE
    few_params = middle > most and ratio.min() > most / 100 and np.median(tokens) < INFINITE
    if few_tokens or few_params:
        raise ValueError(
            f"{source}: there are {middle:.3g} tokens per parameter in the median row: "
            f"{'tokens' if few_tokens else 'params'} looks like thousands, millions or billions; "
            "write plain counts such as 7e9"
        )
    ratio = np.median(flops / (6 * params * tokens))
    if np.isfinite(ratio) and not 0.05 < ratio < 20:
        raise ValueError(
            f"{source}: flops is {ratio:.3g} times 6·params·tokens in the median row; it must be "
            "the training FLOPs of the whole run (not per token, not PFLOP-days): rescale it, or "
            "leave the column out"
        )
    if np.median(loss) > 13:
        raise ValueError(
            f"{source}: loss has a median of {np.median(loss):g}, more than uniform guessing among "
            "400,000 tokens: that looks like perplexity; write its natural logarithm, in nats per "
            "token"
        )


# Losses of large models on web text in nats, by the law of Besiroglu et al. 2024. Losses in bits
# are 1.44 times as large in every row.
USUAL = {"A": 482.01, "B": 2085.43, "E": 1.8172, "alpha": 0.3478, "beta": 0.3658}
USUAL_PARAMS, USUAL_TOKENS = 2e7, 2e8  # below these, losses depend too much on tokenizer and text
BITS_BAND = 0.06  # largest log distance of the median ratio from 1.44, and largest spread of ratios
REMEDY = "if so use --loss_unit=bits, which converts them; if they are nats, --loss_unit=nats"


def loss_in_bits(params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, source: str) -> None:
    """Raises ValueError if losses are 1/ln 2 times those that models of such sizes reach."""
    large = (params > USUAL_PARAMS) & (tokens > USUAL_TOKENS)
    if large.sum() < 5:
        return
    expected = (
        USUAL["E"]
        + USUAL["A"] * params[large] ** -USUAL["alpha"]
        + USUAL["B"] * tokens[large] ** -USUAL["beta"]
    )
    ratio = np.log(loss[large] / expected)
    spread = np.median(np.abs(ratio - np.median(ratio)))
    if abs(np.median(ratio) + np.log(np.log(2))) < BITS_BAND and spread < BITS_BAND:
        raise ValueError(
            f"{source}: loss is {np.exp(np.median(ratio)):.3g} times what models of such sizes "
            f"reach in nats per token: that looks like bits (1 nat = 1.44 bits); {REMEDY}"
        )


def same_as_bits(loss: np.ndarray, bits_per_byte: np.ndarray, source: str) -> None:
    """Raises ValueError if losses equal bits per byte. Losses in nats per token differ from them
    unless a token has 1.44 bytes on average.
    """
    known = np.isfinite(bits_per_byte)
    if known.any() and np.allclose(loss[known], bits_per_byte[known], rtol=1e-3):
        raise ValueError(f"{source}: loss equals bits_per_byte, so it looks like bits; {REMEDY}")


def duplicates(
    run: np.ndarray | None, columns: list[np.ndarray], where: list[str], source: str
) -> None:
    """Raises ValueError if two rows have the same run name (if rows have names) and columns."""
    keys = list(zip(*([] if run is None else [run]), *columns, strict=True))
    first: dict[tuple, int] = {}
    for i, key in enumerate(keys):
        if key in first:
            name = "the same run" if run is None else f"run {printable(run[i])}"
            raise ValueError(
                f"{source}: {name} is listed twice, in {where[first[key]]} and {where[i]}; "
                "remove one, or add a column seed or replicate if both were trained (several "
                "evaluations of one run need different tokens)"
            )
        first[key] = i
