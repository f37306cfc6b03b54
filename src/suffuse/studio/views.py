"""What the service tells about jobs, images and models; their JSON is the API's.

Nothing here is a path: files are named by their hash, and by the address that serves them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from suffuse.errors import SuffuseError

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: frozenset[State] = frozenset(("done", "failed", "cancelled"))
Kind = Literal["state", "step", "image", "done", "failed", "cancelled"]


class Refused(SuffuseError):
    """The service cannot take a job now; it may `retry_after` seconds later.

    `status` is HTTP's: 429 where too much waits already, 503 where the job cannot be kept.
    """

    def __init__(self, message: str, retry_after: float, status: int = 429) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.status = status


class View(BaseModel):
    model_config = ConfigDict(frozen=True)


class FilmView(View):
    """The estimates of the picture at `frames` steps, side by side in one row."""

    url: str
    frames: int


class ImageView(View):
    """A finished picture."""

    id: str  # 32 hex digits that sort by age
    job: str
    index: int  # which of the job's n
    seed: int
    width: int  # pixels
    height: int
    hash: str  # SHA-256 of the PNG file, hex
    url: str
    prompt: str
    negative: str
    model: str
    sampler: str | None
    steps: int | None
    guidance: float | None
    created: datetime  # UTC
    request: dict[str, Any]  # resolved, with this picture's own seed and n = 1
    infotext: str  # A1111's `parameters`
    film: FilmView | None = None
    explanation: str | None = None  # its address
    # For `Service.file`; never sent.
    film_hash: str | None = Field(None, exclude=True)
    explanation_hash: str | None = Field(None, exclude=True)


class ProgressView(View):
    """Where a running job is."""

    image: int  # from 0; of pictures that are made together, the last one heard of
    step: int  # done, 1 to steps
    steps: int
    share: float  # of the whole job, in [0, 1]
    seconds_left: float | None  # of the whole job


class JobView(View):
    id: str  # 32 hex digits
    state: State
    model: str
    request: dict[str, Any]  # Request's fields; pictures as {"sha256", "url"}, files by name
    priority: int
    client: str
    film: bool
    explain: bool
    preview: int  # every so many steps; 0 = none
    created: datetime  # UTC
    started: datetime | None
    finished: datetime | None
    attempts: int  # times that a worker died while making it
    place: int | None  # jobs ahead, while queued
    progress: ProgressView | None
    images: list[ImageView]
    error: str | None  # one line, without paths


class Event(View):
    """Something that happened to a job: one server-sent event.

    `data` is ready for JSON: {"job": JobView} of state, done, failed and cancelled; {"image":
    ImageView} of image; {"image", "step", "steps", "share", "seconds_left", "preview"} of step.
    """

    id: int  # rises within one subscription
    kind: Kind
    data: dict[str, Any]


class DefaultsView(View):
    """What a model takes where the request says nothing."""

    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    width: int | None = None  # pixels
    height: int | None = None


class ModelView(View):
    """A model that can be asked for. All but the name is known once a worker has opened it."""

    name: str
    default: bool  # used where a request names no model
    known: bool = False  # whether what follows is
    loaded: bool = False  # now, in some worker
    kind: Literal["text", "pixels", "upscaler"] | None = None
    hash: str | None = None  # SHA-256 of the checkpoint, hex
    factor: int | None = None  # sides must be multiples of it; of an upscaler, how much it enlarges
    takes: list[Literal["prompt", "classes", "boxes", "image", "mask"]] = []
    classes: list[str] = []  # that a prompt may name
    defaults: DefaultsView = DefaultsView()


class WorkerView(View):
    device: str
    pid: int | None  # of its process
    alive: bool
    ready: bool  # has opened the default model, or tried to
    busy: bool
    restarts: int  # since the service started
    models: list[str]  # loaded


class Status(View):
    """Figures for health checks and metrics; counts are since the service started."""

    ready: bool  # every worker is alive and the database answers
    queued: int
    running: int
    workers: list[WorkerView]
    restarts: int
    images: int  # made
    done: int  # jobs
    failed: int
    cancelled: int
    seconds_per_step: float | None  # of the last batch
    uptime: float  # seconds
    trouble: str | None  # what hinders the service now, in one sentence
