"""Everything that is asked of the table of jobs. Functions take a connection: see `Store`."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, bindparam, case, func, select, update

from suffuse.studio.queue import Waiting
from suffuse.studio.settings import Limits
from suffuse.studio.tables import images, jobs
from suffuse.studio.views import Refused, State

MOST_ATTEMPTS = 2


# Built once: building a statement takes longer than running it.
_ONE = select(jobs).where(jobs.c.id == bindparam("id"))
_KEYED = select(jobs).where(
    (jobs.c.client == bindparam("client")) & (jobs.c.key == bindparam("key"))
)
_BEFORE_NEW = select(
    func.count(),
    func.coalesce(func.sum(case((jobs.c.client == bindparam("client"), 1), else_=0)), 0),
    func.coalesce(func.sum(case((jobs.c.priority >= bindparam("priority"), 1), else_=0)), 0),
).where(jobs.c.state == "queued")
_NEW = jobs.insert()
_AHEAD = (
    select(func.count())
    .select_from(jobs)
    .where(jobs.c.state == "queued")
    .where(
        (jobs.c.priority > bindparam("priority"))
        | ((jobs.c.priority == bindparam("priority")) & (jobs.c.seq < bindparam("seq")))
    )
)
_WAITING = select(*(jobs.c[name] for name in (*Waiting._fields, "attempts"))).where(
    jobs.c.state == "queued"
)
_COUNTS = (
    select(jobs.c.state, func.count())
    .where(jobs.c.state.in_(["queued", "running"]))
    .group_by(jobs.c.state)
)
_IMAGES = (
    select(images)
    .where(images.c.job.in_(bindparam("ids", expanding=True)))
    .order_by(images.c.index)
)


def room(connection: Connection, values: dict[str, Any], limits: Limits, patience: float) -> int:
    """How many jobs stand before a new one.

    Raises Refused where too many wait; they may ask again after `patience` seconds.
    """
    queued, own, before = connection.execute(_BEFORE_NEW, values).one()
    if own >= limits.queued_per_client:
        raise Refused(f"{own} of your jobs wait already: wait until some are done", patience)
    if queued >= limits.queued:
        raise Refused("the queue is full: try again later", patience)
    return int(before)


def add(connection: Connection, values: dict[str, Any]) -> None:
    """Queues a job that there is `room` for."""
    connection.execute(_NEW, values)


def one(connection: Connection, id: str) -> RowMapping | None:
    return connection.execute(_ONE, {"id": id}).mappings().first()


def keyed(connection: Connection, client: str, key: str) -> RowMapping | None:
    """The client's job with this idempotency key."""
    return connection.execute(_KEYED, {"client": client, "key": key}).mappings().first()


def some(
    connection: Connection, client: str | None, states: Collection[str], limit: int
) -> Sequence[RowMapping]:
    """The newest first."""
    query: Select[Any] = select(jobs).order_by(jobs.c.seq.desc()).limit(limit)
    if client is not None:
        query = query.where(jobs.c.client == client)
    if states:
        query = query.where(jobs.c.state.in_(list(states)))
    return connection.execute(query).mappings().all()


def waiting(connection: Connection) -> list[Waiting]:
    """All queued jobs. One that a worker died of runs alone, so that it can harm no other."""
    return [
        Waiting(*row[:-1] if row[-1] == 0 else (*row[:-2], None))
        for row in connection.execute(_WAITING)
    ]


def ahead(connection: Connection, row: RowMapping) -> int:
    """How many queued jobs stand before this one, by priority and age."""
    told = {"priority": row["priority"], "seq": row["seq"]}
    return int(connection.execute(_AHEAD, told).scalar_one())


def counts(connection: Connection) -> tuple[int, int]:
    """How many are queued and running."""
    found = {row[0]: int(row[1]) for row in connection.execute(_COUNTS)}
    return found.get("queued", 0), found.get("running", 0)


def claim(connection: Connection, ids: Collection[str]) -> Sequence[RowMapping]:
    """Sets queued jobs running and returns those that now are.

    Only one thread chooses at a time, so jobs found running were set so by this very call, in a
    first run whose commit was not heard of.
    """
    chosen = jobs.c.id.in_(list(ids))
    connection.execute(
        update(jobs)
        .where(chosen & (jobs.c.state == "queued"))
        .values(state="running", started=time.time())
    )
    query = select(jobs).where(chosen & (jobs.c.state == "running")).order_by(jobs.c.seq)
    return connection.execute(query).mappings().all()


def end(connection: Connection, id: str, state: State, error: str | None) -> bool:
    """Ends a job that has not ended; whether it is in that state now."""
    connection.execute(
        update(jobs)
        .where((jobs.c.id == id) & jobs.c.state.in_(["queued", "running"]))
        .values(state=state, finished=time.time(), error=error)
    )
    row = one(connection, id)
    return row is not None and row["state"] == state


def cancel_queued(connection: Connection, id: str) -> bool:
    """Ends a job that waits; whether it is cancelled now."""
    connection.execute(
        update(jobs)
        .where((jobs.c.id == id) & (jobs.c.state == "queued"))
        .values(state="cancelled", finished=time.time())
    )
    row = one(connection, id)
    return row is not None and row["state"] == "cancelled"


def give_back(connection: Connection, ids: Collection[str]) -> None:
    """Running jobs wait again, as if they had not begun."""
    running = jobs.c.id.in_(list(ids)) & (jobs.c.state == "running")
    connection.execute(update(jobs).where(running).values(state="queued", started=None))


def died(connection: Connection, attempts: dict[str, int]) -> None:
    """The worker died while making these, which had so many `attempts` before: they wait again,
    or fail if it was not the first time."""
    for id, before in attempts.items():
        mine = (jobs.c.id == id) & (jobs.c.state == "running")
        values: dict[str, Any] = {"state": "queued", "started": None, "attempts": before + 1}
        if before + 1 >= MOST_ATTEMPTS:
            values |= {
                "state": "failed",
                "started": jobs.c.started,
                "finished": time.time(),
                "error": "the worker died twice while making it",
            }
        connection.execute(update(jobs).where(mine).values(**values))


def recover(connection: Connection) -> int:
    """After the service itself had died: what was running waits again. How many did."""
    running = jobs.c.state == "running"
    answer = connection.execute(update(jobs).where(running).values(state="queued", started=None))
    return int(answer.rowcount)


def images_of(connection: Connection, ids: Collection[str]) -> dict[str, list[RowMapping]]:
    """The images of each of these jobs, in order."""
    found: dict[str, list[RowMapping]] = {id: [] for id in ids}
    for row in connection.execute(_IMAGES, {"ids": list(ids)}).mappings():
        found[row["job"]].append(row)
    return found
