"""Uvicorn's HTTP connections, each held to the time and size that its headers may take.

By itself uvicorn waits for ever for the end of a request's headers: a client that sends a byte
now and then ("slow loris") would keep its connection. And it drops a client that says with its
request that it will send no more (a half-closed connection, as `nc -N` makes): here it is answered.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from densepath.serving.core.settings import Settings

MOST_HEADER_BYTES = 64 << 10
KEEP_ALIVE_S = 30
# For a client to read why it was refused; and for a request on its way when the server stops.
FAREWELL_S = 1.0
# Whether a client that sends no more still listens is found out when its answer takes so long.
PROBE_S = 0.1
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# In the state of a request: its body ended before the length that was announced, or its last chunk.
CUT_SHORT = "is_cut_short"


def limited_protocol(settings: Settings) -> Callable[..., asyncio.Protocol]:
    """The class of connections with the limits of the settings."""

    class Limited(_LimitedProtocol):
        header_timeout_s = settings.header_timeout_s
        max_connections = settings.max_connections

    return Limited


class _LimitedProtocol(HttpToolsProtocol):
    """A connection; it is closed when headers are late or too large, or there are too many."""

    header_timeout_s: float
    max_connections: int
    _alarm: asyncio.TimerHandle | None = None
    _probe: asyncio.TimerHandle | None = None
    _header_bytes = 0
    _is_refused = _is_ending = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give a new connection its time, or refuse it where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._refuse(503, "too many connections; come back later.")
        else:
            self._watch(self.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the alarm and the probe of a client that has gone."""
        self._unwatch()
        self._stop_probing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse some bytes; none of a connection that is being closed."""
        if self._is_refused or self.transport.is_closing():
            return
        if self._alarm is not None:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._alarm is not None and self._header_bytes > MOST_HEADER_BYTES:
            self._refuse(431, f"the headers are larger than {MOST_HEADER_BYTES} bytes.")

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more; what it has asked for is still answered, before the close.

        TLS knows no half-closed connections: there asyncio closes whatever is returned here.
        """
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.more_body:
                self.scope["state"][CUT_SHORT] = True
                cycle.more_body = False
                cycle.message_event.set()
            cycle.keep_alive = False
            if self._probe is None:
                self._probe = self.loop.call_later(PROBE_S, self._ask_whether_there)
            return True
        if not self._is_refused and self._header_bytes:
            self._refuse(400, "the connection ended before the request's headers were whole.")
            return True
        return False

    def _ask_whether_there(self) -> None:
        """Write what every client of HTTP/1.1 passes over: one that has gone answers by a reset.

        Without this, a client that closed its connection would look as one that waits.
        """
        if self.pipeline:  # an earlier answer may be half written
            self._probe = self.loop.call_later(PROBE_S, self._ask_whether_there)
            return
        if self.cycle.scope["http_version"] == "1.1" and not self.cycle.response_started:
            self.transport.write(CONTINUE)
        self._look_for_reset()

    def _look_for_reset(self) -> None:
        """Close the connection if it was reset: nobody reads from it, so nothing else tells."""
        connection = self.transport.get_extra_info("socket")
        if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        else:
            self._probe = self.loop.call_later(PROBE_S, self._look_for_reset)

    def _stop_probing(self) -> None:
        """Stop asking whether the client is there."""
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None

    def on_headers_complete(self) -> None:
        """Stop the alarm, for a request begins."""
        self._unwatch()
        super().on_headers_complete()
        if self._is_ending:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Close the connection, after a request that is on its way already is answered."""
        self._is_ending = True
        if self.cycle is None or self.cycle.response_complete:
            self._watch(FAREWELL_S)
        else:
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        """Give the next request the time of keep-alive, and of its headers."""
        self._watch(KEEP_ALIVE_S + self.header_timeout_s)
        super().on_response_complete()

    def _watch(self, seconds: float) -> None:
        """Set the alarm that rings unless headers are complete before."""
        self._unwatch()
        self._alarm = self.loop.call_later(seconds, self._late)

    def _unwatch(self) -> None:
        """Stop the alarm."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._header_bytes = 0

    def _late(self) -> None:
        """Refuse headers that did not come in time."""
        self._alarm = None
        if self._is_ending and not self._header_bytes:
            self.transport.close()
        else:
            self._refuse(408, "the request's headers did not arrive in time.")

    def _refuse(self, status: int, error: str) -> None:
        """Write why, and close; what still comes meanwhile is not looked at.

        A connection that is closed while bytes come is reset, and the client never reads why.
        """
        self._unwatch()
        if self._is_refused or self.transport is None or self.transport.is_closing():
            return
        self._is_refused = True
        body = b'{"error": "%s", "request_id": ""}' % error.encode()
        head = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + b"connection: close\r\n\r\n" + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.loop.call_later(FAREWELL_S, self.transport.close)
        else:
            self.transport.close()


def protocol_options(settings: Settings) -> dict[str, Any]:
    """The part of uvicorn's configuration that is about connections."""
    return {
        "http": limited_protocol(settings),
        "ws": "none",
        "loop": "asyncio",
        "lifespan": "off",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": KEEP_ALIVE_S,
        "ssl_certfile": settings.certificate,
        "ssl_keyfile": settings.key,
    }
