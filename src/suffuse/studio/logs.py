"""Structured logs: one JSON object a line on standard error, each with the id of its request."""

from __future__ import annotations

import json
import logging
import secrets
import sys
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any

LOG = logging.getLogger("suffuse.studio")
# The request that the running code serves; "" outside of any.
request_id: ContextVar[str] = ContextVar("request_id", default="")
# What every LogRecord has; the rest of one was given as `extra`.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Lines(logging.Formatter):
    """A record as JSON: time, level, logger, message, request_id, and what was given as extra."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.processName not in (None, "MainProcess"):  # a worker
            line["process"] = record.processName
        if told := request_id.get():
            line["request_id"] = told
        line |= {key: value for key, value in vars(record).items() if key not in _OWN}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        # ASCII alone: some readers take U+0085 or U+2028 for the end of a line.
        return json.dumps(line, default=str)


def configure(level: str = "INFO") -> None:
    """Send all logs and warnings to standard error as JSON, in the service and in its workers.

    uvicorn's own access log is off: `observing` has a line for every request.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    logging.getLogger("suffuse").setLevel(level)
    logging.getLogger("uvicorn.access").disabled = True
    # What is wrong with a client's form is told to the client.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)


def new_id() -> str:
    """The id of a request that came without one."""
    return secrets.token_hex(8)
