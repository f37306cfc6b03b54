"""Follows requests step by step and writes their pictures, previews and films."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from suffuse.cli.console import Bar, note, say, uninterrupted, warn

if TYPE_CHECKING:
    from PIL.Image import Image

    from suffuse.cli.output import Destination
    from suffuse.systems.clip import Clip
    from suffuse.systems.metadata import Metadata, Origin
    from suffuse.systems.registry import System
    from suffuse.systems.request import Progress, Request

FRAMES = 8  # of a film strip


class Run:
    """One call of the command: follows the steps, writes each picture the moment it is done."""

    def __init__(
        self, out: Destination, strips: Destination | None, preview: int | None, bar: Bar
    ) -> None:
        self.kept: list[Path] = []
        self._out, self._strips, self._preview, self._bar = out, strips, preview, bar
        self._done = self._count = self._drawn = 0  # steps; pictures to keep and to draw

    def __call__(
        self,
        requests: list[Request],
        model: str | None,
        device: str,
        dtype: str,
        like: Origin | None,
        clip: str | None,
    ) -> None:
        import suffuse
        from suffuse.systems.metadata import Origin, describe

        system = suffuse.load(
            model,
            device=device,
            dtype=dtype,
            loras=requests[0].loras or (),  # the same in all requests
            embeddings=[str(file) for file in requests[0].embeddings or ()],
        )
        info = system.info
        chosen = str(system.dtype).removeprefix("torch.")  # what "auto" came to, for --like
        source = model or os.environ.get("SUFFUSE_MODEL") or None
        origin = Origin(name=info.name, source=source, hash=info.hash(), dtype=chosen)
        if like is not None and (line := like.unlike(origin)):
            with self._bar.hidden():
                warn(line)
        # Everything that can be refused or has to be chosen at random is settled before the run.
        jobs = [system.resolve(request) for request in requests]
        stored = [describe(job, origin) for job in jobs]
        judge = self._judge(clip, device, jobs)
        self._count, self._drawn = sum(job.n for job in jobs), sum(job.drawn for job in jobs)
        for job, metadata in zip(jobs, stored):
            self._follow(_steps(system, job, judge), job, metadata)

    def _judge(self, clip: str | None, device: str, jobs: list[Request]) -> Clip | None:
        """What chooses among the pictures of --best-of, where that is asked for."""
        if jobs[0].best_of is None:
            return None
        from suffuse.systems.clip import load_clip

        judge = load_clip(clip, device=device)
        with self._bar.hidden():
            judge.texts([job.prompt for job in jobs], note=warn)
        # Said above, once and as a line.
        warnings.filterwarnings("ignore", "a text is longer than", UserWarning)
        return judge

    def _follow(self, steps: Iterable[Progress], job: Request, metadata: Metadata) -> None:
        names: dict[int, Path] = {}
        frames: dict[int, list[Image]] = {}
        for step in steps:
            self._done += 1
            which = f"picture {min(len(self.kept) + 1, self._count)} of {self._count}"
            self._bar.step(which, self._done, self._drawn * step.steps)
            # A picture that may be left out has no name yet.
            if step.image_index not in names and (job.best_of is None or step.result is not None):
                names[step.image_index] = self._out.next(step.seed, job.prompt)
            name = names.get(step.image_index)
            strip = frames.setdefault(step.image_index, [])
            self._show(step, name, strip, metadata)
            if step.result is not None and name is not None:
                self._keep(step, name, strip, metadata, job.prompt)

    def _show(
        self, step: Progress, name: Path | None, strip: list[Image], metadata: Metadata
    ) -> None:
        """The preview file and the film's frame, where this step is due for one."""
        from suffuse.systems.film import frame_steps

        every = self._preview is not None and (step.i + 1) % self._preview == 0
        framed = self._strips is not None and step.i in frame_steps(step.steps, FRAMES)
        if step.result is not None or not (every or framed):
            return
        picture = step.preview()
        if framed:
            strip.append(picture)
        if every and name is not None:
            path = name.with_stem(f"{name.stem}-step-{step.i + 1:02d}")
            path = self._out.save(picture, path, metadata.for_image(step.seed, picture.size))
            with self._bar.hidden():
                note(f"preview {path}")

    def _keep(
        self, step: Progress, name: Path, strip: list[Image], metadata: Metadata, prompt: str
    ) -> None:
        from suffuse.systems.film import side_by_side

        assert step.result is not None
        about = metadata.for_image(step.seed, step.result.size)
        with uninterrupted(), self._bar.hidden():
            path = self._out.save(step.result, name, about)
            self.kept.append(path)
            if self._strips is not None:
                picture = side_by_side([*strip, step.result])
                film = self._strips.next(step.seed, prompt)
                note(f"film {self._strips.save(picture, film, about)}")
            say(f"{path}  seed {step.seed}")


def _steps(system: System, job: Request, judge: Clip | None) -> Iterator[Progress]:
    if judge is None:
        return system.stream(job)
    from suffuse.systems import generate
    from suffuse.systems.registry import suited

    drawn = generate.stream(suited(system, job), [job], judge=judge)
    return (step for _, step in drawn)
