"""One line an event on standard error: JSON for machines, or text for people."""

from __future__ import annotations

import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any

LOGGER = logging.getLogger("densepath.serving")
# The time of a line, to the millisecond.
_LEVELS = {logging.WARNING: "warning", logging.ERROR: "error"}


class _Lines(logging.Formatter):
    """A record with the fields of its `extra={"fields": {...}}`."""

    def __init__(self, format: str) -> None:
        super().__init__()
        self._json = format == "json"

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = getattr(record, "fields", {})
        level = _LEVELS.get(record.levelno, "info")
        if record.exc_info:
            fields = {**fields, "exception": self.formatException(record.exc_info)}
        if self._json:
            line = {"time": moment, "level": level, "event": record.getMessage(), **fields}
            return json.dumps(line, ensure_ascii=True, default=str)
        words = " ".join(f"{name}={value}" for name, value in fields.items())
        text = f"{moment} {level:7} {record.getMessage()} {words}".rstrip()
        return text if record.exc_info else text.replace("\n", "\\n").replace("\r", "\\r")


def start_logging(format: str) -> None:
    """The server's events, and warnings of the libraries under it, go to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(format))
    LOGGER.handlers = [handler]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    for name in ("uvicorn", "uvicorn.error", "grpc", "grpc._cython.cygrpc", "asyncio"):
        library = logging.getLogger(name)
        library.handlers = [handler]
        library.setLevel(logging.WARNING)
        library.propagate = False
    # Every request has a line of its own already.
    logging.getLogger("uvicorn.access").disabled = True


def log(event: str, *, level: int = logging.INFO, exc_info: Any = None, **fields: Any) -> None:
    """Writes one line."""
    LOGGER.log(level, event, extra={"fields": fields}, exc_info=exc_info)


def log_request(
    request_id: str, protocol: str, route: str, status: object, started: float, **fields: Any
) -> None:
    """Writes the line of a request that has ended; `started` by `time.monotonic`."""
    log(
        "request",
        request_id=request_id,
        protocol=protocol,
        route=route,
        status=status,
        ms=round((time.monotonic() - started) * 1000, 2),
        **fields,
    )
