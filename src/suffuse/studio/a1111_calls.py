"""The requests that A1111 clients are waiting for, and how far each is.

The web UI makes one picture after another for whoever asks, so its `progress`, `interrupt` and
`skip` name nothing. Here they mean the calling client's own requests, and no one else's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass
class Call:
    """One txt2img or img2img that has not been answered yet: `n_iter` jobs, one after another."""

    client: str
    kind: str
    jobs: list[str] = field(default_factory=list)  # ids, in their order
    at: int = 0  # the one that is waited for
    begun: datetime = field(default_factory=datetime.now)
    running: float | None = None  # monotonic seconds when its first step was heard of
    step: dict[str, Any] | None = None  # the last one, as `Event.data` has it
    preview: str | None = None  # base64 of a PNG
    skipped: bool = False
    interrupted: bool = False

    @property
    def share(self) -> float:
        """How much of it is done, in [0, 1]."""
        within = self.step["share"] if self.step else 0.0
        return min(1.0, (self.at + within) / max(1, len(self.jobs)))

    @property
    def seconds_left(self) -> float:
        """As the web UI guesses it: it goes on as fast as so far. 0 = unknown."""
        if self.running is None or not self.share:
            return 0.0
        return (time.monotonic() - self.running) * (1 - self.share) / self.share

    def heard(self, step: dict[str, Any]) -> None:
        """Notes a step of the job that is waited for."""
        self.running = self.running or time.monotonic()
        self.step = step
        if step["preview"]:
            self.preview = step["preview"].partition(",")[2]

    def next(self) -> None:
        """The job that is waited for has ended."""
        self.at, self.step = self.at + 1, None

    def state(self) -> dict[str, Any]:
        """The web UI's `state`."""
        return {
            "skipped": self.skipped,
            "interrupted": self.interrupted,
            "stopping_generation": False,
            "job": self.kind,
            "job_count": len(self.jobs),
            "job_timestamp": self.begun.strftime("%Y%m%d%H%M%S"),
            "job_no": self.at,
            "sampling_step": self.step["step"] if self.step else 0,
            "sampling_steps": self.step["steps"] if self.step else 0,
        }


IDLE = Call("", "", begun=datetime(1970, 1, 1))  # what is told of a client that waits for nothing


class Calls:
    """All of them. Used by one thread only, that of the event loop."""

    def __init__(self) -> None:
        self._calls: list[Call] = []

    @contextmanager
    def open(self, client: str, kind: str) -> Iterator[Call]:
        """A new one, known until the block ends."""
        call = Call(client, kind)
        self._calls.append(call)
        try:
            yield call
        finally:
            self._calls.remove(call)

    def of(self, client: str) -> list[Call]:
        """This client's, the oldest first."""
        return [call for call in self._calls if call.client == client]
