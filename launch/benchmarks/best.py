"""Best-of-n as a baseline: the score of the answer that a reward model ranks first among n.

P prompts, S samples of each
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from data.chat.encoding import FILE as TEMPLATE
from launch.benchmarks import reward_model
from launch.benchmarks.answered import Answers
from launch.benchmarks.answerer import Answerer
from launch.benchmarks.reward_model import RewardModel
from scaling.estimators import best_of_n, coverage


def open_judge(run: Path, answerer: Answerer) -> RewardModel:
    """The reward model of a run that judges the answers of `answerer`. ValueError or
    FileNotFoundError, in one line, for one that reads them as other tokens, or through another chat
    template, than they are drawn as."""
    judge = reward_model.open_reward_model(run)
    own, other = judge.model.tokenizer, answerer.tokenizer
    if own.fingerprint != other.fingerprint:
        raise ValueError(
            f"reward={run} has the tokenizer {own.name!r} of {own.vocab_size} tokens, and "
            f"run={answerer.run} {other.name!r} of {other.vocab_size}; use a reward model of the "
            "same tokenizer"
        )
    if source_of(judge.encoder) == source_of(answerer.encoder):
        return judge
    remedy = "--template=none"
    if judge.encoder.chat:
        names = (name for name in (TEMPLATE, f"huggingface/{TEMPLATE}") if (run / name).is_file())
        remedy = f"--template={run / next(names, 'huggingface/tokenizer_config.json')}"
    trained = "another chat template than" if judge.encoder.chat else "no chat template, unlike"
    if not answerer.encoder.chat:
        trained = "a chat template, unlike"
    raise ValueError(
        f"reward={run} was trained on {trained} the answers of run={answerer.run}; add {remedy}, "
        "or use a reward model that was trained on theirs"
    )


def source_of(encoder: Any) -> str:
    """The chat template of an encoder of prompts; "" without one."""
    return encoder.chat.template.source if encoder.chat else ""


def require_room(judge: RewardModel, longest: int, n_tokens: int, task: str) -> None:
    """ValueError if a prompt of `longest` tokens with its answer may not fit the context."""
    most = judge.model.cfg.context_length
    if longest + n_tokens > most:
        raise ValueError(
            f"reward={judge.run} reads {most} tokens (model.context_length), and tasks={task} has "
            f"prompts of {longest} tokens with answers of up to {n_tokens}; use fewer --tokens, or "
            "a reward model of a longer context"
        )


def picked(
    judge: RewardModel, answers: Answers, seed: int, advance: Callable[[float], None]
) -> dict[str, Any]:
    """What `isoflop evaluate --json` writes of best-of-n: for n = 1, 2, 4, … the KL of the choice
    in nats, the share of right picks, their mean score and pass@n, with standard errors over
    prompts; and the rewards of all answers."""
    proxy_PS, score_PS = judge.rewards(answers, advance), answers.gold_PS
    right_PS, sizes = score_PS == 1, best_of_n.doubled(score_PS.shape[1])
    accuracies = best_of_n.estimate(proxy_PS, right_PS, sizes)
    scores = best_of_n.estimate(proxy_PS, score_PS, sizes)
    samples_P = np.full(len(score_PS), score_PS.shape[1])
    rows = []
    for n, right, score in zip(sizes.tolist(), accuracies, scores, strict=True):
        best = coverage.estimate(samples_P, right_PS.sum(1), n, seed)
        rows.append(
            {"n": n, "kl": float(best_of_n.kl(n)), "accuracy": right[0], "accuracy_se": right[1]}
            | {"score": score[0], "score_se": score[1]}
            | {"pass_at_n": best["value"], "pass_at_n_se": best["se"]}
        )
    return {"reward": str(judge.run), "best_of_n": rows, "rewards": proxy_PS.tolist()}
