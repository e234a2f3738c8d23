"""The benchmarks that --tasks names: what is opened for each, and their results.

addition_reversed, sorting, …   a task of data/tasks, by answers that are drawn and checked
FILE.jsonl                      prompts and answers of the user's
core:DIR                        a CORE bundle
lm_eval:NAME                    a task file of lm-evaluation-harness in --lm_eval_path
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.files import to_path
from launch.benchmarks import answerer, best, bundle, checked, harness
from launch.evaluation import scored_model
from launch.files import read_config

CORE, HARNESS = "core:", "lm_eval:"
Detail = Callable[[str, float], None]
"""(what is evaluated, the share of it that is done)."""


@dataclass(frozen=True)
class Names:
    """The values of --tasks, by what evaluates them."""

    checked: tuple[str, ...]
    bundles: tuple[str, ...]
    harness: tuple[str, ...]


def names_of(text: str) -> Names:
    """The names in --tasks, in order. ValueError for an empty one, or one that occurs twice."""
    names = [name.strip() for name in text.split(",")]
    if not all(name.removeprefix(CORE).removeprefix(HARNESS) for name in names):
        raise ValueError(f"tasks={text} has an empty name; write --tasks=sorting,core:DIR")
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"tasks={text} names {twice} twice; keep one")
    of = lambda kind: tuple(n.removeprefix(kind) for n in names if n.startswith(kind))  # noqa: E731
    plain = tuple(name for name in names if not name.startswith((CORE, HARNESS)))
    return Names(plain, of(CORE), of(HARNESS))


def ks_of(text: str, samples: int, given: bool) -> tuple[int, ...]:
    """The k of pass@k. Those of the default that are above `samples` are left out; ValueError for
    given ones."""
    try:
        ks = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise ValueError(f"k={text} is no list of whole numbers; write --k=1,8") from None
    ks = ks if given else tuple(k for k in ks if k <= samples)
    if not 1 <= ks[0] <= ks[-1] <= samples:
        raise ValueError(f"k={text} must lie between 1 and samples={samples}; draw more samples")
    return ks


def evaluate(values: Any, detail: Detail) -> dict[str, Any]:
    """What `isoflop evaluate --tasks=… --json=…` writes; `values` are the verb's flags. ValueError
    or FileNotFoundError, in one line, before the first answer is drawn where that is possible."""
    run, names = to_path(values.run), names_of(values.tasks)
    if bool(names.harness) != bool(values.lm_eval_path):
        raise ValueError(
            "lm_eval_path is not given; name the folder of the task files"
            if names.harness
            else f"--lm_eval_path means nothing without --tasks={HARNESS}NAME; drop it"
        )
    if values.reward and not names.checked:
        raise ValueError(
            f"reward={values.reward} ranks answers that are drawn, and tasks={values.tasks} draws "
            "none; add a task such as sorting, or drop --reward"
        )
    if names.harness:
        harness.require()
    how = how_of(values, run)
    asked = [checked.questions(name, values.checker, how) for name in names.checked]
    bundles = [(name, bundle.read(to_path(name))) for name in names.bundles]
    about: dict[str, Any] = {"run": str(run), "tasks": [], "core": [], "lm_eval": []}
    if asked:
        drawn = answerer.open_answerer(run, values.template, values.stop)
        about["step"] = drawn.step
        judge = best.open_judge(to_path(values.reward), drawn) if values.reward else None
        for one in asked:
            about["tasks"].append(checked.evaluate(drawn, one, how, _of(detail, one.name), judge))
    if bundles or names.harness:
        model = scored_model.open_model(run, any_objective=True)
        about["step"] = model.step
        for name, tasks in bundles:
            parts = [
                bundle.evaluate(model, task, how.prompts, how.seed, _of(detail, task.label))
                for task in tasks
            ]
            about["core"].append({"bundle": name, "tasks": parts} | bundle.overall(parts))
        if names.harness:
            folder, show = to_path(values.lm_eval_path), _of(detail, "lm_eval")
            about["lm_eval"] = harness.evaluate(
                model, names.harness, folder, how.prompts, how.seed, show
            )
    return about


def _of(detail: Detail, name: str) -> Callable[[float], None]:
    return lambda share: detail(name, share)


def how_of(values: Any, run: Path) -> checked.How:
    """How answers are drawn, by the flags and the run: prompts that it did not train on."""
    data = (read_config(run) or {}).get("data", {})
    share = data.get("validation", 0.1)
    return checked.How(
        samples=values.samples,
        ks=ks_of(values.k, values.samples, values["k"].present > 0),
        prompts=values.prompts,
        tokens=values.tokens,
        size=values.size,
        temperature=values.temperature,
        seed=values.seed,
        validation=share if isinstance(share, float) and 0 < share < 1 else 0.1,
    )
