"""Measures isoflop clean on synthetic text: MB/s for each core, memory, state on the disk.

    python -m tests.bench.texts.cleaning --megabytes=60 --workers=1 book.txt other.txt
    python -m tests.bench.texts.cleaning --megabytes=2000 --write=synthetic.jsonl book.txt other.txt
    python -m tests.bench.texts.cleaning --workers=2 --read=synthetic.jsonl
    python -m tests.bench.texts.cleaning --off=spans book.txt other.txt      # without a stage

--write only writes the text, and --read cleans it, so that the memory is that of cleaning. The text
is made from the lines of the given files with a seed: in 60 of 100 documents lines with 1 word in
12 replaced, in 12 a copy of an earlier document, in 10 a copy with three other words, the rest with
French articles or personal data. Time is that of the CPU, all processes together, so it
hardly depends on what else the machine does; the start of the processes counts.
"""

import argparse
import json
import random
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path

from configs.data import cleaning
from data.cleaning import pipeline

KEPT = 20_000  # documents that copies are drawn from
WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def synthetic(file: Path, lines: list[str], n_bytes: int) -> None:
    """Writes rows of about `n_bytes` bytes of text."""
    draw, size, recent = random.Random(1).random, 0, []
    words = [word for line in lines for word in line.split()]

    def changed(line: str, times: int) -> str:
        parts = line.split(" ")
        for _ in range(times):
            parts[int(draw() * len(parts))] = words[int(draw() * len(words))]
        return " ".join(parts)

    with open(file, "w") as stream:
        while size < n_bytes:
            kind = draw()
            if kind < 0.22 and recent:
                text = recent[int(draw() * len(recent))]
                text = text if kind < 0.12 else changed(text, 3)
            else:
                chosen = [lines[int(draw() * len(lines))] for _ in range(3 + int(draw() * 25))]
                chosen = [changed(line, 1 + line.count(" ") // 12) for line in chosen]
                text = "\n".join(line.rstrip(".") + "." for line in chosen)
                if kind < 0.27:
                    text = text.replace("the ", "le ").replace("and ", "et ")
                elif kind < 0.29:
                    text += (
                        f"\nMail me at a.b{size}@example.com or call +44 20 7946 0{size % 1000:03}."
                    )
                if len(recent) < KEPT:
                    recent.append(text)
                else:
                    recent[int(draw() * KEPT)] = text
            stream.write(json.dumps({"text": text}) + "\n")
            size += len(text.encode())


def main() -> None:
    """Makes the text, cleans it, prints one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=60)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--write", type=Path, help="write the text to this file, and clean nothing")
    parser.add_argument("--read", type=Path, help="clean this file instead of making text")
    parser.add_argument("--off", action="append", default=[], help="stage that is left out")
    parser.add_argument("files", nargs="*")
    given = parser.parse_args()
    if bool(given.files) == bool(given.read):
        parser.error("name files of lines to make text from, or --read=FILE")
    with tempfile.TemporaryDirectory() as folder:
        file = given.read or given.write or Path(folder, "raw.jsonl")
        if given.files:
            texts = [Path(name).read_text() for name in given.files]
            lines = [line.strip() for text in texts for line in text.splitlines()]
            long = [line for line in lines if line.count(" ") > 7]
            synthetic(file, long, int(given.megabytes * 1e6))
        if not given.write:
            print(json.dumps(cleaned(file, Path(folder, "out"), given.workers, given.off)))


def cleaned(file: Path, out: Path, workers: int, off: Sequence[str]) -> dict[str, float]:
    """Speed, memory and sizes of cleaning a file, without the stages `off`."""
    cfg = json.loads(cleaning.get_config().to_json())
    cfg["input"]["corpora"] = [str(file)]
    for stage in off:
        cfg[stage]["on"] = False
    before = cpu()
    about = pipeline.clean(cfg, out, workers)
    seconds = cpu() - before
    parent, worker = (resource.getrusage(who).ru_maxrss / 1024 for who in WHO)
    return {
        "megabytes_per_second_and_core": round(about["read"]["bytes"] / 1e6 / seconds, 2),
        "cpu_seconds": round(seconds, 1),
        "largest_process_mib": round(max(parent, worker)),
        "parent_mib": round(parent),
        "largest_worker_mib": round(worker),
        "documents": about["read"]["documents"],
        "share_left": round(about["written"]["bytes"] / about["read"]["bytes"], 3),
        **about["bytes_of_state"],
    }


def cpu() -> float:
    """CPU seconds of this process and of its children that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in WHO)


if __name__ == "__main__":
    main()
