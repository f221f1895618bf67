"""The ports: opened before anything that takes time, so that a taken one is told at once."""

from __future__ import annotations

import errno
import socket
import sys

from densepath.errors import DensepathError, UsageError

# Connections that wait to be accepted; asyncio takes as many at once.
BACKLOG = 128
# A client that does not take its answer for so long is cut off.
UNTAKEN_MS = 60_000


class PortError(DensepathError):
    """A port that cannot be had."""


def open_socket(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A bound socket, not listening yet; `shared` lets other processes bind the same port.

    Raises:
        UsageError: no such host.
        PortError: the port is taken, or may not be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"--host {host!r} is no address of this machine; use 127.0.0.1, or 0.0.0.0 for all."
        ) from error
    family, kind, protocol, _, address = found[0]
    opened = socket.socket(family, kind, protocol)
    try:
        if port:  # one that a server had until just now; of any port a free one is taken
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sys.platform == "linux":
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNTAKEN_MS)
        opened.bind(address)
    except OSError as error:
        opened.close()
        raise PortError(_why(error, host, port)) from error
    opened.set_inheritable(True)
    return opened


def start_listening(opened: socket.socket) -> None:
    """Let connections wait to be accepted from now on.

    Two programs may have bound a port that was free; the first to listen has it.

    Raises:
        PortError: another program has it.
    """
    try:
        opened.listen(BACKLOG)
    except OSError as error:
        host, port = opened.getsockname()[:2]
        raise PortError(_why(error, host, port)) from error


def _why(error: OSError, host: str, port: int) -> str:
    """What to do about a port that cannot be had."""
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is taken by another program; name another one, or 0."
    if error.errno == errno.EACCES:
        return f"port {port} on {host} may not be had; name one from 1024 on."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is no address of this machine; use 127.0.0.1, or 0.0.0.0 for all."
    return f"port {port} on {host} cannot be had: {error.strerror}."


def find_port(host: str, port: int) -> int:
    """A port that is free now: `port`, or any where it is 0.

    Raises:
        UsageError, PortError: as `open_socket`.
    """
    with open_socket(host, port) as opened:
        return int(opened.getsockname()[1])


def address_of(host: str, port: int) -> str:
    """HOST:PORT, with the brackets of IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
