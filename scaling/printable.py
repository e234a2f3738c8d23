"""Makes text from files safe to show on a terminal, in a message, in a chart or on a page."""

import unicodedata

# Control, format, surrogate, private and unassigned characters, line and paragraph separators.
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
JOINERS = "\u200c\u200d"  # Persian words and combined emoji need them; they are harmless elsewhere


def printable(text: object) -> str:
    """The text with escapes for all characters that are invisible, move the cursor or reverse the
    writing direction: ESC becomes the four characters \\x1b.
    """
    return "".join(
        ch.encode("unicode_escape").decode()
        if unicodedata.category(ch) in HIDDEN and ch not in JOINERS
        else ch
        for ch in str(text)
    )


def csv_cell(value: object) -> object:
    """A value for a CSV file. Text that a spreadsheet takes for a formula gets an apostrophe."""
    text = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{value}" if text else value
