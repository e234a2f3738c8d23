"""This file reads the text of an optimised HLO module: computations, instructions, trip counts.

The compiled program's own cost analysis counts the body of a loop once and a Pallas kernel as
nothing. `walk` visits every instruction that runs with the number of times that it runs in one
optimiser step; `train/ahead_of_time/compiled.py` adds up what it finds.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from train.ahead_of_time import trips

# Bits of an element; other names (token, opaque) hold nothing.
BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32, "u32": 32}
BITS |= {"s64": 64, "u64": 64, "f16": 16, "bf16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128}
BITS |= {"s2": 2, "u2": 2, "f4e2m1fn": 4, "f8e5m2": 8, "f8e4m3": 8, "f8e4m3fn": 8, "f8e3m4": 8}
BITS |= {"f8e4m3b11fnuz": 8, "f8e4m3fnuz": 8, "f8e5m2fnuz": 8, "f8e8m0fnu": 8}

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([\w\-]+)\(")
_ARRAY = re.compile(r"(\w+)\[([\d,<= ]*)\]")
_NAME = re.compile(r"%([\w.\-]+)")
_BRANCHES = re.compile(
    r"(?:branch_computations=\{([^}]*)\}|(?:true|false)_computation=(%[\w.\-]+))"
)


@dataclass(frozen=True)
class Array:
    """One array of a shape: its type and sizes."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> float:
        return self.elements * BITS.get(self.dtype, 0) / 8


def arrays(text: str) -> tuple[Array, ...]:
    """The arrays of a shape such as 'bf16[8,4]{1,0}' or '(f32[], s32[2]{0})'."""
    found = _ARRAY.findall(text)
    return tuple(
        Array(dtype, tuple(int(n.strip(" <=")) for n in sizes.split(",") if n.strip()))
        for dtype, sizes in found
        if dtype in BITS
    )


@dataclass(frozen=True)
class Instruction:
    """%name = shape opcode(operands), attributes."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    inside: str = ""  # the text between the parentheses: operands, or a constant's value

    @cached_property
    def results(self) -> tuple[Array, ...]:
        return arrays(self.shape)

    def attribute(self, name: str) -> str | None:
        """The text of `name=value` up to the next blank or comma outside braces."""
        match = re.search(rf"(?:^|[ ,]){name}=(\{{[^{{}}]*\}}|[^\s,]+)", self.attributes)
        return match[1] if match else None

    def called(self, name: str) -> str | None:
        """The computation that an attribute names."""
        value = self.attribute(name)
        return value.lstrip("%") if value else None


@dataclass
class Computation:
    """A list of instructions, in the order in which they are scheduled."""

    name: str
    instructions: list[Instruction] = field(default_factory=list)
    root: str = ""  # name of the instruction whose result is the computation's

    @cached_property
    def by_name(self) -> dict[str, Instruction]:
        return {one.name: one for one in self.instructions}

    def operands(self, instruction: Instruction) -> tuple[Array, ...]:
        """The arrays that an instruction reads, tuples flattened."""
        sources = (self.by_name.get(name) for name in instruction.operands)
        return tuple(array for one in sources if one for array in one.results)


@dataclass
class Module:
    """A parsed module. `devices` is the number of partitions times replicas."""

    computations: dict[str, Computation]
    entry: str
    devices: int


def parse(text: str) -> Module:
    """Reads `compiled.as_text()`; ValueError if it holds no entry computation."""
    head = text[: text.find("\n")]
    counts = re.findall(r"(?:num_partitions|replica_count)=(\d+)", head)
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in _statements(text):
        if header := _HEADER.match(line):
            current = computations.setdefault(header[2], Computation(header[2]))
            entry = header[2] if header[1] else entry
        elif current is not None and (named := _INSTRUCTION.match(line)):
            current.instructions.append(_instruction(named[2], line[named.end() :]))
            current.root = named[2] if named[1] else current.root
    if not entry:
        raise ValueError("this text holds no HLO entry computation")
    return Module(computations, entry, math.prod(int(n) for n in counts))


def _statements(text: str) -> Iterator[str]:
    """The headers and instructions; the attributes of some Pallas kernels run over lines."""
    statement = ""
    for line in text.splitlines():
        if line == "}" or _INSTRUCTION.match(line) or _HEADER.match(line):
            yield statement
            statement = line
        else:
            statement += " " + line
    yield statement


def _instruction(name: str, text: str) -> Instruction:
    """What follows '%name = '."""
    end = _closing(text, 0) if text.startswith("(") else text.find(" ")
    shape, opcode = text[:end], _OPCODE.match(text, end)
    if not opcode:
        return Instruction(name, shape, "", (), text[end:])
    close = _closing(text, opcode.end() - 1)
    inside = text[opcode.end() : close - 1]
    # Either '%a, %b' or, in older texts, 'f32[2]{0} %a, …'; a constant holds neither.
    operands = tuple(_NAME.findall(inside))
    return Instruction(name, shape, opcode[1], operands, text[close:], inside)


def _closing(text: str, start: int) -> int:
    """The place after the parenthesis that closes the one at `start`."""
    depth = 0
    for match in re.finditer(r"[()]", text[start:]):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return start + match.end()
    return len(text)


@dataclass(frozen=True)
class Visit:
    """An instruction that runs `times` a step, in `computation`; `path` is the fusions around it,
    outermost first."""

    instruction: Instruction
    computation: Computation
    times: int
    path: tuple[Instruction, ...]


# Where an instruction's work is done by another computation, and the attribute that names it.
# Generation 7 hands collectives to its sparse cores, by call-start.
_INSIDE = {"fusion": "calls", "call": "to_apply", "async-start": "calls", "call-start": "to_apply"}


def walk(
    module: Module, unknown: Callable[[Instruction], None] = lambda loop: None
) -> Iterator[Visit]:
    """Every instruction that runs, with how often: trip counts of nested loops multiplied.

    A loop whose count the compiler does not know is visited once and handed to `unknown`; the loop
    over the steps of a training chunk is one, so the counts are those of one step. Of the branches
    of a conditional the one with most instructions is visited.
    """

    def visit(
        name: str, times: int, path: tuple[Instruction, ...], arguments: list
    ) -> Iterator[Visit]:
        here = module.computations[name]
        for one in here.instructions:
            yield Visit(one, here, times, path)
            if one.opcode == "while":
                found = trips.count(one, here, module, arguments)
                if found is None:
                    unknown(one)
                carried = trips.invariants(one, here, module, arguments)
                runs = times * (1 if found is None else found)
                yield from visit(one.called("body"), runs, path, [carried])
            elif one.opcode == "conditional":
                branches = [b.strip(" %") for b in _branches(one)]
                size = lambda b: len(module.computations[b].instructions)  # noqa: E731
                yield from visit(max(branches, key=size), times, path, [])
            elif one.opcode in _INSIDE:
                inner = one.called(_INSIDE[one.opcode]) or one.called("calls")
                deeper = (*path, one) if one.opcode == "fusion" else path
                yield from visit(inner, times, deeper, [])

    return visit(module.entry, 1, (), [])


def _branches(conditional: Instruction) -> list[str]:
    found = _BRANCHES.findall(conditional.attributes)
    return [name for many, one in found for name in (many or one).split(",")]
