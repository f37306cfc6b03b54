"""What goes wrong over HTTP: one sentence, a status, and the shape that the route's clients read.

Three kinds of clients are answered in their own words: `/v1/…` as OpenAI does, `/sdapi/…` as
A1111's web UI does, everything else as `{"error": {"message", "field"}}`. No answer holds a path of
this machine or a traceback.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from suffuse.errors import SuffuseError
from suffuse.studio.messages import without_paths


class Problem(SuffuseError):
    """Something in a request that its sender can mend; `status` is what HTTP says to it.

    `field` names the field at fault, if it is one.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        status: int = 400,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.field = field
        self.status = status
        self.headers = dict(headers or {})


def answer(
    path: str,
    status: int,
    message: str,
    field: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The response to a problem on `path`, which chooses its shape."""
    message, field = one_line(without_paths(message)), field and one_line(field, 100)
    return JSONResponse(_shaped(path, status, message, field), status, dict(headers or {}))


def _shaped(path: str, status: int, message: str, field: str | None) -> dict[str, Any]:
    if path.startswith("/v1/"):
        kind = _OPENAI.get(status, "server_error" if status >= 500 else "invalid_request_error")
        code = "model_not_found" if (status, field) == (404, "model") else _CODES.get(status)
        return {"error": {"message": message, "type": kind, "param": field, "code": code}}
    if path.startswith("/sdapi/"):
        kind = "HTTPException" if status < 500 else "Exception"
        return {"error": kind, "detail": message, "body": "", "errors": message}
    return {"error": {"message": message, "field": field}}


_OPENAI = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}


def one_line(message: str, most: int = 500) -> str:
    """The message in one line of at most `most` characters: it may quote what a client sent."""
    line = " ".join(message.split()).encode("utf-8", "replace").decode()  # no half characters
    return line if len(line) <= most else line[: most - 1] + "…"
