"""isoflop rewards: what reward models say of answers that a rule has judged.

isoflop evaluate --run=runs/sft --tasks=style --samples=1000 --prompts=32 --json=initial.json
isoflop rewards --answers=initial.json --reward=small=runs/small --reward=runs/large --out=rewards
isoflop rewards --answers=initial.json --policy=rl1.json --policy=rl2.json --out=rewards

Writes what `isoflop overoptimisation` reads. The answers are drawn once, by `isoflop evaluate
--tasks` with one task, whose score is the gold reward; any number of reward models judges them.

--reward names a run of objective.name=reward. Its file is OUT/NAME.npz, with the arrays proxy and
gold [prompts, samples] and the numbers size (parameters) and comparisons (pairs that it was trained
on). --policy names answers of a policy that was trained from the one of --answers, to the same
prompts. Each is a row of OUT/policies.csv: kl, in nats an answer from the initial policy, by the
log-probabilities of the answers under both, and gold_reward, above that of the initial policy.
Both flags may be repeated; without NAME=, the name is that of the folder or file.
"""

from collections.abc import Sequence

from absl import flags as absl_flags

from data.files import to_path
from launch import flags
from launch.alive import alive, bar
from launch.errors import DONE, bad_input, writing
from scaling.printable import printable


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    repeated = absl_flags.DEFINE_multi_string
    meaning = "answers of the initial policy: the --json of isoflop evaluate --tasks (required)"
    flags.define_path("answers", None, meaning, values)
    repeated("reward", [], "[NAME=]RUN of a reward model; repeatable", values)
    repeated("policy", [], "[NAME=]FILE.json of a policy's answers; repeatable", values)
    flags.define_path("out", None, "folder of the files that are written (required)", values)
    flags.define_import(values)
    return values


def main(argv: Sequence[str]) -> int:
    """Writes the files, and prints a line for each. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__)
    with bad_input():
        for flag in ("answers", "out"):
            if not values[flag].value:
                raise ValueError(f"--{flag} is not given; see isoflop rewards --help")
        if not values.reward and not values.policy:
            raise ValueError("--reward is not given; add --reward=RUN or --policy=FILE.json")
        with alive("reading the answers"):
            # Slow imports, which --help does without.
            from launch.benchmarks import answered, judged
            from launch.files import named

            initial = answered.read(to_path(values.answers), "answers")
            runs, files = named(values.reward, "reward"), named(values.policy, "policy")
            policies = [(name, answered.read(path, "policy")) for name, path in files]
            for _, policy in policies:
                answered.require_same_prompts(initial, policy)
        with writing("out", values.out):
            to_path(values.out).mkdir(parents=True, exist_ok=True)
        for name, run in runs:
            with alive(f"judging with {printable(name)}") as detail:
                found = judged.by_reward_model(initial, run, lambda share: detail(bar(share)))
            path = to_path(values.out) / f"{name}.npz"
            with writing("out", path):
                judged.write_npz(path, initial, found)
            print(f"{printable(str(path))}: {judged.line(initial, found)}")
        if policies:
            with alive("log-probabilities of the policies' answers"):
                rows = judged.policy_rows(initial, policies)
            path = to_path(values.out) / "policies.csv"
            with writing("out", path):
                judged.write_csv(path, rows)
            print(f"{printable(str(path))}: {len(rows)} policies")
            for row in rows:
                print(
                    f"  {printable(row['run'])}: KL {row['kl']:.3f} nats, gold reward "
                    f"{row['gold_reward']:+.4f} ± {row['gold_reward_se']:.4f}"
                )
    return DONE
