"""Everything that is asked of the table of images. Functions take a connection: see `Store`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, RowMapping, bindparam, select

from suffuse.studio.disk import FileKind
from suffuse.studio.tables import images, jobs

Named = tuple[FileKind, str]  # a file by its hash

# Built once: building a statement takes longer than running it.
_ONE = select(images).where(images.c.id == bindparam("id"))
_OF_JOB = select(images).where(
    (images.c.job == bindparam("job")) & (images.c.index == bindparam("index"))
)
_STATE = select(jobs.c.state).where(jobs.c.id == bindparam("job"))
_NEW = images.insert()


def new_id() -> str:
    """32 hex digits: the microsecond, then chance. They sort by age."""
    return f"{time.time_ns() // 1000:016x}{secrets.token_hex(8)}"


def words_of(values: dict[str, Any]) -> str:
    """What a search looks in."""
    told = (values[name] for name in ("prompt", "negative", "model", "sampler", "seed"))
    return "\n".join(str(value) for value in told if value is not None).casefold()


def add(connection: Connection, values: dict[str, Any]) -> RowMapping | None:
    """The new image's row; None where its job has this image already, or has been cancelled."""
    found = connection.execute(_OF_JOB, values).mappings().first()
    if found is not None:
        return found if found["id"] == values["id"] else None
    if connection.execute(_STATE, values).scalar() != "running":
        return None
    connection.execute(_NEW, values)
    return one(connection, values["id"])


def one(connection: Connection, id: str) -> RowMapping | None:
    return connection.execute(_ONE, {"id": id}).mappings().first()


def some(
    connection: Connection, query: str, before: str | None, limit: int
) -> Sequence[RowMapping]:
    """The newest first, older than `before`, with all words of `query`."""
    wanted = select(images).order_by(images.c.id.desc()).limit(limit)
    if before is not None:
        wanted = wanted.where(images.c.id < before)
    for word in query.casefold().split():
        wanted = wanted.where(images.c.words.contains(word, autoescape=True))
    return connection.execute(wanted).mappings().all()


def remove(connection: Connection, id: str) -> list[Named] | None:
    """Forgets the image and returns the files that no other row names; None if there is none."""
    row = one(connection, id)
    if row is None:
        return None
    connection.execute(images.delete().where(images.c.id == id))
    return unnamed(connection, row)


def unnamed(connection: Connection, values: Mapping[Any, Any]) -> list[Named]:
    """The files of an image's `values` that no row names."""
    columns: dict[FileKind, Column[Any]] = {
        "image": images.c.hash,
        "film": images.c.film,
        "explanation": images.c.explanation,
    }
    found: list[Named] = []
    for kind, column in columns.items():
        digest = values.get(column.name)
        named = select(images.c.id).where(column == digest)
        if digest is not None and connection.execute(named).first() is None:
            found.append((kind, digest))
    return found
