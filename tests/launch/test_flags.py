"""Tests of the command line: flags, config files, sweep files, overrides, exit codes."""

import json
import os
import sys

import pytest
from absl import flags as absl_flags

from launch import __main__ as command
from launch import flags
from launch.config import config_file
from launch.errors import BadInput, bad_input
from tests.launch.fake import CONFIG


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "c.py").write_text(CONFIG)
    return str(tmp_path / "c.py")


def test_an_edit_of_equal_length_within_a_second_counts(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert config_file.load_config(spec).seed == 0
    file, times = tmp_path / "c.py", (tmp_path / "c.py").stat()
    text = file.read_text()
    file.write_text(text.replace("seed=0", "seed=7"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert config_file.load_config(spec).seed == 7


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("seed", "3", 3),
        ("model.width", "1_024", 1024),
        ("lr", "1e-4", 1e-4),
        ("lr", "1", 1.0),
        ("lr", 2, 2.0),
        ("holdout", "true", True),
        ("holdout", "0", False),
        ("holdout", True, True),
        ("name", "12", "12"),
        ("name", "a=b", "a=b"),
        ("corpora", "x,y", ("x", "y")),
        ("corpora", "('x', 'y')", ("x", "y")),
        ("corpora", "x", ("x",)),
        ("corpora", ["x"], ("x",)),
        ("weights", "1,0.5", (1.0, 0.5)),
        ("weights", (2,), (2.0,)),
    ],
)
def test_a_value_takes_the_type_of_its_key(spec, key, text, value):
    config = config_file.load_config(spec, {key: text})
    node = config.model.width if key == "model.width" else config[key]
    assert node == value and type(node) is type(value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("modle.width", "1", "unknown key config.modle.width; did you mean config.model.width?"),
        ("model.widht", "1", "unknown key config.model.widht; did you mean config.model.width?"),
        ("width", "1", "unknown key config.width; did you mean config.model.width?"),
        ("zzz", "1", "unknown key config.zzz; configs/base.py lists every key"),
        ("seed.x", "1", "unknown key config.seed.x"),
        ("model", "1", "config.model is a section; set one of its keys: depth, width"),
        ("seed", "1.5", "config.seed=1.5 is not an int, such as 0"),
        ("seed", "true", "config.seed=true is not an int"),
        ("seed", True, "config.seed=True is not an int"),
        ("seed", "", "config.seed= is not an int"),
        ("lr", "fast", "config.lr=fast is not a float, such as 0.001"),
        ("lr", True, "config.lr=True is not a float"),
        ("holdout", "maybe", "config.holdout=maybe is not a bool"),
        ("holdout", 1, "config.holdout=1 is not a bool"),
        ("name", 3, "config.name=3 is not a str"),
        ("weights", "1,b", "config.weights=1,b is not a tuple"),
        ("weights", 3, "config.weights=3 is not a tuple"),
    ],
)
def test_an_unknown_key_or_a_wrong_type_is_refused_by_name(spec, key, value, message):
    with pytest.raises(ValueError) as error:
        config_file.load_config(spec, {key: value})
    assert str(error.value).startswith(message)


def test_the_argument_after_the_colon_reaches_get_config(spec):
    assert config_file.load_config(f"{spec}:big").model.width == 512
    assert config_file.load_config(spec).model.width == 64


def test_the_config_is_locked(spec):
    with pytest.raises((AttributeError, KeyError)):
        config_file.load_config(spec).model.unheard_of = 1


@pytest.mark.parametrize(
    ("name", "near"), [("configs/bse.py", "base"), ("configs/base", "base"), ("configs", r"\w+")]
)
def test_a_missing_config_file_names_the_nearest(name, near):
    with pytest.raises(FileNotFoundError, match=rf"configs/{near}\.py"):
        config_file.load_config(name)


def test_a_config_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_file.load_config("configs/base.py", {"seed": "5"}).seed == 5


def test_a_file_without_get_config_is_refused(tmp_path):
    (tmp_path / "c.py").write_text("x = 1")
    with pytest.raises(ValueError, match="no get_config"):
        config_file.load_config(str(tmp_path / "c.py"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_that_name", ", line 1: ModuleNotFoundError: No module named"),
        ("def get_config(:", ", line 1: SyntaxError: invalid syntax"),
        ("seed = int('x')", ", line 1: ValueError: invalid literal for int()"),
        ("def get_config():\n    return 1 / 0", ", line 2: ZeroDivisionError: division by zero"),
        *(
            (f"from configs import base\ndef get_config():\n    c = base.get_config()\n    {line}",
             ", line 4: AttributeError: there is no key 'd_modl'; did you mean 'd_model'?")
            for line in ("c.model.d_modl = 3", "c.model.d_modl")
        ),
        ("from configs import base\ndef get_config():\n    base.get_config().modle = 3",
         ", line 3: AttributeError: there is no key 'modle'; did you mean 'model'?"),
        ("from configs import base\ndef get_config():\n    return base.get_config()['sede']",
         ", line 3: KeyError: there is no key 'sede'; did you mean 'seed'?"),
    ],
)  # fmt: skip
def test_an_error_in_a_config_file_is_one_line_that_names_its_line(tmp_path, text, message):
    file = tmp_path / "c.py"
    file.write_text(text)
    with pytest.raises(ValueError) as error:
        config_file.load_config(str(file))
    shown = str(error.value)
    assert shown.startswith(f"config={file}, line ") and message in shown
    assert "\n" not in shown and len(shown) < 300


def test_an_error_that_names_its_key_already_passes_through():
    with pytest.raises(ValueError, match=r"^configs/pretrain.py:gpt5 is unknown; did you mean"):
        config_file.load_config("configs/pretrain.py:gpt5")


def make_flags():
    values = absl_flags.FlagValues()
    absl_flags.DEFINE_string("config", None, "the config", values)
    absl_flags.DEFINE_integer("workers", 0, "how many", lower_bound=0, flag_values=values)
    return values


def test_parse_divides_flags_from_overrides():
    values = make_flags()
    argv = ["--config=x.py", "--config.a.b=1=2", "--workers", "3", "--config.c="]
    assert flags.parse(values, argv, "doc") == {"a.b": "1=2", "c": ""}
    assert (values.config, values.workers) == ("x.py", 3)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--wrkers=3", "unknown flag --wrkers; did you mean --workers\\?"),
        ("--workers=-1", "workers=-1"),
        ("--workers=two", "workers=two"),
        ("--config.a", "--config.a has no value; write --config.a=VALUE"),
        ("stray", "unexpected argument stray"),
    ],
)
def test_parse_refuses_in_one_line(argument, message):
    with pytest.raises(BadInput, match=message) as error:
        flags.parse(make_flags(), [argument], "doc")
    assert "\n" not in str(error.value)


def test_a_bad_value_before_a_required_flag_is_named():
    def parse(*argv):
        values = make_flags()
        flags.define_path("out", None, "a folder", values)
        absl_flags.mark_flag_as_required("out", values)
        flags.parse(values, argv, "doc")

    for last in ("--out=x", "-out=x"):
        with pytest.raises(BadInput, match="workers=-1"):
            parse("--workers=-1", last)
    with pytest.raises(BadInput, match="workers=-1"):
        parse("--workers=-1", "--out", "x")
    for argv in (["--workers=1"], ["--out="]):
        with pytest.raises(BadInput, match="--out is not given; add --out="):
            parse(*argv)


def test_help_lists_every_flag_with_its_default(capsys):
    with pytest.raises(SystemExit) as left:
        flags.parse(make_flags(), ["--help"], "What it is.")
    shown = capsys.readouterr().out
    assert left.value.code == 0 and shown.startswith("What it is.\n")
    assert "--workers=…" in shown and "(default: 0)" in shown and "--config.KEY=VALUE" in shown


def test_help_keeps_the_order_of_the_flags_marks_required_ones_and_wraps_lines():
    values = absl_flags.FlagValues()
    absl_flags.DEFINE_string("workdir", None, "where to write", values)
    absl_flags.DEFINE_multi_string("fix", [], "word " * 30, flag_values=values)
    absl_flags.mark_flag_as_required("workdir", values)
    lines = flags.help_text(values, "What it is.").splitlines()[2:]
    assert lines[0] == "  --workdir=…  where to write (required)"
    assert lines[1].startswith("  --fix=…      word word") and len(lines) == 3
    assert lines[2] == " " * 15 + "word " * 12 + "word"


def verb(monkeypatch, main):
    """Makes `isoflop train` call `main`; returns a function that runs it."""
    module = type("verb", (), {"main": staticmethod(main), "make_flags": staticmethod(make_flags)})
    monkeypatch.setattr(command.importlib, "import_module", lambda _: module)
    return lambda: command.main(["train"])


def test_bad_input_is_one_line_and_exit_code_2(monkeypatch, capsys):
    def main(argv):
        with bad_input():
            raise ValueError("model.n_heads=6\n does not divide")

    assert verb(monkeypatch, main)() == 2
    assert capsys.readouterr().err == "isoflop train: model.n_heads=6 does not divide\n"


def test_a_message_writes_flags_with_dashes(monkeypatch, capsys):
    def main(argv):
        raise BadInput(
            "config=c.py, line 3: config.seed=4 is odd; use workers=2, --workers=3 or a=1"
        )

    assert verb(monkeypatch, main)() == 2
    assert capsys.readouterr().err == (
        "isoflop train: --config=c.py, line 3: config.seed=4 is odd; use --workers=2, --workers=3 "
        "or a=1\n"
    )


def test_a_bug_keeps_its_traceback(monkeypatch):
    def main(argv):
        raise ValueError("a bug: raised outside bad_input()")

    with pytest.raises(ValueError):
        verb(monkeypatch, main)()


def test_a_full_disk_is_bad_input_wherever_it_shows(monkeypatch, capsys):
    def main(argv):
        raise OSError(28, "No space left on device", "/runs/x")

    assert verb(monkeypatch, main)() == 2
    assert "no space left at /runs/x; free some" in capsys.readouterr().err

    def other(argv):
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError):
        verb(monkeypatch, other)()


def test_an_exit_code_of_a_verb_is_the_commands(monkeypatch):
    assert verb(monkeypatch, lambda argv: 42)() == 42


@pytest.mark.parametrize(
    ("argv", "code", "out", "err"),
    [
        (["swep"], 2, "", "isoflop: unknown verb 'swep'; did you mean sweep?"),
        (["qqq"], 2, "", "use one of train, sweep"),
        ([], 2, "isoflop VERB", ""),
        (["--help"], 0, "isoflop VERB", ""),
    ],
)
def test_verbs(argv, code, out, err, capsys):
    assert command.main(argv) == code
    shown = capsys.readouterr()
    assert out in shown.out and err in shown.err


def written(tmp_path, spec, **changes):
    """Writes a sweep file based on the config `spec`; keys that are None are left out."""
    content = {"config": spec, "overrides": {"lr": 0.5, "seed": "7"}, "trials": [{"seed": 1}]}
    content = {key: value for key, value in (content | changes).items() if value is not None}
    (tmp_path / "s.json").write_text(json.dumps(content))
    return str(tmp_path / "s.json")


def test_a_sweep_file_is_its_base_config_with_overrides_and_has_its_trials(tmp_path, spec):
    name = written(tmp_path, f"{spec}:big")
    config = config_file.load_config(name, {"model.depth": "3"})
    assert (config.lr, config.seed, config.model.width, config.model.depth) == (0.5, 7, 512, 3)
    assert config_file.load_module(name)[0].get_sweep(config) == [{"seed": 1}]
    assert config_file.load_config(name).model.depth == 2
    assert config_file.load_config(written(tmp_path, spec, overrides=None)).lr == 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": None}, "config is missing; name the base config: configs/FILE.py"),
        ({"config": 3}, "config is not valid; name the base config"),
        ({"config": "s.json"}, "config is not valid; name the base config"),
        ({"trials": None}, "trials is missing; write a list of one or more"),
        ({"trials": []}, "trials is not valid; write a list of one or more"),
        ({"trials": [3]}, "trials is not valid; write a list of one or more"),
        ({"trials": [{"model": {"width": 8}}]}, "trials[0].model is a section; write model.width"),
        ({"overrides": ["lr"]}, "overrides is not valid; write {"),
        ({"overrides": {"model": {"depth": 1}}}, "overrides.model is a section; write model.depth"),
        ({"override": {}}, "unknown key override; did you mean overrides?"),
        ({"doc": 3}, "doc is not valid; write text"),
        ({"config": "none.py"}, "config=none.py: there is no config file none.py"),
        ({"overrides": {"lrr": 1}}, "unknown key config.lrr; did you mean config.lr?"),
    ],
)
def test_a_wrong_sweep_file_is_refused_with_file_key_and_remedy(tmp_path, spec, changes, message):
    with pytest.raises(ValueError) as error:
        config_file.load_config(written(tmp_path, spec, **changes))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith(f"config={tmp_path / 's.json'}: ")


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_file_that_is_no_sweep_is_refused(tmp_path, text):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ValueError, match=r"s.json is not valid JSON|s.json is not a sweep; write"):
        config_file.load_config(str(tmp_path / "s.json"))


def _positional(argv):
    values = absl_flags.FlagValues()
    flags.define_path("runs", None, "a folder", values)
    flags.define_path("json", None, "a file", values)
    flags.parse(values, argv, "", positional="runs")
    return values.runs, values.json


def test_one_flag_may_be_a_bare_argument():
    assert _positional(["a/b", "--json=c"]) == ("a/b", "c")
    assert _positional(["--json", "c", "a/b"]) == ("a/b", "c")
    assert _positional(["--runs=a/b"]) == ("a/b", None)
    with pytest.raises(BadInput, match="unexpected argument d"):
        _positional(["a/b", "d"])
    with pytest.raises(BadInput, match="unexpected argument a/b"):
        _positional(["--runs=c", "a/b"])
    with pytest.raises(BadInput, match="--runs is not given; add --runs=runs/quickstart"):
        _positional([])
