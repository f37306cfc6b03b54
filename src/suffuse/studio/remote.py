"""Workers on other machines: the same `Engine`, in actors of Ray.

A lane of the device `ray` has a worker process as every other lane, which computes nothing: it
keeps one actor, wherever the cluster has room, hands it batches and passes on what it says. It is
the lane that starts another one when either of them dies.

Neither Ray Serve nor its `serve.batch` has a part in this. Serve chooses replicas for requests that
come over HTTP and joins those that arrive within some milliseconds; here a queue that outlives
crashes already knows whose turn it is and which requests may share a batch.

Models, LoRAs and learned words are opened by their path, so every node needs them at the same one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from suffuse.errors import SuffuseError
from suffuse.studio.messages import Broken, Message, Task, one_line
from suffuse.studio.settings import Settings
from suffuse.studio.worker import Cancel, Stop, Work


class Replica:
    """The actor: an engine at the other end. `cancel` is called while `run` runs."""

    def __init__(self, settings: Settings) -> None:
        from suffuse.studio.engine import Engine

        self._engine = Engine(settings, "auto")
        self._cancelled: set[str] = set()

    def warm_up(self) -> list[Message]:
        return list(self._engine.warm_up())

    def run(self, tasks: list[Task]) -> Iterator[Message]:
        yield from self._engine.run(tasks, self._cancelled.__contains__)
        self._cancelled.difference_update(task.job for task in tasks)

    def cancel(self, job: str) -> None:
        self._cancelled.add(job)


def work(pipe: Connection, settings: Settings) -> None:
    """Works until it is told to stop. Raises SystemExit where the actor or the cluster dies."""
    try:
        replica = _replica(settings)
    except Exception as error:
        pipe.send(Broken(one_line(error)))
        return
    from ray.exceptions import RayError

    try:
        _follow(pipe, replica)
    except RayError as error:
        raise SystemExit(f"Ray: {str(error).strip().splitlines()[0]}") from None


def _follow(pipe: Connection, replica: Any) -> None:
    import ray

    for message in ray.get(replica.warm_up.remote()):
        pipe.send(message)
    while not isinstance(told := pipe.recv(), Stop):
        if not isinstance(told, Work):
            continue  # the end of a job that is over already
        for said in replica.run.options(num_returns="streaming").remote(told.tasks):
            pipe.send(ray.get(said))
            while pipe.poll():
                if isinstance(meanwhile := pipe.recv(), Stop):
                    return
                if isinstance(meanwhile, Cancel):
                    replica.cancel.remote(meanwhile.job)


def _replica(settings: Settings) -> Any:
    """An actor with a graphics card of its own, or one processor where the cluster has none."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    try:
        import ray
    except ModuleNotFoundError:
        raise SuffuseError('the device ray needs Ray: pip install "suffuse[ray]"') from None
    try:
        ray.init(address="auto", log_to_driver=False)  # or the one that RAY_ADDRESS names
    except ConnectionError:
        raise SuffuseError("no Ray cluster is running: `ray start --head` begins one") from None
    share = {"num_gpus": 1} if ray.cluster_resources().get("GPU") else {"num_cpus": 1}
    told = settings.model_copy(update={"api_key": None, "database": None})
    return ray.remote(Replica).options(max_concurrency=2, **share).remote(told)
