"""What happens to jobs, told to whoever wants to hear it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from suffuse.studio.views import ENDED, Event, JobView, Kind

MOST_STEPS = 64  # that wait for a slow reader
MOST_PREVIEWS = 16 << 20  # characters of their previews together


class Subscription:
    """What happens to one job, as it happens.

    The first event is always `state` with the whole job, the last one done, failed or cancelled;
    after that `ended` is true and `get` returns None at once. Who reads too slowly misses steps,
    never anything else.
    """

    def __init__(self, hub: Hub, job: str, wake: Callable[[], None] | None) -> None:
        self._hub, self._job, self._wake = hub, job, wake
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Kind, dict[str, Any]]] = deque()
        self._begun = self._over = self._closed = False
        self._number = 0

    @property
    def ended(self) -> bool:
        """Whether nothing will come any more."""
        with self._changed:
            return self._ended()

    def get(self, timeout: float | None = None) -> Event | None:
        """The next event; None when none came within `timeout` seconds (None = for ever, 0 = do
        not wait) and after the last one."""
        until = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not (self._begun and self._waiting) and not self._ended():
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(left)
            if not self._waiting or self._closed:
                return None
            kind, data = self._waiting.popleft()
            self._number += 1
            return Event(id=self._number, kind=kind, data=data)

    def close(self) -> None:
        """Hear no more."""
        self._hub.forget(self._job, self)
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def begin(self, job: JobView) -> None:
        """What was heard so far came before or while `job` was looked at; it comes after it."""
        told = {"job": job.model_dump(mode="json")}
        with self._changed:
            self._waiting.appendleft(("state", told))
            self._begun = True
            if job.state in ENDED and not self._over:
                self._over = True
                self._waiting.append((job.state, told))  # type: ignore[arg-type]
            self._changed.notify_all()
        self._call()

    def put(self, kind: Kind, data: dict[str, Any]) -> None:
        with self._changed:
            if self._over:
                return
            self._over = kind in ENDED
            self._waiting.append((kind, data))
            if kind == "step":
                self._forget_steps()
            self._changed.notify_all()
        self._call()

    def _forget_steps(self) -> None:
        """The oldest, where there are too many or their previews too large; the last one stays."""
        sizes = [len(data.get("preview") or "") for kind, data in self._waiting if kind == "step"]
        while len(sizes) > MOST_STEPS or (len(sizes) > 1 and sum(sizes) > MOST_PREVIEWS):
            del sizes[0]
            del self._waiting[
                next(i for i, (kind, _) in enumerate(self._waiting) if kind == "step")
            ]

    def _ended(self) -> bool:
        return self._closed or (self._begun and self._over and not self._waiting)

    def _call(self) -> None:
        if self._wake is None:
            return
        try:
            self._wake()
        except RuntimeError:  # the event loop that listened is closed
            self.close()


class Hub:
    """The subscriptions of all jobs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listening: dict[str, list[Subscription]] = {}

    def subscribe(self, job: str, wake: Callable[[], None] | None = None) -> Subscription:
        """Hears from now on; its `begin` says what was before."""
        found = Subscription(self, job, wake)
        with self._lock:
            self._listening.setdefault(job, []).append(found)
        return found

    def forget(self, job: str, subscription: Subscription) -> None:
        with self._lock:
            left = [s for s in self._listening.get(job, []) if s is not subscription]
            if left:
                self._listening[job] = left
            else:
                self._listening.pop(job, None)

    def heard(self, job: str) -> bool:
        """Whether anybody listens."""
        with self._lock:
            return job in self._listening

    def publish(self, job: str, kind: Kind, data: dict[str, Any]) -> None:
        with self._lock:
            listening = list(self._listening.get(job, ()))
        for subscription in listening:
            subscription.put(kind, data)

    def close(self) -> None:
        """Ends all subscriptions."""
        with self._lock:
            listening = [s for every in self._listening.values() for s in every]
        for subscription in listening:
            subscription.close()
