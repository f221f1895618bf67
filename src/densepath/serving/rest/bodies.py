"""Bodies of requests, read within the limits of size and time and never onto a disk."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import orjson
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from densepath.serving.errors import (
    MediaTypeError,
    RequestError,
    SlowBodyError,
    TooLargeError,
)
from densepath.serving.service import Service
from densepath.serving.settings import MEGABYTE
from densepath.serving.tensors import from_base64

Result = TypeVar("Result")
NamedFile = tuple[str, bytes]

TIMEOUT_HEADER = "X-Request-Timeout"
# What a client that was refused may still send before it hears of it.
MOST_DISCARDED, LONGEST_DISCARDING_S = 64 * MEGABYTE, 2.0
# What takes so many bytes takes long: it is done beside the event loop.
LARGE = 256_000
WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


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
    body = b"".join(parts)
    encoding = request.headers.get("content-encoding", "").lower()
    if encoding in ("", "identity"):
        return body
    plain = await beside(size, _unpack, body, encoding, too_large, limit)
    service.hold(request.state.fields, len(plain))
    return plain


async def beside(size: int, work: Callable[..., Result], *values: Any) -> Result:
    """What the work comes to; beside the event loop where `size` bytes take long."""
    if size < LARGE:
        return work(*values)
    return await asyncio.to_thread(work, *values)


async def _discard(stream: AsyncIterator[bytes]) -> None:
    """What is still coming is read, so that the client reads the answer; not for ever."""
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
    if encoding not in WINDOW:
        raise MediaTypeError(
            f"content-encoding {encoding[:32]!r} is not read; gzip and deflate are."
        )
    unpacker = zlib.decompressobj(WINDOW[encoding])
    try:
        plain = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise RequestError(f"the {encoding} body is damaged.") from error
    if len(plain) > limit:
        raise too_large
    if not unpacker.eof:
        raise RequestError(f"the {encoding} body is cut short.")
    return plain


class _InMemory(MultiPartParser):
    """Starlette writes larger parts to a temporary file; the whole body is in memory here."""

    spool_max_size = 1 << 62


async def read_images(request: Request, service: Service) -> list[NamedFile]:
    """The images of a body: a form of files, an image as it is, or JSON with base64.

    Raises:
        RequestError: there is none; or as `read_body`.
        MediaTypeError: a body of another kind.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_image = kind.startswith("image/") or kind == "application/octet-stream"
    if not is_image and kind not in ("multipart/form-data", "application/json"):
        raise MediaTypeError(
            f"the content type is {kind[:64]!r}; send multipart/form-data with files, an image as "
            'image/jpeg or the like, or application/json: {"images": ["BASE64", …]}.'
        )
    body = await read_body(request, service)
    if kind == "multipart/form-data":
        images = await _from_form(request, body, service.settings.max_images)
    elif kind == "application/json":
        images = await beside(len(body), _from_json, body)
    else:
        images = [("image", body)] if body else []
    if not images:
        raise RequestError("the request has no image.")
    return images


async def _from_form(request: Request, body: bytes, most: int) -> list[NamedFile]:
    """The files of a form, whatever their fields are called; at most so many."""

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _InMemory(request.headers, whole(), max_files=most, max_fields=most)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise TooLargeError(
                f"more than the {most} images that one request may have."
            ) from error
        raise RequestError(f"the form cannot be read: {error.message}") from error
    except (KeyError, ValueError, UnicodeError) as error:
        raise RequestError("the form cannot be read: a damaged header of a part.") from error
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    try:
        return [(file.filename or f"image {i}", await file.read()) for i, file in enumerate(files)]
    finally:
        await form.close()


def _from_json(body: bytes) -> list[NamedFile]:
    """The images of `{"images": [...]}`: base64 each, or `{"name": ..., "b64": ...}`."""
    values = read_json(body)
    listed = values.get("images")
    if not isinstance(listed, list):
        raise RequestError('the JSON has no list "images": {"images": ["BASE64", …]}.')
    return [_named(each, f"image {i}") for i, each in enumerate(listed)]


def _named(value: Any, name: str) -> NamedFile:
    """One image in JSON.

    Raises:
        RequestError: it is not base64.
    """
    text = value
    if isinstance(value, dict):
        given = value.get("name", name)
        name, text = (given if isinstance(given, str) else name), value.get("b64")
    try:
        return name, from_base64(text)
    except ValueError:
        raise RequestError(f"{name} is not base64.") from None


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
    """What the work comes to; it is cancelled when the client goes away.

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
    """Returns when the client has gone; the body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
