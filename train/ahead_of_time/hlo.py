"""Parses the text of an optimised HLO module into computations and instructions."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

# Bits of an element; other types (token, opaque) hold no data.
BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32, "u32": 32}
BITS |= {"s64": 64, "u64": 64, "f16": 16, "bf16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128}
BITS |= {"s2": 2, "u2": 2, "f4e2m1fn": 4, "f8e5m2": 8, "f8e4m3": 8, "f8e4m3fn": 8, "f8e3m4": 8}
BITS |= {"f8e4m3b11fnuz": 8, "f8e4m3fnuz": 8, "f8e5m2fnuz": 8, "f8e8m0fnu": 8}

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([\w\-]+)\(")
_ARRAY = re.compile(r"(\w+)\[([\d,<= ]*)\]")
_NAME = re.compile(r"%([\w.\-]+)")


@dataclass(frozen=True)
class Array:
    """One array of a shape: its element type and dimensions."""

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
    matches = _ARRAY.findall(text)
    return tuple(
        Array(dtype, tuple(int(n.strip(" <=")) for n in sizes.split(",") if n.strip()))
        for dtype, sizes in matches
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
        """The value in `name=value`, up to a space or comma outside braces; None if absent."""
        match = re.search(rf"(?:^|[ ,]){name}=(\{{[^{{}}]*\}}|[^\s,]+)", self.attributes)
        return match[1] if match else None

    def called(self, name: str) -> str | None:
        """The computation that an attribute names."""
        value = self.attribute(name)
        return value.lstrip("%") if value else None


@dataclass
class Computation:
    """Instructions in their scheduled order."""

    name: str
    instructions: list[Instruction] = field(default_factory=list)
    root: str = ""  # name of the instruction whose result the computation returns

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
    """Parses `compiled.as_text()`; ValueError if it has no entry computation."""
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
        raise ValueError("this text contains no HLO entry computation")
    return Module(computations, entry, math.prod(int(n) for n in counts))


def _statements(text: str) -> Iterator[str]:
    """Headers and instructions, one by one. Instructions of Pallas kernels may span lines."""
    statement = ""
    for line in text.splitlines():
        if line == "}" or _INSTRUCTION.match(line) or _HEADER.match(line):
            yield statement
            statement = line
        else:
            statement += " " + line
    yield statement


def _instruction(name: str, text: str) -> Instruction:
    """Parses what follows '%name = '."""
    end = _closing(text, 0) if text.startswith("(") else text.find(" ")
    shape, opcode = text[:end], _OPCODE.match(text, end)
    if not opcode:
        return Instruction(name, shape, "", (), text[end:])
    close = _closing(text, opcode.end() - 1)
    inside = text[opcode.end() : close - 1]
    # '%a, %b' or, in older versions, 'f32[2]{0} %a, …'. A constant has no operands.
    operands = tuple(_NAME.findall(inside))
    return Instruction(name, shape, opcode[1], operands, text[close:], inside)


def _closing(text: str, start: int) -> int:
    """The index just after the parenthesis that closes the one at `start`."""
    depth = 0
    for match in re.finditer(r"[()]", text[start:]):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return start + match.end()
    return len(text)
