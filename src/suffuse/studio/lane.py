"""A worker process as the service sees it: a thread that starts it, feeds it, hears it, and starts
another one when it dies."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import connection
from typing import Any

from suffuse.studio.desk import Desk
from suffuse.studio.messages import Broken, Ended, Idle, Loaded, Message, Task
from suffuse.studio.settings import Settings
from suffuse.studio.views import WorkerView
from suffuse.studio.worker import Cancel, Stop, Work, main

log = logging.getLogger(__name__)
# Spawned, not forked: a fork would copy the locks that other threads of the service hold.
_CONTEXT = multiprocessing.get_context("spawn")
MOST_LATER = 64  # messages that wait for disk and database; then the worker waits too
LONGEST_PAUSE = 30.0  # seconds between two starts of a worker that does not get ready


class Lane(threading.Thread):
    """Runs from `start` to `stop`."""

    def __init__(self, desk: Desk, settings: Settings, device: str) -> None:
        super().__init__(name=f"lane {device}", daemon=True)
        self._desk, self._settings, self._device = desk, settings, device
        self._ears, self._bell = connection.Pipe(duplex=False)
        self._ring = threading.Lock()
        self._process: Any = None
        self._pipe: Any = None
        self._making: list[str] = []
        self._cancelled: set[str] = set()
        self._loaded: tuple[str, ...] = ()
        self._alive = self._ready = self._idle = self._stopping = False
        self._restarts = self._failures = 0  # failures: in a row, without getting ready
        self.trouble: str | None = None  # why there is no worker, in one sentence
        # What the desk does takes disk and database: meanwhile the worker goes on with the next.
        self._later: queue.Queue[Callable[[], None] | None] = queue.Queue(MOST_LATER)
        self._clerk = threading.Thread(target=self._work_off, name=f"clerk {device}", daemon=True)

    # ---- from any thread -----------------------------------------------------------------------

    def wake(self) -> None:
        """There may be something to do."""
        with self._ring:
            if not self._ears.poll():
                self._bell.send(None)

    def cancel(self, job: str) -> None:
        """Ends the job at its next step, if it is one of this lane's."""
        with self._ring:
            self._cancelled.add(job)
        self.wake()

    def stop(self) -> None:
        """Ends the worker at its next step, then this thread."""
        self._stopping = True
        if not self._ready:  # still importing: it makes nothing yet, and would not hear
            self.kill()
        self.wake()

    def kill(self) -> None:
        """Ends the worker at once."""
        if self._process is not None:
            self._process.kill()

    def view(self) -> WorkerView:
        return WorkerView(
            device=self._device,
            pid=self._process.pid if self._alive else None,
            alive=self._alive,
            ready=self._ready,
            busy=bool(self._making),
            restarts=self._restarts,
            models=list(self._loaded),
        )

    # ---- the thread ----------------------------------------------------------------------------

    def run(self) -> None:
        self._clerk.start()
        self._open()
        while not self._stopping:
            try:
                self._turn()
            except Exception:  # a fault of ours must not leave the device without a lane
                log.exception("the lane of %s stumbled", self._device)
                time.sleep(1)
        self._close()
        self._later.put(None)
        self._clerk.join()

    def _work_off(self) -> None:
        """What has been heard becomes known, in the order in which it was said."""
        while (what := self._later.get()) is not None:
            try:
                what()
            except Exception:  # a fault of ours, or the service stops without its database
                log.exception("the lane of %s stumbled", self._device)

    def _tell(self, what: Callable[[list[str]], None]) -> None:
        """`desk.died` or `desk.put_back` of what the worker had; then there is more to do."""
        jobs, self._making = self._making, []
        if jobs:
            self._later.put(lambda: what(jobs))
            self._later.put(self.wake)

    def _turn(self) -> None:
        """Waits for something to happen, and does what follows from it."""
        if self._idle and not self._stopping:
            self._give(self._desk.take())
        heard = connection.wait([self._pipe, self._process.sentinel, self._ears])
        if self._ears in heard:
            self._ears.recv()
            self._pass_cancels()
        if self._pipe in heard:
            try:
                self._hear(self._pipe.recv())
                return  # it may have said more before it died
            except (EOFError, OSError):
                pass
            self._replace()
        elif self._process.sentinel in heard:
            self._replace()

    def _give(self, tasks: list[Task]) -> None:
        if not tasks:
            return
        self._making, self._idle = [task.job for task in tasks], False
        with self._ring:
            self._cancelled &= set(self._making)
        try:
            self._pipe.send(Work(tasks))
        except OSError:  # it died while it had nothing to do
            self._tell(self._desk.put_back)

    def _pass_cancels(self) -> None:
        with self._ring:
            cancelled = self._cancelled & set(self._making)
        for job in cancelled:
            try:
                self._pipe.send(Cancel(job))
            except OSError:
                return  # it is dead, which is about to be noticed

    def _hear(self, message: Message) -> None:
        if isinstance(message, Idle):
            self._ready = self._idle = True
            self._failures, self.trouble = 0, None
        elif isinstance(message, Broken):
            self.trouble = message.error
        elif isinstance(message, Loaded):
            self._loaded = message.names
        elif isinstance(message, Ended) and message.job in self._making:
            self._making.remove(message.job)
        self._later.put(partial(self._desk.heard, message))

    def _replace(self) -> None:
        """The worker is dead: another one takes its place, after a pause if it never got ready."""
        self._process.join()
        self._alive = False
        if not self._stopping:
            log.error("the worker of %s died, exit code %s", self._device, self._process.exitcode)
        self._tell(self._desk.died)
        if not self._ready:
            self._failures += 1
            self.trouble = self.trouble or "the worker ends before it is ready: see the log"
            self._pause(pause_after(self._failures))
        self._restarts += 1
        self._pipe.close()
        if not self._stopping:
            self._open()

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            if self._ears.poll(left):
                self._ears.recv()

    def _open(self) -> None:
        self._ready = self._idle = False
        self._loaded = ()
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=main,
            args=(theirs, self._settings, self._device, threads_of(self._settings, self._device)),
            name=f"suffuse worker {self._device}",
            daemon=True,
        )
        self._process.start()
        self._alive = True
        theirs.close()  # or its end of the pipe would never look closed

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self._pipe.send(Stop())
        while self._process.is_alive() and not self._pipe.closed:
            # What it still says is heard, as a picture may be among it.
            if connection.wait([self._pipe, self._process.sentinel]) == [self._process.sentinel]:
                break
            try:
                self._hear(self._pipe.recv())
            except (EOFError, OSError):
                break
        self._process.join()
        self._alive = False
        self._pipe.close()
        self._tell(self._desk.put_back)


def pause_after(failures: int) -> float:
    """Seconds to the next start, after so many in a row that came to nothing."""
    return min(2.0 ** min(failures, 10), LONGEST_PAUSE)  # 2.0**1024 is no float any more


def threads_of(settings: Settings, device: str) -> int:
    """How many threads a worker computes with; 0 = torch decides. Workers share the processor."""
    if device not in ("auto", "cpu"):
        return 0
    alike = sum(other in ("auto", "cpu") for other in settings.devices)
    return max(1, (os.cpu_count() or 1) // alike) if alike > 1 else 0
