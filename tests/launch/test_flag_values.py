"""Tests of flag values: paths, amounts, required flags, and suggestions for unknown flags."""

import pytest
from absl import flags as absl_flags

from launch import __main__ as command
from launch import flags
from launch.amounts import amount
from launch.config import config_file
from launch.errors import BadInput
from scaling.report.number_text import parse_amount
from tests.launch.fake import CONFIG


def make_flags():
    values = absl_flags.FlagValues()
    absl_flags.DEFINE_string("config", None, "the config", values)
    absl_flags.DEFINE_integer("workers", 0, "how many", lower_bound=0, flag_values=values)
    return values


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("--learning_rate=3", "did you mean --config.optimizer.learning_rate=3?"),
        ("--batch_size", "did you mean --config.eval.batch_size=VALUE or "
                         "--config.train.batch_size=VALUE?"),
        ("--seed=1", "did you mean --config.seed=1?"),
        ("--worker=3", "did you mean --workers?"),
        ("--zzz=3", "see --help; config keys are written --config.KEY=VALUE (configs/base.py "
                    "lists them)"),
    ],
)  # fmt: skip
def test_an_unknown_flag_names_the_key_of_the_config_or_the_nearest_flag(argument, hint):
    with pytest.raises(BadInput) as error:
        flags.parse(make_flags(), [argument], "doc")
    assert str(error.value) == f"unknown flag {argument.partition('=')[0]}; {hint}"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train"], "--config and --workdir are not given; add --config=configs/quickstart.py "
                    "--workdir=runs/first"),
        (["train", "--config=c.py"], "--workdir is not given; add --workdir=runs/first"),
        (["sweep", "--config=c.py", "--workdir="], "--workdir is not given"),
        (["sample"], "--run is not given; add --run=runs/first"),
    ],
)  # fmt: skip
def test_a_required_flag_is_named_with_an_example(argv, message, capsys):
    assert command.main(argv) == 2
    assert capsys.readouterr().err.startswith(f"isoflop {argv[0]}: {message}")


PATHS = ("workdir", "json", "runs", "table", "out", "prediction", "hlo")
PATHS_OF = {
    "plan": ("law",), "pilot": ("law",), "sample": ("run", "draft"),
    "convert": ("from_hf", "to", "from", "to_hf"),
}  # fmt: skip

LOCAL = {("clean", "out")}  # on this machine only, which its own tests check


def path_flags(verb):
    """The flags of a verb that take a path. In fit and predict, --law takes a name instead."""
    module = command.module_of(verb)
    paths = PATHS + PATHS_OF.get(verb, ())
    return [name for name in module.make_flags() if name in paths]


@pytest.mark.parametrize(
    ("verb", "flag"),
    [(v, flag) for v in command.VERBS for flag in path_flags(v) if (v, flag) not in LOCAL],
)
def test_a_remote_path_is_refused_before_anything_is_made(
    verb, flag, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert command.main([verb, f"--{flag}=https://host/x"]) == 2
    wanted = (
        f"isoflop {verb}: --{flag}='https://host/x' is a remote address that isoflop does not "
        "read; give gs://BUCKET/…, s3://BUCKET/… or a path on this machine\n"
    )
    assert capsys.readouterr().err == wanted and not list(tmp_path.iterdir())


def test_the_paths_of_a_config_and_of_ladders_are_checked_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command.main(["compare", "gs://b/x", "y"]) == 2
    assert "ladder='gs://b/x' names no bucket" in capsys.readouterr().err
    for key in ("checkpoint.trunk", "train.init_from"):
        with pytest.raises(ValueError, match=f"^{key}='s3://b/x' names no bucket"):
            config_file.load_config("configs/base.py", {key: "s3://b/x"})
    home = config_file.load_config("configs/base.py", {"checkpoint.trunk": "~/x"})
    assert home.checkpoint.trunk == str(tmp_path / "x")
    with pytest.raises(ValueError, match=r"^config='gs://b/x.py' is a remote address"):
        config_file.load_config("gs://b/x.py")
    (tmp_path / "c.py").write_text(CONFIG)
    assert config_file.load_config("~/c.py:big").model.width == 512
    assert [path.name for path in tmp_path.iterdir()] == ["c.py"]


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    values = make_flags()
    flags.define_path("out", None, "where", values)
    flags.parse(values, ["--out=~/x"], "doc")
    assert values.out == str(tmp_path / "x")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1M", 1e6),
        ("1.5m", 1.5e6),
        ("30k", 3e4),
        ("7B", 7e9),
        ("2T", 2e12),
        ("7e9", 7e9),
        ("12", 12),
    ],
)
def test_an_amount_may_have_a_letter(text, value):
    values = make_flags()
    flags.define_amount("params", None, "how many", values)
    flags.parse(values, [f"--params={text}"], "doc")
    assert values.params == value == parse_amount(amount(value))


@pytest.mark.parametrize("text", ["1X", "", "M", "1 M M", "MB"])
def test_another_amount_is_refused_in_one_line(text):
    values = make_flags()
    flags.define_amount("params", None, "how many", values)
    with pytest.raises(
        BadInput, match=r"^params='.*' is not a number; write 7e9, 7B, 1.5M or 30k$"
    ):
        flags.parse(values, [f"--params={text}"], "doc")


def test_help_says_that_a_config_file_is_executed(capsys):
    for argv in (["--help"], ["train", "--help"], ["tokenize", "--help"]):
        try:
            command.main(argv)
        except SystemExit as left:
            assert left.code == 0
        assert "A config FILE.py runs as Python code" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["fit", "--help"])
    assert "executed" not in capsys.readouterr().out
