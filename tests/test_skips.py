"""Tests tests/conftest.py: where ../shared exists, a missing file or package is a failure."""

from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
TESTS = {
    "test_file": "import pytest\ndef test_it():\n    pytest.skip('table.csv is missing')",
    "test_mark": "import pytest\n@pytest.mark.skipif(True, reason='libx is not installed')\n"
    "def test_it(): pass",
    "test_package": "import pytest\npytest.importorskip('no_such_package')\ndef test_it(): pass",
    "test_machine": "import pytest\ndef test_it():\n    pytest.skip('this machine has no /proc')",
    "test_expected": "import pytest\n@pytest.mark.xfail\ndef test_it(): assert False",
}


@pytest.fixture
def clone(pytester):
    """A checkout with one test for each kind of skip."""
    tests = pytester.mkdir("clone") / "tests"
    tests.mkdir()
    (tests / "conftest.py").write_text(CONFTEST.read_text())
    for name, text in TESTS.items():
        (tests / f"{name}.py").write_text(text)
    return tests


def run(pytester, clone):
    # Hypothesis's pytest plugin imports the whole package, which takes seconds.
    options = ("--import-mode=importlib", "-p", "no:hypothesispytest")
    return pytester.runpytest_inprocess(*options, clone)


def test_a_clean_clone_skips(pytester, clone):
    assert run(pytester, clone).parseoutcomes() == {"skipped": 4, "xfailed": 1}


def test_beside_the_reference_data_only_the_machine_may_be_a_reason(pytester, clone):
    pytester.mkdir("shared")
    result = run(pytester, clone)  # pytest stops because a module cannot be imported
    assert result.parseoutcomes() == {"errors": 1}
    result.stdout.fnmatch_lines(["*skipped although *shared exists: could not import*"])
    (clone / "test_package.py").unlink()
    result = run(pytester, clone)
    assert result.parseoutcomes() == {"failed": 1, "errors": 1, "skipped": 1, "xfailed": 1}
    result.stdout.fnmatch_lines_random(["*: table.csv is missing", "*: libx is not installed"])
