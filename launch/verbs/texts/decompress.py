"""isoflop decompress: gives back the file that `isoflop compress` compressed.

isoflop decompress book.txt.iso --run=runs/first
isoflop decompress book.txt.iso --run=runs/first --out=copy.txt

Needs the run that compressed the file, and a machine of the same platform: the same versions of
jax, the same kind of device and CPU. Refuses any other before it begins; --anyway tries another
platform. Nothing is written unless the result has the SHA-256 of the original.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags as absl_flags

from data.atomic import write_atomic
from data.files import path_of, to_path
from launch import flags
from launch.alive import alive, bar
from launch.errors import DONE, bad_input, writing

SUFFIX = ".iso"


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    flags.define_path("file", None, "the file; may be written without --file=", values)
    flags.define_path("run", None, "the run that compressed it", values)
    usual = f"the original, replaced if it exists; default: FILE without {SUFFIX}, never replaced"
    flags.define_path("out", None, usual, values)
    absl_flags.DEFINE_boolean("anyway", False, "try it on another platform", flag_values=values)
    flags.define_import(values)
    return values


def main(argv: Sequence[str]) -> int:
    """Writes the original. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__, positional="file")
    with bad_input():
        if not values.run:
            raise ValueError("--run is not given; add --run=RUN")
        path = path_of(values.file, "file")
        if not path.is_file():
            raise FileNotFoundError(f"file={path} does not exist; name a compressed file")
        out = destination(values.out, path)
        from launch.coding import container

        parts = container.read(path.read_bytes(), f"file={path}")
        with alive("loading the model"):
            from launch.coding import coder as coders  # slow imports, which --help does without

            coder = coders.open_run(to_path(values.run))
        coders.check(coder, parts[0], f"file={path}", values.anyway)
        begun = time.perf_counter()
        with alive("decompressing") as detail:
            content = coders.decompress(coder, parts, f"file={path}", lambda s: detail(bar(s)))
    with writing("out", out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, content)
    seconds = time.perf_counter() - begun
    speed = len(content) / 1e6 / seconds
    print(f"{out}: {len(content):,} bytes, SHA-256 as of the original, {speed:.3g} MB/s")
    return DONE


def destination(given: str | None, path: Path) -> Path:
    """Where the original goes. ValueError if it exists and was not named, or has no name."""
    if given:
        return to_path(given)
    if path.suffix != SUFFIX:
        raise ValueError(f"file={path} does not end with {SUFFIX}; name the original with --out")
    out = path.with_name(path.name.removesuffix(SUFFIX))
    if out.exists():
        raise ValueError(f"out={out} exists; delete it, or name it with --out to replace it")
    return out
