"""The API of A1111's web UI, as its clients speak it: /sdapi/v1/….

docs/studio.md lists what each field does here. One txt2img or img2img is `n_iter` jobs of the
service, each of `batch_size` pictures, and is answered when all have ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HTTP
from fastapi.concurrency import run_in_threadpool

from suffuse.studio import a1111_answer as answer
from suffuse.studio import a1111_lists as lists
from suffuse.studio.a1111_asked import Asked, AskedFromPicture
from suffuse.studio.a1111_calls import IDLE, Call, Calls
from suffuse.studio.a1111_options import MODEL, Options, checked, model_named, previews, title
from suffuse.studio.a1111_request import requests_of
from suffuse.studio.ended import failure
from suffuse.studio.guard import client_of
from suffuse.studio.inputs import decoding
from suffuse.studio.service import Service
from suffuse.studio.views import JobView
from suffuse.studio.waiting import events, no_job


def router(service: Service) -> APIRouter:
    """The routes of the API over this service."""
    api = APIRouter(prefix="/sdapi/v1", tags=["A1111"])
    front = Front(service)

    @api.post("/txt2img")
    async def txt2img(asked: Asked, http: HTTP) -> dict[str, Any]:
        """Pictures for a prompt."""
        return await front.draw(asked, client_of(http), "txt2img")

    @api.post("/img2img")
    async def img2img(asked: AskedFromPicture, http: HTTP) -> dict[str, Any]:
        """Pictures that begin with another one."""
        return await front.draw(asked, client_of(http), "img2img")

    @api.get("/progress")
    async def progress(http: HTTP, skip_current_image: bool = False) -> dict[str, Any]:
        """How far the caller's oldest unanswered request is."""
        call = next(iter(front.calls.of(client_of(http))), IDLE)
        return answer.progress(call, not skip_current_image)

    @api.post("/interrupt")
    async def interrupt(http: HTTP) -> dict[str, Any]:
        """Ends the caller's requests; they are answered with what is finished."""
        for call in front.calls.of(client_of(http)):
            call.interrupted = True
            await front.cancel(call.jobs[call.at :])
        return {}

    @api.post("/skip")
    async def skip(http: HTTP) -> dict[str, Any]:
        """Leaves out the batch that is being made for the caller's oldest request."""
        for call in front.calls.of(client_of(http))[:1]:
            call.skipped = True
            await front.cancel(call.jobs[call.at : call.at + 1])
        return {}

    @api.get("/options")
    async def options(http: HTTP) -> dict[str, Any]:
        """The caller's settings."""
        return await front.settings(client_of(http))

    @api.post("/options")
    async def set_options(changes: dict[str, Any], http: HTTP) -> None:
        """Changes the caller's settings, the default model among them."""
        model_named(changes.get(MODEL), await run_in_threadpool(service.models))
        front.options.put(client_of(http), changes)

    lists.add(api, service)
    return api


class Front:
    """Takes requests, follows their jobs, and knows each client's settings."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.calls = Calls()
        self.options = Options()

    async def settings(self, client: str) -> dict[str, Any]:
        kept = self.options.of(client)
        models = await run_in_threadpool(self.service.models)
        model = model_named(kept.get(MODEL), models)
        return {**kept, MODEL: title(model), "sd_checkpoint_hash": model.hash}

    async def cancel(self, jobs: Sequence[str]) -> None:
        for id in jobs:
            await run_in_threadpool(self.service.cancel, id)

    async def draw(self, asked: Asked, client: str, kind: str) -> dict[str, Any]:
        """The answer, when all of the request's jobs have ended. Raises SuffuseError."""
        options = {**self.options.of(client), **(asked.override_settings or {})}
        checked(options)
        with self.calls.open(client, kind) as call:
            try:
                jobs = await self._jobs(asked, options, call)
            except BaseException:
                # What was queued before one was refused, or one failed, is for nobody.
                await asyncio.shield(self.cancel(call.jobs[call.at :]))
                raise
        model = model_named(options.get(MODEL), await run_in_threadpool(self.service.models))
        return await run_in_threadpool(answer.drawn, self.service, asked, jobs, call, model)

    async def _jobs(self, asked: Asked, options: dict[str, Any], call: Call) -> list[JobView]:
        """Submits the request's jobs and waits for each in turn."""
        model = model_named(options.get(MODEL), await run_in_threadpool(self.service.models))
        settings = self.service.settings
        for request in await decoding(requests_of, asked, options, settings):
            if call.interrupted:
                break
            job = await run_in_threadpool(
                self.service.submit,
                request,
                client=call.client,
                model=model.name,
                preview=min(previews(options), settings.limits.steps),
            )
            call.jobs.append(job.id)
        if call.interrupted:  # meanwhile, when not all of these were known
            await self.cancel(call.jobs)
        return [await self._ended(id, call) for id in call.jobs]

    async def _ended(self, id: str, call: Call) -> JobView:
        """The job when it has ended, by itself or by its client. Raises Problem if it failed."""
        async with aclosing(events(self.service, id)) as heard:
            async for event in heard:
                if event is not None and event.kind == "step":
                    call.heard(event.data)
        call.next()
        job = await run_in_threadpool(self.service.job, id)
        if job is None:
            raise no_job()
        if job.state == "failed":
            raise failure(job)
        return job
