"""isoflop plan: chooses model size and tokens for a budget of compute, data or time.

isoflop plan --law=law.json --flops=1e21 | --tokens=… | --params=… | --loss=…
isoflop plan --law=law.json --tpu=v5e-256 --days=3 --mfu=.5

Reads a law that `isoflop fit --json=law.json` wrote. Prints the compute-optimal size and length
with intervals, the expected loss, a config of a published family near that size, the time and the
cost. --inference_tokens adds the model that reaches --loss (or the budget's own loss) with the
least compute over training and use.
"""

import json
from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags

from data.files import to_path
from launch import flags
from launch.alive import alive
from launch.amounts import amount, flops, with_interval
from launch.errors import DONE, bad_input, writing
from scaling.laws.law import symbols
from scaling.report.number_text import nats, three_digits
from train.parallel.chips import CHIPS, PRICED, Slice, parse_slice

BUDGETS = {
    "flops": "training compute in FLOPs, 6·params·tokens",
    "tokens": "tokens to train on: plan the size for which this length is optimal",
    "params": "parameters: plan the length for which this size is optimal",
    "loss": "loss to reach with the least compute, in nats per token",
}
DAY = 86400
MFU = 0.4  # what well-tuned dense training reaches; measure your own


def make_flags() -> absl_flags.FlagValues:
    """The flags of this verb."""
    values = absl_flags.FlagValues()
    own = {"flag_values": values}
    flags.define_path("law", None, "law.json of isoflop fit, or the folder of a report", **own)
    for name, meaning in BUDGETS.items():
        flags.define_amount(name, None, meaning, **own)
    slices = f"accelerators, such as v5e-256, h100-8 or v5e:16x16 ({', '.join(CHIPS)})"
    absl_flags.DEFINE_string("tpu", None, slices, **own)
    absl_flags.DEFINE_float("days", None, "days of training on --tpu, as the budget", **own)
    absl_flags.DEFINE_float("mfu", MFU, "fraction of peak FLOP/s that training reaches", **own)
    absl_flags.DEFINE_float("price", None, "USD per chip-hour; default: the list price", **own)
    flags.define_amount(
        "inference_tokens", None, "tokens that the model will process in use", **own
    )
    absl_flags.DEFINE_string(
        "family",
        "gpt3",
        "published family that the config follows, as in configs/families.py",
        **own,
    )
    absl_flags.DEFINE_integer(
        "vocab_size", None, "vocabulary of the config; default: the family's", **own
    )
    absl_flags.DEFINE_integer(
        "context_length", None, "context of the config; default: the family's", **own
    )
    absl_flags.DEFINE_integer(
        "seed", 0, "seed of the simulated noise in the interval of the loss", **own
    )
    flags.define_path("json", None, "write the plan to this file", **own)
    flags.define_import(values)
    return values


def main(argv: Sequence[str]) -> int:
    """Prints the plan and writes it. Returns the exit code."""
    values = make_flags()
    flags.parse(values, argv, __doc__)
    from launch.pilot.shapes import config_near
    from scaling.design.planning import plan, read_law
    from scaling.drafts import write
    from scaling.validate import Unsupported

    with bad_input():
        if not values.law:
            raise ValueError(
                "--law is not given; add --law=FILE (isoflop fit --json=FILE writes it)"
            )
        chips = accelerators(values)
        budget, target = budget_of(values, chips)
        law = read_law(to_path(values.law))
        with alive("planning"):
            planned = plan(law, budget, values.inference_tokens, target, values.seed)
        run = planned["run"]
        planned["hardware"] = hardware(chips, run["flops"], values) if chips else None
        sizes = {key: positive(values, key) for key in ("vocab_size", "context_length")}
        convention = planned["law"]["params"]
        try:
            shape = config_near(values.family, run["params"], run["tokens"], convention, **sizes)
            planned["config"] = shape | {"command": command(shape)}
        except Unsupported as error:
            planned["config"] = {"reason": str(error)}
    if values.json:
        with writing("json", values.json):
            write(to_path(values.json), json.dumps(planned, indent=1) + "\n")
    print(summary(planned))
    return DONE


def positive(values: absl_flags.FlagValues, name: str) -> Any:
    """A flag's value, None if it is not given; ValueError unless it is positive and finite."""
    value = values[name].value
    if value is not None and not 0 < value < float("inf"):
        raise ValueError(f"{name}={value:g} must be positive and finite")
    return value


def accelerators(values: absl_flags.FlagValues) -> Slice | None:
    """The slice that --tpu names, or None. ValueError if --days or --price are given without it, or
    if a value is out of range."""
    if not 0 < values.mfu <= 1:
        raise ValueError(f"mfu={values.mfu:g} is not a fraction of the peak; use 0.2 to 0.6")
    positive(values, "price")
    if values.tpu:
        return parse_slice("tpu", values.tpu)
    for name in ("days", "price"):
        if values[name].value is not None:
            raise ValueError(
                f"{name}={values[name].value:g} takes --tpu too, such as --tpu=v5e-256"
            )
    return None


def budget_of(
    values: absl_flags.FlagValues, chips: Slice | None
) -> tuple[tuple[str, float], float | None]:
    """The one budget, and the loss to reach if --loss is given beside it. ValueError unless exactly
    one budget is given."""
    given = {name: positive(values, name) for name in (*BUDGETS, "days")}
    given = {name: value for name, value in given.items() if value is not None}
    target = given.pop("loss") if "loss" in given and len(given) > 1 else None
    if target is not None and not values.inference_tokens:
        raise ValueError(f"loss={target:g} beside another budget takes --inference_tokens too")
    if len(given) != 1:
        named = ", ".join(f"--{name}" for name in given) or "none"
        wanted = ", ".join(f"--{name}" for name in BUDGETS)
        raise ValueError(f"give one budget, {wanted} or --tpu with --days (given: {named})")
    name, amount = next(iter(given.items()))
    if name == "days":
        return ("flops", chips.rate(values.mfu) * amount * DAY), target
    return (name, amount), target


def hardware(chips: Slice, flops: float, values: absl_flags.FlagValues) -> dict[str, Any]:
    """Time and cost of `flops` of training on these chips, at --mfu and --price."""
    price = chips.chip.price if values.price is None else values.price
    seconds = flops / chips.rate(values.mfu)
    return {
        "name": chips.name,
        "device": chips.chip.names[0],
        "chips": chips.devices,
        "peak_flops": chips.chip.peak,
        "mfu": values.mfu,
        "seconds": seconds,
        "days": seconds / DAY,
        "chip_hours": chips.devices * seconds / 3600,
        "price_per_chip_hour": price,
        "list_price": price is not None and price == chips.chip.price,
        "cost_usd": None if price is None else price * chips.devices * seconds / 3600,
        "caveat": PRICED,
    }


def command(shape: dict[str, Any]) -> str:
    """The command that trains this config, without the corpus."""
    overrides = " ".join(
        f"--config.{key}={value!r}" if isinstance(value, str) else f"--config.{key}={value}"
        for key, value in shape["overrides"].items()
    )
    return f"isoflop train --config={shape['config']} --workdir=runs/planned {overrides}"


def summary(planned: dict[str, Any]) -> str:
    """The text that the verb prints; `planned` is what --json writes."""
    law = planned["law"]
    counted = "" if law["params"] == "total" else f", N counted as {law['params']}"
    budget = ", ".join(f"{name} = {FORMS[name](v)}" for name, v in planned["budget"].items())
    formula = symbols(law["law"])
    lines = [
        f"plan for {budget}, by {formula} of {law['n']} points ({law['source']}{counted})",
        f"intervals hold {law['level']:.0%}; C = 6 N D",
        "",
        "compute-optimal",
        *rows(planned["optimum"]),
    ]
    if planned["second_opinion"]:
        other = planned["second_opinion"]
        n, d = (_shown(other, key) for key in ("params", "tokens"))
        lines.append(f"  iso-FLOP minima say  N = {n}, D = {d}")
    lines += ["", "same compute, other sizes", *around_lines(planned["around"])]
    if planned["inference"]:
        lines += ["", *inference_lines(planned["inference"])]
    lines += ["", *config_lines(planned["config"])]
    if planned["hardware"]:
        lines += ["", *hardware_lines(planned["hardware"])]
    return "\n".join([*lines, *planned["warnings"]])


def rows(part: dict[str, Any]) -> list[str]:
    """Size, length, compute and loss, each with its interval."""
    names = {
        "params": "parameters N",
        "tokens": "tokens D",
        "tokens_per_param": "tokens/param",
        "flops": "FLOPs C",
        "loss": "loss (nats)",
    }
    return [f"  {title:<14} {_shown(part, name)}" for name, title in names.items()]


# Name of a number -> its format.
FORMS = {
    "params": amount,
    "tokens": amount,
    "flops": flops,
    "total_flops": flops,
    "loss": nats,
    "tokens_per_param": three_digits,
}


def _shown(part: dict[str, Any], name: str) -> str:
    """One number of a part of the plan, with its interval."""
    return with_interval(part[name], FORMS[name])


def around_lines(table: list[dict[str, Any]]) -> list[str]:
    """One line for each size: its loss, and the compute that reaches the optimum's loss there."""
    lines = [f"  {'N':>9} {'D':>9} {'D/N':>7} {'loss (nats)':>12}   compute for the optimum's loss"]
    for row in table:
        more = row["compute_for_same_loss"]
        ratio = three_digits(row["tokens"] / row["params"])
        lines.append(
            f"  {amount(row['params']):>9} {amount(row['tokens']):>9} {ratio:>7} "
            f"{nats(row['loss']):>12}   "
            + ("never reaches it" if more is None else f"× {more:.2f}")
        )
    return lines


def inference_lines(part: dict[str, Any]) -> list[str]:
    """The over-trained model and the compute that it saves."""
    plain, reach = part["compute_optimal"], part["draws_that_reach_it"]
    lines = [
        f"cheapest over training and {amount(part['inference_tokens'])} tokens of use, at a loss "
        f"of {part['target_loss']:.4f} ({part['source']})",
        *rows(part),
        f"  train and use  {_shown(part, 'total_flops')} FLOPs, "
        f"{part['saving']['value']:.1%} less than the compute-optimal model of that loss "
        f"(N = {amount(plain['params']['value'])}, {flops(plain['total_flops']['value'])} FLOPs)",
    ]
    if reach < 1:
        lines.append(f"  only {reach:.0%} of the bootstrap draws reach that loss at all")
    return lines


def config_lines(part: dict[str, Any]) -> list[str]:
    """The config, or why no config is given."""
    if "reason" in part:
        return [f"no config: {part['reason']}"]
    keys = part["overrides"]
    get = {key.split(".")[1]: value for key, value in keys.items()}
    lines = [
        f"a {part['family']} of that size ({part['source']}; published: {part['published']})",
        f"  {get['n_layers']} layers, width {get['d_model']}, {get['n_heads']} heads of "
        f"{get['head_dim']}, d_ff {get['d_ff']}: {amount(part['params'])} parameters",
        f"  batch {amount(part['batch_tokens'])} tokens ({get['batch_size']} sequences), "
        f"{part['steps']} steps, learning rate {three_digits(get['learning_rate'])}",
        f"  {part['command']}",
    ]
    return lines + [f"  {name}: {rule}" for name, rule in part["rules"].items()]


def hardware_lines(part: dict[str, Any]) -> list[str]:
    """The time and cost of training on the slice."""
    time = (
        f"{three_digits(part['days'])} days"
        if part["days"] >= 1
        else f"{three_digits(part['seconds'] / 3600)} hours"
    )
    lines = [
        f"{part['name']}: {part['chips']} chips of {flops(part['peak_flops'])} FLOP/s at "
        f"{part['mfu']:.0%} of peak: {time}, {amount(part['chip_hours'])} chip-hours",
    ]
    if part["cost_usd"] is None:
        return [*lines, "  no list price is known for these; --price=USD gives one"]
    price = f"${part['cost_usd']:,.0f} at ${part['price_per_chip_hour']:.2f} a chip-hour"
    return [*lines, f"  {price}" + (f" ({part['caveat']})" if part["list_price"] else "")]
