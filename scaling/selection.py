"""Holds out and drops points by the rules of the command line."""

from dataclasses import replace

import numpy as np

from scaling.laws.law import Law
from scaling.printable import printable
from scaling.report.number_text import parse_amount
from scaling.table import Points


def hold_out(points: Points, rule: str | None, law: Law) -> Points:
    """The points with those held out that match the rule: 'largest', 'flops>1e21' or a run's id.
    Without a rule, the holdout column is unchanged. Raises ValueError if the rule matches no point
    or all of them.
    """
    if rule is None:
        return points
    by_compute = rule == "largest" or rule.startswith("flops>")
    if by_compute and not np.isfinite(points.flops).all():
        raise ValueError(
            f"holdout={rule!r} needs the compute of every run, but {points.source} lacks it; "
            f"give a run such as {printable(points.run[0])}"
        )
    if rule == "largest":
        # The best of the runs with the most compute.
        most = points.flops >= 0.99 * points.flops.max()
        mask = points.run == points.run[most][law.best(points.response(law)[most])]
    elif rule.startswith("flops>"):
        try:
            mask = points.flops > parse_amount(rule.removeprefix("flops>"))
        except ValueError:
            raise ValueError(f"holdout={rule!r} has no number; write flops>1e21") from None
    else:
        mask = points.run == rule
    if not mask.any():
        known = np.isfinite(points.flops).all()
        below = f"largest, flops>X with X below {points.flops.max():.3g}, or " if known else ""
        example = printable(points.run[0])
        raise ValueError(f"holdout={rule!r} matches no point; use {below}a run such as {example}")
    if mask.all():
        raise ValueError(f"holdout={rule!r} leaves no point to fit; hold out fewer")
    return replace(points, holdout=mask)


def drop_worst(points: Points, count: int, law: Law) -> Points:
    """Drops the `count` worst points that are not held out, as Besiroglu et al. 2024 dropped the
    five with the highest loss. Raises ValueError if none would remain.
    """
    fitted = int((~points.holdout).sum())
    if not 0 <= count < fitted:
        raise ValueError(f"drop_worst={count} of {fitted} fitted points; use 0 to {fitted - 1}")
    if not count:
        return points
    sign, side = (1, "highest") if law.better == "down" else (-1, "lowest")
    values = sign * points.response(law)
    least = sorted(values[~points.holdout])[-count]
    kept = points.select(points.holdout | (values < least))
    dropped = {f"of {side} {law.response}": len(points) - len(kept)}
    return replace(kept, left_out=points.left_out | dropped)
