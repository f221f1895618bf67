"""An HTTP client that says how each of its requests ended, and what `serving.py` does with it.

Three ways to ask: one request after another, a few such clients beside other load, and an open loop
that sends so many a second whatever becomes of them. All end after the seconds that they are given.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from serving_answers import BOUNDARY, Photo

PATIENCE_SECONDS = 60
PAUSE_SECONDS = 0.05  # of a client that asks in turn, when it was refused
# Of the open loop; beyond, requests are not sent, and counted.
MOST_IN_FLIGHT = 1000


@dataclass(frozen=True, repr=False)
class Reply:
    """How a request ended.

    Attributes:
        photo: what was sent.
        sent: when, in seconds of a monotonic clock.
        seconds: from there to the last byte of the answer.
        status: of HTTP; 0 where no whole answer came.
        headers: by names in lower case.
        body: of the answer, or why there is none.
    """

    photo: Photo
    sent: float
    seconds: float
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """A connection that is kept, and opened again where the server has closed it."""

    def __init__(self, url: str) -> None:
        """Nothing is opened yet."""
        parts = urlsplit(url)
        self._host, self._port, self._path = parts.hostname or "", parts.port or 80, parts.path
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, photo: Photo) -> Reply:
        """How the request ended, which it does after PATIENCE_SECONDS at the latest."""
        sent = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                status, headers, body = await self._exchange(photo.body)
        except (OSError, EOFError, ValueError) as error:
            self.close()
            words = f"{type(error).__name__}: {error}"
            status, headers, body = 0, {}, words.encode()
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Reply(photo, sent, time.monotonic() - sent, status, headers, body)

    def close(self) -> None:
        """The connection is closed."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer."""
        if self._streams is None or self._streams[0].at_eof():
            self.close()
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        # A server may refuse a request before it has read all of it.
        answer = asyncio.ensure_future(_read(reader))
        writer.write(self._head(len(body)) + body)
        return await answer

    def _head(self, length: int) -> bytes:
        """The lines above the body."""
        return (
            f"POST {self._path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
            f"Content-Length: {length}\r\n\r\n"
        ).encode()


async def _read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one answer with a Content-Length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): text.strip() for name, _, text in pairs}
    if "content-length" not in headers:
        raise ValueError(f"an answer without Content-Length: {first}")
    body = await reader.readexactly(int(headers["content-length"]))
    return int(first.split()[1]), headers, body


async def ask_in_turn(
    url: str, photos: Sequence[Photo], *, seconds: float = 0.0, count: int = 1
) -> list[Reply]:
    """One client that asks again when it has been answered: so many seconds, and `count` times."""
    client, replies, end = Client(url), [], time.monotonic() + seconds
    for photo in itertools.cycle(photos):
        if len(replies) >= count and time.monotonic() >= end:
            break
        replies.append(await client.post(photo))
        if replies[-1].status != 200:
            await asyncio.sleep(PAUSE_SECONDS)
    client.close()
    return replies


async def ask_beside(
    url: str, photos: Sequence[Photo], *, clients: int, seconds: float, command: Sequence[str]
) -> list[Reply]:
    """The replies to a few clients while a command loads the server."""
    load = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    try:
        shares = [photos[i::clients] for i in range(clients)]
        asked = [ask_in_turn(url, share, seconds=seconds) for share in shares]
        return [reply for replies in await asyncio.gather(*asked) for reply in replies]
    finally:
        await load.wait()


@dataclass(repr=False)
class OpenLoop:
    """What a load of so many requests a second came to.

    Attributes:
        replies: of all that were sent.
        unsent: requests for which nothing was free.
        seconds: that the sending took.
    """

    replies: list[Reply] = field(default_factory=list)
    unsent: int = 0
    seconds: float = 0.0


async def ask_without_waiting(
    url: str, photos: Sequence[Photo], *, rate: float, seconds: float, after: float
) -> tuple[OpenLoop, list[Reply]]:
    """An open loop, and what one client that asks in turn is told in the `after` seconds behind it.

    The latter begins when the last request has been sent, not when the last answer has come.
    """
    loop, idle = OpenLoop(), [Client(url)]
    running: set[asyncio.Task[None]] = set()

    async def ask(photo: Photo) -> None:
        client = idle.pop() if idle else Client(url)
        loop.replies.append(await client.post(photo))
        idle.append(client)

    start = time.monotonic()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
        if len(running) >= MOST_IN_FLIGHT:
            loop.unsent += 1
            continue
        task = asyncio.create_task(ask(photos[number % len(photos)]))
        running.add(task)
        task.add_done_callback(running.discard)
    loop.seconds = time.monotonic() - start
    behind = await ask_in_turn(url, photos, seconds=after)
    await asyncio.gather(*running)
    for client in idle:
        client.close()
    return loop, behind
