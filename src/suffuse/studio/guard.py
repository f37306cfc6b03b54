"""What stands before the application: who may ask, and how much.

All of it is pure ASGI: nothing that streams is held back.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

from suffuse.studio.door import Door
from suffuse.studio.problems import Problem, answer

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = "/health"  # asks for no key: something has to see whether the studio is alive
_SAFE = ("GET", "HEAD", "OPTIONS")
_CLIENT = re.compile(r"[\w\-]{1,64}", re.ASCII)


class Guarded:
    """Lets through what `door` allows."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing here speaks WebSocket
            await send({"type": "websocket.close", "code": 1008})
            return

        problem = self._problem(scope)
        if problem is None:
            scope.setdefault("state", {})["client"] = self._client(scope)
            await self._app(scope, receive, send)
            return
        refusal = answer(scope["path"], problem.status, str(problem), headers=problem.headers)
        for challenge in _CHALLENGES if problem.status == 401 else ():
            refusal.headers.append("www-authenticate", challenge)
        await refusal(scope, receive, send)

    def _problem(self, scope: Scope) -> Problem | None:
        heads = _Heads(scope)
        host = heads.one(b"host")
        name = None if host is None else _name(host)
        if host is None or name is None:
            return Problem("the request needs one Host header", status=400)
        if not self._door.called(name):
            said = f"the studio does not go by the name {name!r}: start it with --allow-host {name}"
            return Problem(said, status=403)
        if (problem := self._cross_site(scope, heads, host)) is not None:
            return problem
        client = heads.one(b"x-client")
        if client is not None and not _CLIENT.fullmatch(client):
            said = "X-Client takes up to 64 letters, digits, hyphens and underscores"
            return Problem(said, status=400)
        if self._door.api_key is None or scope["path"] == OPEN:
            return None
        authorization = heads.one(b"authorization")
        if authorization is None or not self._door.opens(authorization):
            return Problem("the API key is missing or wrong", status=401)
        return None

    def _client(self, scope: Scope) -> str:
        remote = scope["client"][0] if scope.get("client") else "unknown"
        named = _Heads(scope).one(b"x-client") or remote
        if self._door.api_key is None:
            return named
        return f"key-{hashlib.sha256(self._door.api_key.encode()).hexdigest()[:8]}-{named}"

    def _cross_site(self, scope: Scope, heads: _Heads, host: str) -> Problem | None:
        origin = heads.one(b"origin")
        if origin is not None:
            if self._door.trusts(origin, host):
                return None
            return Problem(f"pages of {origin[:100]} may not use this studio", status=403)
        # Browsers leave Origin out of simple loads, and then say where these come from otherwise.
        site = heads.one(b"sec-fetch-site")
        if site in (None, "same-origin", "none"):
            return None
        visit = heads.one(b"sec-fetch-mode") == "navigate" and scope["method"] in _SAFE
        if visit and heads.one(b"sec-fetch-dest") == "document":  # somebody followed a link
            return None
        return Problem("pages of other sites may not use this studio", status=403)


class Bounded:
    """Takes bodies up to a number of bytes, also those that do not say how long they are."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = f"the request is too large: at most {self._most >> 10} KiB are taken"
        told = _Heads(scope).one(b"content-length")
        if told is not None and (not told.isdigit() or int(told[:20]) > self._most):
            await answer(scope["path"], 413, said)(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._most:
                raise HTTPException(413, said)  # of the kind that body parsers let through
            return message

        await self._app(scope, counted, send)


class _Heads:
    """The headers of a request."""

    def __init__(self, scope: Scope) -> None:
        self._all = scope["headers"]

    def one(self, name: bytes) -> str | None:
        """The value; of a header that is there twice both, which then is none that is allowed."""
        found = [value for key, value in self._all if key == name]
        return b", ".join(found).decode("latin-1") if found else None


_CHALLENGES = ('Basic realm="suffuse", charset="UTF-8"', 'Bearer realm="suffuse"')


def client_of(http: HTTPConnection) -> str:
    """Whose request it is, for fair turns: the name that a page gives itself in `X-Client`, else
    the address that it comes from; with a key, that key's short hash before it.

    Not a secret and no defence: the limit on all clients together is that.
    """
    told: str = http.state.client
    return told


def _name(host: str) -> str | None:
    """The name in a Host header, in lower case without port and brackets; None if it has none."""
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018  (raises)
    except ValueError:
        return None
    plain = parts.path == parts.query == parts.fragment == "" and parts.username is None
    return parts.hostname if plain else None
