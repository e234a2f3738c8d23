"""The keys of the objectives with rollouts: PPO, GRPO, REINFORCE and RAFT."""

from configs.sections.key import Key


def _policy() -> dict:
    """What the objectives with rollouts share. A rollout has train.batch_size times minibatches
    responses; its updates are steps of training."""
    return dict(
        max_tokens=Key(16, least=1),  # of a response
        samples=Key(8, least=1),  # responses to each prompt
        temperature=1.0,  # at which responses are drawn, and their probabilities computed
        eval_temperature=Key(1.0, least=0),  # of the responses of an evaluation; 0: greedy
        epochs=Key(1, least=1),  # passes over the responses of a rollout
        minibatches=Key(1, least=1),  # updates of each pass
        # groups of prompts of similar length, each padded to its own width; 0: none
        buckets=Key(0, least=0),
        prefetch=False,  # True: a rollout is drawn before the updates on the one before it
        kl=Key(0.0, least=0),  # weight of the KL from the reference
        kl_estimator="k1",  # k1: log p/q | k2: (log p/q)² / 2 | k3: q/p − 1 − log q/p
        reference="",  # a run or a Hugging Face folder; "": the weights of train.init_from
        reference_hash="",  # of those weights, filled in by `resolve`
        reward_model="",  # a run with a scalar head; "": the checker of the data
        reward_model_hash="",
    )


def ppo() -> dict:
    """Proximal policy optimisation: `train/objectives/policy/ppo.py`."""
    return _policy() | dict(
        samples=Key(1, least=1),
        epochs=Key(4, least=1),
        kl=Key(0.05, least=0),
        kl_in="reward",  # reward | loss: where the KL is added
        clip=Key(0.2, least=0, below=1),  # a ratio counts from 1 − clip to 1 + clip
        clip_high=Key(0.0, least=0),  # a ratio counts up to 1 + clip_high; 0: clip
        entropy=Key(0.0, least=0),  # weight of the entropy bonus
        # a run with a scalar head, from which a value model of its own starts; "": the values are
        # of a head on the policy's trunk
        value_model="",
        value_model_hash="",  # of those weights, filled in by `resolve`
        value_weight=Key(0.1, least=0),  # of the value loss
        value_clip=Key(0.2, least=0),  # how far a value moves in the loss of a rollout; 0: freely
        gamma=Key(1.0, least=0),  # discount of the next token's reward
        gae_lambda=Key(0.95, least=0),  # 1: the advantage is the return minus the value
        whiten=True,  # advantages over a rollout, to mean 0 and variance 1
        whiten_rewards=False,  # the rewards of tokens, to variance 1
    )


def reinforce() -> dict:
    """REINFORCE with the baseline of a group: `train/objectives/policy/reinforce.py`. One update on
    each rollout."""
    keys = {k: v for k, v in _policy().items() if k not in ("epochs", "minibatches")}
    return keys | dict(
        kl_in="reward",  # reward | loss: where the KL is added
        normalise="sum",  # sum | token | sequence | constant: as for grpo
        entropy=Key(0.0, least=0),  # weight of the entropy bonus
    )


def raft() -> dict:
    """Supervised training on the best of n responses: `train/objectives/policy/raft.py`. A rollout
    has train.batch_size times minibatches prompts, and samples times as many responses."""
    keys = {k: v for k, v in _policy().items() if k not in ("kl", "kl_estimator")}
    return keys | dict(
        skip_flat=False,  # True: prompts whose responses have equal rewards have no weight
    )


def grpo() -> dict:
    """Group relative policy optimisation: `train/objectives/policy/grpo.py`."""
    return _policy() | dict(
        kl_estimator="k3",
        kl_in="loss",  # loss | reward: where the KL is added
        clip=Key(0.2, least=0, below=1),  # a ratio counts from 1 − clip to 1 + clip
        clip_high=Key(0.0, least=0),  # a ratio counts up to 1 + clip_high; 0: clip (DAPO: 0.28)
        normalise="sequence",  # sequence (GRPO) | token (DAPO) | constant (Dr. GRPO) | sum
        scale="group",  # advantages / standard deviation of the group | batch | none (Dr. GRPO)
        entropy=Key(0.0, least=0),  # weight of the entropy bonus
    )


OBJECTIVES = {"ppo": ppo, "grpo": grpo, "reinforce": reinforce, "raft": raft}
