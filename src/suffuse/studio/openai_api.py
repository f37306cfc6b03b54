"""OpenAI's image API, as its own client speaks it: /v1/images/… and /v1/models.

docs/studio.md lists what each field does here. A request is one job of the service; a client that
goes away leaves its job to be finished, and finds the pictures in the gallery.
"""

from __future__ import annotations

import time
from typing import Any, TypeVar

from fastapi import APIRouter
from fastapi import Request as HTTP
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.responses import JSONResponse, Response, StreamingResponse

from suffuse.studio.ended import made
from suffuse.studio.guard import client_of
from suffuse.studio.inputs import decoding, picture
from suffuse.studio.openai_answer import Drawing, stream
from suffuse.studio.openai_asked import (
    Asked,
    AskedEdit,
    AskedGeneration,
    AskedVariation,
    Start,
    edit_start,
    model_named,
    preview_every,
    request_of,
)
from suffuse.studio.problems import Problem
from suffuse.studio.service import Service
from suffuse.studio.views import ModelView
from suffuse.studio.waiting import finished

AskedForm = TypeVar("AskedForm", bound=AskedEdit)


def router(service: Service) -> APIRouter:
    """The routes of the API over this service."""
    api, began = APIRouter(prefix="/v1", tags=["OpenAI"]), int(time.time())

    def model(found: ModelView) -> dict[str, Any]:
        # When it was made is not known; since when it can be asked for is.
        return {"id": found.name, "object": "model", "created": began, "owned_by": "suffuse"}

    @api.get("/models")
    def models() -> dict[str, Any]:
        """Every model that can be asked for."""
        return {"object": "list", "data": [model(found) for found in service.models()]}

    @api.get("/models/{name:path}")
    def one_model(name: str) -> dict[str, Any]:
        """One model; 404 if there is none of that name."""
        return model(model_named(name, service.models()))

    @api.post("/images/generations")
    async def generations(asked: AskedGeneration, http: HTTP) -> Response:
        """Pictures for a prompt."""
        return await _drawn(service, http, asked, None, "image_generation")

    @api.post("/images/edits", openapi_extra=_form(AskedEdit, "image", "mask"))
    async def edits(http: HTTP) -> Response:
        """A picture drawn anew where it, or its mask, is transparent."""
        return await _from_form(service, http, AskedEdit)

    @api.post("/images/variations", openapi_extra=_form(AskedVariation, "image"))
    async def variations(http: HTTP) -> Response:
        """Pictures that begin with another one."""
        return await _from_form(service, http, AskedVariation)

    return api


# ---- forms --------------------------------------------------------------------------------------


def _form(model: type[Asked], *files: str) -> dict[str, Any]:
    """What OpenAPI says of a form whose text fields are those of `model`."""
    schema = model.model_json_schema()
    pictures = {name: {"type": "string", "format": "binary"} for name in files}
    schema["properties"] = {**pictures, **schema["properties"]}
    schema["required"] = ["image", *schema.get("required", [])]
    content = {"multipart/form-data": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


async def _from_form(service: Service, http: HTTP, kind: type[AskedForm]) -> Response:
    async with http.form() as form:
        asked = _read(form, kind)
        files = {name: await _file(form, name) for name in ("image", "mask")}
    start = await decoding(_start, service, asked, files)
    return await _drawn(service, http, asked, start, "image_edit")


def _read(form: FormData, kind: type[AskedForm]) -> AskedForm:
    """The text fields. Raises Problem."""
    fields = {name: value for name, value in form.items() if name not in _FILES}
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(map(str, first["loc"]))
        raise Problem(f"{name}: {first['msg']}", field=name) from None


_FILES = ("image", "image[]", "mask")


async def _file(form: FormData, name: str) -> bytes | None:
    """The bytes of the one file of that name. Raises Problem where there are several."""
    found = [*form.getlist(name), *form.getlist(f"{name}[]")]
    if len(found) > 1:
        raise Problem(f"{name}: {len(found)} pictures, one is taken a request", field=name)
    if not found:
        return None
    if not isinstance(found[0], UploadFile):
        raise Problem(f"{name} must be a file", field=name)
    return await found[0].read()


def _start(service: Service, asked: AskedEdit, files: dict[str, bytes | None]) -> Start:
    if files["image"] is None:
        raise Problem("image is missing: send a picture", field="image")
    limits = service.settings.limits
    image = picture(files["image"], "image", limits)
    mask = None if files["mask"] is None else picture(files["mask"], "mask", limits)
    return edit_start(asked, image, mask, limits)


# ---- drawing ------------------------------------------------------------------------------------


async def _drawn(
    service: Service, http: HTTP, asked: Asked, start: Start | None, name: str
) -> Response:
    """Submits the job and answers when it has ended, or at once with its events."""
    model = model_named(asked.model, await run_in_threadpool(service.models))
    request = await run_in_threadpool(request_of, asked, start)
    job = await run_in_threadpool(
        service.submit,
        request,
        client=client_of(http),
        model=model.name,
        preview=preview_every(asked, model),
    )
    drawing = Drawing(service, asked, request, model.name, name, str(http.base_url))
    if asked.stream:
        head = {"Cache-Control": "no-store"}
        return StreamingResponse(stream(drawing, job.id), 200, head, "text/event-stream")
    ended = made(await finished(service, http, job.id))
    return JSONResponse(await run_in_threadpool(drawing.whole, ended))
