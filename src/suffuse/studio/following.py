"""A job's events as they come, for coroutines: nobody who waits holds a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool

from suffuse.studio.problems import Problem
from suffuse.studio.service import Service
from suffuse.studio.views import Event, JobView


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


async def ended(
    service: Service, id: str, heard: Callable[[dict[str, Any]], None] | None = None
) -> JobView:
    """The job when it is done or cancelled; `heard` is told of its steps, as `Event.data` has them.

    Raises Problem where it failed.
    """
    event = None
    async for event in follow(service, id):
        if event.kind == "step" and heard is not None:
            heard(event.data)
    if event is None:
        raise Problem("the job was lost", status=500)
    job = JobView.model_validate(event.data["job"])
    if job.state == "failed":
        raise failure(job)
    return job


def failure(job: JobView) -> Problem:
    """Why a job that did not come to its end has no pictures."""
    if job.state == "cancelled":
        return Problem("the job was cancelled", status=409)
    return Problem(job.error or "the job failed", status=500)
