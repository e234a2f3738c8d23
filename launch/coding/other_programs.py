"""What other compressors make of the same file: xz, Zstandard, PPMd."""

import importlib.util
import lzma
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import zstandard

ORDER, MEMORY = 8, 256 << 20  # of PPMd; bytes


class Program(NamedTuple):
    """How a program is called with its strongest usual setting. `package` is None if Python or
    isoflop itself has it; `extra` brings it."""

    setting: str
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes, int], bytes]  # of a number of bytes
    package: str | None = None
    extra: str = ""


def _ppmd(content: bytes) -> bytes:
    import pyppmd

    encoder = pyppmd.Ppmd7Encoder(ORDER, MEMORY)
    return encoder.encode(content) + encoder.flush()


def _from_ppmd(packed: bytes, size: int) -> bytes:
    import pyppmd

    return pyppmd.Ppmd7Decoder(ORDER, MEMORY).decode(packed, size)


PROGRAMS = {
    "xz": Program(
        "-9e",
        lambda content: lzma.compress(content, preset=9 | lzma.PRESET_EXTREME),
        lambda packed, _: lzma.decompress(packed),
    ),
    "zstd": Program(
        "-19",
        lambda content: zstandard.ZstdCompressor(level=19).compress(content),
        lambda packed, size: zstandard.ZstdDecompressor().decompress(packed, max_output_size=size),
    ),
    "PPMd": Program(f"var. H, order {ORDER}", _ppmd, _from_ppmd, "pyppmd", "ppmd"),
}


def measured(content: bytes) -> list[dict[str, Any]]:
    """A row for each program: name, bytes, seconds of both directions, or how to install it."""
    rows = []
    for name, program in PROGRAMS.items():
        row: dict[str, Any] = {"name": name, "setting": program.setting}
        rows.append(row)
        if program.package and importlib.util.find_spec(program.package) is None:
            row["missing"] = f"pip install 'isoflop[{program.extra}]'"
            continue
        begun = time.perf_counter()
        packed = program.compress(content)
        between = time.perf_counter()
        if program.decompress(packed, len(content)) != content:
            raise AssertionError(f"{name} does not give back the file")
        ended = time.perf_counter()
        row |= {"bytes": len(packed), "seconds": between - begun, "seconds_back": ended - between}
    return rows
