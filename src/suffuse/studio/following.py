"""A job's events as they come, for coroutines: nobody who waits holds a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool

from suffuse.studio.service import Service
from suffuse.studio.views import Event


async def follow(service: Service, id: str) -> AsyncIterator[Event]:
    """The events of the job, from its state to its end; none if there is no such job."""
    loop, woken = asyncio.get_running_loop(), asyncio.Event()
    subscription = await run_in_threadpool(
        service.subscribe, id, lambda: loop.call_soon_threadsafe(woken.set)
    )
    if subscription is None:
        return
    try:
        while True:
            woken.clear()
            while (event := subscription.get(0)) is not None:
                yield event
            if subscription.ended:
                return
            await woken.wait()
    finally:
        subscription.close()
