"""Shows that a slow command is alive: a line on stderr that counts the seconds."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

QUIET, EVERY = 2.0, 0.5  # on a terminal: seconds until the line appears, and between updates
SELDOM = 30.0  # elsewhere: seconds between lines


@contextlib.contextmanager
def alive(what: str) -> Iterator[Callable[[str], None]]:
    """Shows `what` and the elapsed seconds while entered: on a terminal in one line that is erased
    at the end, elsewhere in a line now and then; nothing for a short time.

    Yields a function that sets a detail to show beside it, such as "3 of 8".
    """
    terminal, began, detail = sys.stderr.isatty(), time.monotonic(), [""]
    ended = threading.Event()

    def show() -> None:
        pause = QUIET if terminal else SELDOM
        while not ended.wait(pause):
            text = " ".join(filter(None, (what, detail[0])))
            line = f"{text} … {time.monotonic() - began:.0f} s"
            print(f"\r{line}\033[K" if terminal else line, end="" if terminal else "\n",
                  file=sys.stderr, flush=True)  # fmt: skip
            pause = EVERY if terminal else SELDOM
        if terminal and pause == EVERY:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield lambda text: detail.__setitem__(0, text)
    finally:
        ended.set()
        thread.join()


def bar(share: float, width: int = 20) -> str:
    """A progress bar for the detail of `alive`: '━━━━━━━━────────────  40%'."""
    full = round(max(0.0, min(1.0, share)) * width)
    return f"{'━' * full}{'─' * (width - full)} {share:4.0%}"
