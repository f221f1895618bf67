"""One line an event on standard error: JSON for machines, or text for people."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from densepath.serving.core.outlet import Outlet, outlet_to_stderr
from densepath.serving.core.settings import Settings

LOGGER = logging.getLogger("densepath.serving")
LIBRARIES = ("uvicorn", "uvicorn.error", "grpc", "grpc._cython.cygrpc", "asyncio")
# By the option `--log-level`.
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_NAMES = {number: name for name, number in LEVELS.items()}
_ANY_MODEL = ("/models/{name}", "/models/{name}/versions/{version}")
PROBES = frozenset(
    [
        "GET /metrics",
        "HEAD /metrics",
        "ServerLive",
        "ServerReady",
        "ModelReady",
        *(f"{verb} /v2/health/{what}" for verb in ("GET", "HEAD") for what in ("live", "ready")),
        *(f"{verb} /v2{model}/ready" for verb in ("GET", "HEAD") for model in _ANY_MODEL),
        *(f"{verb} /v1/models/{{name}}" for verb in ("GET", "HEAD")),
    ]
)

_outlet: Outlet | None = None


class _Lines(logging.Formatter):
    """A record with the fields of its `extra={"fields": {...}}`."""

    def __init__(self, format: str) -> None:
        super().__init__()
        self._json = format == "json"

    def format(self, record: logging.LogRecord) -> str:
        # To the millisecond.
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, Any] = getattr(record, "fields", {})
        level = _NAMES.get(record.levelno, "info")
        if record.exc_info:
            fields = {**fields, "exception": self.formatException(record.exc_info)}
        if self._json:
            line = {"time": moment, "level": level, "event": record.getMessage(), **fields}
            return json.dumps(line, ensure_ascii=True, default=str)
        words = " ".join(f"{name}={value}" for name, value in fields.items())
        text = f"{moment} {level:7} {record.getMessage()} {words}".rstrip()
        return text if record.exc_info else text.replace("\n", "\\n").replace("\r", "\\r")


@contextmanager
def logging_to_stderr(settings: Settings) -> Iterator[None]:
    """While this is entered the server's events, and warnings of the libraries under it, go there.

    Nobody waits for who reads them: as `outlet.py` says.
    """
    global _outlet
    lines, level = _Lines(settings.log_format), LEVELS[settings.log_level]
    with outlet_to_stderr(lambda count: lines.format(_dropped(count))) as outlet:
        handler = _Handler(outlet, lines)
        LOGGER.handlers, LOGGER.propagate = [handler], False
        LOGGER.setLevel(level)
        for name in LIBRARIES:
            library = logging.getLogger(name)
            library.handlers, library.propagate = [handler], False
            library.setLevel(max(level, logging.WARNING))
        # Every request has a line of its own already.
        logging.getLogger("uvicorn.access").disabled = True
        _outlet = outlet
        try:
            yield
        finally:
            _outlet = None
            for name in (LOGGER.name, *LIBRARIES):
                logging.getLogger(name).handlers = []


class _Handler(logging.Handler):
    """Hands lines to the outlet."""

    def __init__(self, outlet: Outlet, lines: _Lines) -> None:
        super().__init__()
        self._outlet = outlet
        self.setFormatter(lines)

    def emit(self, record: logging.LogRecord) -> None:
        """A record's line."""
        try:
            line = self.format(record)
        except Exception:  # a value that cannot be written as text
            self.handleError(record)
        else:
            self._outlet.put(line)


def _dropped(count: int) -> logging.LogRecord:
    """What the log says where lines are missing."""
    fields = {"count": count, "reason": "who reads the log was too slow, or away"}
    values = {"msg": "log lines dropped", "levelno": logging.WARNING, "fields": fields}
    return logging.makeLogRecord(values)


def finish_logging() -> None:
    """What waits is written: before the process ends as it stands."""
    if _outlet is not None:
        _outlet.close()


def count_dropped(listener: Callable[[], None]) -> None:
    """It is called for each line that is dropped from now on."""
    if _outlet is not None:
        _outlet.on_drop(listener)


def log(event: str, *, level: int = logging.INFO, exc_info: Any = None, **fields: Any) -> None:
    """Writes one line."""
    LOGGER.log(level, event, extra={"fields": fields}, exc_info=exc_info)


def log_request(
    request_id: str, protocol: str, route: str, status: object, started: float, **fields: Any
) -> None:
    """Writes the line of a request that has ended; `started` by `time.monotonic`.

    Those that orchestrators and Prometheus send every few seconds are details, unless they fail.
    """
    is_detail = route in PROBES and status in (200, "OK")
    log(
        "request",
        level=logging.DEBUG if is_detail else logging.INFO,
        request_id=request_id,
        protocol=protocol,
        route=route,
        status=status,
        ms=round((time.monotonic() - started) * 1000, 2),
        **fields,
    )
