"""The scores of responses that are tokens: decoded, and checked by the task or the checker."""

from typing import Any

import numpy as np

from data.prompted.prompt_encoder import PromptEncoder, encoder_of
from data.prompted.prompt_sources import specs
from data.tasks import exact
from data.tasks.checkers import Checker, from_spec


class Scorer:
    """Scores batches of responses to the prompts of the kind `tasks`."""

    def __init__(self, encoder: PromptEncoder, checker: Checker):
        self.encoder, self.checker = encoder, checker

    def __call__(
        self,
        prompt_BP: np.ndarray,
        prompt_length_B: np.ndarray,
        answer_BA: np.ndarray,
        answer_length_B: np.ndarray,
        response_BN: np.ndarray,
        response_length_B: np.ndarray,
    ) -> np.ndarray:
        """Scores from 0 to 1, float32 [B]. Prompts are padded on the left, answers and responses on
        the right; a response counts up to its end token."""
        width = prompt_BP.shape[1]
        rows = zip(*map(np.asarray, (prompt_BP, prompt_length_B, answer_BA, answer_length_B,
                                     response_BN, response_length_B)), strict=True)  # fmt: skip
        scores = [
            self.checker(
                self.encoder.prompt_of(prompt[width - p :]),
                self.encoder.response_of(answer[:a]).strip(),
                self.encoder.response_of(response[:n]),
            )
            for prompt, p, answer, a, response, n in rows
        ]
        return np.array(scores, np.float32)


def scorer(data: Any) -> Scorer:
    """The Scorer of a `data` section of the kind `tasks`: data.checker or, without one, equality
    with the answer of a file, or the score of the task."""
    if data.checker or not specs(data.corpora):
        return Scorer(encoder_of(data), from_spec(data.task, data.checker))
    return Scorer(encoder_of(data), Checker("equality with the answer", exact.score))
