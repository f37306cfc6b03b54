"""What a worker does: jobs in, messages out. It knows no process, no queue and no database."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence

from suffuse.errors import SuffuseError
from suffuse.studio.messages import Ended, Idle, Loaded, Message, Task, one_line
from suffuse.studio.requests import check_limits
from suffuse.studio.run import Explain, Run, metadata_of
from suffuse.studio.settings import Settings
from suffuse.studio.shelf import Shelf, describe
from suffuse.systems import generate, together
from suffuse.systems.explain import most_bytes, recording
from suffuse.systems.request import Progress, Request

log = logging.getLogger(__name__)
MOST_EXPLAINED = 1 << 30  # bytes of attention that a worker keeps of one picture
Cancelled = Callable[[str], bool]  # of a job
# Of which job a step is, the step, and, where it is wanted, how the picture came about; that can
# be told once the picture is there.
Steps = Generator[tuple[int, Progress, Explain | None], None, None]


class Engine:
    """Makes pictures on one device. Raises SuffuseError where the device cannot be used."""

    def __init__(self, settings: Settings, device: str) -> None:
        self._settings = settings
        self._shelf = Shelf(settings.models, device, settings.memory)
        self._known: set[str] = set()
        self._told: tuple[str, ...] = ()
        self._pace: float | None = None  # seconds a step of the last batch

    def warm_up(self) -> Iterator[Message]:
        """Opens the default model, so that the first job finds it ready."""
        name = self._settings.default_model
        try:
            self._shelf.system(name, Request())
        except Exception as error:  # a job that asks for it is told the same
            log.warning("model %r cannot be opened: %s", name, error)
        yield from self._news(name)
        yield Idle(self._pace)

    def run(self, tasks: Sequence[Task], cancelled: Cancelled) -> Iterator[Message]:
        """Makes all of them, in as few batches as they allow. Whatever happens to one, the others
        are made; close the generator to stop."""
        groups: dict[Hashable, list[Run]] = {}
        for i, task in enumerate(tasks):
            run = self._prepared(task)
            yield from self._news(task.model)
            if isinstance(run, Ended):
                yield run
                continue
            key = None if task.explain else together.key(run.system, run.request)
            groups.setdefault(i if key is None else (id(run.system), key), []).append(run)
        for group in groups.values():
            yield from self._group(group, cancelled)
        yield Idle(self._pace)

    def _prepared(self, task: Task) -> Run | Ended:
        try:
            return self._prepare(task)
        except Exception as error:
            return Ended(task.job, "failed", _told(error, task))

    def _prepare(self, task: Task) -> Run:
        system = self._shelf.system(task.model, task.request)
        request = system.resolve(task.request)
        check_limits(request, self._settings.limits)
        if task.explain and most_bytes(system, request) > MOST_EXPLAINED:
            raise SuffuseError(
                "this is too much to explain: ask for a shorter prompt, fewer steps or a smaller "
                "picture"
            )
        source = self._settings.models[task.model]
        return Run(task, system, request, metadata_of(system, request, source))

    def _group(self, runs: list[Run], cancelled: Cancelled) -> Iterator[Message]:
        """One batch; if it fails, its jobs one by one, so that only the culprit's fails."""
        try:
            yield from self._batch(runs, cancelled)
            return
        except Exception as error:
            left = [run for run in runs if not run.over]
            if len(runs) == 1:
                yield from (run.end("failed", _told(error, run.task)) for run in left)
                return
            log.warning("a batch failed, its jobs go on one by one: %s", error)
        self._shelf.tidy()
        for run in left:
            yield from self._group([run], cancelled)

    def _batch(self, runs: list[Run], cancelled: Cancelled) -> Iterator[Message]:
        for run in runs:
            run.begin()
        begun, steps, first = time.monotonic(), 0, runs[0]
        stream = _explained(first) if first.task.explain else self._drawn(runs)
        for which, progress, explain in stream:
            run = runs[which]
            if not run.over and cancelled(run.task.job):
                yield run.end("cancelled")
            if all(run.over for run in runs):
                stream.close()
                return
            if not run.over:
                yield from run.step(progress, explain)
            steps = max(steps, progress.i + 1)
        self._pace = (time.monotonic() - begun) / max(steps, 1)

    def _drawn(self, runs: list[Run]) -> Steps:
        """All pictures of these in batches, step by step."""
        system, requests = runs[0].system, [run.request for run in runs]
        for which, progress in generate.stream(system, requests, together=self._settings.batch):
            yield which, progress, None

    def _news(self, name: str) -> Iterator[Message]:
        """Which models are loaded, where that has changed, and what a new one is like."""
        names, view, system = self._shelf.names(), None, self._shelf.find(name)
        if system is not None and name not in self._known:
            self._known.add(name)
            view = describe(system, name)
        if names != self._told or view is not None:
            self._told = names
            yield Loaded(names, view)


def _explained(run: Run) -> Steps:
    """The one picture of this, watched while it is made."""
    with recording(run.system, run.request) as watched:
        for progress in watched.steps():
            yield 0, progress, lambda: watched.explanation().to_json()


def _told(error: Exception, task: Task) -> str:
    if not isinstance(error, SuffuseError):
        log.exception("job %s failed", task.job)
    return one_line(error)
