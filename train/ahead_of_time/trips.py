"""Computes how often a loop of a compiled program runs, if the program's text determines it.

Some compilers write the trip count into the text of the loop. The TPU compiler does not, so this
module evaluates the loop: its condition and counters are scalar arithmetic on constants.
"""

import operator
import re
from collections.abc import Callable

from train.ahead_of_time.hlo import Computation, Instruction, Module

MAX_TRIPS = 1_000_000  # iterations to evaluate before giving up

Value = int | Callable | None
"""A scalar; a tuple, as a function from index to value; None if unknown."""

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


def count(loop: Instruction, here: Computation, module: Module, arguments: list) -> int | None:
    """How often the body of a while loop in `here` runs; None if the text does not determine it.

    `arguments` are the values of the parameters of `here`.
    """
    if match := _KNOWN.search(loop.attributes):
        return int(match[1])
    condition = module.computations[loop.called("condition")]
    body = module.computations[loop.called("body")]
    state = value(loop.operands[0], here, module, arguments)
    for trips in range(MAX_TRIPS):
        if not callable(state):
            return None
        running = value(condition.root, condition, module, [state])
        if running is None or callable(running):
            return None
        if not running:
            return trips
        state = _memoized(value(body.root, body, module, [state]))
    return None


def _memoized(state: Value) -> Value:
    """A tuple that computes each value once. Otherwise every iteration repeats earlier ones."""
    if not callable(state):
        return state
    known = {}

    def get(index: int) -> Value:
        if index not in known:
            known[index] = state(index)
        return known[index]

    return get


def invariants(loop: Instruction, here: Computation, module: Module, arguments: list) -> Value:
    """The argument of a loop's body. Values that some iteration may change are unknown."""
    body = module.computations[loop.called("body")]
    root, first = body.by_name[body.root], value(loop.operands[0], here, module, arguments)

    def get(index: int) -> Value:
        if root.opcode != "tuple" or not callable(first):
            return None
        source = body.by_name.get(root.operands[index])
        same = source is not None and source.opcode == "get-tuple-element"
        same = same and int(source.attribute("index")) == index
        return first(index) if same else None

    return get


def value(name: str, here: Computation, module: Module, arguments: list) -> Value:
    """The result of an instruction, as far as scalar constants determine it."""
    one = here.by_name.get(name)
    if one is None:
        return None
    operand = lambda i: value(one.operands[i], here, module, arguments)  # noqa: E731
    if one.opcode == "constant":
        text = one.inside.strip()
        return _TRUTH.get(text, int(text) if re.fullmatch(r"-?\d+", text) else None)
    if one.opcode == "parameter":
        place = int(one.inside)
        return arguments[place] if place < len(arguments) else None
    if one.opcode == "get-tuple-element":
        source = operand(0)
        return source(int(one.attribute("index"))) if callable(source) else None
    if one.opcode == "tuple":
        return operand
    if one.opcode in _SAME:
        return operand(0)
    if one.opcode in ("fusion", "call"):
        inner = module.computations[one.called("calls") or one.called("to_apply")]
        given = [operand(i) for i in range(len(one.operands))]
        return value(inner.root, inner, module, given)
    if one.opcode not in _ARITHMETIC and one.opcode != "compare":
        return None
    left, right = operand(0), operand(1)
    if not isinstance(left, int) or not isinstance(right, int):
        return None
    if one.opcode == "compare":
        return int(_COMPARE[one.attribute("direction")](left, right))
    return _ARITHMETIC[one.opcode](left, right)
