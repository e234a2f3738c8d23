"""Tasks of lm-evaluation-harness (the extra `lm_eval`), through its interface of a model.

Only the task files of a folder of the user's are read, and nothing is fetched: a task names local
data files. A task file may name Python functions, which run as code.
"""

import importlib.util
import logging
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from launch.benchmarks import answerer, continuations
from launch.evaluation.scored_model import ScoredModel

MOST_TOKENS = 256  # of an answer, where a task names no max_gen_toks
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


class Requests:
    """Answers the harness's three kinds of request. A request has `args`: (context, continuation),
    (text,) or (context, arguments of the generation)."""

    def __init__(self, model: ScoredModel, advance: Callable[[float], None] = lambda share: None):
        super().__init__()
        self.model, self.advance = model, advance

    @cached_property
    def drawing(self) -> answerer.Answerer:
        """The same model as one that generates."""
        return answerer.open_answerer(self.model.run, answerer.NONE)

    def pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Both as tokens. White space at the end of the context belongs to the continuation, since
        tokens begin with it. The two are encoded as one text."""
        bare, encode = context.rstrip(), self.model.tokenizer.encode
        whole, before = encode(context + continuation).tolist(), encode(bare).tolist()
        count = len(before) if whole[: len(before)] == before else 0
        while count < len(before) and whole[count : count + 1] == before[count : count + 1]:
            count += 1  # a token covers the end of one and the beginning of the other
        return whole[:count], whole[count:]

    def loglikelihood(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        """(log-probability in nats, whether greedy decoding gives it) of each continuation."""
        pairs = [self.pair(*request.args) for request in requests]
        scored = continuations.score(self.model, pairs, self.advance)
        return [(one.logprob, one.greedy) for one in scored]

    def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
        """The log-probability of each text, in windows as `isoflop score` cuts it."""
        context = self.model.cfg.context_length
        texts = [
            [*self.model.start, *self.model.tokenizer.encode(request.args[0]).tolist()]
            for request in requests
        ]
        return [-float(nats.sum()) for nats in self.model.each_token(texts, context, context)]

    def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
        """The generated text of each context: greedy, unless a task asks for do_sample. Of a
        context that is too long the last tokens count."""
        found = []
        for number, request in enumerate(requests):
            context, how = request.args
            until = how.get("until") or []
            until = [until] if isinstance(until, str) else list(until)
            n_tokens = int(how.get("max_gen_toks", MOST_TOKENS))
            n_tokens = int(min(n_tokens, self.drawing.most - 1))
            heat = float(how.get("temperature", 1.0)) if how.get("do_sample") else 0.0
            ids = [*self.model.start, *self.model.tokenizer.encode(context).tolist()]
            if self.drawing.most < float("inf"):
                ids = ids[-int(self.drawing.most - n_tokens) :]
            found += self.drawing.answers([ids], n_tokens, 1, heat, number, stops=until)[0]
            self.advance((number + 1) / len(requests))
        return found


def require() -> None:
    """ValueError if lm-evaluation-harness is not installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise ValueError(
            "tasks=lm_eval:… needs lm-evaluation-harness; pip install isoflop[lm_eval]"
        )


def evaluate(
    model: ScoredModel,
    names: Sequence[str],
    folder: Path,
    most: int,
    seed: int,
    advance: Callable[[float], None],
) -> list[dict[str, Any]]:
    """What `isoflop evaluate --json` writes of each task, on its first `most` examples (0: all).
    ValueError for a name that no task file of the folder has."""
    require()
    os.environ.update(dict.fromkeys(OFFLINE, "1"))  # before the harness reads it
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    from lm_eval.api.model import LM
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    if not folder.is_dir():
        raise ValueError(f"lm_eval_path={folder} is no folder; name one with task files (.yaml)")
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    for name in names:
        if name not in manager.all_tasks:
            known = ", ".join(manager.all_tasks) or "no tasks"
            raise ValueError(f"tasks=lm_eval:{name} is unknown: lm_eval_path={folder} has {known}")
    language_model = type("LanguageModel", (Requests, LM), {})(model, advance)
    seeds = dict.fromkeys(("random_seed", "numpy_random_seed", "fewshot_random_seed"), seed)
    results = simple_evaluate(
        language_model,
        tasks=list(names),
        limit=most or None,
        task_manager=manager,
        bootstrap_iters=1000,
        log_samples=False,
        torch_random_seed=None,
        **seeds,
    )
    return [entry(name, results) for name in results["results"]]


def entry(name: str, results: dict[str, Any]) -> dict[str, Any]:
    """The metrics of one task: {name: {value, se, filter}}."""
    found, metrics = results["results"][name], {}
    for key, value in found.items():
        metric, comma, which = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        error = found.get(f"{metric}_stderr,{which}")
        label = metric if which == "none" else f"{metric} ({which})"
        metrics[label] = {"value": value, "se": error if isinstance(error, int | float) else None}
    rows = results.get("n-samples", {}).get(name, {}).get("effective")
    shots = results.get("n-shot", {}).get(name)
    return {"task": name, "rows": rows, "shots": shots, "metrics": metrics}
