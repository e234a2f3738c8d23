"""Writes trl.npz: PPO's rewards, advantages, losses and gradients of trl 0.11.4, and those of GRPO
and RLOO of trl 1.x, on random tensors with ragged masks.

    pip download trl==0.11.4 --no-deps -d trl && unzip -d trl trl/trl-0.11.4-py3-none-any.whl
    python tests/golden/policy/make.py trl/trl        with trl 1.16, torch 2.13

trl computes these inside training loops. The lines between two given lines of its source are
executed here on tensors of ours; nothing of them is kept.
"""

import inspect
import sys
import textwrap
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import torch
from trl.trainer import grpo_trainer, rloo_trainer
from trl.trainer.grpo_trainer import GRPOTrainer

R, N, n = 6, 7, 3
LENGTHS = (7, 3, 1, 5, 7, 2)  # tokens of each response
KL = 0.3
RNG = np.random.default_rng(0)


def tensor(*shape, scale=1.0):
    return torch.tensor(RNG.normal(0, scale, shape).astype(np.float32))


def lines(source: str, first: str, last: str) -> str:
    """The lines from the one that contains `first` to the one that contains `last`."""
    rows = source.split("\n")
    begin = next(i for i, row in enumerate(rows) if first in row)
    end = next(i for i, row in enumerate(rows) if i >= begin and last in row)
    return textwrap.dedent("\n".join(rows[begin : end + 1]))


def ppo(folder: Path) -> dict:
    source = (folder / "trainer" / "ppov2_trainer.py").read_text()
    core = (folder / "core.py").read_text()
    names = {"torch": torch, "Optional": __import__("typing").Optional}
    exec(lines(core, "def masked_mean", "return whitened"), names)
    old, reference, values = -tensor(R, N).abs(), -tensor(R, N).abs(), tensor(R, N)
    last = torch.tensor(LENGTHS) - 1
    found = {"old": old, "reference": reference, "values": values, "lengths": last + 1}
    names |= {
        "logprobs": old, "ref_logprobs": reference, "values": values, "scores": tensor(R),
        "responses": torch.zeros(R, N), "sequence_lengths": last, "INVALID_LOGPROB": 1.0,
    }  # fmt: skip
    found["scores"] = names["scores"]
    for whiten in (False, True):
        args = SimpleNamespace(kl_coef=KL, whiten_rewards=whiten, gamma=0.97, lam=0.9)
        names["args"] = args
        exec(lines(source, "response_idxs = ", "advantages = torch.masked_fill"), names)
        of = {k: names[k] for k in ("rewards", "advantages", "returns")}
        found |= {f"{name}_{int(whiten)}": x.clone() for name, x in of.items()}
        names |= {"logprobs": old, "ref_logprobs": reference, "values": values}
        masks = names["padding_mask"], names["padding_mask_p1"]
    found |= {"mask": (~masks[0]).float(), "mask_p1": (~masks[1]).float()}
    new = (old + tensor(R, N, scale=0.3)).requires_grad_()
    vpred = (values + tensor(R, N, scale=0.3)).requires_grad_()
    found |= {"new": new.detach().clone(), "new_values": vpred.detach().clone()}
    args = SimpleNamespace(cliprange=0.2, cliprange_value=0.2, vf_coef=0.1)
    names |= {
        "args": args, "micro_batch_inds": torch.arange(R), "mb_advantage": found["advantages_0"],
        "mb_return": found["returns_0"], "mb_values": values.masked_fill(masks[1], 0),
        "mb_logprobs": old.masked_fill(masks[0], 1.0),
        "new_logprobs": new.masked_fill(masks[0], 1.0),
        "vpred": vpred.masked_fill(masks[1], 0),
    }  # fmt: skip
    exec(lines(source, "vpredclipped = ", "loss = pg_loss + "), names)
    exec("pg_clipfrac = masked_mean((pg_losses2 > pg_losses).float(), ~padding_mask)", names)
    names["loss"].backward()
    found |= {k: names[k].detach() for k in ("pg_loss", "vf_loss", "loss", "pg_clipfrac")}
    return found | {"new_grad": new.grad, "new_values_grad": vpred.grad}


LOSSES = {  # name: (loss_type, beta, epsilon_high)
    "sequence": ("grpo", 0.0, 0.2),
    "sequence_kl": ("grpo", 0.04, 0.2),
    "token": ("bnpo", 0.04, 0.28),
    "dapo": ("dapo", 0.0, 0.28),
    "constant": ("dr_grpo", 0.0, 0.2),
}


def grpo(of_ppo: dict) -> dict:
    old, reference, mask = of_ppo["old"], of_ppo["reference"], of_ppo["mask"]
    rewards = torch.tensor([1.0, 0.0, 0.25, 0.1, 0.1, 0.1])
    found, source = {"grpo_rewards": rewards}, inspect.getsource(GRPOTrainer)
    for scale in ("group", "batch", "none"):
        names = {
            "torch": torch, "rewards": rewards, "num_generations": n, "nanstd": grpo_trainer.nanstd,
            "self": SimpleNamespace(scale_rewards=scale),
        }  # fmt: skip
        first = "mean_grouped_rewards = torch.nanmean(rewards.view"
        exec(lines(source, first, "advantages = advantages / (std_rewards + 1e-4)"), names)
        found[f"grpo_advantages_{scale}"] = names["advantages"]
    found["rloo_advantages"] = rloo(rewards)
    for name, (kind, beta, high) in LOSSES.items():
        new = of_ppo["new"].clone().requires_grad_()
        trainer = MagicMock()
        for key, value in dict(
            loss_type=kind, beta=beta, epsilon_low=0.2, epsilon_high=high, top_entropy_quantile=1.0,
            importance_sampling_level="token", off_policy_mask_threshold=None, use_vllm=False,
            max_completion_length=N, current_gradient_accumulation_steps=1, aux_loss_enabled=False,
            _entropy_bonus_enabled=False, tools=None,
        ).items():  # fmt: skip
            setattr(trainer, key, value)
        trainer.args = SimpleNamespace(
            delta=None, use_bias_correction_kl=False, steps_per_generation=1
        )
        trainer.model.training = True
        trainer.accelerator.num_processes = 1
        trainer.accelerator.gather = lambda x: x
        trainer._metrics = defaultdict(lambda: defaultdict(list))
        trainer._get_per_token_logps_and_entropies = lambda *a, new=new, **k: (
            new, torch.zeros(R, N), None,
        )  # fmt: skip
        ids = torch.zeros(R, N, dtype=torch.long)
        loss = GRPOTrainer._compute_loss(
            trainer, None,
            {
                "prompt_ids": ids, "prompt_mask": ids + 1, "completion_ids": ids,
                "completion_mask": mask, "advantages": found["grpo_advantages_group"],
                "old_per_token_logps": old, "ref_per_token_logps": reference,
                "num_items_in_batch": mask.sum(),
            },
        )  # fmt: skip
        loss.backward()
        found |= {f"grpo_loss_{name}": loss.detach(), f"grpo_grad_{name}": new.grad}
    return found


def rloo(rewards: torch.Tensor) -> torch.Tensor:
    names = {
        "torch": torch, "rewards": rewards, "num_generations": n,
        "self": SimpleNamespace(num_generations=n), "nanstd": rloo_trainer.nanstd,
    }  # fmt: skip
    source = inspect.getsource(rloo_trainer.RLOOTrainer)
    exec(lines(source, "grouped_rewards = rewards.view", "advantages = rewards - baselines"), names)
    return names["advantages"]


if __name__ == "__main__":
    of_ppo = ppo(Path(sys.argv[1]))
    found = of_ppo | grpo(of_ppo)
    arrays = {name: np.asarray(x.detach()) for name, x in found.items()}
    np.savez_compressed(Path(__file__).with_name("trl.npz"), **arrays)
    print({name: x.shape for name, x in arrays.items()})
