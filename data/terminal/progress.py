"""Shows on stderr how far the reading of text is."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_of(title: str, total: int | None, shown: bool) -> Iterator[Callable[[int], None]]:
    """Yields `advance(bytes)`: a bar on a terminal, otherwise a line on stderr every 10 s."""
    if not shown:
        yield lambda n: None
        return
    if sys.stderr.isatty():
        from rich import progress
        from rich.console import Console

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=total)
            yield lambda n: bar.advance(task, n)
        return
    done, next_line = 0, time.monotonic() + 10

    def advance(n: int) -> None:
        nonlocal done, next_line
        done += n
        if time.monotonic() >= next_line:
            next_line += 10
            print(f"{title}: {done / 1e6:.0f} MB", file=sys.stderr, flush=True)

    yield advance


@contextlib.contextmanager
def still_at(title: str, shown: bool) -> Iterator[None]:
    """Says on stderr what a program is at that cannot say how far it is: on a terminal with the
    elapsed time, elsewhere in one line."""
    if not shown:
        yield
        return
    if not sys.stderr.isatty():
        print(title, file=sys.stderr, flush=True)
        yield
        return
    from rich import progress
    from rich.console import Console

    columns = progress.SpinnerColumn(), progress.TextColumn(title), progress.TimeElapsedColumn()
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        bar.add_task(title, total=None)
        yield
