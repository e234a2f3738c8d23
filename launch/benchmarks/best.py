"""Best-of-n as a baseline: the score of the answer that a reward model ranks first among n.

P prompts, S samples of each
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.chat.encoding import FILE as TEMPLATE
from data.prompted.prompt_encoder import PromptEncoder
from launch.benchmarks import reward_model
from launch.benchmarks.answerer import Answerer
from launch.benchmarks.reward_model import RewardModel
from scaling.estimators import best_of_n, coverage

# Prompts and answers by which two chat templates are told apart: white space at the ends, several
# lines, an empty answer.
SAMPLE = (("What is 2 + 3?", "5"), (" two\nlines ", " a b \n"), ("again", ""))


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
    if _as_tokens(judge.encoder) == _as_tokens(answerer.encoder):
        return judge
    remedy = f"--template={run / TEMPLATE}" if judge.encoder.chat else "--template=none"
    trained = "with another chat template than the answers of run={run}"
    if not judge.encoder.chat:
        trained = "without a chat template, but the answers of run={run} use one"
    elif not answerer.encoder.chat:
        trained = "with a chat template, but the answers of run={run} use none"
    raise ValueError(
        f"reward={run} was trained {trained.format(run=answerer.run)}; add {remedy}, or use a "
        "reward model that was trained on theirs"
    )


def _as_tokens(encoder: PromptEncoder) -> list[list[int]]:
    """What an encoder makes of a sample of prompts with answers. Templates that are written in
    different ways, such as a run's and that of its export, are equal if their tokens are."""
    return [part.tolist() for sample in SAMPLE for part in encoder.encode(*sample)]


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
    judge: RewardModel,
    prompts: Sequence[str],
    texts: Sequence[Sequence[str]],
    score_PS: np.ndarray,
    most: int,
    seed: int,
    advance: Callable[[float], None],
) -> dict[str, Any]:
    """What `isoflop evaluate --json` writes of best-of-n: for n = 1, 2, 4, … the most that the KL
    of the choice can be in nats, the share of right picks, their mean score and pass@n, with
    standard errors over prompts and the interval of pass@n; and the rewards of all answers [P][S],
    which have at most `most` tokens. `advance` receives the share judged."""
    proxy_PS = judge.rewards(prompts, texts, most, advance)
    right_PS, sizes = score_PS == 1, best_of_n.doubled(score_PS.shape[1])
    accuracies = best_of_n.estimate(proxy_PS, right_PS, sizes)
    scores = best_of_n.estimate(proxy_PS, score_PS, sizes)
    samples_P = np.full(len(score_PS), score_PS.shape[1])
    rows = []
    for n, right, score in zip(sizes.tolist(), accuracies, scores, strict=True):
        best = coverage.estimate(samples_P, right_PS.sum(1), n, seed)
        rows.append(
            {"n": n, "kl_at_most": float(best_of_n.kl(n))}
            | {"accuracy": right[0], "accuracy_se": right[1]}
            | {"score": score[0], "score_se": score[1]}
            | {"pass_at_n": best["value"], "pass_at_n_se": best["se"]}
            | {"pass_at_n_lo": best["lo"], "pass_at_n_hi": best["hi"]}
        )
    return {"reward": str(judge.run), "best_of_n": rows, "rewards": proxy_PS.tolist()}
