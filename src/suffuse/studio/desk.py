"""Between the workers and the store: which jobs they get, and what becomes of what they say."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping

from suffuse.errors import SuffuseError
from suffuse.studio import gallery, jobs
from suffuse.studio.counters import Counters
from suffuse.studio.disk import Files, disk_trouble
from suffuse.studio.events import Hub
from suffuse.studio.messages import Ended, Idle, Loaded, Made, Message, Stepped, Task, one_line
from suffuse.studio.queue import Turns
from suffuse.studio.requests import shown, unpack
from suffuse.studio.settings import Settings
from suffuse.studio.show import image_view, job_view
from suffuse.studio.store import FOR_EVER, Store
from suffuse.studio.views import JobView, Kind, ModelView, ProgressView, Refused, State
from suffuse.systems.metadata import data_url
from suffuse.systems.request import PICTURES

log = logging.getLogger(__name__)
BETWEEN_TRIES = 1.0  # seconds, to write a picture on a full disk


class Desk:
    """One for all lanes, which call it from their threads; they wait as long as it takes."""

    def __init__(self, settings: Settings, store: Store, files: Files, hub: Hub) -> None:
        self._settings, self._store, self._files, self._hub = settings, store, files, hub
        self._turns = Turns()
        self._choosing = threading.Lock()
        self._rows: dict[str, RowMapping] = {}  # of the jobs that workers make
        self._progress: dict[str, ProgressView] = {}
        self._cancelled: set[str] = set()  # jobs that were running then
        self._unkept: dict[str, str | None] = {}  # jobs that lack a picture, and what went wrong
        self.naming = threading.Lock()  # held where a file and the rows that name it change
        self.closing = threading.Event()
        self.models: dict[str, ModelView] = {}
        self.counted = Counters()
        self.trouble: str | None = None  # of the disk, in one sentence

    # ---- what lanes ask ------------------------------------------------------------------------

    def take(self) -> list[Task]:
        """The jobs to make now as a batch, none where none wait."""
        tasks: list[Task] = []
        with self._choosing:
            while not tasks and not self.closing.is_set():
                try:
                    rows = self._claim()
                except Refused:  # the service stops
                    return []
                if rows is None:
                    return []
                tasks = [task for row in rows if (task := self._begin(row)) is not None]
        return tasks

    def heard(self, message: Message) -> None:
        """A worker said this."""
        if isinstance(message, Stepped):
            self._stepped(message)
        elif isinstance(message, Made):
            self._keep(message)
        elif isinstance(message, Ended):
            self._ended(message)
        elif isinstance(message, Loaded) and message.view is not None:
            self.models[message.view.name] = message.view
        elif isinstance(message, Idle) and message.seconds_per_step is not None:
            self.counted.seconds_per_step = message.seconds_per_step

    def died(self, ids: Sequence[str]) -> None:
        """A worker died while making these: they get another try, but one only."""
        attempts = {id: self._rows[id]["attempts"] for id in self._wanted(ids)}
        self._store.write(lambda c: jobs.died(c, attempts), FOR_EVER)
        for id, before in attempts.items():
            if before + 1 >= jobs.MOST_ATTEMPTS:
                self.counted.ended("failed", self._rows[id]["started"])
            self._left(id)

    def put_back(self, ids: Sequence[str]) -> None:
        """These were not made, and no one is to blame."""
        wanted = self._wanted(ids)
        self._store.write(lambda c: jobs.give_back(c, wanted), FOR_EVER)
        for id in wanted:
            self._left(id)

    # ---- what the service asks -----------------------------------------------------------------

    def cancelling(self, id: str) -> None:
        """A running job is not wanted any more; its lane is told by others."""
        if id in self._rows:
            self._cancelled.add(id)

    def progress(self, id: str) -> ProgressView | None:
        return self._progress.get(id)

    def view(self, connection: Connection, row: RowMapping) -> JobView:
        """The job as it is told."""
        place = jobs.ahead(connection, row) if row["state"] == "queued" else None
        images = jobs.images_of(connection, [row["id"]])[row["id"]]
        return job_view(row, images, place, self.progress(row["id"]))

    def publish(self, id: str, patience: float = 3.0) -> None:
        """Tells who listens how the job is now; they hear nothing where the database is away for
        longer than `patience` seconds."""
        if not self._hub.heard(id):
            return
        try:
            job = self._store.read(
                lambda c: None if (row := jobs.one(c, id)) is None else self.view(c, row),
                patience,
            )
        except Refused:
            return  # the reader asks again when the database is back
        if job is not None:
            kinds: dict[State, Kind] = {"done": "done", "failed": "failed"}
            kind = "cancelled" if job.state == "cancelled" else kinds.get(job.state, "state")
            self._hub.publish(id, kind, {"job": job.model_dump(mode="json")})

    # ---- from the queue to the worker ----------------------------------------------------------

    def _claim(self) -> Sequence[RowMapping] | None:
        """The jobs whose turn it is, without those cancelled meanwhile; None where none wait."""
        waiting = self._store.read(jobs.waiting, FOR_EVER)
        ids = [job.id for job in self._turns.choose(waiting, self._settings.batch)]
        return self._store.write(lambda c: jobs.claim(c, ids), FOR_EVER) if ids else None

    def _begin(self, row: RowMapping) -> Task | None:
        """The row's task; a job that cannot begin fails."""
        self._rows[row["id"]] = row
        try:
            request = unpack(row["request"], lambda digest: self._files.path("input", digest))
        except Exception as error:
            if not isinstance(error, SuffuseError):
                log.exception("job %s cannot begin", row["id"])
            self._end(row["id"], "failed", one_line(error))
            return None
        self.publish(row["id"])
        options = {name: row[name] for name in ("film", "explain", "preview")}
        return Task(row["id"], row["model"], request, **options)

    # ---- from the worker to the store ----------------------------------------------------------

    def _stepped(self, message: Stepped) -> None:
        told = ProgressView(
            image=message.image,
            step=message.step,
            steps=message.steps,
            share=message.share,
            seconds_left=message.seconds_left,
        )
        self._progress[message.job] = told
        if self._hub.heard(message.job):
            preview = None if message.preview is None else data_url(message.preview)
            self._hub.publish(message.job, "step", told.model_dump() | {"preview": preview})

    def _keep(self, message: Made) -> None:
        """Files first, then the row that names them: what a row names is there."""
        try:
            row = self._kept(message.job, message, self._values(message))
        except Exception as error:
            log.exception("a picture of job %s cannot be kept", message.job)
            self._unkept[message.job] = one_line(error)
            return
        if row is not None:
            self.counted.images += 1
            image = image_view(row).model_dump(mode="json")
            self._hub.publish(message.job, "image", {"image": image})

    def _kept(self, job: str, message: Made, values: dict[str, Any]) -> RowMapping | None:
        """The image's row, once there is room; None where there is one, or no need of one."""
        while True:
            try:
                row = self._try_to_keep(message, values)
                self.trouble = None
                return row
            except OSError as error:
                reason = disk_trouble(error)
                if self.trouble is None:
                    log.error("a picture cannot be kept, it waits: %s", reason)
                self.trouble = f"{reason}: pictures wait for room"
            except Refused:  # the database is in trouble, and says so
                pass
            if job in self._cancelled or self.closing.wait(BETWEEN_TRIES):
                self._unkept[job] = None
                return None

    def _try_to_keep(self, message: Made, values: dict[str, Any]) -> RowMapping | None:
        """The image's row; None if there is one already. Raises OSError, Refused."""
        with self.naming:
            values["hash"] = self._files.put("image", message.png)
            if message.film is not None:
                values["film"] = self._files.put("film", message.film)
            if message.explanation is not None:
                values["explanation"] = self._files.put("explanation", message.explanation)
            row = self._store.write(lambda c: gallery.add(c, values))
            if row is None:  # made for the second time, and perhaps not the same to the last bit
                for kind, digest in self._store.read(lambda c: gallery.unnamed(c, values)):
                    self._files.remove(kind, digest)
            return row

    def _values(self, message: Made) -> dict[str, Any]:
        row = self._rows[message.job]
        request = message.request | {name: row["request"][name] for name in PICTURES}
        values = {
            "id": gallery.new_id(),
            "job": message.job,
            "index": message.image,
            "width": message.width,
            "height": message.height,
            "model": row["model"],
            "created": time.time(),
            "request": shown(request),
            "infotext": message.infotext,
            "frames": message.frames,
        }
        told = ("seed", "prompt", "negative", "sampler", "steps", "guidance")
        values |= {name: request[name] for name in told}
        return values | {"words": gallery.words_of(values)}

    def _ended(self, message: Ended) -> None:
        id = message.job
        if id not in self._unkept:
            self._end(id, message.state, message.error)
        elif (error := self._unkept[id]) is not None:
            self._end(id, "failed", error)
        elif id in self._cancelled:
            self._end(id, "cancelled")
        # Else the service stops, and the job is begun again with it.

    def _end(self, id: str, state: State, error: str | None = None) -> None:
        self._store.write(lambda c: jobs.end(c, id, state, error), FOR_EVER)
        self.counted.ended(state, self._rows[id]["started"])
        self._left(id)

    def _left(self, id: str) -> None:
        """No worker has the job any more."""
        self._rows.pop(id, None)
        self._progress.pop(id, None)
        self._cancelled.discard(id)
        self._unkept.pop(id, None)
        self.publish(id, FOR_EVER)  # who waits for the end would wait for ever without it

    def _wanted(self, ids: Sequence[str]) -> list[str]:
        """Those that nobody cancelled; the others end here."""
        for id in (id for id in ids if id in self._cancelled):
            self._end(id, "cancelled")
        return [id for id in ids if id in self._rows]
