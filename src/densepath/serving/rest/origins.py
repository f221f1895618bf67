"""Whose pages may use the server: its own, and those of origins that it was told of.

Browsers send what any page asks for to any address, a server on their own machine too, and say
whose page it was: `Origin`. Source: the Fetch standard, "HTTP CORS protocol"; RFC 6454.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any

from densepath.errors import UsageError

ANY = "*"
_ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<address>[^/?#@\s]+)", re.IGNORECASE)
_ADDRESS = re.compile(
    r"(?P<host>\[[0-9a-f:.]+\]|[^\[\]:*]+)(?::(?P<port>[0-9]{0,5}))?", re.IGNORECASE
)
_PORTS = {"http": 80, "https": 443}
METHODS = "GET, HEAD, POST"
READABLE_HEADERS = "X-Request-Id, Retry-After, Inference-Header-Content-Length"
PREFLIGHT_SECONDS = "600"


def is_foreign(headers: Any) -> bool:
    """Whether a browser sends this for a page of another site than the one that it asks.

    The port that a scheme has anyway may be spelled out or not, letters may be large, IPv6 long,
    and a name may end in a dot. The scheme itself is not compared: TLS may end before the server.
    """
    origins = headers.getlist("origin")
    return any(not _is_own(origin, headers.get("host", "")) for origin in origins)


def _is_own(origin: str, host: str) -> bool:
    """Whether a page of the origin was sent by the host."""
    found = _ORIGIN.fullmatch(origin)
    if found is None:
        return False
    scheme = found["scheme"].lower()
    page = _address(found["address"], scheme)
    return page is not None and page == _address(host, scheme)


def _address(text: str, scheme: str) -> tuple[str, int | None] | None:
    """Host and port in one spelling; None for what is none."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        return None
    port = int(found["port"]) if found["port"] else _PORTS.get(scheme)
    host = found["host"].lower().removesuffix(".")
    if host.startswith("["):
        try:
            host = str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            return None
    return host, port


def parse_origins(texts: Iterable[str]) -> tuple[str, ...]:
    """The origins as browsers write them, or `*` for all.

    Raises:
        UsageError: one that browsers would never send.
    """
    return tuple(dict.fromkeys(_parse(text.strip()) for text in texts))


def _parse(text: str) -> str:
    """One origin."""
    origin = text if text == ANY else _written(text.removesuffix("/"))
    if origin is None:
        raise UsageError(
            f"{text!r} is no origin; write SCHEME://HOST or SCHEME://HOST:PORT, as "
            "https://photos.example.org, without a path; or '*' for every site."
        )
    return origin


def _written(origin: str) -> str | None:
    """The origin as browsers write it; None for what is none."""
    found = _ORIGIN.fullmatch(origin)
    scheme = found["scheme"].lower() if found else ""
    address = _address(found["address"], scheme) if found else None
    if address is None or scheme not in _PORTS:
        return None
    host, port = address
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}" + ("" if port == _PORTS[scheme] else f":{port}")


def answer_headers(headers: Any, allowed: tuple[str, ...]) -> dict[str, str]:
    """What lets the page read the answer; empty where its origin is not allowed."""
    if not allowed:
        return {}
    origins = headers.getlist("origin")
    if len(origins) != 1 or (ANY not in allowed and _written(origins[0]) not in allowed):
        return {"Vary": "Origin"}
    said = ANY if ANY in allowed else origins[0]
    return {
        "Access-Control-Allow-Origin": said,
        "Access-Control-Expose-Headers": READABLE_HEADERS,
        "Vary": "Origin",
    }


def is_preflight(method: str, headers: Any) -> bool:
    """Whether a browser asks what a page may send, before it sends it."""
    return method == "OPTIONS" and "access-control-request-method" in headers


def preflight_headers(headers: Any) -> dict[str, str]:
    """The answer for a page that may."""
    wanted = headers.get("access-control-request-headers", "")
    return {
        "Access-Control-Allow-Methods": METHODS,
        "Access-Control-Max-Age": PREFLIGHT_SECONDS,
        **({"Access-Control-Allow-Headers": wanted} if wanted else {}),
    }
