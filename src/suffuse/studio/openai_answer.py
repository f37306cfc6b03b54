"""What an OpenAI client gets: the pictures of a job in one answer, or as they come."""

from __future__ import annotations

import base64
import io
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from fastapi.concurrency import run_in_threadpool
from PIL import Image

from suffuse.studio.ended import failure
from suffuse.studio.openai_asked import Asked
from suffuse.studio.problems import Problem
from suffuse.studio.service import Service
from suffuse.studio.views import Event, ImageView, JobView
from suffuse.studio.waiting import events
from suffuse.systems.request import Request


@dataclass(frozen=True)
class Drawing:
    """One request under way, and how its pictures are told of.

    name: "image_generation" or "image_edit", of which the events' names are made
    address: of this service, as the client called it
    """

    service: Service
    asked: Asked
    request: Request
    model: str
    name: str
    address: str

    def whole(self, job: JobView) -> dict[str, Any]:
        """The answer to a request that does not stream."""
        images = job.images
        return {
            "created": int(time.time()),
            "data": [self._datum(image) for image in images],
            "background": "opaque",
            "output_format": self.asked.format,
            "size": _size(images[0]) if images else None,
            "usage": self._usage(images),
        }

    def _datum(self, image: ImageView) -> dict[str, Any]:
        # The seed is ours: without it nobody could ask for a random picture again.
        if self.asked.response_format == "url":
            return {"url": self.address.rstrip("/") + image.url, "seed": image.seed}
        return {"b64_json": self._encoded(image), "seed": image.seed}

    def completed(self, image: ImageView) -> dict[str, Any]:
        """The event of a finished picture."""
        found = self._event("completed", self._encoded(image), _size(image))
        return found | {"usage": self._usage([image]), "seed": image.seed}

    def partial(self, index: int, preview: str) -> dict[str, Any]:
        """The event of an unfinished one, `preview` a data URL of a PNG."""
        data = base64.b64decode(preview.partition(",")[2])
        with Image.open(io.BytesIO(data)) as picture:
            size = f"{picture.width}x{picture.height}"
        found = self._event("partial_image", self._as_asked(data), size)
        return found | {"partial_image_index": index}

    def _event(self, kind: str, b64_json: str, size: str) -> dict[str, Any]:
        return {
            "type": f"{self.name}.{kind}",
            "b64_json": b64_json,
            "background": "opaque",
            "created_at": int(time.time()),
            "output_format": self.asked.format,
            "quality": "auto",
            "size": size,
        }

    def _encoded(self, image: ImageView) -> str:
        file = self.service.file("image", image.hash)
        if file is None:
            raise Problem("the picture was deleted before it could be sent", status=410)
        return self._as_asked(file.read_bytes())

    def _as_asked(self, png: bytes) -> str:
        """Base64 of the picture in the format that was asked for; a PNG stays as it is."""
        if self.asked.format == "png":
            return base64.b64encode(png).decode()
        quality, written = self.asked.output_compression, io.BytesIO()
        with Image.open(io.BytesIO(png)) as picture:
            picture.save(written, self.asked.format, quality=100 if quality is None else quality)
        return base64.b64encode(written.getvalue()).decode()

    def _usage(self, images: list[ImageView]) -> dict[str, Any]:
        """Tokens: words of the prompts, and cells of what the networks draw and read."""
        models = self.service.models()  # anew: the factor is known once the model was opened
        factor = next((m.factor for m in models if m.name == self.model and m.factor), 1)
        words = len(f"{self.request.prompt} {self.request.negative}".split())
        seen = self.request.image
        read = _cells(*seen.size, factor) if isinstance(seen, Image.Image) else 0
        drawn = sum(_cells(image.width, image.height, factor) for image in images)
        return {
            "input_tokens": words + read,
            "input_tokens_details": {"text_tokens": words, "image_tokens": read},
            "output_tokens": drawn,
            "output_tokens_details": {"text_tokens": 0, "image_tokens": drawn},
            "total_tokens": words + read + drawn,
        }


def _cells(width: int, height: int, factor: int) -> int:
    return -(-width // factor) * -(-height // factor)


def _size(image: ImageView) -> str:
    return f"{image.width}x{image.height}"


async def stream(drawing: Drawing, id: str) -> AsyncIterator[str]:
    """The job's server-sent events: partial pictures, each finished one, or an error."""
    sent: set[str] = set()
    partials: Counter[int] = Counter()
    async with aclosing(events(drawing.service, id)) as heard:
        async for event in heard:
            if event is None:
                yield ": still there\n\n"
                continue
            for image in _images(event):
                if image.id not in sent:
                    sent.add(image.id)
                    yield _sse(await run_in_threadpool(drawing.completed, image))
            if _tells(event) and partials[event.data["image"]] < drawing.asked.partials:
                index, preview = partials[event.data["image"]], event.data["preview"]
                partials[event.data["image"]] += 1
                yield _sse(await run_in_threadpool(drawing.partial, index, preview))
            if event.kind in ("failed", "cancelled"):
                yield _sse(_error(failure(JobView.model_validate(event.data["job"]))))


def _tells(event: Event) -> bool:
    """Whether it has a picture that is not finished."""
    data = event.data
    return event.kind == "step" and bool(data["preview"]) and data["step"] < data["steps"]


def _images(event: Event) -> list[ImageView]:
    """Finished pictures that the event tells of, again or for the first time."""
    if event.kind == "image":
        return [ImageView.model_validate(event.data["image"])]
    job = event.data.get("job")
    return JobView.model_validate(job).images if job else []


def _error(problem: Problem) -> dict[str, Any]:
    kind = "server_error" if problem.status >= 500 else "invalid_request_error"
    told = {"message": str(problem), "type": kind, "param": None, "code": None}
    return {"type": "error", "error": told}


def _sse(data: dict[str, Any]) -> str:
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n"
