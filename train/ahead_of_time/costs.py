"""Computes the costs of a compiled step per device: matrix products, kernels, bytes sent, cycles.

A collective has two sizes. Its payload is the whole array that it gathers or reduces. Its wire
bytes are the bytes that one of n devices in a ring sends: (n-1)/n of the payload for all-gather,
reduce-scatter and all-to-all, twice that for all-reduce, and the payload for collective-permute.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from train.ahead_of_time import hlo
from train.ahead_of_time.hlo import Array, Computation, Instruction
from train.ahead_of_time.walk import Visit, walk

# (payload, wire) from the bytes b that each of n devices contributes.
COLLECTIVES: dict[str, Callable[[float, int], tuple[float, float]]] = {
    "all-gather": lambda b, n: (n * b, (n - 1) * b),
    "all-reduce": lambda b, n: (b, 2 * (n - 1) / n * b),
    "reduce-scatter": lambda b, n: (b, (n - 1) / n * b),
    "all-to-all": lambda b, n: (b, (n - 1) / n * b),
    "collective-permute": lambda b, n: (b, b),
}

Arrays = tuple[Array, ...]


def splash(products: int) -> Callable[[Arrays, Arrays], float]:
    """FLOPs of a kernel that does `products` products of T x S x C per query head.

    Its first two floating-point operands are the queries [..., T, C] and the keys. Blocks that it
    skips because of the mask are counted, as in the model's FLOPs.
    """

    def flops(operands: Arrays, results: Arrays) -> float:
        query, key = operands[:2]
        # The fused kernel for dk and dv also returns dq, one part per block of keys.
        fused = any(len(array.shape) > len(query.shape) for array in results)
        length = key.shape[-2] if key.shape[-1] == query.shape[-1] else key.shape[-1]
        return (products + fused) * 2 * query.elements * length

    return flops


def weighted_values(operands: Arrays, results: Arrays) -> float:
    """FLOPs of the compiler's own kernel: softmax(scores [..., T, S]) times values [..., S, C]."""
    return 2 * results[0].elements * operands[0].shape[-1]


# FLOPs of the matrix products in Pallas kernels, by a pattern of the instruction's name.
KERNELS = (
    (r"splash_m[hq]a_fwd", splash(2)),  # q k, w v
    (r"splash_m[hq]a_dq", splash(3)),  # q k, do v, ds k
    (r"splash_m[hq]a_dkv", splash(4)),  # q k, do v, ds q, w do
    (r"online-softmax", weighted_values),
)

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CHAIN = re.compile(r'chain_id="?\d+')
_START = 'custom_call_target="AsyncCollectiveStart"'
_FIELDS = re.compile(r"\b(size|stride|pad|lhs_dilate|rhs_dilate)=([\w\-]+)")
_SCATTERS = re.compile(r'"emitter":"\w*AllReduceScatter')


@dataclass
class Costs:
    """The costs of one optimiser step on one device."""

    products: float = 0.0  # FLOPs of dots and convolutions
    kernels: Counter = field(default_factory=Counter)  # FLOPs of Pallas kernels, by name
    unknown_kernels: set = field(default_factory=set)  # names without a formula in KERNELS
    payload: Counter = field(default_factory=Counter)  # bytes, by kind of collective
    wire: Counter = field(default_factory=Counter)
    calls: Counter = field(default_factory=Counter)
    cycles: float = 0.0  # the compiler's estimates, which exist only for fusions
    loops: list = field(default_factory=list)  # names of loops whose trip count is unknown

    @property
    def matmul(self) -> float:
        """FLOPs of all matrix products."""
        return self.products + sum(self.kernels.values())


def measure(text: str, longest: int = 1) -> Costs:
    """The costs of an optimised HLO module, given as text. Loop bodies count once per iteration; an
    outer loop with an unknown trip count runs `longest` times."""
    module, costs = hlo.parse(text), Costs()
    for visit in walk(module, lambda loop: costs.loops.append(loop.name), longest):
        one, here = visit.instruction, visit.computation
        kind = one.opcode.removesuffix("-start")
        if one.opcode in ("dot", "convolution"):
            costs.products += visit.times * PRODUCTS[one.opcode](one, here)
        elif one.opcode == "custom-call" and 'target="tpu_custom_call"' in one.attributes:
            name, flops = _kernel(one, here)
            costs.kernels[name] += visit.times * (flops or 0)
            costs.unknown_kernels |= {name} if flops is None else set()
        elif kind in COLLECTIVES and not _continues(visit):
            kind = "reduce-scatter" if _scatters(visit) else kind
            size = sum(array.bytes for array in here.operands(one))
            payload, wire = COLLECTIVES[kind](size, group_size(one, module.devices))
            costs.payload[kind] += visit.times * payload
            costs.wire[kind] += visit.times * wire
            costs.calls[kind] += visit.times
        if not visit.path and (match := _CYCLES.search(one.attributes)):
            costs.cycles += visit.times * int(match[1])
    return costs


def dot_flops(one: Instruction, here: Computation) -> float:
    """2 x results x size of the contracted dimensions."""
    left = here.operands(one)[0]
    contracted = re.findall(r"\d+", one.attribute("lhs_contracting_dims") or "")
    return 2 * one.results[0].elements * math.prod(left.shape[int(i)] for i in contracted)


def convolution_flops(one: Instruction, here: Computation) -> float:
    """2 x results x terms of the sum for each. On TPUs every matrix product is a convolution.

    Batched products slide a window over padding or holes. Those positions cost nothing, so only
    pairs (window position, window element) at an input element count.
    """
    left, right = here.operands(one)[:2]
    of_left, of_right, of_result = re.split("_|->", one.attribute("dim_labels"))
    flops = 2 * one.results[0].elements * right.shape[of_right.index("i")]
    for axis in range(sum(label.isdigit() for label in of_left)):
        places = one.results[0].shape[of_result.index(str(axis))]
        inputs = left.shape[of_left.index(str(axis))]
        flops = flops * _pairs(_window(one, axis), places, inputs) // places
    return flops


PRODUCTS = {"dot": dot_flops, "convolution": convolution_flops}


@dataclass(frozen=True)
class Window:
    """A convolution's window along one axis."""

    size: int = 1
    stride: int = 1
    pad: int = 0  # padding before the first input
    lhs_dilate: int = 1  # distance between neighbouring inputs; positions in between are holes
    rhs_dilate: int = 1  # distance between neighbouring elements of the window


def _window(one: Instruction, axis: int) -> Window:
    """Parses one axis of a window such as {size=4x3 pad=1_1x0_0}; absent fields have defaults."""
    fields = _FIELDS.findall(one.attribute("window") or "")
    return Window(**{name: int(text.split("x")[axis].partition("_")[0]) for name, text in fields})


@lru_cache(maxsize=4096)
def _pairs(window: Window, places: int, inputs: int) -> int:
    """The number of pairs (window position, window element) at an input element, for `places`
    positions and `inputs` elements.

    As the window moves, each of its elements visits every stride-th coordinate. Inputs are at
    multiples of `lhs_dilate`.
    """
    occupied = range(0, inputs * window.lhs_dilate, window.lhs_dilate)
    first = range(-window.pad, window.size * window.rhs_dilate - window.pad, window.rhs_dilate)
    visited = (range(x, x + places * window.stride, window.stride) for x in first)
    return sum(_shared(coordinates, occupied) for coordinates in visited)


def _shared(a: range, b: range) -> int:
    """How many numbers two ascending ranges have in common."""
    begin, stop, period = max(a.start, b.start), min(a.stop, b.stop), math.lcm(a.step, b.step)
    begin += (a.start - begin) % a.step  # the first member of `a` that is not below `b`
    for number in range(begin, min(stop, begin + period), a.step):
        if number in b:
            return len(range(number, stop, period))
    return 0


def group_size(one: Instruction, devices: int) -> int:
    """Devices in each group of a collective; all `devices` if it names no groups."""
    text = one.attributes
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return match[1].count(",") + 1
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]<=", text):
        return int(match[1])
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", text):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", match[1]))
        used = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", match[2])
        return math.prod(int(part or sizes[axis]) for axis, part in used)
    return devices


def _continues(visit: Visit) -> bool:
    """Whether this is a repetition of an asynchronous collective.

    A collective appears in the fusion that starts it, in fusions that run at the same time, and in
    the fusion that ends it. Only the first counts.
    """
    if not visit.path or not _CHAIN.search(visit.instruction.attributes):
        return False
    return not any(_START in one.attributes for one in visit.computation.instructions)


def _scatters(visit: Visit) -> bool:
    """Whether a fusion around this all-reduce keeps only one device's part of the result.

    The TPU compiler writes a reduce-scatter in this form.
    """
    around = visit.path[-1] if visit.path else None
    return bool(
        around
        and visit.instruction.opcode == "all-reduce"
        and (
            _SCATTERS.search(around.attributes)
            or (around.called("calls") or "").startswith("all-reduce-scatter")
        )
    )


def _kernel(one: Instruction, here: Computation) -> tuple[str, float | None]:
    """(name, FLOPs) of a Pallas kernel; FLOPs are None if KERNELS has no formula."""
    name = re.sub(r"\.\d+$", "", one.name)
    floating = tuple(a for a in here.operands(one) if a.dtype in ("bf16", "f16", "f32"))
    formula = next((f for pattern, f in KERNELS if re.search(pattern, name)), None)
    return name, formula(floating, one.results) if formula else None
