"""One job in a worker: its steps become messages."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suffuse.studio.messages import Ended, Made, Message, Stepped, Task
from suffuse.studio.requests import plain_fields
from suffuse.systems import generate, infotext
from suffuse.systems.film import frame_steps, side_by_side
from suffuse.systems.metadata import Metadata, Origin, describe, png_bytes
from suffuse.systems.registry import System
from suffuse.systems.request import Progress, Request

if TYPE_CHECKING:
    from PIL.Image import Image

Explain = Callable[[], dict[str, Any]]
WIDEST = 16384  # pixels of a film: more is too much for some browsers


@dataclass
class Run:
    """A job while it is made. `request` is resolved, `metadata` says so in its pictures."""

    task: Task
    system: System
    request: Request
    metadata: Metadata
    over: bool = False
    _begun: float = field(default_factory=time.monotonic)
    _steps: int = 0  # of all images
    _made: int = 0
    _frames: dict[int, list[Image]] = field(default_factory=dict)

    def begin(self) -> None:
        """From the start, also a second time."""
        self._begun, self._steps, self._made, self._frames = time.monotonic(), 0, 0, {}

    def end(self, state: Any, error: str | None = None) -> Ended:
        self.over = True
        return Ended(self.task.job, state, error)

    def step(self, progress: Progress, explain: Explain | None = None) -> Iterator[Message]:
        """What a step of one image means: `Stepped`, at last `Made`, and in the end `Ended`.

        `explain` tells how the finished picture came about.
        """
        self._steps += 1
        share = self._steps / (self.request.drawn * progress.steps)
        left = (time.monotonic() - self._begun) * (1 - share) / share
        image, i = progress.image_index, progress.i
        preview = self._preview(progress)
        yield Stepped(self.task.job, image, i + 1, progress.steps, share, left, preview)
        if progress.result is not None:
            told = None if explain is None else json.dumps(explain(), ensure_ascii=False).encode()
            yield self._finished(progress.result, progress.image_index, told)
            if self._made == self.request.n:
                yield self.end("done")

    def _preview(self, progress: Progress) -> bytes | None:
        """The preview's PNG where one is due; keeps the film's frames."""
        if progress.result is not None:
            return None
        due = self.task.preview > 0 and (progress.i + 1) % self.task.preview == 0
        framed = self.task.film and progress.i in frame_steps(progress.steps, self._most_frames())
        if not (due or framed):
            return None
        picture = progress.preview()
        if framed:
            self._frames.setdefault(progress.image_index, []).append(picture)
        return png_bytes(picture, level=1) if due else None

    def _most_frames(self) -> int:
        return max(2, WIDEST // (self.request.width or 1))

    def _finished(self, result: Image, index: int, explanation: bytes | None) -> Made:
        """The finished picture and its files."""
        assert self.request.seed is not None
        self._made += 1
        seed = self.request.seed + index
        about = self.metadata.for_image(seed, result.size)
        frames = [*self._frames.pop(index, []), result] if self.task.film else None
        return Made(
            self.task.job,
            index,
            png_bytes(result, about),
            result.width,
            result.height,
            plain_fields(generate.alone(self.request, index)),
            infotext.write(about.parameters),
            None if frames is None else png_bytes(side_by_side(frames)),
            None if frames is None else len(frames),
            explanation,
        )


def metadata_of(system: System, request: Request, source: str | None) -> Metadata:
    """What the pictures of a resolved request say; files are told by name, folders never."""
    info, dtype = system.info, str(system.dtype).removeprefix("torch.")
    origin = Origin(info.name, None if source is None else Path(source).name, info.hash(), dtype)
    found = describe(request, origin)
    recorded, fields = dict(found.request or {}), dict(found.parameters.fields)
    for name in ("loras", "embeddings"):
        recorded[name] = recorded[name] and [_named(entry) for entry in recorded[name]]
    if recorded["classifier"] is not None:
        recorded["classifier"] = _named(recorded["classifier"])
        fields["Classifier"] = recorded["classifier"]["path"]
    parameters = replace(found.parameters, fields=fields)
    return replace(found, parameters=parameters, request=recorded)


def _named(entry: dict[str, Any]) -> dict[str, Any]:
    return {**entry, "path": Path(entry["path"]).name}
