"""This file adds up what a compiled step does on one device: products, kernels, bytes, cycles.

Bytes of a collective are counted twice. Its payload is the whole array that it makes or reduces.
Its wire bytes are what one device sends when n devices form a ring: (n-1)/n of the payload to
gather, to reduce-scatter or to exchange, twice that to all-reduce, all of it to permute.
"""

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from train.ahead_of_time import hlo
from train.ahead_of_time.hlo import Array, Computation, Instruction

# From the bytes b that one of n devices puts in: (payload, wire).
COLLECTIVES: dict[str, Callable[[float, int], tuple[float, float]]] = {
    "all-gather": lambda b, n: (n * b, (n - 1) * b),
    "all-reduce": lambda b, n: (b, 2 * (n - 1) / n * b),
    "reduce-scatter": lambda b, n: (b, (n - 1) / n * b),
    "all-to-all": lambda b, n: (b, (n - 1) / n * b),
    "collective-permute": lambda b, n: (b, b),
}

Arrays = tuple[Array, ...]


def splash(products: int) -> Callable[[Arrays, Arrays], float]:
    """FLOPs of a kernel that does so many products of [T, S] x C for each head of the queries
    [..., T, C], its first floating-point operand; the second is the keys. The blocks that a mask
    lets it skip are counted, as the model FLOPs count them."""

    def flops(operands: Arrays, results: Arrays) -> float:
        query, key = operands[:2]
        # The kernel of dk and dv gives dq too, a part for each block of keys, when it is fused.
        fused = any(len(array.shape) > len(query.shape) for array in results)
        length = key.shape[-2] if key.shape[-1] == query.shape[-1] else key.shape[-1]
        return (products + fused) * 2 * query.elements * length

    return flops


def weighted_values(operands: Arrays, results: Arrays) -> float:
    """softmax(scores [..., T, S]) times values [..., S, C]: the compiler's own kernel."""
    return 2 * results[0].elements * operands[0].shape[-1]


# FLOPs of the matrix products of Pallas kernels, by the name of the instruction.
KERNELS = (
    (r"splash_m[hq]a_fwd", splash(2)),  # q k, w v
    (r"splash_m[hq]a_dq", splash(3)),  # q k, do v, ds k
    (r"splash_m[hq]a_dkv", splash(4)),  # q k, do v, ds q, w do
    (r"online-softmax", weighted_values),
)

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_CHAIN = re.compile(r'chain_id="?\d+')
_START = 'custom_call_target="AsyncCollectiveStart"'
_SCATTERS = re.compile(r'"emitter":"\w*AllReduceScatter')


@dataclass
class Costs:
    """What one device does in one optimiser step."""

    products: float = 0.0  # FLOPs of dots and convolutions
    kernels: Counter = field(default_factory=Counter)  # FLOPs of Pallas kernels, by name
    unknown_kernels: set = field(default_factory=set)  # names that KERNELS has no formula for
    payload: Counter = field(default_factory=Counter)  # bytes, by kind of collective
    wire: Counter = field(default_factory=Counter)
    calls: Counter = field(default_factory=Counter)
    cycles: float = 0.0  # the compiler's estimates, of fusions alone
    loops: list = field(default_factory=list)  # names of loops of unknown count, counted once

    @property
    def matmul(self) -> float:
        """FLOPs of all matrix products."""
        return self.products + sum(self.kernels.values())


def measure(text: str) -> Costs:
    """The costs of an optimised HLO module, trip counts applied."""
    module, costs = hlo.parse(text), Costs()
    for visit in hlo.walk(module, lambda loop: costs.loops.append(loop.name)):
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
    """2 x results x what is contracted."""
    left = here.operands(one)[0]
    contracted = re.findall(r"\d+", one.attribute("lhs_contracting_dims") or "")
    return 2 * one.results[0].elements * math.prod(left.shape[int(i)] for i in contracted)


def convolution_flops(one: Instruction, here: Computation) -> float:
    """2 x results x what each one sums over: on TPUs every product is a convolution.

    Some are batched by windows over padding or holes, which cost nothing and count nothing: what
    counts is the pairs of a window's place and one of its elements that meet an input.
    """
    left, right = here.operands(one)[:2]
    labels = one.attribute("dim_labels")
    of_left, _, rest = labels.partition("_")
    of_right, _, of_result = rest.partition("->")
    flops = 2 * one.results[0].elements * right.shape[of_right.index("i")]
    window = re.search(r"window=\{([^}]*)\}", one.attributes)
    fields = dict(part.split("=") for part in window[1].split()) if window else {}
    for axis in range(sum(c.isdigit() for c in of_left)):
        size = int(_part(fields, "size", axis, "1"))
        places = one.results[0].shape[of_result.index(str(axis))]
        meeting = _meetings(
            places,
            size,
            left.shape[of_left.index(str(axis))],
            int(_part(fields, "stride", axis, "1")),
            int(_part(fields, "pad", axis, "0_0").partition("_")[0]),
            int(_part(fields, "lhs_dilate", axis, "1")),
            int(_part(fields, "rhs_dilate", axis, "1")),
        )
        flops = flops * meeting // places
    return flops


PRODUCTS = {"dot": dot_flops, "convolution": convolution_flops}


def _part(fields: dict[str, str], name: str, axis: int, default: str) -> str:
    """One axis of a window's field, such as 3 of 'size=4x3'."""
    return fields[name].split("x")[axis] if name in fields else default


@lru_cache(maxsize=4096)
def _meetings(
    places: int, size: int, inputs: int, stride: int, before: int, holes: int, spread: int
) -> int:
    """Pairs of a window's place and an element of it that meet an input, along one axis."""
    total, span = 0, (inputs - 1) * holes
    for element in range(size):
        first = element * spread - before  # where this element lies when the window is at place 0
        # Places p with 0 <= first + p stride <= span and a multiple of the holes.
        low, high = max(0, -(first // stride)), min(places - 1, (span - first) // stride)
        period = holes // math.gcd(stride, holes)
        fits = (p for p in range(low, min(high, low + period - 1) + 1))
        start = next((p for p in fits if (first + p * stride) % holes == 0), None)
        total += 0 if start is None else (high - start) // period + 1
    return total


def group_size(one: Instruction, devices: int) -> int:
    """How many devices take part in one group of a collective."""
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


def _continues(visit: hlo.Visit) -> bool:
    """Whether this is one more sight of an asynchronous collective: the fusion that starts it, the
    fusions that it runs behind, and the one that ends it all show it; the first counts."""
    if not visit.path or not _CHAIN.search(visit.instruction.attributes):
        return False
    return not any(_START in one.attributes for one in visit.computation.instructions)


def _scatters(visit: hlo.Visit) -> bool:
    """Whether an all-reduce stands in a fusion that leaves each device its part: TPU's form of a
    reduce-scatter."""
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
    """(name, FLOPs) of a Pallas kernel; None without a formula."""
    name = re.sub(r"\.\d+$", "", one.name)
    floating = tuple(a for a in here.operands(one) if a.dtype in ("bf16", "f16", "f32"))
    formula = next((f for pattern, f in KERNELS if re.search(pattern, name)), None)
    return name, formula(floating, one.results) if formula else None
