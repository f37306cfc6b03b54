"""Workers on other machines: the same `Engine` in the replicas of a Ray Serve deployment.

A lane of the device `ray` talks to a `Remote` as it does to a worker process, through a pipe; that
thread gives each batch to a replica that is free and passes on what it says. What runs together is
still chosen by the service: `serve.batch` joins whatever arrives within some milliseconds, and
knows neither whose turn it is nor which requests may share a batch.

Models, LoRAs and learned words are opened by their path, so every node needs them at the same one.
"""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import logging
import os
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import Any

from suffuse.errors import SuffuseError
from suffuse.studio.messages import Broken, Ended, Idle, Message, Task, one_line
from suffuse.studio.settings import RAY, Settings
from suffuse.studio.worker import Cancel, Stop, Work

log = logging.getLogger(__name__)
_starting = threading.Lock()
_handles: dict[str, Any] = {}  # by name of the deployment


class Replica:
    """An engine at the other end. Its steps run in a thread, as Ray asks meanwhile how it is."""

    def __init__(self, settings: Settings) -> None:
        from suffuse.studio.engine import Engine

        self._thread = ThreadPoolExecutor(1)
        self._engine = Engine(settings, "auto")
        self._opened = list(self._engine.warm_up())

    def opened(self) -> list[Message]:
        """What it said when it started: all replicas say the same."""
        return self._opened

    async def run(self, tasks: list[Task]) -> AsyncIterator[Message]:
        """`Engine.run`; a cancelled call ends it at the next step."""
        messages = self._engine.run(tasks, lambda job: False)
        loop = asyncio.get_running_loop()
        try:
            while said := await loop.run_in_executor(self._thread, next, messages, None):
                yield said
        finally:
            await loop.run_in_executor(self._thread, messages.close)


def _deployed(settings: Settings) -> Any:
    """A handle on the replicas, as many as there are lanes of Ray; they are ready.

    Uses the cluster that RAY_ADDRESS names or that runs on this machine, else starts one here.
    """
    name = "suffuse-" + hashlib.sha256(str(settings.data).encode()).hexdigest()[:8]
    with _starting:
        if name not in _handles:
            _handles[name] = _deploy(settings, name)
        return _handles[name]


def _deploy(settings: Settings, name: str) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    try:
        import ray
        from ray import serve
    except ModuleNotFoundError:
        raise SuffuseError('--ray needs Ray: pip install "suffuse[ray]"') from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    serve.start(proxy_location="Disabled")
    share = {"num_gpus": 1} if ray.cluster_resources().get("GPU") else {"num_cpus": 1}
    deployment = serve.deployment(Replica).options(
        num_replicas=settings.devices.count(RAY),
        max_ongoing_requests=1,
        ray_actor_options=share,
    )
    told = settings.model_copy(update={"api_key": None, "database": None})
    handle = serve.run(deployment.bind(told), name=name, route_prefix=None)
    atexit.register(serve.delete, name)  # a cluster that goes on without us keeps no replicas
    return handle


class Remote(threading.Thread):
    """What a lane takes for a worker process. `pipe` is the lane's end."""

    pid = None

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="ray", daemon=True)
        self.exitcode: int | None = None
        self.pipe, self._pipe = connection.Pipe()
        self.sentinel, self._alive = connection.Pipe(duplex=False)  # readable when it has ended
        self._settings = settings
        self._killed = False

    def kill(self) -> None:
        """Ends at the next message."""
        self._killed = True

    def run(self) -> None:
        try:
            self._work()
            self.exitcode = 0
        except (EOFError, OSError):  # the lane is gone
            self.exitcode = 0
        except Exception as error:  # of Ray: a replica died, the cluster is gone
            log.error("Ray: %s", str(error).strip().splitlines()[-1:] or type(error).__name__)
            self.exitcode = 1
        finally:
            self._pipe.close()
            self._alive.close()

    def _work(self) -> None:
        try:
            handle = _deployed(self._settings)
        except Exception as error:
            log.exception("Ray cannot be used")
            self._pipe.send(Broken(one_line(error)))
            return
        for message in handle.opened.remote().result():
            self._pipe.send(message)
        while not isinstance(told := self._pipe.recv(), Stop):
            if isinstance(told, Work) and not self._make(handle, told.tasks):
                return

    def _make(self, handle: Any, tasks: list[Task]) -> bool:
        """One batch; whether there may be more. Messages of cancelled jobs are not passed on."""
        left = {task.job for task in tasks}
        stream = handle.options(stream=True).run.remote(tasks)
        for message in stream:
            if self._killed or not self._heard(left):
                stream.cancel()
                return False
            job = getattr(message, "job", None)
            if job is None or job in left:
                self._pipe.send(message)
            if isinstance(message, Ended):
                left.discard(message.job)
            if isinstance(message, Idle):
                break
            if not left and not isinstance(message, Ended):  # nobody wants the rest of it
                stream.cancel()
                self._pipe.send(Idle(None))
                break
        return True

    def _heard(self, left: set[str]) -> bool:
        """Takes cancelled jobs out of `left`; False when it is to stop."""
        while self._pipe.poll():
            told = self._pipe.recv()
            if isinstance(told, Stop):
                return False
            if isinstance(told, Cancel) and told.job in left:
                left.discard(told.job)
                self._pipe.send(Ended(told.job, "cancelled"))
        return True


def start(settings: Settings, device: str) -> tuple[Remote, Connection]:
    """A running `Remote`, and the lane's end of its pipe."""
    remote = Remote(settings)
    remote.start()
    return remote, remote.pipe
