"""isoflop compress: compresses any file with the model of a run, by arithmetic coding.

isoflop compress book.txt --run=runs/first
isoflop compress book.txt --run=runs/first --out=book.iso --verify --json=sizes.json
isoflop compress book.txt --sweep=runs/quickstart --max_bytes=500k --out=page

Works with every family that gives the next token a probability, trained or counted. Writes FILE.iso
beside FILE, which `isoflop decompress` turns back into the same bytes with the same run on a
machine of the same platform. Prints its size beside that of xz, Zstandard and PPMd. --verify
decompresses it at once.

The file is cut in --streams parts, which the model reads side by side: more of them are faster and
cost a little, because each begins without context. A model with a bounded context reads the last
--overlap tokens again whenever its context is full.

--sweep compresses the file with the model of every finished trial of a sweep and prints the length
of a description of the text: the model and the coded text together. It writes no compressed file;
--out is the folder of a page.
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
from launch.files import write_json

SUFFIX = ".iso"


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    whole, boolean = absl_flags.DEFINE_integer, absl_flags.DEFINE_boolean
    flags.define_path("file", None, "the file; may be written without --file=", values)
    flags.define_path("run", None, "folder of the run, or of Hugging Face weights", values)
    flags.define_path("sweep", None, "folder of a sweep: describe the file by each trial", values)
    usual = f"the compressed file, replaced if it exists; default: FILE{SUFFIX}, never replaced; "
    usual += "sweep: the folder of the page"
    flags.define_path("out", None, usual, values)
    boolean("verify", False, "decompress it at once and compare", flag_values=values)
    whole("streams", 0, "parts that are read side by side; 0: by the size of the file",
          lower_bound=0, flag_values=values)  # fmt: skip
    whole("overlap", 0, "tokens that are read again when the context is full; 0: half of it",
          lower_bound=0, flag_values=values)  # fmt: skip
    flags.define_amount("max_bytes", 0, "sweep: bytes of the file to describe; 0: all", values)
    flags.define_path("json", None, "write the sizes and times to this file", values)
    flags.define_import(values)
    return values


def main(argv: Sequence[str]) -> int:
    """Compresses with one run or describes with a sweep. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__, positional="file")
    with bad_input():
        refuse(values)
        path = path_of(values.file, "file")
        content = read(path)
    if values.sweep:
        return describe(values, path, content, argv)
    with bad_input():
        out = destination(values.out, path)
        with alive("loading the model"):
            from launch.coding import coder as coders  # slow imports, which --help does without
            from launch.coding import container, listing, other_programs

            coder = coders.open_run(to_path(values.run))
        begun = time.perf_counter()
        with alive("compressing") as detail:
            made = coders.compress(
                coder, content, values.streams, values.overlap, lambda s: detail(bar(s))
            )
        seconds = time.perf_counter() - begun
    seconds_back = None
    if values.verify:
        begun = time.perf_counter()
        with bad_input(), alive("verifying") as detail:
            parts = container.read(made.file, str(out))
            coders.decompress(coder, parts, str(out), lambda s: detail(bar(s)))
        seconds_back = time.perf_counter() - begun
    with writing("out", out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, made.file)
    with alive("running other programs"):
        others = other_programs.measured(content)
    about = listing.described(coder, path, out, made, seconds, seconds_back, others)
    if values.json:
        with writing("json", values.json):
            write_json(to_path(values.json), about)
    listing.show(about)
    return DONE


def describe(values: absl_flags.FlagValues, path: Path, content: bytes, argv: Sequence[str]) -> int:
    """Prints the description lengths of a sweep, and writes what the flags ask for."""
    most = int(values.max_bytes)
    content = content[:most] if most else content
    with bad_input(), alive("compressing") as detail:
        from launch.coding import description, lengths, other_programs
        from launch.law.fitting import provenance, report_line

        found = description.described(
            to_path(values.sweep), content, values.streams, values.overlap,
            lambda which, s: detail(f"trial {which} {bar(s)}"),
        )  # fmt: skip
    with alive("running other programs"):
        others = other_programs.measured(content)
    about = lengths.described(path, len(content), found, others)
    about["made"] = provenance("compress", argv)
    if values.json:
        with writing("json", values.json):
            write_json(to_path(values.json), about)
    place = ""
    if values.out:
        from scaling.report.description.page import write_page

        with writing("out", values.out), alive("drawing the page"):
            place = report_line(write_page(to_path(values.out), about))
    lengths.show(about)
    if place:
        print(place.strip())
    return DONE


def refuse(values: absl_flags.FlagValues) -> None:
    """ValueError for flags that are missing or exclude one another."""
    if bool(values.run) == bool(values.sweep):
        both = "--run and --sweep exclude one another; drop one"
        raise ValueError(both if values.run else "--run is not given; add --run=RUN or --sweep=DIR")
    if values.sweep and values.verify:
        raise ValueError("--verify means nothing with --sweep, which writes no file; drop it")
    if values.run and values.max_bytes:
        raise ValueError("--max_bytes means nothing without --sweep; drop it")
    if values.max_bytes < 0:
        raise ValueError(f"max_bytes={values.max_bytes:g} is out of range; use 0 or more")


def read(path: Path) -> bytes:
    """The content of a file. FileNotFoundError or ValueError, in one line, if there is none."""
    if not path.exists():
        raise FileNotFoundError(f"file={path} does not exist; name a file to compress")
    if not path.is_file():
        raise ValueError(f"file={path} is no file; name a file to compress")
    return path.read_bytes()


def destination(given: str | None, path: Path) -> Path:
    """Where the compressed file goes. ValueError if it exists and was not named."""
    if given:
        return to_path(given)
    out = path.with_name(path.name + SUFFIX)
    if out.exists():
        raise ValueError(f"out={out} exists; delete it, or name it with --out to replace it")
    return out
