"""What the commands share in talking to people: lines, colours, the progress bar, Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress


class Stopped(Exception):
    """Ctrl-C, with a line that says what was kept."""


_settings = {"debug": False}


def _set_debug(value: bool) -> bool:
    _settings["debug"] = _settings["debug"] or value
    return value


Debug = Annotated[
    bool,
    typer.Option(
        "--debug", help="Show the traceback of an error.", callback=_set_debug, is_eager=True
    ),
]


def tolerate_any_text() -> None:
    """A terminal that cannot show a letter gets its number, not a crash."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a stream put there by a caller may be a plain one
            stream.reconfigure(errors="backslashreplace")


def say(line: str) -> None:
    """A line on standard output. A reader that has gone away is no reason to stop working."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(line: str) -> None:
    """A line on standard error, plain."""
    _write(sys.stderr, line, "")


def warn(line: str) -> None:
    """A line on standard error, yellow."""
    _write(sys.stderr, line, "33")


def fail(message: str, error: BaseException) -> None:
    """One red line on standard error, below the traceback if --debug was given."""
    if _settings["debug"]:
        import traceback

        traceback.print_exception(error)
    _write(sys.stderr, f"suffuse: {message}", "31")


def one_line(text: str) -> str:
    """Without line breaks and what else a terminal obeys, whatever a name holds."""
    return "".join(c if c.isprintable() else " " for c in text)


def _write(stream: TextIO, line: str, colour: str) -> None:
    line = one_line(line)
    if colour and stream.isatty() and not os.environ.get("NO_COLOR"):
        line = f"\x1b[{colour}m{line}\x1b[0m"
    try:
        print(line, file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the block is done: a finished picture is written in any case."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:  # now what it would have done, which is nothing for a job in the background
        signal.raise_signal(signal.SIGINT)


class Bar:
    """A progress bar with the time left, on standard error where that is a terminal."""

    def __init__(self) -> None:
        self._bar: RichProgress | None = None

    def __enter__(self) -> Bar:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
            from rich.progress import TimeRemainingColumn as Left

            parts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Left())
            console = Console(stderr=True)
            # Redirected output would be wrapped at the terminal's width, paths included.
            self._bar = Progress(
                *parts,
                console=console,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._bar.start()
            self._task = self._bar.add_task("loading", total=None)
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, text: str, done: int, total: int) -> None:
        """Show `done` of `total` steps."""
        if self._bar is None:
            return
        if self._bar.tasks[0].total is None:  # the time left counts from here, without loading
            self._bar.reset(self._task, total=total, completed=0)
        self._bar.update(self._task, description=text, completed=done, total=total)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bar off the screen while lines are written."""
        if self._bar is not None:
            self._bar.stop()
        yield
        if self._bar is not None:
            self._bar.start()
