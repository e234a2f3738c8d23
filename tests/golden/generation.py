"""Runs transformers' `generate`: greedy and beam search from left-padded prompts.

A result that rounding could change is no use as a reference. So each result must stay the same with
noise far above rounding error on every logit, without the cache, and without padding.
"""

import numpy as np
import torch
from transformers import LogitsProcessor

NEW_TOKENS = 24
BEAMS = 4
PAD = 1  # not 0, which beam search treats as no padding token
NOISE = 3e-4  # six times the tolerance of the tests


class Noise(LogitsProcessor):
    """Adds uniform noise to the scores of each step."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids, scores):
        return scores + NOISE * (2 * torch.rand(scores.shape, generator=self.generator) - 1)


def prompts(lengths: tuple[int, ...], vocab_size: int, seed: int):
    """(tokens [B, P] padded on the left with PAD, mask [B, P] with ones at the tokens)."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(PAD + 1, vocab_size, (len(lengths), max(lengths)), generator=generator)
    columns = torch.arange(max(lengths))
    mask = (columns >= max(lengths) - torch.tensor(lengths)[:, None]).long()
    return tokens * mask + PAD * (1 - mask), mask


def generate(model, tokens, mask, eos=None, **how):
    """The output of transformers; after `eos` a sequence is filled with PAD."""
    return model.generate(
        tokens, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=eos,
        pad_token_id=PAD, return_dict_in_generate=True, output_scores=True, **how,
    )  # fmt: skip


def greedy(model, lengths: tuple[int, ...], vocab_size: int) -> dict[str, np.ndarray]:
    """Greedy search from the first prompts, by seed, where no step is a near tie."""
    for seed in range(100):
        tokens, mask = prompts(lengths, vocab_size, seed)
        output = generate(model, tokens, mask)
        scores = torch.stack(output.scores, dim=1)  # [B, NEW_TOKENS, V]
        best = scores.topk(2).values
        if (best[..., 0] - best[..., 1]).min() < 10 * NOISE:
            continue
        found = output.sequences[:, tokens.shape[1] :]
        plain = generate(model, tokens, mask, use_cache=False).sequences
        assert torch.equal(plain, output.sequences), "the cache changes what is generated"
        for row, length in enumerate(lengths):
            alone = tokens[row : row + 1, -length:]
            alone = generate(model, alone, torch.ones_like(alone)).sequences[0, length:]
            assert torch.equal(alone, found[row]), "padding changes what is generated"
        logprobs = scores.log_softmax(-1).gather(-1, found[..., None])[..., 0]
        return dict(prompts=tokens, prompt_mask=mask, greedy=found, greedy_logprobs=logprobs)
    raise RuntimeError("no prompts without a near tie")


def beams(model, lengths: tuple[int, ...], vocab_size: int) -> dict[str, np.ndarray]:
    """Beam search with and without an end token, which is chosen so that some beams reach it.

    `beam_tokens` [B, BEAMS, N] are the new tokens, best beam first and padded. `beam_scores`
    [B, BEAMS] are their scores.
    """
    how = dict(num_beams=BEAMS, num_return_sequences=BEAMS, early_stopping=False)
    for seed in range(100):
        tokens, mask = prompts(lengths, vocab_size, seed)
        longest = generate(model, tokens, mask, **how).sequences
        common = longest[:, tokens.shape[1] + 8].mode().values
        arrays, stable = dict(beam_prompts=tokens, beam_prompt_mask=mask, beam_eos=common), True
        for name, eos in (("beam", None), ("beam_with_eos", int(common))):
            output = generate(model, tokens, mask, eos=eos, **how)
            noisy = [
                generate(model, tokens, mask, eos=eos, logits_processor=[Noise(n)], **how).sequences
                for n in range(5)
            ]
            stable &= all(torch.equal(other, output.sequences) for other in noisy)
            new = output.sequences[:, tokens.shape[1] :]
            arrays[f"{name}_tokens"] = new.reshape(len(lengths), BEAMS, -1)
            arrays[f"{name}_scores"] = output.sequences_scores.reshape(len(lengths), BEAMS)
        ended = (arrays["beam_with_eos_tokens"] == common).any(-1)
        if stable and ended.any() and not ended.all():
            return arrays
    raise RuntimeError("no prompts whose beams stay the same under noise")
