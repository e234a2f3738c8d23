"""CORE (Li et al. 2024, DCLM, arXiv:2406.11794): few-shot tasks in a folder of the user's.

    DIR/core.yaml            icl_tasks: label, dataset_uri, num_fewshot, icl_task_type, …
    DIR/eval_data/…          the .jsonl file of each dataset_uri (or in DIR itself)
    DIR/eval_meta_data.csv   "Eval Task", "Random baseline" in per cent

The three types of task:

    multiple_choice     query, choices, gold         the choice of the lowest mean loss per token
    schema              context_options, continuation, gold       the context under which the one
                                                     continuation has the lowest mean loss
    language_modeling   context, continuation        right if greedy decoding gives all of it
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data.files import to_path
from data.sources.compression import naming_damage, open_file
from data.sources.formats import json_lines
from data.tokenizer import Tokenizer
from launch.benchmarks import continuations
from launch.evaluation.scored_model import ScoredModel

Row = dict[str, Any]
FIELDS = {
    "multiple_choice": ("query", "choices", "gold"),
    "schema": ("context_options", "continuation", "gold"),
    "language_modeling": ("context", "continuation"),
}


@dataclass(frozen=True)
class Benchmark:
    """One task of a bundle. `baseline` is the accuracy of guessing."""

    label: str
    type: str  # key of FIELDS
    shots: int
    delimiter: str
    rows: Sequence[Row]
    baseline: float


def read(folder: Path) -> list[Benchmark]:
    """The tasks of a bundle. FileNotFoundError or ValueError, in one line, that names the file, and
    the line of a row that lacks a field."""
    file = folder / "core.yaml"
    if not file.is_file():
        raise FileNotFoundError(
            f"tasks=core:{folder} has no core.yaml; name the folder of a bundle that has one"
        )
    try:
        listed = yaml.safe_load(file.read_text("utf-8"))["icl_tasks"]
        baselines = _baselines(folder / "eval_meta_data.csv")
        found = [_benchmark(folder, entry, baselines) for entry in listed]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        text = " ".join(str(error).split())
        raise ValueError(
            f"{file} does not list icl_tasks with label, dataset_uri, num_fewshot and "
            f"icl_task_type ({type(error).__name__}: {text}); correct it"
        ) from None
    if not found:
        raise ValueError(f"{file}: icl_tasks is empty; list at least one task")
    return found


def _benchmark(folder: Path, entry: Row, baselines: dict[str, float]) -> Benchmark:
    label, kind = str(entry["label"]), entry["icl_task_type"]
    if kind not in FIELDS:
        raise ValueError(
            f"{folder / 'core.yaml'}: {label} has icl_task_type={kind!r}; use one of "
            f"{', '.join(FIELDS)}"
        )
    uri, shots = to_path(str(entry["dataset_uri"])), entry["num_fewshot"]
    places = [folder / "eval_data" / uri, folder / uri]
    path = next((place for place in places if place.is_file()), None)
    if path is None or uri.is_absolute() or ".." in uri.parts:
        raise FileNotFoundError(f"{label}: the file {places[0]} does not exist; add it")
    with naming_damage(path), open_file(path) as stream:
        rows = [_checked(kind, where, row) for where, row in json_lines(stream, path)]
    if not rows:
        raise ValueError(f"{path} has no rows; give it some, or remove {label} from core.yaml")
    shots = int(shots[0] if isinstance(shots, list) else shots)
    if shots >= len(rows):
        raise ValueError(f"{label} has {len(rows)} rows, too few for num_fewshot={shots}")
    delimiter = str(entry.get("continuation_delimiter", " "))
    return Benchmark(label, kind, shots, delimiter, rows, baselines.get(label, _guessing(rows)))


def _checked(kind: str, where: str, row: Any) -> Row:
    row = row if isinstance(row, dict) else {}
    lacking = [name for name in FIELDS[kind] if name not in row]
    if lacking:
        raise ValueError(f"{where} lacks {', '.join(lacking)}, which {kind} needs")
    for name in FIELDS[kind]:
        value = row[name]
        if name in ("choices", "context_options"):
            if not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
                raise ValueError(f"{where} has {name} that are not a list of texts; correct it")
        elif name == "gold":
            options = row["choices" if kind == "multiple_choice" else "context_options"]
            if type(value) is not int or not 0 <= value < len(options):
                raise ValueError(
                    f"{where} has gold={value!r}, which is not the number of one of its options; "
                    f"use 0 to {len(options) - 1}"
                )
        elif not isinstance(value, str):
            raise ValueError(f"{where} has {name}={value!r}, which is not a text; correct it")
    return row


def _guessing(rows: Sequence[Row]) -> float:
    """The accuracy of a uniform guess among the options; 0 where there are none."""
    options = (row.get("choices") or row.get("context_options") for row in rows)
    return float(np.mean([1 / len(each) if each else 0.0 for each in options]))


def _baselines(path: Path) -> dict[str, float]:
    """The accuracies of guessing in eval_meta_data.csv; {} without the file."""
    if not path.is_file():
        return {}
    lines = csv.DictReader(io.StringIO(path.read_text("utf-8-sig")))
    found = {}
    try:
        for row in lines:
            text = row["Random baseline"]
            try:
                found[row["Eval Task"]] = value = float(text) / 100
            except ValueError:
                value = -1.0
            if not 0 <= value < 1:
                raise ValueError(
                    f"{path} line {lines.line_num} has Random baseline={text}; it must be a "
                    "number of per cent, at least 0 and below 100"
                )
    except (KeyError, TypeError):
        raise ValueError(
            f'{path} needs the columns "Eval Task" and "Random baseline", in per cent'
        ) from None
    return found


def texts(task: Benchmark, row: Row, shots: Sequence[Row]) -> list[tuple[str, str]]:
    """(what comes before, what is scored) of each option. `shots` are solved examples, which come
    first."""
    solved = "".join(f"{_question(task, shot)}{_answer(task, shot)}\n\n" for shot in shots)
    if task.type == "multiple_choice":
        return [(solved + _question(task, row), choice) for choice in row["choices"]]
    if task.type == "schema":
        befores = (f"{solved}{one}{task.delimiter}" for one in row["context_options"])
        return [(before, row["continuation"]) for before in befores]
    return [(solved + _question(task, row), row["continuation"])]


def _question(task: Benchmark, row: Row) -> str:
    if task.type == "multiple_choice":
        return f"{row['query']}{task.delimiter}"
    if task.type == "schema":
        return f"{row['context_options'][row['gold']]}{task.delimiter}"
    return f"{row['context'].strip()}{task.delimiter}"


def _answer(task: Benchmark, row: Row) -> str:
    return row["choices"][row["gold"]] if task.type == "multiple_choice" else row["continuation"]


def pairs(
    task: Benchmark, tokenizer: Tokenizer, row: Row, shots: Sequence[Row]
) -> list[tuple[list[int], list[int]]]:
    """(context, continuation) as tokens, one pair for each option.

    The whole text is encoded at once, since a token may cover parts of both. What counts is what
    the options do not share: of multiple choice the tokens after the longest common beginning, of a
    schema the longest common end, of language modelling the tokens that the continuation adds to
    the context without the white space at its end.
    """
    options = texts(task, row, shots)
    whole = [tokenizer.encode(before + after).tolist() for before, after in options]
    least = min(map(len, whole))
    if task.type == "language_modeling":
        cut = _shared([tokenizer.encode(options[0][0].rstrip()).tolist(), whole[0]])
        cuts = [min(cut, least - 1)]
    elif task.type == "schema":
        count = max(1, _shared([ids[::-1] for ids in whole])) if len(whole) > 1 else least
        cuts = [len(ids) - count for ids in whole]
    else:  # at least one token is left of an option with which another begins
        cuts = [min(_shared(whole), least - 1)] * len(whole)
    return [(ids[:cut], ids[cut:]) for ids, cut in zip(whole, cuts, strict=True)]


def _shared(rows: Sequence[Sequence[int]]) -> int:
    """The number of tokens with which all rows begin."""
    least = min(map(len, rows))
    differ = (at for at in range(least) if len({row[at] for row in rows}) > 1)
    return next(differ, least)


def right(task: Benchmark, row: Row, scored: Sequence[continuations.Scored]) -> bool:
    """Whether the model answers a row rightly, given its scored options."""
    if task.type == "language_modeling":
        return scored[0].greedy
    return int(np.argmin([-one.logprobs.mean() for one in scored])) == row["gold"]


def centred(accuracy: float, baseline: float) -> float:
    """(accuracy - baseline) / (1 - baseline): 0 for guessing, 1 for all right."""
    return (accuracy - baseline) / (1 - baseline) if baseline < 1 else 0.0


def evaluate(
    model: ScoredModel, task: Benchmark, most: int, seed: int, advance: Callable[[float], None]
) -> dict[str, Any]:
    """The accuracy on the first `most` rows (0: all) with its standard error, and centred. The
    shots of a row are drawn from the others by (seed, row)."""
    asked, spans = [], []
    for number, row in enumerate(task.rows[: most or None]):
        others = np.delete(np.arange(len(task.rows)), number)
        rng = np.random.default_rng((seed, number))
        shots = [task.rows[i] for i in rng.choice(others, task.shots, replace=False)]
        options = pairs(task, model.tokenizer, row, shots)
        spans.append((row, len(asked), len(asked) + len(options)))
        asked += options
    scored = continuations.score(model, asked, advance)
    values = np.array([right(task, row, scored[a:b]) for row, a, b in spans], float)
    accuracy, count = float(values.mean()), len(values)
    error = float(values.std(ddof=1) / np.sqrt(count)) if count > 1 else None
    return {
        "task": task.label,
        "type": task.type,
        "shots": task.shots,
        "rows": count,
        "accuracy": accuracy,
        "accuracy_se": error,
        "baseline": task.baseline,
        "centred": centred(accuracy, task.baseline),
        "centred_se": error and error / (1 - task.baseline),
    }


def overall(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of the centred accuracies, which DCLM calls CORE, with the standard error of the
    rows' draw."""
    errors = [part["centred_se"] for part in parts]
    known = all(error is not None for error in errors)
    return {
        "centred": float(np.mean([part["centred"] for part in parts])),
        "centred_se": float(np.sqrt(np.sum(np.square(errors))) / len(parts)) if known else None,
    }
