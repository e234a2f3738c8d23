"""Tests of the shipped sweeps: their keys exist, and their designs match the documentation."""

import collections
import itertools

import pytest

from configs import base, history, isoflop, kaplan, overoptimisation, quickstart
from configs.published import tiny_families
from configs.study import distillation, history_rates, ladder, lr_grid, mup, sft_data, wsd
from launch.config import sections
from model import families
from model.transformer import count

SWEEPS = {
    "isoflop": isoflop,
    "kaplan": kaplan,
    "lr_grid": lr_grid,
    "mup": mup,
    "quickstart": quickstart,
    "ladder": ladder,
    "tiny_families": tiny_families,
    "wsd": wsd,
}


def trials(module, *arg):
    """Yields the overrides of each trial, checked against base.py, and its model config."""
    config = module.get_config(*arg)
    sections.complete(config)
    for overrides in module.get_sweep(config):
        trial = config.copy_and_resolve_references()
        for key, value in overrides.items():
            section, _, leaf = key.rpartition(".")
            node = trial[section] if section else trial
            assert type(node[leaf]) is type(value)
            node[leaf] = value
        yield overrides, families.derive({**trial.model, "vocab_size": 256})[1]


@pytest.mark.parametrize("name", history.SIZES)
def test_ladders_of_the_history_are_of_about_equal_sizes_at_equal_budgets(name):
    """Each family's five sizes at a budget span a factor 3 to 16 around what the others span."""
    by_budget = collections.defaultdict(list)
    for overrides, cfg in trials(history, name):
        family = families.find(history.get_config(name).model.family)
        by_budget[overrides["train.duration"]].append(sum(family.parameters(cfg).values()))
    assert list(by_budget) == [f"{budget:g} flops" for budget in history.BUDGETS]
    for sizes, middle in zip(by_budget.values(), (37_000, 66_000, 115_000), strict=True):
        assert len(sizes) == 5 and sizes == sorted(sizes)
        assert middle / 4 < sizes[0] < middle < sizes[-1] < 4 * middle
    assert len(list(trials(history_rates, name))) == 2 * len(history_rates.RATES)


def test_the_history_counts_every_order_on_every_text():
    found = [overrides for overrides, _ in trials(history, "ngram")]
    pairs = {(one["model.order"], one["data.max_tokens"]) for one in found}
    assert len(pairs) == len(found) == 15 and len({one["name"] for one in found}) == 15
    with pytest.raises(ValueError, match="use :decoder or :lstm or :gru or :elman or :ngram"):
        history.get_config("bert")


@pytest.mark.parametrize("name", SWEEPS)
def test_trials_are_valid_and_differ(name):
    found = list(trials(SWEEPS[name]))
    assert len({tuple(overrides.items()) for overrides, _ in found}) == len(found) > 10
    assert SWEEPS[name].get_config().keys() == base.get_config().keys()


@pytest.mark.parametrize("largest", ["3e13", "1e16", "1e18"])
def test_isoflop_brackets_every_budget(largest):
    sizes = collections.defaultdict(list)
    for overrides, cfg in trials(isoflop, largest):
        key = (overrides["train.duration"], overrides.get("holdout", False))
        sizes[key].append(count.kernels(cfg))
    held_out = [key for key in sizes if key[1]]
    assert held_out == [(f"{3 * float(largest):.4g} flops", True)] and len(sizes) == 5
    for (duration, holdout), found in sizes.items():
        best = isoflop.optimum(float(duration.split()[0]))
        if holdout:
            assert len(found) == 1 and 0.7 < found[0] / best < 1.4
        else:
            assert len(found) >= 5 and min(found) < best / 2 and max(found) > best * 2


def test_isoflop_shapes_grow_steadily():
    sizes = [isoflop.parameters(shape) for shape in isoflop.SHAPES]
    ratios = [b / a for a, b in itertools.pairwise(sizes)]
    assert all(1.3 < ratio < 2.3 for ratio in ratios)


@pytest.mark.parametrize("arg", ["many", "-1", "nan", "inf", "0"])
def test_a_budget_that_is_none(arg):
    with pytest.raises(ValueError, match=f"isoflop.py:{arg} is not a budget"):
        isoflop.get_config(arg)


def test_kaplan_varies_one_thing_at_a_time():
    found = [overrides for overrides, _ in trials(kaplan)]
    by_size = [o for o in found if o["train.duration"] == "2e+07 tokens"]
    by_tokens = [o for o in found if o["model.d_model"] == 160]
    assert (len(by_size), len(by_tokens), len(found)) == (6, 6, 11)


def test_lr_grid_gives_every_width_the_same_rates():
    found = [overrides for overrides, _ in trials(lr_grid)]
    rates = collections.defaultdict(list)
    for overrides in found:
        rates[overrides["model.d_model"]].append(overrides["optimizer.learning_rate"])
    assert list(rates.values()) == [list(lr_grid.RATES)] * 3
    best = lr_grid.get_config().optimizer.learning_rate
    assert min(lr_grid.RATES) < best < max(lr_grid.RATES)  # the rate in use is inside the grid


@pytest.mark.parametrize("name", ["mup", "completep", "standard"])
def test_mup_starts_from_its_narrowest_width_and_gives_every_width_the_same_rates(name):
    found = list(trials(mup, name))
    assert {cfg.parametrization for _, cfg in found} == {name}
    assert [o["optimizer.learning_rate"] for o, _ in found] == list(mup.RATES) * len(mup.WIDTHS)
    narrow = found[0][1]
    assert narrow.d_model == min(mup.WIDTHS) == max(mup.WIDTHS) / 4
    if name != "standard":
        assert (narrow.base_width, narrow.base_head_dim) == (narrow.d_model, narrow.head_dim)


@pytest.mark.parametrize("module", [quickstart, ladder])
def test_three_budgets_are_bracketed_and_one_run_is_held_out(module):
    found = [overrides for overrides, _ in trials(module)]
    fitted = [o for o in found if not o["holdout"]]
    budgets = collections.Counter(o["train.duration"] for o in fitted)
    assert len(budgets) == 3 and min(budgets.values()) >= 5
    (held_out,) = [o for o in found if o["holdout"]]
    spent = sorted(float(duration.split()[0]) for duration in budgets)
    assert all(more / less >= 2.5 for less, more in itertools.pairwise(spent))
    assert float(held_out["train.duration"].split()[0]) == pytest.approx(3 * spent[-1])


def test_wsd_has_more_trials_than_the_study_for_its_compute():
    """As its docstring and docs/efficient-ladders.md say."""
    config = wsd.get_config()
    assert config.schedule.name == "wsd" and config.checkpoint.share_trunks
    decay = float(config.schedule.decay.removesuffix(" %")) / 100
    found = [overrides for overrides, _ in trials(wsd)]
    budgets = collections.defaultdict(list)
    for overrides in (o for o in found if not o["holdout"]):
        budgets[overrides["model.d_model"]].append(float(overrides["train.duration"].split()[0]))
    largest = {width: max(spent) for width, spent in budgets.items()}
    fitted = sum((1 - decay) * largest[w] + decay * sum(spent) for w, spent in budgets.items())
    theirs = [o for o, _ in trials(ladder) if not o["holdout"]]
    assert fitted < sum(float(o["train.duration"].split()[0]) for o in theirs)
    assert sum(map(len, budgets.values())) == 27 and len(theirs) == 15
    (held_out,) = [o for o in found if o["holdout"]]
    length = float(held_out["train.duration"].split()[0])
    cost = fitted + length - (1 - decay) * largest[held_out["model.d_model"]]
    whole = length + sum(map(sum, budgets.values()))
    assert 1 - cost / whole == pytest.approx(0.38, abs=0.005)


def test_the_study_of_demonstrations_varies_their_number_alone_for_each_way():
    found = [overrides for overrides, _ in trials(sft_data)]
    sizes = collections.Counter((one["name"], one["data.examples"]) for one in found)
    assert len(sizes) == len(found) == 4 * len(sft_data.EXAMPLES)
    assert max(sft_data.EXAMPLES) == 100 * min(sft_data.EXAMPLES)
    assert {key for one in found for key in one if not key.startswith("adapter.")} == {
        *("name", "data.examples")
    }
    rates = [overrides for overrides, _ in trials(sft_data, "rates")]
    assert {one["data.examples"] for one in rates} == {sft_data.AT} and len(rates) == 12
    assert sft_data.RATE in {one["optimizer.learning_rate"] for one in rates}


def test_over_optimisation_goes_further_and_further_against_two_proxies():
    config = overoptimisation.get_config("rl,runs/mine")
    found = overoptimisation.get_sweep(config)
    proxies = collections.Counter(one["objective.reward_model"] for one in found)
    assert set(proxies) == {"runs/mine/proxy-32-100", "runs/mine/proxy-32-1000"}
    assert len(set(proxies.values())) == 1 and len({one["name"] for one in found}) == len(found)
    rollout = config.objective.epochs * config.objective.minibatches
    assert all(steps % rollout == 0 for steps in (*overoptimisation.STEPS, overoptimisation.LONG))
    assert {one.get("objective.kl", config.objective.kl) for one in found} == {0.0, 0.05, 0.2, 1.0}
    with pytest.raises(ValueError, match="the part proxy is one run"):
        overoptimisation.get_sweep(overoptimisation.get_config("proxy"))


def test_the_study_of_distillation_has_a_student_of_each_finished_teacher(tmp_path):
    for name in ("a", "b", "unfinished"):
        (tmp_path / name).mkdir()
        if name != "unfinished":
            (tmp_path / name / "result.json").touch()
    first = distillation.get_config()
    assert first.objective.name == "next_token"
    widths = [width for found in distillation.get_sweep(first) for width in found.values()]
    assert widths == list(distillation.WIDTHS)
    students = distillation.get_sweep(distillation.get_config(str(tmp_path)))
    assert students[:-1] == [{"objective.teacher": str(tmp_path / name)} for name in ("a", "b")]
    assert students[-1]["objective.name"] == "next_token"
