"""Figures of a running service."""

from __future__ import annotations

import time

from suffuse.studio.views import State


class Counters:
    """What happened since the service started."""

    def __init__(self) -> None:
        self.images = self.done = self.failed = self.cancelled = 0
        self.seconds_per_step: float | None = None  # of the last batch
        self.seconds_per_job = 1.0  # an average in which the last ones count most
        self._last = time.monotonic()

    def ended(self, state: State, started: float | None) -> None:
        """A job has ended; it was `started` so many seconds after 1970."""
        setattr(self, state, getattr(self, state) + 1)
        now = time.monotonic()
        if started is not None:
            took = min(now - self._last, max(time.time() - started, 0.0))
            self.seconds_per_job += 0.1 * (took - self.seconds_per_job)
        self._last = now
