"""Writes preferences.npz: losses of trl on random tensors with ragged masks, and their gradients.

    python tests/golden/preferences.py         with torch 2.13, transformers 5.24 and trl 1.16
    python tests/golden/preferences.py tunix   with google-tunix: adds what it computes

The trainers' own loss functions run; only their models are replaced by given logits or rewards.
"""

import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np

OUT = Path(__file__).with_suffix(".npz")
B, T, V = 5, 9, 13  # pairs, tokens of a row, vocabulary
BETA, SMOOTHING = 0.3, 0.15
VARIANTS = ("sigmoid", "hinge", "ipo", "robust")
DIVERGENCES = {"forward": 0.0, "reverse": 1.0, "jensen_shannon": 0.3}  # with trl's beta
TEMPERATURE, HARD_WEIGHT, CENTRING = 1.7, 0.35, 0.05


def inputs() -> dict[str, np.ndarray]:
    """Rows of chosen and rejected answers, [2B, ...], with prompts of 2 to 4 tokens."""
    rng = np.random.default_rng(14)
    prompts = np.tile(rng.integers(2, 5, B), 2)
    lengths = rng.integers(1, T - 4, 2 * B)
    place = np.arange(T)
    answer = (place >= prompts[:, None]) & (place < (prompts + lengths)[:, None])
    real = place < (prompts + lengths)[:, None]
    return {
        "tokens": rng.integers(1, V, (2 * B, T)) * real,
        "answer": answer.astype(np.int64),
        "real": real.astype(np.int64),
        "logits": rng.normal(0, 1.5, (2 * B, T, V)),
        "reference": rng.normal(-8, 3, 2 * B),
        "teacher": rng.normal(0, 1.5, (2 * B, T, V)),
        "rewards": rng.normal(0, 2, 2 * B),
        "margin": rng.uniform(0, 1.5, B),
    }


def trl() -> dict[str, np.ndarray]:
    import torch
    from trl import DPOTrainer, RewardTrainer
    from trl.experimental.gkd import GKDTrainer

    given = {name: torch.tensor(x) for name, x in inputs().items()}
    same = lambda x: x  # noqa: E731
    accelerator = SimpleNamespace(device="cpu", gather=same, gather_for_metrics=same)
    accelerator.unwrap_model = same
    found = {}

    def graded(name, x, loss):
        x.requires_grad_(True)
        value = loss(x)
        found[f"{name}/loss"] = value.detach().numpy()
        found[f"{name}/gradient"] = torch.autograd.grad(value, x)[0].numpy()

    def dpo(variant):
        trainer = DPOTrainer.__new__(DPOTrainer)
        vars(trainer).update(
            accelerator=accelerator, model=SimpleNamespace(training=True), loss_types=[variant],
            loss_weights=[1.0], beta=BETA, label_smoothing=SMOOTHING * (variant == "robust"),
            f_divergence_type="reverse_kl", ld_alpha=None, precompute_ref_logps=True,
            use_weighting=False, aux_loss_enabled=False, _metrics={"train": defaultdict(list)},
            _total_train_tokens=0, _tp_size=1,
        )  # fmt: skip

        def loss(logits):
            def model(labels, **unused):
                targets, counts = labels[:, 1:], labels[:, 1:] != -100
                log_p = logits[:, :-1].log_softmax(-1)
                chosen = log_p.gather(-1, targets.clamp(0)[..., None])[..., 0] * counts
                zeros = torch.zeros_like(chosen)
                others = dict(entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())
                return SimpleNamespace(log_probs=chosen, **others)

            rows = {"input_ids": given["tokens"], "completion_mask": given["answer"]}
            rows |= {"attention_mask": given["real"]}
            of_reference = given["reference"].chunk(2)
            rows |= dict(zip(("ref_chosen_logps", "ref_rejected_logps"), of_reference, strict=True))
            return trainer._compute_loss(model, rows, False)

        return loss

    for variant in VARIANTS:
        graded(f"dpo/{variant}", given["logits"].clone(), dpo(variant))

    def reward(centring, margin):
        trainer = RewardTrainer.__new__(RewardTrainer)
        vars(trainer).update(
            accelerator=accelerator, model=SimpleNamespace(training=True), _total_train_tokens=0,
            args=SimpleNamespace(center_rewards_coefficient=centring), _tp_size=1,
            _metrics={"train": defaultdict(list)},
        )  # fmt: skip

        def loss(rewards):
            model = lambda **unused: SimpleNamespace(logits=rewards[:, None])  # noqa: E731
            rows = {"attention_mask": given["real"]} | (
                {"margin": given["margin"]} if margin else {}
            )
            return trainer.compute_loss(model, rows)

        return loss

    for name, centring, margin in (("plain", None, False), ("whole", CENTRING, True)):
        graded(f"reward/{name}", given["rewards"].clone(), reward(centring, margin))

    labels = torch.where(given["answer"][:, 1:] > 0, given["tokens"][:, 1:], -100)
    for name, beta in DIVERGENCES.items():

        def loss(logits, beta=beta):
            teacher = given["teacher"][:, :-1]
            keys = dict(labels=labels, beta=beta, temperature=TEMPERATURE)
            return GKDTrainer.generalized_jsd_loss(logits[:, :-1], teacher, **keys)

        graded(f"distill/{name}", given["logits"].clone(), loss)
    return found


def tunix() -> dict[str, np.ndarray]:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    from tunix.distillation.strategies.logit import LogitStrategy
    from tunix.sft.dpo import dpo_trainer

    given = inputs()
    targets, counts = given["tokens"][:, 1:], given["answer"][:, 1:]

    def dpo(logits):
        log_p = jax.nn.log_softmax(logits[:, :-1])
        rows = (jnp.take_along_axis(log_p, targets[..., None], -1)[..., 0] * counts).sum(-1)
        dpo_trainer.compute_logps = lambda *unused, **keys: jnp.split(rows, 2)
        example = dict.fromkeys(("input_ids", "positions", "attention_mask", "logits_to_keep"))
        reference = np.split(given["reference"], 2)
        example |= {"completion_mask": counts, "images": None}
        example |= dict(zip(("ref_chosen_logps", "ref_rejected_logps"), reference, strict=True))
        keys = dict(beta=BETA, label_smoothing=SMOOTHING)
        return dpo_trainer.dpo_loss_fn(None, SimpleNamespace(**example), "dpo", **keys)[0]

    def distill(logits):
        of = dict.fromkeys(("student_forward_fn", "teacher_forward_fn", "labels_fn"))
        strategy = LogitStrategy(**of, temperature=TEMPERATURE, alpha=1 - HARD_WEIGHT)
        kept = counts > 0
        labels = jax.nn.one_hot(targets[kept], V)
        return strategy.compute_loss(logits[:, :-1][kept], given["teacher"][:, :-1][kept], labels)[
            0
        ]

    found = {}
    for name, loss in {"tunix/dpo": dpo, "tunix/distill": distill}.items():
        value, gradient = jax.value_and_grad(loss)(jnp.asarray(given["logits"]))
        found |= {f"{name}/loss": np.asarray(value), f"{name}/gradient": np.asarray(gradient)}
    return found


if __name__ == "__main__":
    kept = dict(np.load(OUT)) if OUT.exists() else {}
    made = tunix() if "tunix" in sys.argv else trl()
    numbers = np.array([BETA, SMOOTHING, TEMPERATURE, HARD_WEIGHT, CENTRING])
    np.savez_compressed(OUT, **kept | inputs() | made | {"numbers": numbers})
    print(*(f"{name} {value}" for name, value in made.items() if name.endswith("loss")), sep="\n")
