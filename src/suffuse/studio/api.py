"""The studio's own API: jobs, their events, pictures, models."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from fastapi import Request as HTTPRequest
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.responses import Response, StreamingResponse

import suffuse
from suffuse.diffusion.sampler_names import NAMES
from suffuse.studio.asked import LISTS, Asked, parse, parse_form, request_of
from suffuse.studio.guard import client_of
from suffuse.studio.inputs import decoding
from suffuse.studio.problems import Problem
from suffuse.studio.service import FileKind, Service
from suffuse.studio.settings import Limits, Settings
from suffuse.studio.views import Event, ImageView, JobView, ModelView, State
from suffuse.studio.waiting import events, no_job
from suffuse.systems.request import GRIDS, PICTURES

_ID = re.compile(r"[0-9a-f]{32}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FOREVER = {"cache-control": "private, max-age=31536000, immutable"}


class Wrong(BaseModel):
    """What went wrong, in one sentence."""

    message: str
    field: str | None = None


class Refusal(BaseModel):
    error: Wrong


class Jobs(BaseModel):
    jobs: list[JobView]


class Gallery(BaseModel):
    images: list[ImageView]
    next: str | None  # `before` of the next page


class Models(BaseModel):
    models: list[ModelView]


class Sampler(BaseModel):
    name: str
    title: str


class Options(BaseModel):
    version: str
    samplers: list[Sampler]
    grids: list[str]
    limits: Limits


_BODIES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/JobRequest"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "description": "files `image` and `mask`; the other fields as JSON in "
                    "`request`, or each as a field of the form",
                    "properties": {
                        "request": {"type": "string", "contentMediaType": "application/json"},
                        "image": {"type": "string", "format": "binary"},
                        "mask": {"type": "string", "format": "binary"},
                    },
                }
            },
        },
    }
}


def router(service: Service, settings: Settings) -> APIRouter:
    """The routes under `/api`."""
    routes = APIRouter(prefix="/api", responses={"4XX": {"model": Refusal}})
    _jobs(routes, service, settings)
    _gallery(routes, service)
    _choices(routes, service, settings)
    return routes


def _jobs(routes: APIRouter, service: Service, settings: Settings) -> None:
    @routes.post("/jobs", status_code=202, tags=["jobs"], openapi_extra=_BODIES)
    async def submit(
        http: HTTPRequest,
        response: Response,
        idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
    ) -> JobView:
        """Queue a job. With an `Idempotency-Key` it is safe to send twice."""
        asked, files = await _read(http, settings.limits.body)

        run = decoding if files or asked.image or asked.mask else run_in_threadpool
        request = await run(request_of, asked, files, settings)
        job = await run_in_threadpool(
            service.submit,
            request,
            client=client_of(http),
            key=idempotency_key,
            **asked.settings(),
        )
        response.headers["location"] = f"/api/jobs/{job.id}"
        return job

    @routes.get("/jobs", tags=["jobs"])
    def jobs(
        http: HTTPRequest,
        state: Annotated[list[State], Query()] = [],  # noqa: B006
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Jobs:
        """The caller's own, the newest first."""
        return Jobs(jobs=service.jobs(client=client_of(http), states=state, limit=limit))

    @routes.get("/jobs/{id}", tags=["jobs"])
    def job(id: str) -> JobView:
        """How a job is doing."""
        return _there(service.job(_hex(id)))

    @routes.get(
        "/jobs/{id}/events",
        tags=["jobs"],
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}},
    )
    async def job_events(id: str) -> StreamingResponse:
        """What happens to a job, as server-sent events; first of all, `state` with all there is."""
        if await run_in_threadpool(service.job, _hex(id)) is None:
            raise no_job()
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(
            _stream(service, id), media_type="text/event-stream", headers=headers
        )

    @routes.delete("/jobs/{id}", tags=["jobs"])
    def cancel(id: str) -> JobView:
        """End a job: a queued one at once, a running one at its next step."""
        return _there(service.cancel(_hex(id)))


def _gallery(routes: APIRouter, service: Service) -> None:
    @routes.get("/images", tags=["images"])
    def images(
        query: Annotated[str, Query(max_length=500, pattern=r"^[^\x00]*$")] = "",
        before: Annotated[str | None, Query(pattern=f"^{_ID.pattern}$")] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> Gallery:
        """Finished pictures, the newest first; `before` is what `next` of the last page said."""
        found = service.images(query=query, before=before, limit=limit + 1)
        more = found[limit - 1].id if len(found) > limit else None
        return Gallery(images=found[:limit], next=more)

    @routes.get("/images/{id}.png", tags=["images"], response_class=Response)
    def picture(id: str) -> Response:
        """The picture."""
        return _file(service, "image", _image(service, id).hash, "image/png")

    @routes.get("/images/{id}/film.png", tags=["images"], response_class=Response)
    def film(id: str) -> Response:
        """The estimates of the picture at all steps, in one row."""
        return _file(service, "film", _image(service, id).film_hash, "image/png")

    @routes.get("/images/{id}/explanation.json", tags=["images"], response_class=Response)
    def explanation(id: str) -> Response:
        """What was recorded while it was made."""
        kept = _image(service, id).explanation_hash
        return _file(service, "explanation", kept, "application/json")

    @routes.get("/images/{id}", tags=["images"])
    def image(id: str) -> ImageView:
        """What is known of a picture."""
        return _image(service, id)

    @routes.delete("/images/{id}", status_code=204, tags=["images"])
    def delete(id: str) -> None:
        """Delete a picture."""
        if not service.delete_image(_hex(id, "image")):
            raise _nothing("image")

    @routes.get("/inputs/{sha256}.png", tags=["images"], response_class=Response)
    def given(sha256: str) -> Response:
        """A picture that a job started from."""
        known = sha256 if _SHA256.fullmatch(sha256) else None
        return _file(service, "input", known, "image/png")


def _choices(routes: APIRouter, service: Service, settings: Settings) -> None:
    @routes.get("/models", tags=["choices"])
    def models() -> Models:
        """What can be asked to draw, the usual one first."""
        return Models(models=service.models())

    @routes.get("/options", tags=["choices"])
    def options() -> Options:
        """Samplers, grids and limits."""
        samplers = [Sampler(name=name, title=other.title) for name, other in NAMES.items()]
        return Options(
            version=suffuse.__version__,
            samplers=samplers,
            grids=list(GRIDS),
            limits=settings.limits,
        )


async def _read(http: HTTPRequest, most: int) -> tuple[Asked, dict[str, bytes]]:
    """The job in a body of `most` bytes, and pictures that came as files."""
    kind = http.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind == "application/json":
        return parse(await http.body()), {}
    if kind != "multipart/form-data":
        raise Problem("send the job as application/json or multipart/form-data", status=415)
    fields: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    async with http.form(max_files=len(PICTURES), max_fields=200, max_part_size=most) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                if name not in PICTURES or name in files:
                    raise Problem("files are taken as image and as mask, one each", field=name)
                files[name] = await value.read()
            elif name in LISTS:
                fields.setdefault(name, []).append(value)
            elif name in fields:
                raise Problem(f"{name} is there twice", field=name)
            else:
                fields[name] = value
    if "request" not in fields:
        return parse_form(fields), files
    if len(fields) > 1:
        raise Problem("give the fields in request, or each as its own, not both", field="request")
    return parse(fields["request"].encode()), files


async def _stream(service: Service, job: str) -> AsyncIterator[str]:
    """Server-sent events; a comment where nothing happens for a while."""
    async with aclosing(events(service, job)) as heard:
        async for event in heard:
            yield ": still there\n\n" if event is None else _sse(event)


def _sse(event: Event) -> str:
    data = json.dumps(event.data, ensure_ascii=False)
    return f"id: {event.id}\nevent: {event.kind}\ndata: {data}\n\n"


def _hex(id: str, what: str = "job") -> str:
    if not _ID.fullmatch(id):
        raise _nothing(what)
    return id


def _there(job: JobView | None) -> JobView:
    if job is None:
        raise no_job()
    return job


def _image(service: Service, id: str) -> ImageView:
    found = service.image(_hex(id, "image"))
    if found is None:
        raise _nothing("image")
    return found


def _file(service: Service, kind: FileKind, hash: str | None, media: str) -> Response:
    """A file by its content's hash, which says that it never changes."""
    path = None if hash is None else service.file(kind, hash)
    try:
        body = None if path is None else path.read_bytes()
    except FileNotFoundError:  # deleted a moment ago
        body = None
    if body is None:
        raise _nothing(kind)
    return Response(body, media_type=media, headers=_FOREVER)


def _nothing(what: str) -> Problem:
    return Problem(f"there is no such {what}", status=404)
