"""What a service and its workers tell each other; all of it can be pickled."""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple

from suffuse.errors import SuffuseError
from suffuse.studio.views import ModelView
from suffuse.systems.request import Request


class Task(NamedTuple):
    """A job as a worker sees it. Its pictures are in memory: a worker may be on another machine."""

    job: str
    model: str
    request: Request
    film: bool = False
    explain: bool = False
    preview: int = 0  # every so many steps; 0 = none


class Loaded(NamedTuple):
    """The names of the models that are in memory now, and what is newly known of one."""

    names: tuple[str, ...]
    view: ModelView | None = None


class Stepped(NamedTuple):
    """A step of one image of a job; `preview` is a PNG."""

    job: str
    image: int
    step: int  # done, from 1
    steps: int
    share: float  # of the whole job, in [0, 1]
    seconds_left: float | None
    preview: bytes | None


class Made(NamedTuple):
    """A finished picture: its files, and what they say."""

    job: str
    image: int
    png: bytes
    width: int
    height: int
    request: dict[str, Any]  # resolved: `fields` of Request that JSON can hold, without pictures
    infotext: str
    film: bytes | None = None
    frames: int | None = None
    explanation: bytes | None = None  # JSON


class Ended(NamedTuple):
    """The job is over; `error` is one line without paths."""

    job: str
    state: Literal["done", "failed", "cancelled"]
    error: str | None = None


class Idle(NamedTuple):
    """All tasks have ended, and the worker waits for more."""

    seconds_per_step: float | None


class Broken(NamedTuple):
    """The worker cannot work at all, and ends; a new one would fare no better soon."""

    error: str


Message = Loaded | Stepped | Made | Ended | Idle | Broken

# A quoted name with folders before it, and a bare one from the root, the home or a drive on.
_QUOTED = re.compile(r"""(['"])[^'"\n]*[/\\]([^'"/\\\n]*)\1""")
_BARE = re.compile(
    r"""(?<![\w.:/\\])(?:~|[A-Za-z]:)?[/\\](?:[^\s'":;,()]*[/\\])?([^\s'":;,()/\\]+)"""
)


def without_paths(message: str) -> str:
    """The message with every path cut down to the name at its end."""
    return _BARE.sub(r"\1", _QUOTED.sub(r"\1\2\1", message))


def one_line(error: BaseException) -> str:
    """What people are told of an error: one line, no paths, nothing of our insides."""
    if isinstance(error, SuffuseError):
        line = (str(error).splitlines() or ["it failed"])[0]
        return without_paths(line)
    if _out_of_memory(error):
        return "there is not enough memory for this picture: ask for a smaller one, or for fewer"
    return f"internal error, {type(error).__name__}: the service's log says more"


def _out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "t allocate memory" in text)
    )
