"""The studio's HTTP application: every route, behind the guard."""

from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request as HTTPRequest
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

import suffuse
from suffuse.errors import SuffuseError
from suffuse.studio import a1111, api, openai_api, reference
from suffuse.studio.asked import Asked, named
from suffuse.studio.door import Door
from suffuse.studio.guard import Bounded, Guarded
from suffuse.studio.metrics import TYPE, Metrics
from suffuse.studio.observing import Observed
from suffuse.studio.problems import answer
from suffuse.studio.service import Service
from suffuse.studio.settings import Settings
from suffuse.studio.views import Refused


def create_app(service: Service, settings: Settings, door: Door | None = None) -> FastAPI:
    """The application over a service that has been started, or will be before it is asked.

    `door` says who is let in; unless given, callers of this machine, with `settings.api_key`.
    """
    door = door or Door(api_key=settings.api_key)
    metrics = Metrics(service)
    app = FastAPI(
        title="Suffuse studio",
        version=suffuse.__version__,
        docs_url=None,  # FastAPI's pages load scripts from other hosts
        redoc_url=None,
        openapi_url=None,  # its own route would make the document in the event loop
        redirect_slashes=False,
    )
    # The last added is the outermost.
    app.add_middleware(Bounded, most=settings.limits.body)
    app.add_middleware(Guarded, door=door)
    if door.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=door.origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "X-Client"],
        )
    app.add_middleware(Observed, metrics=metrics)
    _answer_problems(app)
    _add_figures(app, service, metrics)
    app.include_router(api.router(service, settings))
    app.include_router(openai_api.router(service))
    app.include_router(a1111.router(service))
    _describe(app)
    app.mount("/", Page(directory=Path(str(files("suffuse.studio") / "page")), html=True))
    return app


class Page(StaticFiles):
    """The page's files, asked for anew each time: after an update none is an old one."""

    async def get_response(self, path: str, scope: Any) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        return response


def _answer_problems(app: FastAPI) -> None:
    """Everything that can go wrong, in one sentence and the shape of its route."""

    @app.exception_handler(SuffuseError)
    def problem(http: HTTPRequest, error: SuffuseError) -> Response:
        if isinstance(error, Refused):
            headers = {"retry-after": str(max(1, math.ceil(error.retry_after)))}
            return answer(http.url.path, error.status, str(error), headers=headers)
        found = named(error)
        return answer(http.url.path, found.status, str(found), found.field, found.headers)

    @app.exception_handler(RequestValidationError)
    def invalid(http: HTTPRequest, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return answer(http.url.path, 400, "the body is not valid JSON")
        where = [str(part) for part in first["loc"][1:]]
        field = where[0] if where else None
        said = first["msg"][:1].lower() + first["msg"][1:]
        status = 422 if http.url.path.startswith("/sdapi/") else 400  # as the web UI has it
        return answer(http.url.path, status, f"{field}: {said}" if field else said, field)

    @app.exception_handler(HTTPException)
    def refused(http: HTTPRequest, error: HTTPException) -> Response:
        said = _SAID.get(error.status_code, str(error.detail))
        return answer(http.url.path, error.status_code, said, headers=error.headers)


_SAID = {404: "there is nothing at this address", 405: "this address does not take that method"}


def _add_figures(app: FastAPI, service: Service, metrics: Metrics) -> None:
    @app.get("/health", tags=["figures"])
    def health() -> JSONResponse:
        """Whether jobs can be made; asks for no key. 503 while they cannot."""
        status = service.status()
        found = {
            "ready": status.ready,
            "version": suffuse.__version__,
            "queued": status.queued,
            "running": status.running,
            "workers": [
                {"alive": worker.alive, "ready": worker.ready, "busy": worker.busy}
                for worker in status.workers
            ],
            "trouble": status.trouble,
        }
        return JSONResponse(found, 200 if status.ready else 503)

    @app.get("/metrics", tags=["figures"], response_class=Response)
    def figures() -> Response:
        """Figures for Prometheus."""
        return Response(metrics.text(), headers={"content-type": TYPE})


def _describe(app: FastAPI) -> None:
    """Put what `POST /api/jobs` takes, which is read by hand, into the OpenAPI document, and show
    that on a page."""
    usual = app.openapi

    def described() -> dict[str, Any]:
        found = usual()
        parts = found.setdefault("components", {}).setdefault("schemas", {})
        schema = Asked.model_json_schema(ref_template="#/components/schemas/{model}")
        parts["JobRequest"] = schema
        return found

    app.openapi = described  # type: ignore[method-assign]

    @app.get("/openapi.json", include_in_schema=False)
    def document() -> JSONResponse:
        return JSONResponse(app.openapi())

    @app.get("/api/docs", include_in_schema=False, response_class=HTMLResponse)
    def docs() -> str:
        return reference.page(app.openapi())
