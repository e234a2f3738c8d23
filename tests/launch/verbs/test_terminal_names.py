"""Tests that names from a table are escaped on the terminal."""

from launch.__main__ import main


def test_a_name_that_moves_the_cursor_is_shown_escaped(tmp_path, capsys):
    rows = ["run,params,tokens,loss,holdout"]
    for n in (1e7, 3e7, 1e8, 3e8, 1e9):
        for d in (1e9, 3e9, 1e10, 3e10):
            rows.append(f"r{n:g}-{d:g},{n},{d},{1.8 + 480 * n**-0.35 + 2100 * d**-0.37},")
    rows.append("\x1b[31mred,3e9,1e11,2.2,true")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    assert main(["fit", f"--table={tmp_path / 't.csv'}", "--draws=0"]) == 0
    printed = capsys.readouterr().out
    assert "held out \\x1b[31mred" in printed and "\x1b" not in printed
