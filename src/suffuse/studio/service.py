"""The service: jobs in, pictures out. HTTP and every other front talk to this alone."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

from suffuse.studio.settings import Settings
from suffuse.studio.views import Event, ImageView, JobView, ModelView, Status
from suffuse.systems.request import Request

FileKind = Literal["image", "input", "film", "explanation"]


class Subscription:
    """What happens to one job, as it happens.

    The first event is always `state` with the whole job, the last one done, failed or cancelled;
    after that `ended` is true and `get` returns None at once. Who reads too slowly misses steps,
    never anything else.
    """

    ended: bool

    def get(self, timeout: float | None = None) -> Event | None:
        """The next event; None when none came within `timeout` seconds (None = for ever, 0 = do
        not wait) and after the last one."""
        raise NotImplementedError

    def close(self) -> None:
        """Hear no more."""
        raise NotImplementedError


class Service:
    """A queue of jobs in a database, files beside it, and a worker process for each device.

    All methods may be called from any thread; they block for a database call at most.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def start(self) -> None:
        """Opens the store, puts what was running back into the queue, starts the workers.

        Raises SuffuseError where the folder or the database cannot be used.
        """
        raise NotImplementedError

    def stop(self, grace: float = 5) -> None:
        """Ends the workers, which have `grace` seconds; what was running is queued again."""
        raise NotImplementedError

    def submit(
        self,
        request: Request,
        *,
        client: str,
        model: str | None = None,
        priority: int = 0,
        film: bool = False,
        explain: bool = False,
        preview: int = 0,
        key: str | None = None,
    ) -> JobView:
        """Keeps the job and queues it; its seed is settled here.

        `preview` asks for one every so many steps. `key` makes it safe to send twice: the same one
        of the same client gives the first job again. Raises Refused where too many wait or nothing
        can be kept now, SuffuseError for an unknown model and what can be judged bad at once.
        """
        raise NotImplementedError

    def job(self, id: str) -> JobView | None:
        """The job, None if there is none."""
        raise NotImplementedError

    def jobs(
        self, *, client: str | None = None, states: Collection[str] = (), limit: int = 100
    ) -> list[JobView]:
        """The newest jobs first, of one client or all, in these states or any."""
        raise NotImplementedError

    def cancel(self, id: str) -> JobView | None:
        """A queued job ends at once, a running one at its next step, an ended one stays."""
        raise NotImplementedError

    def subscribe(self, id: str, wake: Callable[[], None] | None = None) -> Subscription | None:
        """The job's events, None if there is no such job.

        `wake` is called, from another thread, whenever there is something to `get`: with
        `loop.call_soon_threadsafe` a coroutine can wait without a thread.
        """
        raise NotImplementedError

    def images(
        self, *, query: str = "", before: str | None = None, limit: int = 50
    ) -> list[ImageView]:
        """The newest first, older than the image `before`; every word of `query` is somewhere in
        the prompt, the negative, the model, the sampler or the seed."""
        raise NotImplementedError

    def image(self, id: str) -> ImageView | None:
        """The image, None if there is none."""
        raise NotImplementedError

    def delete_image(self, id: str) -> bool:
        """Forgets it, and removes files that nothing else names; whether there was one."""
        raise NotImplementedError

    def models(self) -> list[ModelView]:
        """Every model that can be asked for, the default one first."""
        raise NotImplementedError

    def status(self) -> Status:
        """How it goes."""
        raise NotImplementedError

    def file(self, kind: FileKind, hash: str) -> Path | None:
        """The file with this SHA-256 (hex), None if there is none."""
        raise NotImplementedError
