"""Tests the README and the docs.

Links resolve, commands use verbs, flags, keys and files that exist, and the README stays short.
"""

import re
import shlex
from pathlib import Path

import pytest

from launch.__main__ import VERBS, module_of
from launch.config import config_file

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
WORDS = 700  # limit for the README, not counting code
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    .*$", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:^ {4}|`|srun )isoflop ([a-z]\w*)([^`\n]*)", re.MULTILINE)
FLAG = re.compile(r"(?<![\w-])--([a-z]\w*)")
READ = ("config", "runs", "run", "draft", "table", "from", "from_hf", "config.train.init_from",
        "config.checkpoint.trunk")  # fmt: skip
WRITTEN = ("workdir", "out", "json", "to", "to_hf", "to_gguf", "curve")
MADE = re.compile(r"^ {4}(?:cat|python) .*> (\S+)", re.MULTILINE)
# Its commands use entries that the reader adds first; tests/test_extending.py tests them.
ADDED = ROOT / "docs" / "extending.md"


def joined(page: str) -> str:
    """The page with continued command lines joined."""
    return re.sub(r"\\\n\s*", "", page)


def headings(page: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", FENCED.sub("", page), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {title.replace(" ", "-") for title in plain}


def broken_links(page: str, folder: Path) -> list[str]:
    """Relative links whose file or heading does not exist."""
    broken = []
    for link in LINK.findall(INDENTED.sub("", FENCED.sub("", page))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = folder / name if name else None
        text = (
            page
            if target is None
            else target.read_text()
            if target.suffix == ".md" and target.is_file()
            else ""
        )
        exists = target is None or target.exists()
        if not exists or (anchor and anchor not in headings(text)):
            broken.append(link)
    return broken


def wrong_commands(page: str) -> list[str]:
    """Unknown verbs, and flags that their verb does not have."""
    wrong = []
    for verb, rest in COMMAND.findall(joined(page)):
        if verb not in VERBS:
            wrong.append(verb)
            continue
        own, _, passed = rest.partition(" -- ")  # what follows is for the sweep of a cluster
        for name, given in ((verb, own), ("sweep", passed)):
            known = set(module_of(name).make_flags())
            known |= {f"no{flag}" for flag in known} | {"help"}
            wrong += [f"{name} --{flag}" for flag in FLAG.findall(given) if flag not in known]
    return wrong


def missing_inputs(page: str) -> list[str]:
    """Files and folders that a command reads before the page creates them."""
    text, missing = joined(page), []
    made = {"runs/quickstart", "runs/history", "runs/assistant"}  # by make
    for found in re.finditer(r"^ {4}(?:isoflop .*|(?:cat|python) .*> .*)$", text, re.MULTILINE):
        line = found.group().strip()
        if not line.startswith("isoflop "):
            made.add(MADE.match(found.group())[1])
            continue
        given = arguments(line)
        read = [value for name, value in given if name in READ]
        if re.match("isoflop (plan|pilot) ", line):  # elsewhere --law is the name of a law
            read += [value for name, value in given if name == "law"]
        read += [word for name, word in given if name == "" and line.startswith("isoflop compare")]
        corpora = [v.removeprefix("corrupted:") for n, v in given if n == "config.data.corpora"]
        read += [v for v in corpora if v.endswith((".txt", "/"))]
        for path in (value.partition(".py:")[0] + ".py" * (".py:" in value) for value in read):
            if not (ROOT / path).exists() and not any(
                path == known or path.startswith(known + "/") for known in made
            ):
                missing.append(path)
        made |= {value.rstrip("/") for name, value in given if name in WRITTEN}
    return missing


def arguments(line: str) -> list[tuple[str, str]]:
    """The (flag, value) pairs of a command. The flag of a positional argument is ""."""
    words = shlex.split(line.replace("[", " ").replace("]", " "), comments=True)[2:]
    pairs = (word.lstrip("-").partition("=") if word.startswith("-") else ("", "", word)
             for word in words)  # fmt: skip
    return [(name, value) for name, _, value in pairs]


def refused_keys(page: str) -> list[str]:
    """Errors from loading the shipped configs with the overrides of the page's commands."""
    refused = []
    for line in re.findall(r"^ {4}(isoflop .*--config=configs/.*)$", joined(page), re.MULTILINE):
        given = dict(arguments(line))
        keys = {
            name.removeprefix("config."): value.replace("gs://", "")  # a bucket would be asked
            for name, value in given.items()
            if name.startswith("config.") and name != "config.train.init_from"
        }
        try:
            config_file.load_config(given["config"], keys)
        except FileNotFoundError:
            continue  # the weights of a run, which `missing_inputs` looks for
        except ValueError as error:
            refused.append(f"{line}: {error}")
    return refused


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_and_commands_of_a_page(path):
    page = path.read_text()
    assert broken_links(page, path.parent) == []
    assert wrong_commands(page) == []
    if path != ADDED:
        assert missing_inputs(page) == []
        assert refused_keys(page) == []


def test_what_is_broken_is_found():
    page = "[a](nowhere.md) [b](README.md#no-such-part) [c](README.md#where-to-go-next)"
    assert broken_links(page, ROOT) == ["nowhere.md", "README.md#no-such-part"]
    page = (
        "    isoflop fit --tabel=x.csv \\\n      --holdout=largest\n`isoflop fot` and `isoflop fit`"
    )
    assert wrong_commands(page) == ["fit --tabel", "fot"]
    page = "    isoflop sample --run=runs/a\n    isoflop train --workdir=runs/a\n"
    assert (
        missing_inputs(page) == ["runs/a"]
        and missing_inputs("\n".join(reversed(page.splitlines()))) == []
    )
    page = "    isoflop train --config=configs/base.py --config.model.d_modle=3"
    assert len(refused_keys(page)) == 1 and refused_keys(page.replace("dle", "del")) == []


def test_the_index_lists_every_page():
    index = (ROOT / "docs" / "README.md").read_text()
    linked = set(LINK.findall(index))
    assert {path.name for path in PAGES if path.parent.name == "docs"} - linked == {"README.md"}


def test_the_readme_is_short_and_has_the_two_commands():
    page = (ROOT / "README.md").read_text()
    text = INDENTED.sub("", FENCED.sub("", page))
    assert 400 < len(re.findall(r"\S*\w\S*", text)) <= WORDS
    assert re.findall(r"^    (make \w+)", page, re.MULTILINE) == ["make ladder", "make test"]
