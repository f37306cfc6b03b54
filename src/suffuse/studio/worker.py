"""A worker process: an `Engine` at the end of a pipe."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import NamedTuple

from suffuse.errors import SuffuseError
from suffuse.studio import logs
from suffuse.studio.messages import Broken, Message, Task, one_line
from suffuse.studio.settings import RAY, Settings

# Whoever asks and looks is answered before a picture goes on: they share the processor's cores.
NICE = 10


class Work(NamedTuple):
    """Jobs to make as a batch; the worker is idle when it gets them."""

    tasks: list[Task]


class Cancel(NamedTuple):
    """A job that is not wanted any more."""

    job: str


class Stop(NamedTuple):
    """End at the next step."""


class _Stopped(BaseException):
    """Not an Exception, which would look like the fault of the job that is being made."""


def main(pipe: Connection, settings: Settings, device: str, threads: int) -> None:
    """Works until it is told to stop, or until the service is no more."""
    # Ctrl-C, and what ends a whole group of processes, is for the service, which then says Stop.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_service, daemon=True).start()
    # Read when torch is imported. HTTP and the browser use the same cores, where a thread that
    # spins long keeps another from finishing what it waits for; one that sleeps at once is woken
    # too late for the short products of small models. Measured: benchmarks/README.md.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    os.nice(NICE)
    logs.configure()
    with contextlib.suppress(EOFError, OSError, _Stopped):
        if device == RAY:
            from suffuse.studio import remote

            remote.work(pipe, settings)
        else:
            _Worker(pipe).work(settings, device, threads)
    logging.shutdown()
    os._exit(0)  # taking torch down in good order would take seconds, for nothing


def _end_with_the_service() -> None:
    """Ends this process with its parent, however that ended and whatever is being computed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


class _Worker:
    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._cancelled: set[str] = set()

    def work(self, settings: Settings, device: str, threads: int) -> None:
        import torch

        from suffuse.studio.engine import Engine

        if threads:
            torch.set_num_threads(threads)
        try:
            engine = Engine(settings, device)
        except SuffuseError as error:
            self._say(Broken(one_line(error)))
            return
        for message in engine.warm_up():
            self._say(message)
        while True:
            told = self._pipe.recv()
            if isinstance(told, Stop):
                return
            if isinstance(told, Work):
                self._cancelled.clear()
                for message in engine.run(told.tasks, self._is_cancelled):
                    self._say(message)

    def _is_cancelled(self, job: str) -> bool:
        """Asked between two steps. Raises _Stopped where the worker is to end."""
        while self._pipe.poll():
            told = self._pipe.recv()
            if isinstance(told, Stop):
                raise _Stopped
            if isinstance(told, Cancel):
                self._cancelled.add(told.job)
        return job in self._cancelled

    def _say(self, message: Message) -> None:
        self._pipe.send(message)
