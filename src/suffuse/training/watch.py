"""What a run shows of itself: TensorBoard's curves and the samples it has drawn."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple


class Report(NamedTuple):
    step: int
    steps: int
    loss: float
    numbers: dict[str, float]
    images_per_second: float
    seconds_left: float


class Clock:
    """Means for the curves, and once a second a report."""

    def __init__(self, steps: int, batch: int, step: int, report: Callable[[Report], None]):
        self.steps, self.batch, self.report = steps, batch, report
        self.first = self.shown = step
        self.start = self.since = time.monotonic()
        self.sums: dict[str, float] = {}
        self.count = 0

    def tick(self, step: int, numbers: dict[str, float]) -> None:
        for name, value in numbers.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.count += 1
        now = time.monotonic()
        if now - self.since > 1 or step == self.steps:
            speed = (step - self.shown) * self.batch / (now - self.since)
            left = (now - self.start) / (step - self.first) * (self.steps - step)
            rest = {name: value for name, value in numbers.items() if name != "loss"}
            self.report(Report(step, self.steps, numbers["loss"], rest, speed, left))
            self.shown, self.since = step, now

    def means(self) -> dict[str, float]:
        """Since they were asked for last."""
        means = {name: value / self.count for name, value in self.sums.items()}
        self.sums, self.count = {}, 0
        return means


class Events:
    """A file of TensorBoard's records, written at once so that a full disk is noticed here."""

    def __init__(self, folder: Path, step: int):
        from tensorboard.compat.proto.event_pb2 import SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():010.0f}.{platform.node()}.{os.getpid()}"
        self.file = (folder / name).open("ab", buffering=0)
        self.add(file_version="brain.Event:2")
        if step:  # hides what an earlier try logged beyond this step
            self.add(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def add(self, **event: Any) -> None:
        """Appends one record, or, raising OSError, nothing."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        framed = BytesIO()
        RecordWriter(framed).write(Event(wall_time=time.time(), **event).SerializeToString())
        end, rest = self.file.seek(0, os.SEEK_END), memoryview(framed.getvalue())
        try:
            while rest:
                rest = rest[self.file.write(rest) :]
        except OSError:
            self.file.truncate(end)
            raise


class Watch:
    """Scalars and pictures under `output`/tensorboard, if tensorboard is installed.

    step: where the run goes on
    active: whether this process is the one that writes
    """

    def __init__(self, output: Path, step: int, active: bool, note: Callable[[str], None]):
        self.events: Events | None = None
        self.note, self.failed = note, False
        if not active:
            return
        note(f"samples in {output / 'samples'}")
        if find_spec("tensorboard") is None:
            note("no curves: tensorboard is missing (pip install 'suffuse[train]')")
            return
        folder = output / "tensorboard"
        self.events = Events(folder, step)
        note(f"curves: tensorboard --logdir {folder}")

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None:
        if self.events is not None:
            self.events.file.close()

    def scalars(self, step: int, numbers: Mapping[str, float]) -> None:
        """A point of every curve."""
        if self.events is not None:
            from tensorboard.compat.proto.summary_pb2 import Summary

            values = [Summary.Value(tag=tag, simple_value=n) for tag, n in numbers.items()]
            self._try(lambda events: events.add(step=step, summary=Summary(value=values)))

    def picture(self, step: int, path: Path) -> None:
        """The sample sheet in the file `path`."""
        if self.events is not None and path.exists():
            self._try(lambda events: self._add(events, step, path))

    def _add(self, events: Events, step: int, path: Path) -> None:
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        with Image.open(path) as sheet:
            size, bands = sheet.size, len(sheet.getbands())
        shape = {"width": size[0], "height": size[1], "colorspace": bands}
        image = Summary.Image(encoded_image_string=path.read_bytes(), **shape)
        events.add(step=step, summary=Summary(value=[Summary.Value(tag="samples", image=image)]))

    def _try(self, write: Callable[[Events], None]) -> None:
        assert self.events is not None
        try:
            write(self.events)
            self.failed = False
        except OSError as error:  # a full disk costs points of a curve, never the run
            if not self.failed:
                self.note(f"the curves have a gap: {error}")
            self.failed = True
