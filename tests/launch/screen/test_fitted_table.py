"""Tests of tables that fit a width."""

import rich.console

from launch.screen.fitted_table import Column, aligned, brief, cell, fitted, left_out

COLUMNS = (
    Column("name", ["a", "[b]語"], number=False),
    Column("wide", ["123456789", "1"], 2),
    Column("small", ["1", "22"], 1),
    Column("last", ["x", "y"]),
)


def test_columns_are_left_out_in_order_until_the_table_fits():
    for width, kept in ((40, "name wide small last"), (29, "name wide small last"),
                        (28, "name small last"), (18, "name small last"), (17, "name last"),
                        (1, "name last")):  # fmt: skip
        lines, left = aligned(COLUMNS, width)
        assert lines[0].split() == kept.split(), width
        assert set(left) == {"name", "wide", "small", "last"} - set(kept.split())
        assert max(map(len, lines)) <= max(width, 11)
    # A narrow column is kept where a wider one before it does not fit.
    assert aligned((Column("w" * 9, [], 1), Column("n", [], 1)), 5)[1] == ["w" * 9]


def test_both_kinds_of_table_are_the_same_text():
    console = rich.console.Console(width=60, color_system=None)
    with console.capture() as caught:
        console.print(fitted(COLUMNS, 60)[0])
    shown = [line.rstrip() for line in caught.get().splitlines()]
    assert shown == aligned(COLUMNS, 60)[0]
    assert shown[0] == "name        wide  small  last" and shown[2].startswith("[b]語")


def test_columns_that_are_left_out_are_named_up_to_a_limit():
    assert left_out(["a", "b"]) == "no room for a, b; a wider terminal shows more"
    assert left_out(list("abcdefghij")).startswith("no room for a, b, c, d, e, f, g, h and 2 more;")


def test_a_setting_is_brief():
    assert [brief(value) for value in (0.00031622776, 0.95, 0.9995, 3, None, True)] == [
        *("3.16e-4", "0.95", "0.9995", "3", "None", "True")
    ]
    assert brief(1 / 3) == "0.333" and brief([1, "x\x1b"]) == '[1, "x\\u001b"]'
    assert cell("y" * 30) == "y" * 23 + "…" and cell(None) == "—"
