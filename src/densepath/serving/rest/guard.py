"""What every REST request goes through: its id, the API key, a line in the log, the counters.

The outermost piece: nothing that a route raises goes past it, and no answer says more of a failure
than that there was one.
"""

from __future__ import annotations

import logging
import time

import orjson
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from densepath.serving.core.access import (
    FAILED,
    FOREIGN,
    NOT_ALLOWED,
    is_key,
    key_in,
    request_id,
)
from densepath.serving.core.logs import log, log_request
from densepath.serving.core.service import Service
from densepath.serving.page import DOCS, FILES
from densepath.serving.rest.origins import (
    answer_headers,
    is_foreign,
    is_preflight,
    preflight_headers,
)

CLIENT_GONE = 499  # as nginx logs it
# Orchestrators ask these without a key; the page's files hold no secret.
OPEN = frozenset({"/v2/health/live", "/v2/health/ready", DOCS, *FILES})


class Guard:
    """The app behind all this."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        state = scope.setdefault("state", {})
        state["request_id"] = name = request_id(headers.get("x-request-id"))
        state["fields"] = {}
        allowed = answer_headers(headers, self._service.settings.allowed_origins)
        may_read = len(allowed) > 1
        started, answered = time.monotonic(), _Answer(send, name, self._service, allowed)
        asked = as_get(scope)
        try:
            key = self._service.settings.api_key
            if is_foreign(headers) and not may_read:
                await answered.refuse(403, FOREIGN)
            elif may_read and is_preflight(scope["method"], headers):
                await answered.empty(204, preflight_headers(headers))
            elif key and scope["path"] not in OPEN and not is_key(key_in(headers), key):
                await answered.refuse(401, NOT_ALLOWED, {"WWW-Authenticate": "Bearer"})
            else:
                await self._app(asked, receive, answered)
        except ClientDisconnect:
            answered.status = CLIENT_GONE
        except Exception as error:
            log("failed", level=logging.ERROR, request_id=name, exc_info=error)
            if answered.status is None:
                await answered.refuse(500, FAILED)
        finally:
            self._service.let_go(state["fields"])
            self._write(scope["method"], asked, name, answered.status or CLIENT_GONE, started)

    def _write(self, method: str, scope: Scope, name: str, status: int, started: float) -> None:
        """Write the line in the log, and count."""
        route = getattr(scope.get("route"), "path", "none")
        fields = scope["state"]["fields"]
        log_request(name, "rest", f"{method} {route}", status, started, **fields)
        metrics = self._service.metrics
        metrics.requests.labels("rest", route, status).inc()
        metrics.request_seconds.labels("rest", route).observe(time.monotonic() - started)


def as_get(scope: Scope) -> Scope:
    """The scope of a HEAD, answered as GET is: the connection leaves the body out."""
    return {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope


class _Answer:
    """`send`, with the headers of every answer; remembers the status."""

    def __init__(
        self, send: Send, request_id: str, service: Service, headers: dict[str, str]
    ) -> None:
        self._send, self._request_id, self._service = send, request_id, service
        self._headers = headers
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self._request_id
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Cache-Control", "no-store")
            headers.update(self._headers)
            if self._service.draining:
                headers["Connection"] = "close"
        await self._send(message)

    async def refuse(self, status: int, error: str, headers: dict[str, str] | None = None) -> None:
        """Send a whole refusal."""
        body = orjson.dumps({"error": error, "request_id": self._request_id})
        pairs = {"content-type": "application/json", "content-length": str(len(body))}
        await self._whole(status, pairs | (headers or {}), body)

    async def empty(self, status: int, headers: dict[str, str]) -> None:
        """Send an answer that has no body."""
        await self._whole(status, headers, b"")

    async def _whole(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Send all of an answer."""
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self({"type": "http.response.start", "status": status, "headers": raw})
        await self({"type": "http.response.body", "body": body})
