"""Bodies of requests, read within the limits of size and time and never onto a disk."""

from __future__ import annotations

import asyncio
import gzip
import io
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import orjson
from starlette.requests import ClientDisconnect, Request

from densepath.serving.core.errors import (
    MediaTypeError,
    RequestError,
    SlowBodyError,
    TooLargeError,
)
from densepath.serving.core.service import Service
from densepath.serving.core.settings import MEGABYTE
from densepath.serving.process.connections import CUT_SHORT

Result = TypeVar("Result")

TIMEOUT_HEADER = "X-Request-Timeout"
# What a client that was refused may still send before it hears of it.
MOST_DISCARDED, LONGEST_DISCARDING_S = 64 * MEGABYTE, 2.0
# What takes so many bytes takes long: it is done beside the event loop.
LARGE = 256_000


async def read_body(request: Request, service: Service) -> bytes:
    """The whole body, without its compression.

    Raises:
        TooLargeError: it is larger than allowed.
        BusyError: with it all bodies together would be.
        SlowBodyError: it did not arrive in time.
        MediaTypeError: it is compressed in a way that is not read.
        RequestError: its compression is damaged.
    """
    settings = service.settings
    limit = settings.max_body_bytes
    too_large = TooLargeError(
        f"the body is larger than the {limit / MEGABYTE:g} MB allowed; send fewer or smaller "
        "images."
    )
    length = request.headers.get("content-length", "")
    stream = request.stream()
    if length.isdigit() and int(length) > limit:
        await _discard(stream)
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(settings.body_timeout_s):
            async for part in stream:
                size += len(part)
                if size > limit:
                    break
                service.hold(request.state.fields, len(part))
                parts.append(part)
    except TimeoutError:
        raise SlowBodyError(
            f"the body did not arrive within {settings.body_timeout_s:g} s."
        ) from None
    if size > limit:
        parts.clear()
        await _discard(stream)
        raise too_large
    if getattr(request.state, CUT_SHORT, False):
        told = f" of the {int(length):,} announced" if length.isdigit() else ""
        raise RequestError(f"the connection ended after {size:,} bytes of the body{told}.")
    body = b"".join(parts)
    encoding = request.headers.get("content-encoding", "").lower()
    if encoding in ("", "identity"):
        return body
    plain = await beside(size, _unpack, body, encoding, too_large, limit)
    service.hold(request.state.fields, len(plain))
    return plain


async def beside(size: int, work: Callable[..., Result], *values: Any) -> Result:
    """The result of the work; beside the event loop where `size` bytes take long."""
    if size < LARGE:
        return work(*values)
    return await asyncio.to_thread(work, *values)


async def _discard(stream: AsyncIterator[bytes]) -> None:
    """Read what is still coming, so that the client reads the answer; not for ever."""
    size = 0
    try:
        async with asyncio.timeout(LONGEST_DISCARDING_S):
            async for part in stream:
                size += len(part)
                if size > MOST_DISCARDED:
                    return
    except (TimeoutError, ClientDisconnect):
        return


def _unpack(body: bytes, encoding: str, too_large: TooLargeError, limit: int) -> bytes:
    """The body without gzip or deflate."""
    if encoding not in UNPACK:
        raise MediaTypeError(
            f"content-encoding {encoding[:32]!r} is not read; gzip and deflate are."
        )
    try:
        plain = UNPACK[encoding](body, limit + 1)
    except EOFError as error:
        raise RequestError(f"the {encoding} body is cut short.") from error
    except (zlib.error, OSError) as error:
        raise RequestError(f"the {encoding} body is damaged.") from error
    if len(plain) > limit:
        raise too_large
    return plain


def _gunzip(body: bytes, most: int) -> bytes:
    """What all members of a gzip file hold, at most so many bytes."""
    if not body:
        raise EOFError
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
        return file.read(most)


def _inflate(body: bytes, most: int) -> bytes:
    """What a zlib stream holds, at most so many bytes."""
    unpacker = zlib.decompressobj()
    plain = unpacker.decompress(body, most)
    if len(plain) < most and not unpacker.eof:
        raise EOFError
    if unpacker.unused_data:
        raise zlib.error("bytes behind the end")
    return plain


UNPACK = {"gzip": _gunzip, "x-gzip": _gunzip, "deflate": _inflate}


def read_json(body: bytes | memoryview) -> dict[str, Any]:
    """The JSON object in a body.

    Raises:
        RequestError: it is none.
    """
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise RequestError("the body must be a JSON object.")
    return values


def asked_seconds(request: Request) -> float | None:
    """The time limit that the client tells in `X-Request-Timeout`, in seconds.

    Raises:
        RequestError: it is no number.
    """
    said = request.headers.get(TIMEOUT_HEADER)
    if said is None:
        return None
    try:
        seconds = float(said)
    except ValueError:
        seconds = float("nan")
    if not 0 < seconds < float("inf"):
        raise RequestError(f"{TIMEOUT_HEADER} is {said[:32]!r}; it must be seconds above 0.")
    return seconds


async def while_connected(request: Request, work: Awaitable[Result]) -> Result:
    """The result of the work, which is cancelled when the client goes away.

    Raises:
        ClientDisconnect: the client went.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _until_gone(request: Request) -> None:
    """Wait until the client has gone; the body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
