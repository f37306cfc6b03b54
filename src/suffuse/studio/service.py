"""The service: jobs in, pictures out. HTTP and every other front talk to this alone."""

from __future__ import annotations

import logging
import secrets
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from suffuse.errors import SuffuseError
from suffuse.studio import gallery, jobs
from suffuse.studio.desk import Desk
from suffuse.studio.disk import FileKind, Files, disk_trouble
from suffuse.studio.events import Hub, Subscription
from suffuse.studio.lane import Lane
from suffuse.studio.queue import places
from suffuse.studio.requests import a_name, batch_key, check_limits, check_model, pack
from suffuse.studio.settings import Settings
from suffuse.studio.show import image_view, job_view, status_view
from suffuse.studio.store import Store
from suffuse.studio.views import ImageView, JobView, ModelView, Refused, Status
from suffuse.systems.checks import whole
from suffuse.systems.request import Request

__all__ = ["FileKind", "Service", "Subscription"]

log = logging.getLogger(__name__)
HIGHEST = 100  # priority, and -100 the lowest
_NEW = {"state": "queued", "started": None, "finished": None, "attempts": 0, "error": None}


class Service:
    """A queue of jobs in a database, files beside it, and a worker process for each device.

    All methods may be called from any thread; they block for a database call at most. While the
    database is away they raise Refused (503) after some seconds. Raises SuffuseError for a database
    address that makes no sense.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._files = Files(settings.data)
        self._hub = Hub()
        self._store = Store(settings)
        self._desk = Desk(settings, self._store, self._files, self._hub)
        self._lanes: list[Lane] = []
        self._begun = time.monotonic()

    def start(self) -> None:
        """Opens the store, puts what was running back into the queue, starts the workers.

        Raises SuffuseError where the folder or the database cannot be used.
        """
        self._files.open()
        try:
            self._store.open()
            back = self._store.write(jobs.recover)
        except SuffuseError:
            self._files.close()
            raise
        if back:
            log.warning("%d jobs were running when the service ended: they wait again", back)
        self._begun = time.monotonic()
        self._lanes = [Lane(self._desk, self.settings, device) for device in self.settings.devices]
        for lane in self._lanes:
            lane.start()

    def stop(self, grace: float = 5) -> None:
        """Ends the workers, which have `grace` seconds; what was running is queued again."""
        self._desk.closing.set()
        for lane in self._lanes:
            lane.stop()
        until = time.monotonic() + grace
        for lane in self._lanes:
            lane.join(max(0.0, until - time.monotonic()))
        for lane in self._lanes:
            lane.kill()
        self._store.give_up()
        for lane in self._lanes:
            lane.join(grace)
        self._hub.close()
        self._store.close()
        self._files.close()

    # ---- jobs ----------------------------------------------------------------------------------

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
        name = self.settings.default_model if model is None else model
        about = self._judged(request, name)
        if explain and request.n != 1:
            raise SuffuseError(f"one picture is explained at a time: n must be 1, not {request.n}")
        if explain and request.best_of is not None:
            raise SuffuseError("one picture is explained, none is chosen: leave best_of out")
        if request.seed is None:  # settled now, so that a second try makes the same pictures
            request = replace(request, seed=secrets.randbelow(2**32))
        values: dict[str, Any] = {
            "id": uuid.uuid4().hex,
            "client": a_name("client", client),
            "key": None if key is None else a_name("the idempotency key", key),
            "priority": whole("priority", priority, -HIGHEST, False, most=HIGHEST),
            "model": name,
            "n": request.drawn,
            "film": bool(film),
            "explain": bool(explain),
            "preview": whole("preview", preview, 0, False, most=self.settings.limits.steps),
            "batch": None if explain else batch_key(request, about),
            "created": time.time(),
            **_NEW,
        }
        if request.image is not None:  # pictures of a job that is refused would stay for ever
            self._store.read(lambda c: self._place(c, values))
        try:
            values["request"] = pack(request, lambda content: self._files.put("input", content))
        except OSError as error:
            raise Refused(f"nothing can be kept now: {disk_trouble(error)}", 5, 503) from error
        return self._add(values)

    def _place(self, connection: Connection, values: dict[str, Any]) -> JobView | int:
        """The job that was sent before with this key, else how many stand before a new one."""
        if values["key"] is not None:
            found = jobs.keyed(connection, values["client"], values["key"])
            if found is not None:
                return self._desk.view(connection, found)
        patience = min(max(self._desk.counted.seconds_per_job, 1.0), 60.0)
        return jobs.room(connection, values, self.settings.limits, patience)

    def _add(self, values: dict[str, Any]) -> JobView:
        def add(connection: Connection) -> JobView:
            place = self._place(connection, values)
            if isinstance(place, JobView):
                return place
            jobs.add(connection, values)
            return job_view(values, [], place)

        try:
            job = self._store.write(add)
        except IntegrityError:
            # It is there: another thread was quicker with the same key, or the first run of the
            # transaction was committed, and only the answer got lost.
            job = self._store.write(lambda c: self._there(c, values))
        for lane in self._lanes:
            lane.wake()
        return job

    def _there(self, connection: Connection, values: dict[str, Any]) -> JobView:
        row = jobs.one(connection, values["id"])
        row = row or jobs.keyed(connection, values["client"], values["key"])
        assert row is not None
        return self._desk.view(connection, row)

    def _judged(self, request: Request, name: str) -> ModelView:
        """The model that is asked for. Raises SuffuseError where it or the request cannot be."""
        if name not in self.settings.models:
            known = ", ".join(self.settings.models)
            raise SuffuseError(f"there is no model {name!r}: choose one of {known}")
        about = self._desk.models.get(name) or ModelView(name=name, default=False)
        check_limits(request, self.settings.limits)
        check_model(request, about)
        request.check()
        return about

    def job(self, id: str) -> JobView | None:
        """The job, None if there is none."""

        def look(connection: Connection) -> JobView | None:
            row = jobs.one(connection, id)
            return None if row is None else self._desk.view(connection, row)

        return None if "\0" in id else self._store.read(look)

    def jobs(
        self, *, client: str | None = None, states: Collection[str] = (), limit: int = 100
    ) -> list[JobView]:
        """The newest jobs first, of one client or all, in these states or any."""

        def look(connection: Connection) -> list[JobView]:
            rows = jobs.some(connection, client, states, limit)
            images = jobs.images_of(connection, [row["id"] for row in rows])
            queued = any(row["state"] == "queued" for row in rows)
            place = places(jobs.waiting(connection)) if queued else {}
            return [
                job_view(
                    row, images[row["id"]], place.get(row["id"]), self._desk.progress(row["id"])
                )
                for row in rows
            ]

        return self._store.read(look)

    def cancel(self, id: str) -> JobView | None:
        """A queued job ends at once, a running one at its next step, an ended one stays."""
        before = self.job(id)
        if before is None or before.finished is not None:
            return before
        if self._store.write(lambda c: jobs.cancel_queued(c, id)):
            if before.state == "queued":
                self._desk.counted.ended("cancelled", None)
            self._desk.publish(id)
        else:
            self._desk.cancelling(id)
            for lane in self._lanes:
                lane.cancel(id)
        return self.job(id)

    def subscribe(self, id: str, wake: Callable[[], None] | None = None) -> Subscription | None:
        """The job's events, None if there is no such job.

        `wake` is called, from another thread, whenever there is something to `get`: with
        `loop.call_soon_threadsafe` a coroutine can wait without a thread.
        """
        found = self._hub.subscribe(id, wake)  # before looking, so that nothing is missed
        try:
            job = self.job(id)
        except BaseException:
            found.close()
            raise
        if job is None:
            found.close()
            return None
        found.begin(job)
        return found

    # ---- images --------------------------------------------------------------------------------

    def images(
        self, *, query: str = "", before: str | None = None, limit: int = 50
    ) -> list[ImageView]:
        """The newest first, older than the image `before`; every word of `query` is somewhere in
        the prompt, the negative, the model, the sampler or the seed."""
        if "\0" in query + (before or ""):
            return []
        rows = self._store.read(lambda c: gallery.some(c, query, before, limit))
        return [image_view(row) for row in rows]

    def image(self, id: str) -> ImageView | None:
        """The image, None if there is none."""
        row = None if "\0" in id else self._store.read(lambda c: gallery.one(c, id))
        return None if row is None else image_view(row)

    def delete_image(self, id: str) -> bool:
        """Forgets it, and removes files that nothing else names; whether there was one."""
        if "\0" in id:
            return False
        with self._desk.naming:
            left = self._store.write(lambda c: gallery.remove(c, id))
            for kind, digest in left or ():
                self._files.remove(kind, digest)
        return left is not None

    def file(self, kind: FileKind, hash: str) -> Path | None:
        """The file with this SHA-256 (hex), None if there is none."""
        return self._files.path(kind, hash)

    # ---- how it goes ---------------------------------------------------------------------------

    def models(self) -> list[ModelView]:
        """Every model that can be asked for, the default one first."""
        loaded = {name for lane in self._lanes for name in lane.view().models}
        first = self.settings.default_model
        names = [first, *(name for name in self.settings.models if name != first)]
        known = [self._desk.models.get(n) or ModelView(name=n, default=False) for n in names]
        return [
            view.model_copy(update={"default": view.name == first, "loaded": view.name in loaded})
            for view in known
        ]

    def status(self) -> Status:
        """How it goes."""
        workers = [lane.view() for lane in self._lanes]
        counted, trouble = self._desk.counted, [self._desk.trouble]
        try:
            queued, running = self._store.read(jobs.counts, patience=0.5)
        except Refused:
            queued = running = 0
        trouble += [self._store.trouble, *(lane.trouble for lane in self._lanes)]
        line = next((line for line in trouble if line), None)
        uptime = time.monotonic() - self._begun
        return status_view(counted, workers, queued, running, line, uptime)
