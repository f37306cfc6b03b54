"""Whose turn it is: priorities, fairness between clients, and what runs as one batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Waiting(NamedTuple):
    """A queued job, as far as its turn depends on it."""

    seq: int  # order of arrival
    id: str
    client: str
    priority: int  # higher ones first
    n: int  # pictures
    batch: str | None  # equal ones may run together; None = alone


class Turns:
    """Start-time fair queueing: within a priority the client goes first who had the least so far.

    What a client had counts in pictures, from the moment it last had to wait: an idle client saves
    nothing up, so that it cannot hold up the others later, and owes nothing either.
    """

    def __init__(self) -> None:
        self._had: dict[str, float] = {}
        self._now = 0.0  # what the client had whose turn came last

    def choose(self, waiting: Iterable[Waiting], most: int) -> list[Waiting]:
        """The jobs to run now: the first in turn, and others that fit its batch of `most` pictures.

        Nothing waiting, nothing chosen; a job of more than `most` pictures runs alone.
        """
        lines = _lines(waiting)
        head = self._first(lines)
        if head is None:
            return []
        chosen = [self._take(lines, head)]
        if head.batch is None:
            return chosen
        same = _lines(job for line in lines.values() for job in line if job.batch == head.batch)
        room = most - head.n
        while room > 0 and (job := self._first(same)) is not None:
            self._pop(same, job)
            if job.n <= room:
                room -= job.n
                chosen.append(job)
                self._charge(job)
        return chosen

    def _take(self, lines: dict[str, list[Waiting]], job: Waiting) -> Waiting:
        self._pop(lines, job)
        self._now = max(self._now, self._had.get(job.client, 0.0))
        # Who had no more than a newcomer would be counted is one.
        self._had = {who: had for who, had in self._had.items() if had > self._now}
        self._charge(job)
        return job

    def _charge(self, job: Waiting) -> None:
        self._had[job.client] = max(self._now, self._had.get(job.client, 0.0)) + job.n

    def _first(self, lines: dict[str, list[Waiting]]) -> Waiting | None:
        heads = [line[-1] for line in lines.values()]
        return min(heads, key=self._rank, default=None)

    def _rank(self, job: Waiting) -> tuple[int, float, int]:
        return -job.priority, max(self._now, self._had.get(job.client, 0.0)), job.seq

    @staticmethod
    def _pop(lines: dict[str, list[Waiting]], job: Waiting) -> None:
        lines[job.client].pop()
        if not lines[job.client]:
            del lines[job.client]


def _lines(waiting: Iterable[Waiting]) -> dict[str, list[Waiting]]:
    """Each client's jobs, its next one last."""
    lines: dict[str, list[Waiting]] = defaultdict(list)
    for job in waiting:
        lines[job.client].append(job)
    for line in lines.values():
        line.sort(key=lambda job: (job.priority, -job.seq))
    return dict(lines)


def places(waiting: Sequence[Waiting]) -> dict[str, int]:
    """How many jobs stand before each, by priority and age: what to tell people, as turns between
    clients depend on who comes next."""
    order = sorted(waiting, key=lambda job: (-job.priority, job.seq))
    return {job.id: i for i, job in enumerate(order)}
