"""This file is the verb `plan`: the best run that a budget of compute, data or time can buy."""

import json
from pathlib import Path
from typing import Any

from absl import flags

from launch.errors import bad_input, writing
from launch.flags import parse
from launch.verbs.fit import interval
from train.chips import CHIPS, PRICED, Slice, parse_slice

DOC = """isoflop plan --law=law.json --flops=1e21 | --tokens=… | --params=… | --loss=…
isoflop plan --law=law.json --tpu=v5e-256 --days=3 --mfu=.5

Reads a law that `isoflop fit --json=law.json` wrote. Prints the compute-optimal size and length
with intervals, the loss to expect, a config of a published family near that size, the time and the
cost. --inference_tokens adds the model that reaches --loss (or the budget's own loss) with the
least compute over training and use."""

BUDGETS = {
    "flops": "training compute, 6·params·tokens",
    "tokens": "text at hand, in tokens: the size for which it is the best length",
    "params": "size, in parameters: the length for which it is the best size",
    "loss": "loss to reach, in nats per token, with the least compute",
}
DAY = 86400
MFU = 0.4  # what well-tuned dense training reaches; measure your own


def flag_values() -> flags.FlagValues:
    """The flags of this verb."""
    values = flags.FlagValues()
    own = {"flag_values": values}
    flags.DEFINE_string("law", None, "law.json of isoflop fit", **own)
    for name, meaning in BUDGETS.items():
        flags.DEFINE_float(name, None, meaning, **own)
    slices = f"accelerators, such as v5e-256, h100-8 or v5e:16x16 ({', '.join(CHIPS)})"
    flags.DEFINE_string("tpu", None, slices, **own)
    flags.DEFINE_float("days", None, "how long they are at hand: the budget", **own)
    flags.DEFINE_float("mfu", MFU, "share of their peak that training reaches", **own)
    flags.DEFINE_float("price", None, "USD a chip-hour, in place of the list price", **own)
    flags.DEFINE_float("inference_tokens", None, "tokens the model will read and write", **own)
    flags.DEFINE_string("family", "gpt3", "of configs/families.py, for the config", **own)
    flags.DEFINE_integer("vocab_size", None, "of the config; else the family's", **own)
    flags.DEFINE_integer("context_length", None, "of the config; else the family's", **own)
    flags.DEFINE_integer("seed", 0, "of the noise in the loss's interval", **own)
    flags.DEFINE_string("json", None, "file for the plan", **own)
    return values


def main(argv: list[str]) -> int:
    """Runs the verb; returns the exit code."""
    values = flag_values()
    parse(values, argv, DOC)
    from launch.pilot.shapes import shaped
    from scaling.design.planning import plan, read_law
    from scaling.drafts import write
    from scaling.validate import Unsupported

    with bad_input():
        if not values.law:
            raise ValueError("law is not given; isoflop fit --json=law.json writes one: --law=FILE")
        chips = accelerators(values)
        budget, target = budget_of(values, chips)
        law = read_law(values.law)
        planned = plan(law, budget, values.inference_tokens, target, values.seed)
        run = planned["run"]
        planned["hardware"] = hardware(chips, run["flops"], values) if chips else None
        sizes = {key: positive(values, key) for key in ("vocab_size", "context_length")}
        convention = planned["law"]["params"]
        try:
            shape = shaped(values.family, run["params"], run["tokens"], convention, **sizes)
            planned["config"] = shape | {"command": command(shape)}
        except Unsupported as error:
            planned["config"] = {"reason": str(error)}
    if values.json:
        with writing("json", values.json):
            write(Path(values.json), json.dumps(planned, indent=1) + "\n")
    print(summary(planned))
    return 0


def positive(values: flags.FlagValues, name: str) -> Any:
    """A flag's value, None where it is not given; ValueError where it is not above 0."""
    value = values[name].value
    if value is not None and not 0 < value < float("inf"):
        raise ValueError(f"{name}={value:g} must be positive and finite")
    return value


def accelerators(values: flags.FlagValues) -> Slice | None:
    """What --tpu names. ValueError where flags that need it stand alone, or make no sense."""
    if not 0 < values.mfu <= 1:
        raise ValueError(f"mfu={values.mfu:g} is no share of the peak; use 0.2 to 0.6")
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
    values: flags.FlagValues, chips: Slice | None
) -> tuple[tuple[str, float], float | None]:
    """The one budget, and the loss to reach where that is not the budget itself."""
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


def hardware(chips: Slice, flops: float, values: flags.FlagValues) -> dict[str, Any]:
    """Time and cost of training that takes `flops` on these chips, at --mfu and --price."""
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
    """The command that trains it; the text is still to be named."""
    own = " ".join(
        f"--config.{key}={value!r}" if isinstance(value, str) else f"--config.{key}={value}"
        for key, value in shape["overrides"].items()
    )
    return f"isoflop train --config={shape['config']} --workdir=runs/planned {own}"


def summary(planned: dict[str, Any]) -> str:
    """What the terminal shows."""
    law = planned["law"]
    counted = "" if law["params"] == "total" else f", N counted as {law['params']}"
    budget = ", ".join(f"{name} = {value:.4g}" for name, value in planned["budget"].items())
    lines = [
        f"plan for {budget}, by {law['law']} of {law['n']} points ({law['source']}{counted})",
        f"intervals hold {law['level']:.0%}; C = 6 N D",
        "",
        "compute-optimal",
        *rows(planned["optimum"]),
    ]
    if planned["second_opinion"]:
        other = planned["second_opinion"]
        n, d = (interval(other[key], ".3g") for key in ("params", "tokens"))
        lines.append(f"  iso-FLOP minima say  N = {n}, D = {d}")
    lines += ["", "same compute, other sizes", *around_lines(planned["around"])]
    if planned["inference"]:
        lines += ["", *inference_lines(planned["inference"])]
    lines += ["", *config_lines(planned["config"])]
    if planned["hardware"]:
        lines += ["", *hardware_lines(planned["hardware"])]
    return "\n".join([*lines, *planned["warnings"]])


def rows(part: dict[str, Any]) -> list[str]:
    """Size, length, compute and loss."""
    names = {
        "params": "parameters N",
        "tokens": "tokens D",
        "tokens_per_param": "tokens/param",
        "flops": "FLOPs C",
        "loss": "expected loss",
    }
    forms = {"loss": ".4f", "tokens_per_param": ".3g"}
    return [
        f"  {title:<14} {interval(part[name], forms.get(name, '.4g'))}"
        for name, title in names.items()
    ]


def around_lines(table: list[dict[str, Any]]) -> list[str]:
    """A line a size: what it loses, and what the loss of the optimum would cost there."""
    lines = [f"  {'N':>9} {'D':>9} {'D/N':>7} {'loss':>8}   compute for the optimum's loss"]
    for row in table:
        more = row["compute_for_same_loss"]
        ratio = f"{row['tokens'] / row['params']:.3g}"
        lines.append(
            f"  {row['params']:>9.3g} {row['tokens']:>9.3g} {ratio:>7} {row['loss']:>8.4f}   "
            + ("never reaches it" if more is None else f"× {more:.2f}")
        )
    return lines


def inference_lines(part: dict[str, Any]) -> list[str]:
    """The over-trained model and what it saves."""
    plain, reach = part["compute_optimal"], part["draws_that_reach_it"]
    lines = [
        f"cheapest over training and {part['inference_tokens']:.3g} tokens of use, at a loss of "
        f"{part['target_loss']:.4f} ({part['source']})",
        *rows(part),
        f"  train and use  {interval(part['total_flops'])} FLOPs, "
        f"{part['saving']['value']:.1%} less than the compute-optimal model of that loss "
        f"(N = {plain['params']['value']:.3g}, {plain['total_flops']['value']:.3g} FLOPs)",
    ]
    if reach < 1:
        lines.append(f"  only {reach:.0%} of the bootstrap draws reach that loss at all")
    return lines


def config_lines(part: dict[str, Any]) -> list[str]:
    """The config, or why there is none."""
    if "reason" in part:
        return [f"no config: {part['reason']}"]
    keys = part["overrides"]
    get = {key.split(".")[1]: value for key, value in keys.items()}
    lines = [
        f"a {part['family']} of that size ({part['source']}; published: {part['published']})",
        f"  {get['n_layers']} layers, width {get['d_model']}, {get['n_heads']} heads of "
        f"{get['head_dim']}, d_ff {get['d_ff']}: {part['params']:.4g} parameters",
        f"  batch {part['batch_tokens']:.3g} tokens ({get['batch_size']} sequences), "
        f"{part['steps']} steps, learning rate {get['learning_rate']:g}",
        f"  {part['command']}",
    ]
    return lines + [f"  {name}: {rule}" for name, rule in part["rules"].items()]


def hardware_lines(part: dict[str, Any]) -> list[str]:
    """Time and cost."""
    time = (
        f"{part['days']:.3g} days" if part["days"] >= 1 else f"{part['seconds'] / 3600:.3g} hours"
    )
    lines = [
        f"{part['name']}: {part['chips']} chips of {part['peak_flops']:.3g} FLOP/s at "
        f"{part['mfu']:.0%} of peak: {time}, {part['chip_hours']:.4g} chip-hours",
    ]
    if part["cost_usd"] is None:
        return [*lines, "  no list price is known for these; --price=USD gives one"]
    price = f"${part['cost_usd']:,.0f} at ${part['price_per_chip_hour']:.2f} a chip-hour"
    return [*lines, f"  {price}" + (f" ({part['caveat']})" if part["list_price"] else "")]
