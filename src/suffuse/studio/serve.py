"""Serving until told to stop."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from suffuse.errors import SuffuseError
from suffuse.studio import logs
from suffuse.studio.app import create_app
from suffuse.studio.door import Door
from suffuse.studio.service import Service
from suffuse.studio.settings import Settings

GRACE = 2  # seconds that open streams have when the server stops


def listen(host: str, port: int) -> socket.socket:
    """A socket on that address, port 0 for any that is free. Raises SuffuseError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        why = "another program uses it, choose one with --port"
        if getattr(error, "errno", None) != errno.EADDRINUSE:
            why = str(getattr(error, "strerror", None) or error).lower()
        raise SuffuseError(f"cannot listen on {host} port {port}: {why}") from None


def address(listening: socket.socket) -> str:
    """What to type into a browser of this machine."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def serve(
    settings: Settings, door: Door, listening: socket.socket, ready: Callable[[], None]
) -> int | None:
    """Serve until SIGINT or SIGTERM; the signal that came. `ready` is called once pages are served.

    What was running then is queued again. Raises SuffuseError where the service cannot start.
    """
    logs.configure()
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)

    # uvicorn raises a signal again when it is done: by then these stand, so that workers are ended
    # in order. One that comes before it listens is looked for below.
    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    service = Service(settings)
    try:
        app = create_app(service, settings, door)  # before workers want the processor too
        service.start()
        config = uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
        if not heard:
            _Server(config, ready).run(sockets=[listening])
    finally:
        service.stop()
        listening.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    return heard[0] if heard else None


class _Server(uvicorn.Server):
    """uvicorn's, which tells when it serves."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()
