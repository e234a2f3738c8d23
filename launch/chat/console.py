"""A conversation in the terminal: commands begin with a slash, replies appear as they are drawn."""

import contextlib
import io
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import rich.console
import rich.text

from data.files import path_of
from launch.chat.conversation import Conversation
from launch.chat.engine import Ended, Engine
from launch.chat.request import CANCELLED, FAILED, LENGTH, Piece, Request
from launch.sampling.terminal import visible
from model.generation.samplers import Sampler

HELP = """\
/help          this list
/reset         forget the conversation, keep the system prompt
/save FILE     write the conversation to FILE, one line of JSON
/quit          end; so does Ctrl-D
Ctrl-C stops a reply. Other lines are messages to the model."""
PATIENCE = 1.0  # seconds for a piece of a reply, between two looks whether the engine lives


class Failed(Exception):
    """A reply that cannot be completed, and why."""


class Console:
    """Reads lines and prints replies. Every reply has a seed of its own, from `seed` on."""

    def __init__(
        self,
        engine: Engine,
        conversation: Conversation,
        sampler: Sampler,
        stops: tuple[str, ...],
        max_tokens: int,
        seed: int,
        sources: Callable[[], Sequence[str]] = tuple,
    ):
        """`sources` returns the lines to print about what was put before the last message."""
        self.engine, self.conversation, self.sampler = engine, conversation, sampler
        self.stops, self.max_tokens, self.seed = stops, max_tokens, seed
        self.sources = sources
        self.replies = 0
        self.request: Request | None = None  # the newest, while it is answered
        self.stopped = False  # by Ctrl-C
        self.console = rich.console.Console(highlight=False)
        self.commands: dict[str, Callable[[str], bool]] = {
            "/help": self._help,
            "/reset": self._reset,
            "/save": self._save,
            "/quit": lambda _: False,
        }

    def talk(self) -> None:
        """Talks until /quit, the end of the input, or Ctrl-C twice at the prompt."""
        if sys.stdin.isatty():
            import readline  # noqa: F401  gives `input` editing and history
        if isinstance(sys.stdin, io.TextIOWrapper):  # bytes that are not UTF-8 end no conversation
            sys.stdin.reconfigure(errors="surrogateescape")
        interrupted = False
        while True:
            try:
                line = input("> " if sys.stdin.isatty() else "").strip()
                interrupted = False
                if line and not self.handle(line):
                    return
            except EOFError:
                return
            except KeyboardInterrupt:
                if interrupted:
                    return
                interrupted = True
                self.note("Ctrl-D or /quit ends the conversation", begin="\n")

    def handle(self, line: str) -> bool:
        """Does what a line says; returns whether the conversation goes on."""
        if not is_utf8(line):
            self.note("the line holds bytes that are not UTF-8, so it was not read; write it again")
            return True
        if not line.startswith("/"):
            with self._interruptible():
                self._answer(line)
            return True
        name, _, rest = line.partition(" ")
        if name not in self.commands:
            self.note(f"{name} is no command; use one of {', '.join(self.commands)}")
            return True
        return self.commands[name](rest.strip())

    def note(self, text: str, begin: str = "") -> None:
        """Prints a line that is not the model's."""
        self.console.print(begin + visible(text), style="dim", markup=False, soft_wrap=True)

    def _answer(self, line: str) -> None:
        before = self.conversation.dropped
        try:
            prompt = self.conversation.ask(line)
        except ValueError as error:
            self.note(str(error))
            return
        for line in self.sources():
            self.note(line)
        if self.conversation.dropped > before:
            self.note(
                f"the context is full: the model no longer sees the oldest "
                f"{self.conversation.dropped} messages"
            )
        pieces: queue.Queue[Piece] = queue.Queue()
        room = min(self.max_tokens, self.engine.length - len(prompt))
        request = Request(
            prompt,
            room,
            self.sampler,
            pieces.put,
            seed=self.seed + self.replies,
            stops=self.stops,
            lead=self.conversation.turns.lead,
        )
        self.replies += 1
        self.request = request
        if self.stopped:  # before there was a request
            request.cancelled = True
        try:
            self.engine.submit(request)
            self.conversation.answer(self._shown(request, pieces).strip())
        except (Ended, Failed) as error:
            self.conversation.take_back()
            lost = self.engine.closed or not self.engine.thread.is_alive()
            goes_on = "/save, /quit" if lost else "send the message again"
            self.note(f"no reply: {error}; the conversation before it is kept: {goes_on}")

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C cancels the reply, wherever the program is."""
        self.request, self.stopped = None, False
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(*_: Any) -> None:
            self.stopped = True
            if self.request:
                self.engine.cancel(self.request)

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _shown(self, request: Request, pieces: "queue.Queue[Piece]") -> str:
        """The reply, printed piece by piece; Ctrl-C ends it. Raises Failed if it breaks off."""
        text, piece = "", None
        while piece is None or piece.end is None:
            piece = self._next(pieces)
            text += piece.text
            self.console.print(rich.text.Text(visible(piece.text)), end="", soft_wrap=True)
        if piece.end == FAILED:
            if text:
                self.console.print()
            raise Failed(piece.error)
        ends = {CANCELLED: "[stopped]", LENGTH: "[cut at the limit]"}
        if piece.end in ends:
            self.console.print(rich.text.Text(f" {visible(ends[piece.end])}", style="dim"), end="")
        self.console.print()
        return text

    def _next(self, pieces: "queue.Queue[Piece]") -> Piece:
        """The next piece of a reply. Raises Failed where none can come."""
        while True:
            alive = self.engine.thread.is_alive()  # before the look: its last words count
            try:
                return pieces.get(timeout=PATIENCE)
            except queue.Empty:
                if not alive:
                    raise Failed("the engine has ended") from None

    def _help(self, _: str) -> bool:
        self.note(HELP)
        return True

    def _reset(self, _: str) -> bool:
        self.conversation.reset()
        self.note("the conversation is forgotten")
        return True

    def _save(self, name: str) -> bool:
        try:
            if not name:
                raise ValueError("/save needs the name of a file")
            file = path_of(name, "/save")
            count = self.conversation.save(file)
            self.note(f"{count} messages are in {file}")
        except (ValueError, OSError) as error:
            self.note(f"not saved: {error}")
        return True


def is_utf8(text: str) -> bool:
    """Whether a text has no bytes that are not UTF-8, which Python reads as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def prompt_limit(length: int, max_tokens: int) -> int:
    """Tokens of a prompt that leave room for a reply: all of it, at most a quarter of the
    context."""
    return max(1, length - min(max_tokens, max(1, length // 4)))
