"""Trunks: runs that differ only in their length share their beginning.

Under schedule.name=wsd the learning rate before the decay does not depend on the length of the run,
and neither do batches and dropout, which are functions of (seed, step). A run may therefore start
from another's checkpoint instead of from step 0, and end with the same bits. So `checkpoint.trunk`
is no part of a trial's id, and its result reports the whole run. Hu et al. 2024, section 4;
Hägele et al. 2024.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from data.files import to_path
from launch.files import read_config
from launch.trial.identity import trial_difference
from train import duration

# Keys of an identity that say when the run ends, or only how it is looked at on the way.
AFTER_THE_TRUNK = (
    *("train.duration", "schedule.decay", "schedule.final"),
    *("eval.every", "eval.sequences"),
)


def check_schedule(config: ConfigDict) -> None:
    """ValueError where a trunk is asked for and the schedule has no part that could be shared."""
    asked = [key for key in ("trunk", "share_trunks") if config.checkpoint[key]]
    if not asked:
        return
    name, warmup = config.schedule.name, config.schedule.warmup
    about = f"checkpoint.{asked[0]}={config.checkpoint[asked[0]]!r}"
    if name != "wsd":
        raise ValueError(
            f"{about} needs schedule.name='wsd', not {name!r}, whose every step depends on the "
            "length of the run"
        )
    if duration.parse("schedule.warmup", warmup)[1] == "%":
        raise ValueError(
            f"{about} needs a warmup that is the same for every length of run, not "
            f"schedule.warmup={warmup!r}; use '100 steps', say"
        )


def stable_steps(resolved: Mapping[str, Any]) -> int:
    """Steps before the decay of a resolved wsd config."""
    total, decay = resolved["train"]["duration"], resolved["schedule"]["decay"]
    return duration.steps(total) - duration.steps(decay)


def branch_step(resolved: Mapping[str, Any]) -> int:
    """The last step that a run may start from: the decay begins there, or one step is left."""
    return min(stable_steps(resolved), duration.steps(resolved["train"]["duration"]) - 1)


def stem(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What trials of one trunk have in common."""
    return {key: value for key, value in identity.items() if key not in AFTER_THE_TRUNK}


def branch_until(resolved: ConfigDict) -> int:
    """The last step at which this run may leave its `checkpoint.trunk`.

    ValueError where there is no such run, where it is another run from the start (naming the key),
    or where it kept no checkpoint early enough.
    """
    from train.checkpoint import finished  # slow to import, and a sweep's parent does without

    folder = to_path(resolved.checkpoint.trunk)
    about, there = f"checkpoint.trunk={str(folder)!r}", read_config(folder)
    if there is None:
        raise ValueError(f"{about} holds no run (config.json); name the folder of one")
    try:
        differs = trial_difference(there, resolved, leave_out=AFTER_THE_TRUNK)
        until = min(branch_step(resolved), 0 if differs else stable_steps(there))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{about} holds a config.json that describes no trial ({error}); name another run"
        ) from None
    if differs:
        raise ValueError(f"{about} is no trunk of this run: {differs}")
    kept = [int(path.name) for path in finished(folder / "checkpoints")]
    if not any(step <= until for step in kept):
        raise ValueError(
            f"{about} has no checkpoint up to step {until}, where the first of the two decays "
            f"begins (there are: {sorted(kept)}); train it again with "
            f"checkpoint.keep_at='{until} steps', or leave checkpoint.trunk empty"
        )
    return until
