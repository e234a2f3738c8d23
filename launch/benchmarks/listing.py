"""What the terminal shows of benchmarks: their tables, and answers that were right and wrong."""

from collections.abc import Sequence
from typing import Any

import rich.console

from launch.screen.fitted_table import Column, fitted, left_out
from scaling.printable import printable

LONGEST = 70  # characters of a prompt or an answer
LEVEL = "intervals hold 90%; prompts are the independent units"


def show(about: dict[str, Any], examples: int) -> None:
    """Prints the tables, and `examples` right and wrong answers to each task."""
    console = rich.console.Console(highlight=False, markup=False)
    head = f"{printable(about['run'])} at step {about['step']:,}"
    console.print(head, style="bold", soft_wrap=True)
    if about["tasks"]:
        _table(console, _checked(about["tasks"]))
        first = about["tasks"][0]
        how = "its chat template" if first["template"] else "no chat template"
        console.print(
            f"{first['samples']} samples of each prompt at temperature {first['temperature']:g}, "
            f"with {how}; {LEVEL}",
            soft_wrap=True,
        )
        for task in about["tasks"]:
            if task["checker_failures"]:
                console.print(
                    f"warning: the checker of {printable(task['task'])} failed for "
                    f"{task['checker_failures']:,} responses, which count as 0",
                    soft_wrap=True,
                )
            if "best_of_n" in task:
                console.print(
                    f"best of n answers to {printable(task['task'])} by the reward of "
                    f"{printable(task['reward'])}; ± standard errors over prompts",
                    soft_wrap=True,
                )
                _table(console, _best(task["best_of_n"]))
            _examples(console, task, examples)
    for core in about["core"]:
        console.print(f"\nCORE of {printable(core['bundle'])}", style="bold", soft_wrap=True)
        _table(console, _bundle(core["tasks"]))
        error = "" if core["centred_se"] is None else f" ± {core['centred_se']:.4f}"
        console.print(f"mean of the centred accuracies: {core['centred']:.4f}{error}")
    if about["lm_eval"]:
        console.print("\nlm-evaluation-harness", style="bold")
        _table(console, _harness(about["lm_eval"]))


def _table(console: rich.console.Console, columns: Sequence[Column]) -> None:
    table, missing = fitted(columns, console.width)
    console.print(table, soft_wrap=True)
    if missing:
        console.print(left_out(missing), soft_wrap=True)


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.4f}" + ("" if error is None else f" ± {error:.4f}")


def _checked(tasks: Sequence[dict[str, Any]]) -> list[Column]:
    columns = [
        Column("task", [printable(task["task"]) for task in tasks], number=False),
        Column("prompts", [f"{task['prompts']:,}" for task in tasks]),
    ]
    for place, one in enumerate(tasks[0]["pass_at_k"]):
        values = (task["pass_at_k"][place] for task in tasks)
        cells = [f"{v['value']:.1%} [{v['lo']:.1%}, {v['hi']:.1%}]" for v in values]
        columns.append(Column(f"pass@{one['k']}", cells))
    cells = [_with_error(task["score"], task["score_se"]) for task in tasks]
    return [*columns, Column("mean score", cells, spare=1)]


def _best(rows: Sequence[dict[str, Any]]) -> list[Column]:
    per_cent = lambda row, name: _share(row[name], row[f"{name}_se"])  # noqa: E731
    return [
        Column("n", [f"{row['n']:,}" for row in rows]),
        Column("KL, nats", [f"{row['kl']:.2f}" for row in rows], spare=2),
        Column("right pick", [per_cent(row, "accuracy") for row in rows]),
        Column("mean score", [_with_error(row["score"], row["score_se"]) for row in rows], spare=1),
        Column("pass@n", [per_cent(row, "pass_at_n") for row in rows]),
    ]


def _share(value: float, error: float | None) -> str:
    return f"{value:.1%}" + ("" if error is None else f" ± {error:.1%}")


def _bundle(tasks: Sequence[dict[str, Any]]) -> list[Column]:
    accuracies = [_with_error(task["accuracy"], task["accuracy_se"]) for task in tasks]
    return [
        Column("task", [printable(task["task"]) for task in tasks], number=False),
        Column("type", [task["type"] for task in tasks], spare=2, number=False),
        Column("shots", [str(task["shots"]) for task in tasks], spare=1),
        Column("rows", [f"{task['rows']:,}" for task in tasks]),
        Column("accuracy", accuracies),
        Column("guessing", [f"{task['baseline']:.3f}" for task in tasks], spare=1),
        Column("centred", [f"{task['centred']:.4f}" for task in tasks]),
    ]


def _harness(tasks: Sequence[dict[str, Any]]) -> list[Column]:
    rows = [(task, name, one) for task in tasks for name, one in task["metrics"].items()]
    return [
        Column("task", [printable(task["task"]) for task, _, _ in rows], number=False),
        Column("rows", ["—" if t["rows"] is None else f"{t['rows']:,}" for t, _, _ in rows]),
        Column("metric", [printable(name) for _, name, _ in rows], number=False),
        Column("value", [_with_error(one["value"], one["se"]) for _, _, one in rows]),
    ]


def _examples(console: rich.console.Console, task: dict[str, Any], count: int) -> None:
    """A right and a wrong response to each of the first prompts that have one, `count` of each."""
    for word, wanted in (("right", True), ("wrong", False)):
        found = []
        for one in task["responses"]:
            texts = zip(one["responses"], one["scores"], strict=True)
            response = next((text for text, score in texts if (score == 1) is wanted), None)
            if response is not None:
                found.append((one["prompt"], response, one["answer"]))
        for prompt, response, answer in found[:count]:
            line = f"{word:<5}  {_brief(prompt)} → {_brief(response)}"
            console.print(line if wanted else f"{line}   (right: {_brief(answer)})", soft_wrap=True)


def _brief(text: str) -> str:
    """One line of printable text; a text of nothing but white space is quoted."""
    shown = printable(text.strip()) or repr(text)
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"
