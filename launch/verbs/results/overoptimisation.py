"""isoflop overoptimisation: how the gold reward rises and falls as a proxy reward is optimised.

isoflop overoptimisation --samples=small=small.npz --samples=large=large.npz --out=page/
isoflop overoptimisation --samples=rewards.jsonl --policies=rl.csv --json=study.json

--samples names the rewards of many samples of each prompt: an .npz file with arrays proxy and gold
[prompts, samples] and optionally the numbers size and comparisons of the proxy, or a .jsonl file
with a line {"proxy": [...], "gold": [...]} for each prompt. From them best-of-n is estimated for
all n up to the samples of a prompt, without bias. --policies names policies that were trained
against the proxy: a CSV file with the columns kl (nats from the initial policy) and gold_reward
(above that of the initial policy). Both flags may be repeated, and NAME=FILE names a proxy; without
a name it is that of the file.

Fits the laws of Gao et al. 2022, with d = √KL, to each curve: R = d (α - β d), which describes
best-of-n, and R = d (α - β log d), which describes reinforcement learning. Prints the constants
with intervals, which of the forms fits better, and where the gold reward turns over; --out adds a
page with figures.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
from absl import flags as absl_flags

from data.files import to_path
from data.local import parse_object
from launch import flags
from launch.alive import alive
from launch.amounts import with_interval
from launch.errors import DONE, bad_input, writing
from launch.files import named, text_lines
from launch.law.fitting import provenance, report_line
from launch.screen.fitted_table import Column, fitted, left_out
from scaling.laws.law import symbols
from scaling.printable import printable
from scaling.report.number_text import three_digits


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    repeated, whole = absl_flags.DEFINE_multi_string, absl_flags.DEFINE_integer
    repeated("samples", [], "[NAME=]FILE of rewards, .npz or .jsonl; repeatable", values)
    repeated("policies", [], "[NAME=]FILE.csv of trained policies; repeatable", values)
    flags.define_path("out", None, "folder of the page; default: no page", values)
    flags.define_path("json", None, "write the study to this file", values)
    whole("draws", 1000, "bootstrap draws; 0: no intervals", lower_bound=0, flag_values=values)
    whole("seed", 0, "bootstrap seed", lower_bound=0, flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """Prints the study and writes what the flags ask for. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__)
    from scaling.csv_file import read_csv
    from scaling.drafts import write
    from scaling.estimators import proxies
    from scaling.laws.over_optimisation import RL
    from scaling.report.page import note_missing_drawing

    with bad_input():
        if not values.samples and not values.policies:
            raise ValueError("samples is not given; add --samples=rewards.npz or --policies=rl.csv")
        if values.out:
            note_missing_drawing()
        judged = [read(name, path) for name, path in named(values.samples, "samples")]
        policies = [
            (name, read_csv(path, law=RL)) for name, path in named(values.policies, "policies")
        ]
        how = values.draws, values.seed
        with alive("fitting"):
            study: dict[str, Any] = {
                "samples": [proxies.describe_samples(one, *how) for one in judged],
                "policies": [proxies.describe_policies(*one, *how) for one in policies],
            }
    study["made"] = provenance("overoptimisation", argv)
    if values.json:
        with writing("json", values.json):
            write(to_path(values.json), json.dumps(study, indent=1) + "\n")
    place = ""
    if values.out:
        from scaling.report.proxies.proxy_page import write_page

        with writing("out", values.out), alive("drawing the page"):
            place = report_line(write_page(to_path(values.out), study))
    show(study)
    print(place, end="\n" if place else "")
    return DONE


def read(name: str, path: Path) -> Any:
    """The rewards in a file. ValueError or FileNotFoundError, in one line, that names what is wrong
    with it."""
    from scaling.estimators.proxies import FACTS, Judged

    if not path.is_file():
        raise FileNotFoundError(f"samples={path} does not exist; name a file of rewards")
    if path.suffix == ".npz":
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                content = {key: file[key] for key in ("proxy", "gold", *FACTS) if key in file}
        except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile,
                zlib.error) as error:  # fmt: skip
            raise ValueError(f"samples={path} is not a .npz file of arrays: {error}") from None
    else:
        content = _lines(path)
    missing = [key for key in ("proxy", "gold") if key not in content]
    if missing:
        raise ValueError(f"samples={path} has no {' and no '.join(missing)}; add it")
    facts = {key: _fact(path, key, content[key]) for key in FACTS if key in content}
    return Judged(name, np.asarray(content["proxy"]), np.asarray(content["gold"]), **facts)


def _fact(path: Path, key: str, given: np.ndarray) -> float:
    """The size or the comparisons of a proxy."""
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = np.nan
    if not 0 < value < np.inf:
        text = " ".join(str(given).split())[:60]
        raise ValueError(f"samples={path} has {key}={text}; it must be one number above 0")
    return value


def _lines(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .jsonl file. ValueError, with the line, unless all have equal lengths."""
    rows: dict[str, list] = {"proxy": [], "gold": []}
    for number, line in enumerate(text_lines(path, "samples"), start=1):
        if not line.strip():
            continue
        try:
            row = parse_object(line.encode())
            made = {key: np.array(row[key], float) for key in rows}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f'samples={path} line {number} is not {{"proxy": [numbers], "gold": [numbers]}} '
                f"({error})"
            ) from None
        for key, values in made.items():
            first = rows[key][0] if rows[key] else made["proxy"]
            if values.ndim != 1 or len(values) != len(first):
                raise ValueError(
                    f"samples={path} line {number} has {values.size} numbers of {key}, but "
                    f"{len(first)} are needed; give each prompt equally many samples"
                )
            rows[key].append(values)
    return {key: np.array(values) for key, values in rows.items()}


def show(study: dict[str, Any]) -> None:
    """Prints a row for each proxy and form of the law, and where each curve turns over."""
    from scaling.report.proxies.proxy_page import turns_over

    console = rich.console.Console(highlight=False, markup=False)
    for key, title in (("samples", "best-of-n"), ("policies", "policies")):
        rows = [(part, name, law) for part in study[key] for name, law in part["laws"].items()]
        if not rows:
            continue
        console.print(title, style="bold")
        columns = [
            Column("proxy", [printable(part["name"]) for part, _, _ in rows], number=False),
            Column(
                "law", [symbols(law["law"]).partition(",")[0] for _, _, law in rows], number=False
            ),
            Column("α", [with_interval(law["alpha"]) for _, _, law in rows]),
            Column("β", [with_interval(law["beta"]) for _, _, law in rows]),
            Column("rmse", [three_digits(law["rmse"]) for _, _, law in rows]),
            Column("", ["better" if name == part["better"] else "" for part, name, _ in rows], 1),
        ]
        table, missing = fitted(columns, console.width)
        console.print(table, soft_wrap=True)
        if missing := [name for name in missing if name]:
            console.print(left_out(missing), soft_wrap=True)
        for part in study[key]:
            if part["better"] is None:
                alike = "the fits of the two forms are not distinguishable"
                console.print(f"{printable(part['name'])}: {alike}", soft_wrap=True)
    for part in study["samples"]:
        peak, falls = part["peak"], part["falls"]
        line = (
            f"{printable(part['name'])}: gold reward is highest at n = {peak['n']:,} "
            f"(KL {peak['kl']:.2f} nats), {three_digits(peak['gold'])} above one sample"
        )
        down = "; no turn is seen up to there"
        if turns_over(part):
            down = f"; it has fallen by {falls['value']:.3g} ± {falls['se']:.1g}"
            down += f" at n = {part['samples']:,}"
        console.print(line + down, soft_wrap=True)
