"""Batches prepared ahead by worker processes, in exact order.

A batch depends on its step alone, so the sampler is the sequence of steps, and workers share
nothing.
"""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from suffuse.data.stream import Telling
from suffuse.errors import SuffuseError

T = TypeVar("T")
GRACE = 10  # seconds that a worker outlives SIGTERM


def batches(
    make: Callable[[int], T],
    start: int,
    stop: int,
    workers: int = 0,
    *,
    stream: object | None = None,
    ahead: int = 2,
) -> Iterator[T]:
    """`make(start)` to `make(stop - 1)`, in order, whatever the number of worker processes.

    make: must depend on the step alone. Workers are forked where the system forks (Linux), so a
        closure will do; elsewhere `make` is pickled
    workers: 0 makes each batch when it is asked for, in this process
    stream: what `make` takes its pictures from; broken pictures and the position that a worker
        found are then known here too, as of the batch that was last handed out
    ahead: how many batches each worker keeps ready

    Raises SuffuseError when `make` does, and when a worker dies.
    """
    if workers < 0:
        raise SuffuseError(f"workers must be 0 or more, not {workers}")
    if not workers or start >= stop:
        yield from map(make, range(start, stop))
        return
    telling = stream if isinstance(stream, Telling) else None
    arriving = _start(_Made(make, telling), range(start, stop), workers, ahead)
    try:
        for _ in range(start, stop):
            made, told, failure = _next(arriving)
            if failure is not None:
                raise SuffuseError(failure)
            if telling is not None:
                telling.hear(told)
            yield made
    finally:
        # torch does this when the iterator is collected. An exception's traceback puts that off,
        # and then the pipes may be gone that tell workers to end.
        arriving._shutdown_workers()


class _Made(Generic[T]):
    """What workers index by step. `make` and `stream` travel together, so they stay connected."""

    def __init__(self, make: Callable[[int], T], stream: Telling | None) -> None:
        self.make, self.stream = make, stream

    def __getitem__(self, step: int) -> tuple[T | None, dict[str, Any], str | None]:
        # torch would print the worker's traceback into the message of the exception.
        try:
            made = self.make(step)
        except SuffuseError as error:
            return None, {}, str(error)
        return made, {} if self.stream is None else self.stream.tell(), None


def _start(made: _Made[T], steps: range, workers: int, ahead: int) -> Any:
    import torch
    from torch.utils.data import DataLoader

    options: dict[str, Any] = {
        "sampler": steps,
        "batch_size": None,
        "num_workers": min(workers, len(steps)),
        "collate_fn": _as_it_is,
        "worker_init_fn": _deaf,
        "prefetch_factor": ahead,
        "generator": torch.Generator(),  # else starting workers would draw from the global one
    }
    here = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGCHLD) if here and hasattr(signal, "SIGCHLD") else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # more workers than cores were asked for
        # torch asks for its own base class and uses no part of it.
        arriving = iter(DataLoader(made, **options))  # type: ignore[arg-type]
    if before is not None:
        # torch reports the death of a worker by raising from a signal handler, in the middle of
        # whatever runs: of a training step, or of writing a checkpoint. We learn of it when the
        # next batch is asked for.
        signal.signal(signal.SIGCHLD, before)
    return arriving


def _next(arriving: Any) -> Any:
    try:
        return next(arriving)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise SuffuseError(
            "a process that prepares data died: out of memory, or of shared memory (/dev/shm), or "
            "killed; try fewer workers"
        ) from error


def _as_it_is(made: Any) -> Any:
    return made


def _deaf(worker: int) -> None:
    """Ctrl-C and SIGTERM reach the whole group, but the trainer decides, and may need its data to
    end well. It ends its workers itself; should it not, they end after `GRACE` seconds."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE))
