"""The database: opened once, used in short transactions that outlive its restarts."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    TimeoutError,
)

from suffuse.errors import SuffuseError
from suffuse.studio import tables
from suffuse.studio.settings import Settings
from suffuse.studio.views import Refused

log = logging.getLogger(__name__)
T = TypeVar("T")
FOR_EVER = float("inf")


class Store:
    """Runs transactions, again where the database went away meanwhile.

    A transaction may run twice, also where its first run was committed and only the answer was
    lost: all of them are written so that this changes nothing.
    """

    def __init__(self, settings: Settings) -> None:
        self.trouble: str | None = None  # what hinders it now, in one sentence
        self._closing = threading.Event()
        self._engine = _engine(settings)
        # SQLite has one writer at a time. Who waits in SQLite sleeps for ever longer moments; who
        # waits here goes on at once.
        sqlite = self._engine.dialect.name == "sqlite"
        self._writer = threading.Lock() if sqlite else nullcontext()

    def open(self) -> None:
        """Makes the tables where there are none. Raises SuffuseError."""
        try:
            tables.metadata.create_all(self._engine)
        except DBAPIError as error:
            raise SuffuseError(f"the database cannot be used: {_reason(error)}") from error

    def give_up(self) -> None:
        """Transactions wait no longer for a database that is away: they raise Refused."""
        self._closing.set()

    def close(self) -> None:
        self._closing.set()
        self._engine.dispose()

    def read(self, work: Callable[[Connection], T], patience: float = 3.0) -> T:
        """`work` in a transaction that only reads; see `write`."""
        return self._run(work, patience, writing=False)

    def write(self, work: Callable[[Connection], T], patience: float = 3.0) -> T:
        """`work` in a transaction; tried again for `patience` seconds while the database is away
        or its disk is full. Raises Refused (503) after that."""
        return self._run(work, patience, writing=True)

    def _run(self, work: Callable[[Connection], T], patience: float, writing: bool) -> T:
        until, pause = time.monotonic() + patience, 0.05
        while True:
            try:
                found = self._once(work, writing)
                self.trouble = None
                return found
            except (OperationalError, InterfaceError, TimeoutError) as error:
                self._passing(error, until)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                self._passing(error, until)
            self._closing.wait(pause)
            pause = min(2 * pause, 1.0)

    def _once(self, work: Callable[[Connection], T], writing: bool) -> T:
        turn = self._writer if writing else nullcontext()
        with turn, self._engine.connect() as connection:
            connection = connection.execution_options(writing=writing)
            with connection.begin():
                return work(connection)

    def _passing(self, error: Exception, until: float) -> None:
        """Notes the trouble; raises Refused where there is no time left to wait for its end."""
        reason = _reason(error)
        if self.trouble is None:
            log.warning("the database does not answer: %s", reason)
        self.trouble = f"the database does not answer: {reason}"
        if self._closing.is_set() or time.monotonic() >= until:
            raise Refused(f"nothing can be kept now: {reason}", 5, status=503) from error


def _engine(settings: Settings) -> Engine:
    # Not as text, in which a ? or % of a folder's name would mean something.
    beside = URL.create("sqlite", database=str(settings.data / "studio.db"))
    many: dict[str, Any] = {"pool_size": 10, "max_overflow": 40, "pool_timeout": 10}
    try:
        url = make_url(settings.database or beside)
        name = url.get_backend_name()
        if name == "postgresql":
            many |= {"pool_pre_ping": True, "connect_args": {"connect_timeout": 5}}
        engine = create_engine(url, **many)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        line = str(error).splitlines()[0]
        raise SuffuseError(f"database is not an SQLAlchemy URL that works here: {line}") from error
    if name == "sqlite":
        event.listen(engine, "connect", _sqlite_connected)
        event.listen(engine, "begin", _sqlite_begun)
    return engine


def _sqlite_connected(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late, see below
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("PRAGMA busy_timeout = 10000")


def _sqlite_begun(connection: Connection) -> None:
    # A transaction that reads first and then writes cannot wait for another writer: SQLite refuses
    # it at once, as what it has read may be out of date. So writers announce themselves.
    writing = connection.get_execution_options().get("writing", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _reason(error: Exception) -> str:
    """In a few words, without what an address or a path would tell."""
    text = str(getattr(error, "orig", None) or error).lower()
    known = {
        "disk is full": "the disk is full",
        "no space left": "the disk is full",
        "disk i/o error": "the disk cannot be written",
        "readonly": "it cannot be written",
        "locked": "it is busy",
        "unable to open": "its file cannot be opened",
        "not a database": "its file is no database",
        "password": "it does not let us in",
        "does not exist": "it is not there",
    }
    return next((said for part, said in known.items() if part in text), "the connection is lost")
