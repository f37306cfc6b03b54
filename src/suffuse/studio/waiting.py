"""Waiting for a job in the event loop, without a thread for each who waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from suffuse.studio.problems import Problem

if TYPE_CHECKING:
    from starlette.requests import Request as HTTPRequest

    from suffuse.studio.service import Service
    from suffuse.studio.views import Event, JobView

SILENCE = 15.0  # seconds after which a proxy might think that nobody is there


async def events(
    service: Service, job: str, silence: float = SILENCE
) -> AsyncGenerator[Event | None, None]:
    """What happens to a job from now on, `state` first; None after `silence` seconds of nothing.

    Ends when the job does. Close it (`contextlib.aclosing`) to hear no more. Raises Problem (404)
    if there is no such job.
    """
    loop, news = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it who waits
            loop.call_soon_threadsafe(news.set)

    heard = await run_in_threadpool(service.subscribe, job, wake)
    if heard is None:
        raise no_job()
    try:
        while True:
            news.clear()  # before looking, so that nothing that comes meanwhile is missed
            while (event := heard.get(0)) is not None:
                yield event
            if heard.ended:
                return
            try:
                await asyncio.wait_for(news.wait(), silence)
            except asyncio.TimeoutError:
                yield None
    finally:
        heard.close()


async def finished(
    service: Service, http: HTTPRequest, job: str, timeout: float | None = None
) -> JobView:
    """The job when it has ended, as done, failed or cancelled.

    `http` is the request that waits, whose body has been read. Raises ClientDisconnect when its
    client hangs up, Problem when `timeout` seconds pass (504) or there is no such job (404). The
    job goes on in either case.
    """
    over = asyncio.ensure_future(_last(service, job))
    gone = asyncio.ensure_future(_hang_up(http))
    try:
        await asyncio.wait((over, gone), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if over.done():
            over.result()  # raises what went wrong
        elif gone.done():
            raise ClientDisconnect
        else:
            raise Problem(f"not finished within {timeout:g} seconds", status=504)
    finally:
        over.cancel()
        gone.cancel()
    view = await run_in_threadpool(service.job, job)
    if view is None:
        raise no_job()
    return view


def no_job() -> Problem:
    """The problem of an id that no job has."""
    return Problem("there is no such job", status=404)


async def _last(service: Service, job: str) -> None:
    async with aclosing(events(service, job)) as heard:
        async for _ in heard:
            pass


async def _hang_up(http: HTTPRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass
