"""Text from files made safe to show on a terminal, in a message, in a chart or on a page."""

import unicodedata

# Control, format, surrogate, private and unassigned characters, line and paragraph separators.
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
JOINERS = "\u200c\u200d"  # Persian words and combined emoji need them; they move nothing else


def printable(text: object) -> str:
    """The text with every character that is invisible, moves the cursor or turns the direction of
    writing as an escape: ESC becomes the four characters \\x1b.
    """
    return "".join(
        ch.encode("unicode_escape").decode()
        if unicodedata.category(ch) in HIDDEN and ch not in JOINERS
        else ch
        for ch in str(text)
    )
