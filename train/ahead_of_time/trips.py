"""This file finds how often a loop of a compiled program runs, where the text allows it.

Some compilers write the count beside the loop. That of TPUs does not, so the loop is run here: its
condition and its counters are scalar arithmetic, which starts from constants.
"""

import operator
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.ahead_of_time.hlo import Computation, Instruction, Module

MOST = 1_000_000  # iterations that are followed

Value = int | Callable | None
"""A scalar, a tuple as a function of the place in it, or None where it is not known."""

_KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_SAME = ("copy", "copy-start", "copy-done", "bitcast", "reshape", "convert", "opt-barrier")
_ARITHMETIC = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "minimum": min,
    "maximum": max,
    "and": operator.and_,
    "or": operator.or_,
}
_COMPARE = {
    "EQ": operator.eq,
    "NE": operator.ne,
    "LT": operator.lt,
    "LE": operator.le,
    "GT": operator.gt,
    "GE": operator.ge,
}
_TRUTH = {"true": 1, "false": 0}


def count(
    loop: "Instruction", here: "Computation", module: "Module", arguments: list
) -> int | None:
    """How often the body of a while loop runs; None where that depends on what is not in the text.

    `arguments` are the values of the parameters of `here`.
    """
    if match := _KNOWN.search(loop.attributes):
        return int(match[1])
    condition = module.computations[loop.called("condition")]
    body = module.computations[loop.called("body")]
    state = value(loop.operands[0], here, module, arguments)
    for trips in range(MOST):
        if not callable(state):
            return None
        going = value(condition.root, condition, module, [state])
        if going is None or callable(going):
            return None
        if not going:
            return trips
        state = _kept(value(body.root, body, module, [state]))
    return None


def _kept(state: Value) -> Value:
    """A tuple whose places are computed once, so that no iteration recomputes those before it."""
    if not callable(state):
        return state
    known = {}

    def place(index: int) -> Value:
        if index not in known:
            known[index] = state(index)
        return known[index]

    return place


def invariants(
    loop: "Instruction", here: "Computation", module: "Module", arguments: list
) -> Value:
    """The parameter of a loop's body: what every iteration hands on unchanged keeps its value."""
    body = module.computations[loop.called("body")]
    root, first = body.by_name[body.root], value(loop.operands[0], here, module, arguments)

    def place(index: int) -> Value:
        if root.opcode != "tuple" or not callable(first):
            return None
        source = body.by_name.get(root.operands[index])
        same = source is not None and source.opcode == "get-tuple-element"
        same = same and int(source.attribute("index")) == index
        return first(index) if same else None

    return place


def value(name: str, here: "Computation", module: "Module", arguments: list) -> Value:
    """What an instruction gives, evaluated as far as the scalars in the text go."""
    one = here.by_name.get(name)
    if one is None:
        return None
    look = lambda i: value(one.operands[i], here, module, arguments)  # noqa: E731
    if one.opcode == "constant":
        text = one.inside.strip()
        return _TRUTH.get(text, int(text) if re.fullmatch(r"-?\d+", text) else None)
    if one.opcode == "parameter":
        place = int(one.inside)
        return arguments[place] if place < len(arguments) else None
    if one.opcode == "get-tuple-element":
        source = look(0)
        return source(int(one.attribute("index"))) if callable(source) else None
    if one.opcode == "tuple":
        return look
    if one.opcode in _SAME:
        return look(0)
    if one.opcode in ("fusion", "call"):
        inner = module.computations[one.called("calls") or one.called("to_apply")]
        given = [look(i) for i in range(len(one.operands))]
        return value(inner.root, inner, module, given)
    if one.opcode not in _ARITHMETIC and one.opcode != "compare":
        return None
    left, right = look(0), look(1)
    if not isinstance(left, int) or not isinstance(right, int):
        return None
    if one.opcode == "compare":
        return int(_COMPARE[one.attribute("direction")](left, right))
    return _ARITHMETIC[one.opcode](left, right)
