"""Structured log lines: one JSON object each, never a payload, a key or a plaintext."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

LOGGER: Final = logging.getLogger("he_infer.server")


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: time, level, event and the fields given to it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        return json.dumps(line, default=str)


def log_event(level: int, event: str, fields: Mapping[str, Any]) -> None:
    """Write one line for ``event``."""
    LOGGER.log(level, event, extra={"fields": dict(fields)})


def where_raised(error: BaseException) -> str:
    """The innermost file and line of an exception, without its message, which may hold data."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None:
        return type(error).__name__
    name = frame.tb_frame.f_code.co_filename.rsplit("/", 1)[-1]
    return f"{type(error).__name__} at {name}:{frame.tb_lineno}"


def log_to_stderr() -> None:
    """Send the service's log to standard error as JSON lines; for the process that serves."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    LOGGER.handlers = [handler]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    # uvicorn's own complaints, in the same format, which leaves tracebacks out.
    foreign = logging.getLogger("uvicorn.error")
    foreign.handlers = [handler]
    foreign.setLevel(logging.WARNING)
    foreign.propagate = False
