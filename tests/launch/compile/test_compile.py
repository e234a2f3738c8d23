"""Tests of `isoflop compile`: report, verdict, errors, search and the table of a docs page."""

import json
import math

import jax
import numpy as np
import pytest

from launch.__main__ import main as isoflop
from launch.compile import docs_table, variants, verdict
from launch.compile.variants import Variant
from launch.config import config_file
from launch.errors import BAD_INPUT, BUG, DONE, BadInput
from launch.trial.resolve import resolve_sizes
from launch.verbs.models import compile as verb
from train.ahead_of_time import compiled, costs, topology
from train.parallel import sharding
from train.parallel.chips import CHIPS

needs_libtpu = pytest.mark.skipif(not topology.installed(), reason="libtpu is not installed")
CONFIG = "--config=configs/pretrain.py:tiny"
SMALL = {"model.n_layers": "1", "model.context_length": "64", "model.n_heads": "1"}


def compile_verb(*arguments: str) -> int:
    return isoflop(["compile", *arguments])


def overrides(changes: dict) -> list[str]:
    return [f"--config.{key}={value}" for key, value in changes.items()]


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> dict:
    """The JSON report for a small model on four chips."""
    file = tmp_path_factory.mktemp("compile") / "report.json"
    assert compile_verb(CONFIG, "--topology=v5e:2x2", f"--json={file}", *overrides(SMALL)) == DONE
    return json.loads(file.read_text())


@needs_libtpu
def test_the_report_keeps_the_contract(report):
    assert set(report) == {
        *("topology", "devices", "memory", "flops", "collectives", "estimated_cycles"),
        *("estimated_step_seconds", "estimated_mfu", "fits", "detail"),
    }
    assert set(report["memory"]) == {"argument", "temporary", "peak", "host", "hbm"}
    assert set(report["flops"]) == {"model", "matmul"}
    assert all(set(moved) == {"payload", "wire"} for moved in report["collectives"].values())
    assert (report["topology"], report["devices"], report["fits"]) == ("v5e:2x2", 4, True)
    assert report["memory"]["peak"] < report["memory"]["hbm"] == 15.75 * 2**30


@needs_libtpu
def test_the_products_are_those_of_the_model_and_no_more(report):
    """One layer, counted by hand; training needs three times the products of the forward pass."""
    tokens, width, context, vocabulary = 32 * 64 // 4, 128, 64, 256
    forward = 12 * width**2 + 2 * context * width + vocabulary * width
    assert report["flops"]["matmul"] == 3 * 2 * tokens * forward
    assert report["detail"]["recompute"] == 1


@needs_libtpu
def test_the_estimate_is_the_cycles_at_the_clock(report):
    assert report["detail"]["kernel_seconds"] == 0  # sequences of 64 tokens use no kernel
    seconds = report["estimated_cycles"] / 1.503e9
    assert report["estimated_step_seconds"] == pytest.approx(seconds, rel=1e-3)
    mfu = report["flops"]["model"] / (report["estimated_step_seconds"] * 197e12)
    assert report["estimated_mfu"] == pytest.approx(mfu)
    assert report["detail"]["loops_counted_once"] != []  # the loop over the steps of a chunk


def test_the_estimate_counts_kernels_at_the_peak(monkeypatch):
    found = costs.Costs(products=1e14, cycles=1.503e9)
    found.kernels["splash_mha_fwd"] = 197e12 / 4
    monkeypatch.setattr(costs, "measure", lambda text: found)
    monkeypatch.setattr(compiled, "libtpu_version", lambda: "none")
    there = topology.parse("v5e:2x2")
    config = resolve_sizes(config_file.load_config("configs/pretrain.py:tiny"), there.devices)
    mesh = jax.sharding.AbstractMesh((4,), ("fsdp",))
    program = compiled.Program("text", 1, 1, 2, 0.0)
    report = compiled.describe(config, there, mesh, program)
    assert report["estimated_step_seconds"] == pytest.approx(1.25, rel=1e-3)
    assert report["detail"]["kernel_seconds"] == 0.25
    tokens = config.train.batch_size * config.model.context_length
    assert report["detail"]["tokens_per_second"] == pytest.approx(tokens / 1.25, rel=1e-3)


@needs_libtpu
def test_the_table_labels_its_estimates(report, capsys):
    import rich.console

    rich.console.Console(width=120).print(verdict.table(report))
    text = capsys.readouterr().out
    assert text.count("ESTIMATE, ±20%") == 3
    assert "reduce-scatter" in text and "1.000 x what the model needs" in text


@needs_libtpu
def test_what_does_not_fit_is_bad_input_with_a_verdict(tmp_path, capsys):
    file = tmp_path / "report.json"
    large = SMALL | {"train.batch_per_device": 16384, "model.vocab_size": 32000}
    code = compile_verb(CONFIG, "--topology=v5e:2x2", f"--json={file}", *overrides(large))
    printed = capsys.readouterr()
    wrote = json.loads(file.read_text())
    over = (wrote["memory"]["peak"] - wrote["memory"]["hbm"]) / 2**30
    assert (code, wrote["fits"], wrote["flops"]["matmul"]) == (BAD_INPUT, False, None)
    assert over > 0
    assert f"{over:.2f} GiB too much" in printed.err and len(printed.err.splitlines()) == 1
    assert "DOES NOT FIT" in printed.out and "train.accumulation" in printed.out


@needs_libtpu
def test_the_state_of_a_large_model_is_never_made():
    """7B on 256 devices: the state, 12 bytes per parameter, is described but not allocated."""
    config = config_file.load_config(
        "configs/pretrain.py:llama2-7b", {"train.batch_per_device": 1, "model.n_layers": 2}
    )
    there = topology.parse("v5e:16x16")
    resolved = resolve_sizes(config, there.devices)
    mesh = sharding.make_mesh(dict(resolved.mesh), topology.devices(there))
    arguments = compiled.abstract_chunk(resolved, mesh)
    parameters = sum(np.prod(leaf.shape) for leaf in _leaves(arguments[1].params))
    assert compiled.argument_bytes(arguments) == pytest.approx(12 * parameters / 256, rel=0.01)


def _leaves(tree):
    import jax

    return jax.tree.leaves(tree)


@pytest.mark.parametrize(
    ("message", "size"),
    [
        ("Ran out of memory in memory space hbm. Used 25.50G of 15.75G hbm. Exceeded", 25.5),
        ("the total memory required for HLO temporaries (16.00G) exceeds available HBM", 17),
    ],
)
def test_the_compilers_refusal_says_what_is_needed(message, size):
    assert compiled.needed(message, argument=2**30) == size * 2**30


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--topology=v9:2x2"], "topology=v9:2x2 is unknown"),
        (["--topology=v5e"], "the chips along each axis: v5e:1x1, v5e:2x2"),
        (["--topology=v5e-3"], "topology=v5e-3 is not a TPU slice; use one of v5e:1x1, v5e:2x2"),
        (["--topology=h100-8"], "topology=h100-8 is not a TPU slice; use one of v4, v5e"),
        (["--topology=v5e:2x2x2"], "a v5e slice has 2 axes"),
        ([], "--topology is missing"),
        (["--topology=v5e:2x2", "--config.train.batch_size=30"], "train.batch_size=30"),
        (["--topology=v5e:2x2", "--config.data.tokenizer=bpe"], "--config.model.vocab_size=N"),
        (["--topology=v5e:2x2", "--search", "--workers=0"], "workers=0"),
        pytest.param(
            ["--topology=v5e:2x2", "--config.mesh.fsdp=8"], "does not multiply to the 4 devices",
            marks=needs_libtpu,
        ),
        pytest.param(
            ["--topology=v5e:3x3", "--config.train.batch_size=36"], "use one of v5e:1x1, v5e:2x2",
            marks=needs_libtpu,
        ),
        pytest.param(
            ["--topology=v5e:2x2", "--config.model.d_model=130", "--config.model.n_heads=1"],
            "not divisible by mesh.fsdp=4",
            marks=needs_libtpu,
        ),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(arguments, expected, capsys):
    assert compile_verb(CONFIG, *arguments) == BAD_INPUT
    err = capsys.readouterr().err
    assert expected in err and len(err.splitlines()) == 1


def test_without_the_compiler_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(topology, "installed", lambda: False)
    with pytest.raises(BadInput, match="pip install"):
        verb.compiled_report(
            config_file.load_config("configs/pretrain.py:tiny"), topology.parse("v5e:2x2")
        )


@pytest.mark.parametrize("kind", [kind for kind, chip in CHIPS.items() if chip.slices])
def test_chips(kind):
    """Clocks match the published ones of v4, v5e and v5p; the compiler knows the listed slices."""
    published = {"v4": 1.05e9, "v5e": 1.5e9, "v5p": 1.75e9}
    chip = CHIPS[kind]
    assert chip.clock == pytest.approx(published.get(kind, chip.clock), rel=0.005)
    if topology.installed():
        for name in (chip.slices[0], chip.slices[-1]):
            there = topology.parse(f"{kind}:{name}")
            assert len(topology.devices(there)) == there.devices
    two = topology.parse(f"2*{kind}:{chip.slices[1]}")
    assert two.number == 2 and two.devices == 2 * math.prod(two.shape) * chip.per_chip


def test_the_list_of_topologies(capsys):
    assert compile_verb("--topologies") == DONE
    printed = capsys.readouterr().out
    assert all((kind in printed) == bool(chip.slices) for kind, chip in CHIPS.items())
    assert "16x16" in printed


def test_meshes_of_a_search_use_every_device():
    config = config_file.load_config("configs/pretrain.py:tiny")
    for devices in (1, 8, 24):
        found = variants.meshes(config, devices)
        assert {math.prod(mesh.values()) for mesh in found} == {devices}
        assert len({tuple(mesh.items()) for mesh in found}) == len(found)
    assert any(m["mesh.data"] == 2 and m["mesh.fsdp"] == 4 for m in variants.meshes(config, 8))


def fake(peak: float = 1, speed: float = 1.0) -> dict:
    return {
        "fits": peak <= 16, "memory": {"peak": peak * 2**30, "hbm": 16 * 2**30},
        "collectives": {}, "estimated_step_seconds": 1.0, "estimated_mfu": 0.5,
        "detail": {"tokens_per_second": speed, "recompute": 1.0},
    }  # fmt: skip


def test_a_search_ranks_prunes_and_survives_a_crash(monkeypatch, tmp_path, capsys):
    def compile(variant: Variant, command: list[str]) -> None:
        rows, fsdp = (variant.overrides[k] for k in ("train.batch_per_device", "mesh.fsdp"))
        if fsdp == 1:
            variant.error = "Segmentation fault"
        else:
            variant.report = fake(peak=rows * 8 / fsdp, speed=rows * fsdp)

    monkeypatch.setattr(variants, "compile_apart", compile)
    file = tmp_path / "ranking.json"
    code = compile_verb(CONFIG, "--topology=v5e:2x2", "--search", f"--json={file}")
    ranking = json.loads(file.read_text())["ranking"]
    printed = capsys.readouterr()
    fits = [row for row in ranking if row["report"] and row["report"]["fits"]]
    assert code == DONE
    assert ranking[: len(fits)] == fits
    speeds = [row["report"]["detail"]["tokens_per_second"] for row in fits]
    assert speeds == sorted(speeds, reverse=True) and speeds[0] == 8 * 4
    tried = [(row["overrides"]["mesh.fsdp"], row["overrides"]["train.batch_per_device"])
             for row in ranking]  # fmt: skip
    assert (2, 8) in tried and (2, 16) not in tried  # 8 did not fit
    assert sum(row["error"] == "Segmentation fault" for row in ranking) >= 5
    assert "--config.mesh.fsdp=4" in printed.out and "train.batch_per_device=8" in printed.out
    assert "Segmentation fault" in printed.err


def test_a_search_in_which_nothing_fits_is_bad_input(monkeypatch, capsys):
    monkeypatch.setattr(
        variants,
        "compile_apart",
        lambda variant, _: setattr(variant, "report", fake(peak=17)),
    )
    assert compile_verb(CONFIG, "--topology=v5e:2x2", "--search") == BAD_INPUT
    assert "in none of" in capsys.readouterr().err


@pytest.mark.slow
@needs_libtpu
def test_a_real_search_compiles_in_processes_of_their_own(tmp_path):
    file = tmp_path / "ranking.json"
    arguments = (CONFIG, "--topology=v5e:2x2", "--search", "--limit=2", f"--json={file}")
    assert compile_verb(*arguments, *overrides(SMALL)) == DONE
    ranking = json.loads(file.read_text())["ranking"]
    assert [row["report"]["fits"] for row in ranking] == [True, True]
    assert ranking[0]["overrides"]["train.batch_per_device"] == 2  # larger products are faster


def reported(**changes) -> dict:
    """A report with the fields that a row of the table reads."""
    detail = {
        "parameters": 7e9,
        "mesh": {"data": 1, "fsdp": 256},
        "batch_size": 256,
        "context_length": 4096,
        "recompute": 1.25,
        "kernel_seconds": 0.1,
        "error_band": 0.2,
    }
    return fake(peak=2.5) | {
        "topology": "v5e:16x16",
        "devices": 256,
        "detail": detail,
        "collectives": {
            "all-gather": {"payload": 26e9, "wire": 25e9},
            "reduce-scatter": {"payload": 14e9, "wire": 13e9},
        },
        "estimated_cycles": 2e9,
        "estimated_step_seconds": 1.4,
        "flops": {"matmul": 250e12},
        **changes,
    }


def test_the_table_stands_between_its_marks_and_only_what_is_missing_is_compiled(
    monkeypatch, tmp_path, capsys
):
    row = ("llama2-7b", "v5e:16x16", {"model.remat": "full"})
    rows = dict.fromkeys(("there", "new", "stale", "fails"), row)
    monkeypatch.setattr(docs_table, "COMPILED", rows)
    monkeypatch.setattr(docs_table, "PUBLISHED", dict.fromkeys(("run-8b", "run-9b"), (*row, 100)))
    page, asked = tmp_path / "page.md", []
    page.write_text(f"before\n{docs_table.BEGIN}\nold\n{docs_table.END}\nafter\n")
    (tmp_path / "page").mkdir()
    for name, changes in (
        ("there", {}),
        ("run-8b", {}),
        ("run-9b", {"fits": False, "flops": {"matmul": None}}),
        ("stale", {"row": [*row[:2], {"model.remat": "none"}]}),
    ):
        text = json.dumps(reported() | {"row": row} | changes)
        (tmp_path / "page" / f"{name}.json").write_text(text)

    def compile(variant: Variant, command: list[str]) -> None:
        asked.append(command)
        variant.report = reported(estimated_cycles=3e9) if len(asked) < 3 else None
        variant.error = "" if variant.report else "Segmentation fault"

    monkeypatch.setattr(variants, "compile_apart", compile)
    assert compile_verb(f"--table={page}") == BUG
    lines = page.read_text().splitlines()
    assert (lines[0], lines[1], lines[-2], lines[-1]) == (
        *("before", docs_table.BEGIN, docs_table.END, "after"),
    )
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:-2]]
    assert [len(row) for row in cells] == [14] * 5 + [0] + [10] * 4
    assert cells[2][5:11] == ["2.50 of 16.00", "1.25", "26.0", "14.0", "38.0", "2e+09"]
    assert cells[3][10] == cells[4][10] == "3e+09" and len(asked) == 3
    # 250 TFLOP executed, 200 needed, at 100 TFLOP/s; the estimate is 1.4 s.
    assert cells[8][5:] == ["100", "2", "1.4", "0.1", "0.70"]
    assert cells[9][5:] == ["100", "does not fit: 2.50 GiB", "", "", ""]
    assert "fails: Segmentation fault" in capsys.readouterr().err


def test_a_page_without_marks_is_bad_input(tmp_path, capsys):
    (tmp_path / "page.md").write_text("text")
    assert compile_verb(f"--table={tmp_path / 'page.md'}") == BAD_INPUT
    assert compile_verb(f"--table={tmp_path / 'none.md'}") == BAD_INPUT
    assert docs_table.BEGIN in capsys.readouterr().err
    assert (tmp_path / "page.md").read_text() == "text"


def test_the_documents_rows_are_of_known_families_and_topologies():
    published = [row[:3] for row in docs_table.PUBLISHED.values()]
    for family, slice_of, overrides in [*docs_table.COMPILED.values(), *published]:
        config = config_file.load_config(f"configs/pretrain.py:{family}", {})
        assert topology.parse(slice_of).devices
        for key in overrides:
            section, leaf = key.split(".")
            assert leaf in config[section]


def test_the_band_of_an_estimate_is_stated_where_it_was_compared():
    assert verdict.error_band({"error_band": compiled.ERROR_BANDS["v5p"]}) == "±20%"
    assert "unknown" in verdict.error_band({"error_band": compiled.ERROR_BANDS.get("v6e")})
