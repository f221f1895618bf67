"""One of several processes that serve: what it hears from the one that watches, and says to it.

It opens what the others hold, says so, and takes requests once it is told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from densepath.errors import DensepathError
from densepath.serving.core.errors import LoadError, RequestError
from densepath.serving.core.held import Holdings
from densepath.serving.core.logs import log, logging_to_stderr
from densepath.serving.core.settings import ModelSource, Settings

if TYPE_CHECKING:
    from densepath.serving.core.service import Service

# Said by a worker: it holds the models, answers, cannot start, was asked for something by a client,
# has done what it was told, is there.
OPENED, READY, FAILED, ORDER, OBEYED = "opened", "ready", "failed", "order", "obeyed"
HERE = "here"
# Said to a worker: take requests; what becomes of a model; what became of a client's order; say
# that you are there.
GO, PREPARE, TAKE, DROP, UNLOAD, DONE = "go", "prepare", "take", "drop", "unload", "done"
ARE_YOU_THERE = "are you there"


@dataclass(frozen=True)
class Start:
    """What a worker starts from.

    Attributes:
        settings, sources, listening: as in `serve`.
        pipe: to the process that watches.
        holdings: the bundles that it must hold, by name and version.
        tolerant: a bundle that cannot be opened stays away.
    """

    settings: Settings
    sources: Sequence[ModelSource]
    listening: socket.socket
    pipe: Connection
    holdings: Holdings
    tolerant: bool


def work(start: Start) -> None:
    """Open the models, serve, and end when told to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor hears it, too, and tells all
    with logging_to_stderr(start.settings):
        try:
            asyncio.run(_Worker(start).serve())
        except DensepathError as error:
            start.pipe.send((FAILED, str(error)))
        except Exception as error:  # told here, for nobody must wait to tell it
            log("worker failed", level=logging.ERROR, exc_info=error)
            raise SystemExit(1) from None


class _Worker:
    """The event loop's side of the pipe."""

    def __init__(self, start: Start) -> None:
        self._start, self._pipe = start, start.pipe
        self._waiting: list[asyncio.Future[str | None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._go = asyncio.Event()
        self._service: Service

    async def serve(self) -> None:
        """Serve until told to end.

        Raises:
            DensepathError: a bundle that cannot be opened, or a port that cannot be had.
        """
        from densepath.serving.process.server import describe, serve

        start = self._start

        async def open_models(service: Service) -> None:
            await service.start(start.holdings, tolerant=start.tolerant)
            self._service, service.order = service, self._order
            asyncio.get_running_loop().add_reader(self._pipe.fileno(), self._hear)
            self._pipe.send((OPENED, service.repository.holdings))
            await self._go.wait()

        def ready(service: Service) -> None:
            self._pipe.send((READY, describe(service, start.listening.getsockname()[1])))

        await serve(
            start.settings,
            start.sources,
            start.listening,
            open_models=open_models,
            ready=ready,
            interruptible=False,
        )

    async def _order(self, verb: str, name: str) -> None:
        """Have every worker obey the order.

        Raises:
            NotFoundError, LoadError: as `Repository.load`.
        """
        self._service.repository.versions(name)  # says which names there are
        done: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(done)
        self._pipe.send((ORDER, verb, name))
        said = await done
        if said is not None:
            raise LoadError(said)

    def _hear(self) -> None:
        """Handle a message that has come."""
        loop = asyncio.get_running_loop()
        try:
            kind, *rest = self._pipe.recv()
        except (EOFError, OSError):  # the supervisor is gone: so should be its workers
            loop.remove_reader(self._pipe.fileno())
            os.kill(os.getpid(), signal.SIGTERM)
            return
        if kind == GO:
            self._go.set()
        elif kind == ARE_YOU_THERE:
            with contextlib.suppress(OSError):  # the supervisor is gone, as comes next
                self._pipe.send((HERE,))
        elif kind == DONE:
            done = self._waiting.pop(0)
            if not done.done():  # else the client has gone
                done.set_result(rest[0])
        else:
            task = loop.create_task(self._obey(kind, *rest))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _obey(self, kind: str, name: str, *rest: Any) -> None:
        """Do a step of an order, and tell what came of it."""
        repository, said = self._service.repository, None
        try:
            if kind == PREPARE:
                await repository.prepare(name, *rest)
            elif kind == UNLOAD:
                await repository.unload(name)
            else:
                (repository.take if kind == TAKE else repository.drop)(name, *rest)
        except RequestError as error:
            said = str(error)
        self._pipe.send((OBEYED, said))
