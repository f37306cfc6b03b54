"""From rows to views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import RowMapping

from suffuse.studio.counters import Counters
from suffuse.studio.requests import shown
from suffuse.studio.views import FilmView, ImageView, JobView, ProgressView, Status, WorkerView


def image_view(row: RowMapping) -> ImageView:
    told = {name: row[name] for name in ImageView.model_fields if name in row}
    told |= {
        "url": f"/api/images/{row['id']}.png",
        "created": moment(row["created"]),
        "film_hash": row["film"],
        "explanation_hash": row["explanation"],
        "film": None,
        "explanation": None,
    }
    if row["film"] is not None:
        url = f"/api/images/{row['id']}/film.png"
        told["film"] = FilmView(url=url, frames=row["frames"])
    if row["explanation"] is not None:
        told["explanation"] = f"/api/images/{row['id']}/explanation.json"
    return ImageView(**told)


def job_view(
    row: Mapping[Any, Any],
    images: Sequence[RowMapping],
    place: int | None = None,
    progress: ProgressView | None = None,
) -> JobView:
    told = {name: row[name] for name in JobView.model_fields if name in row}
    told |= {name: moment(row[name]) for name in ("created", "started", "finished")}
    told |= {
        "request": shown(row["request"]),
        "place": place if row["state"] == "queued" else None,
        "progress": progress if row["state"] == "running" else None,
        "images": [image_view(image) for image in images],
    }
    return JobView(**told)


def status_view(
    counted: Counters,
    workers: list[WorkerView],
    queued: int,
    running: int,
    trouble: str | None,
    uptime: float,
) -> Status:
    return Status(
        ready=bool(workers) and trouble is None and all(worker.alive for worker in workers),
        queued=queued,
        running=running,
        workers=workers,
        restarts=sum(worker.restarts for worker in workers),
        images=counted.images,
        done=counted.done,
        failed=counted.failed,
        cancelled=counted.cancelled,
        seconds_per_step=counted.seconds_per_step,
        uptime=uptime,
        trouble=trouble,
    )


def moment(seconds: float | None) -> datetime | None:
    """Seconds since 1970 -> a time in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
