"""The outermost layer: what every answer carries, its line in the log, and a net for faults."""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect

from suffuse.studio import logs
from suffuse.studio.problems import answer

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from suffuse.studio.metrics import Metrics

_ID = re.compile(r"[\w.\-]{1,64}", re.ASCII)
HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        b"connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class Observed:
    """Pure ASGI, so that nothing that streams is held back.

    Every answer gets the headers that keep browsers strict, also the answer to a fault. A client's
    `X-Request-ID` is taken over if it is short and plain; the answer carries it, and so
    does every line that is logged meanwhile. A fault of ours is logged with its traceback and
    answered with a 500 that names the id alone.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        told = given if _ID.fullmatch(given) else logs.new_id()
        begun, status = time.monotonic(), 0

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                told_id = (b"x-request-id", told.encode())
                message["headers"] = [*message["headers"], *HEADERS, told_id]
            await send(message)

        token = logs.request_id.set(told)
        try:
            await self._app(scope, receive, tell)
        except ClientDisconnect:
            status = status or 499  # nginx's number for a client that left; nobody reads it
        except Exception:
            logs.LOG.exception("fault in %s %s", scope["method"], scope["path"])
            if status:  # half an answer is out: end the connection, which says so
                raise
            said = f"internal error: the log has it under the request id {told}"
            await answer(scope["path"], 500, said)(scope, receive, tell)
        finally:
            self._record(scope, status, time.monotonic() - begun)
            logs.request_id.reset(token)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.count(method, route, status, seconds)
        # Figures that are asked for every few seconds would bury the rest.
        level = logging.DEBUG if route in ("/health", "/metrics") else logging.INFO
        client = scope.get("client")
        facts = {
            "method": method,
            "path": scope["path"],
            "status": status,
            "seconds": round(seconds, 4),
            "remote": client[0] if client else None,
        }
        logs.LOG.log(level, "%s %s %d", method, scope["path"], status, extra=facts)
