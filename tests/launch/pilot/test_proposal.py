"""Tests of the model shapes that a pilot proposes: depths of the sweep, sizes around an N."""

import math

import pytest

from configs import isoflop
from configs.study import ladder
from launch.config import sweep_file
from launch.config.config_file import base_of, load_config, load_module
from launch.pilot.proposal import (
    MOST_STEP,
    candidates,
    half_log_span,
    n_sizes,
    nearest_shape,
    shape_of,
    shapes_around,
    sweep_shapes,
)


def shapes_of(module):
    config = module.get_config()
    known = sweep_shapes(config, 256, module.get_sweep(config))
    return config, known, candidates(config, 256, known)


@pytest.mark.parametrize("module", [ladder, isoflop])
def test_candidates_have_the_depths_and_heads_of_the_sweep_and_go_on_beyond_it(module):
    config, known, found = shapes_of(module)
    by_width = {shape.width: shape for shape in found}
    depths = {}
    for shape in known:
        depths.setdefault(shape.width, set()).add(shape.model.n_layers)
    for shape in known:
        if shape.width in by_width:
            near = by_width[shape.width].model.n_layers
            assert min(depths[shape.width]) <= near <= max(depths[shape.width])
    assert found[0].params < min(shape.params for shape in known)
    assert found[-1].params > 100 * max(shape.params for shape in known)
    widest = max(known, key=lambda shape: shape.width)
    aspect = widest.width / widest.model.n_layers
    assert found[-1].width / found[-1].model.n_layers == pytest.approx(aspect, rel=0.1)
    for shape in found[:20]:
        again = shape_of(
            config, 256, {k.removeprefix("model."): v for k, v in shape.overrides().items()}
        )
        assert again == shape


def test_the_chosen_sizes_lie_evenly_around_and_differ():
    _, _, found = shapes_of(ladder)
    chosen = shapes_around(found, math.log(5e5), half_log_span(3, 0.1), 7)
    sizes = [shape.params for shape in chosen]
    assert len(set(sizes)) == 7 and sizes == sorted(sizes)
    assert sum(n < 5e5 for n in sizes) in (3, 4)
    assert sizes[-1] / sizes[0] == pytest.approx(9 * math.exp(2 * 1.645 * 0.1), rel=0.2)
    assert nearest_shape(found, sizes[3]).params == sizes[3]
    with pytest.raises(ValueError, match=r"do not bracket N = 2e\+03: they have 2.9e\+03 to"):
        shapes_around(found, math.log(2e3), half_log_span(3, 0), 5)


def test_more_sizes_where_less_is_known():
    assert n_sizes(half_log_span(3, 0), 5) == 5
    assert n_sizes(half_log_span(3, 0.6), 5) == 7
    for sd in (0, 0.3, 0.6, 1.0):
        half = half_log_span(3, sd)
        assert 2 * half / (n_sizes(half, 5) - 1) <= math.log(MOST_STEP)


def test_the_base_of_a_sweep_is_found_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert base_of("own.py:1e13", {}) == (f"{tmp_path.resolve().as_posix()}/own.py:1e13", {})
    changes = {"seed": "7"}
    assert base_of("configs/isoflop.py:1e13", changes) == ("configs/isoflop.py:1e13", changes)


def test_a_pilot_s_sweep_gives_the_trials_back_and_is_a_base_itself(tmp_path, monkeypatch):
    trials = [{"name": "x", "model.d_model": 32, "optimizer.learning_rate": 0.02}]
    changes = {"seed": "7", "optimizer.name": "adamw"}
    base = base_of("configs/quickstart.py", changes)
    path = str(sweep_file.write(tmp_path / "s.json", "A sweep.", *base, trials))
    monkeypatch.chdir(tmp_path)
    config = load_config(path)
    assert (config.seed, config.optimizer.name, config.model.gated) == (7, "adamw", True)
    assert load_module(path)[0].get_sweep(config) == trials
    assert base_of(path, {"seed": "8"}) == (base[0], changes | {"seed": "8"})
