"""Several processes behind the same ports, and the one that watches over them.

REST's socket is one for all: what a worker has not accepted yet another takes, also when that
worker is killed. gRPC's port is bound by each. A worker that dies is replaced; the orders of the
repository (load, unload) come from whichever worker a client reached, and go to all.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from densepath.errors import DensepathError
from densepath.serving.errors import LoadError, NotFoundError, RequestError
from densepath.serving.logs import log, start_logging
from densepath.serving.metrics import SHARED_FOLDER, make_shared_folder
from densepath.serving.settings import ModelSource, Settings

# A worker that dies sooner than this after its start has failed to start.
SHORT_LIFE_S = 5.0
MOST_FAILURES = 3
READY, FAILED, ORDER, DONE, OBEY, OBEYED = "ready", "failed", "order", "done", "obey", "obeyed"
ERRORS: dict[str, type[RequestError]] = {"LoadError": LoadError, "NotFoundError": NotFoundError}


@dataclass
class _Worker:
    """A process, and the pipe to it."""

    process: BaseProcess
    pipe: Connection
    started: float
    is_ready: bool = False


def supervise(
    settings: Settings,
    sources: Sequence[ModelSource],
    listening: socket.socket,
    announce: Callable[[str], None],
) -> None:
    """Keeps the workers running until a signal; returns when all have ended.

    Raises:
        DensepathError: a bundle cannot be opened, or workers die again and again.
    """
    folder = make_shared_folder()
    os.environ[SHARED_FOLDER] = folder
    try:
        _Supervisor(settings, sources, listening, announce).run()
    finally:
        del os.environ[SHARED_FOLDER]
        shutil.rmtree(folder, ignore_errors=True)


class _Supervisor:
    """The loop of the process that watches."""

    def __init__(
        self,
        settings: Settings,
        sources: Sequence[ModelSource],
        listening: socket.socket,
        announce: Callable[[str], None],
    ) -> None:
        self._settings, self._sources = settings, sources
        self._listening, self._announce = listening, announce
        self._workers: list[_Worker] = []
        self._failures, self._announced = 0, False
        # The worker that asked, and the workers that have still to obey; one order at a time.
        self._asking: _Worker | None = None
        self._left: list[_Worker] = []
        self._said: str | None = None
        self._orders: list[tuple[_Worker | None, str, str]] = []
        self._signals: list[int] = []
        self._wake, self._woken = socket.socketpair()

    def run(self) -> None:
        """Until a signal, and the end of the last worker."""
        signals = self._signals
        self._wake.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, frame: signals.append(number))
        signal.set_wakeup_fd(self._wake.fileno())
        try:
            for _ in range(self._settings.workers):
                self._start()
            while not (set(signals) & {signal.SIGTERM, signal.SIGINT}):
                if signal.SIGHUP in signals:
                    signals.remove(signal.SIGHUP)
                    names = dict.fromkeys(source.name for source in self._sources)
                    self._orders += [(None, "load", name) for name in names]
                self._step()
        finally:
            self._end()

    def _start(self) -> None:
        """One more worker."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(self._settings, self._sources, self._listening, theirs), daemon=True
        )
        process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours, time.monotonic()))

    def _step(self) -> None:
        """Waits for something, and sees to it."""
        watched: list[Any] = [self._woken]
        for worker in self._workers:
            watched += [worker.pipe, worker.process.sentinel]
        for thing in wait(watched):
            if thing is self._woken:
                self._woken.recv(64)
        for worker in list(self._workers):
            self._hear(worker)
            if not worker.process.is_alive():
                self._bury(worker)
        self._next_order()

    def _hear(self, worker: _Worker) -> None:
        """What the worker has said since."""
        try:
            while worker.pipe.poll():
                kind, *rest = worker.pipe.recv()
                if kind == READY:
                    worker.is_ready, self._failures = True, 0
                    if not self._announced and all(each.is_ready for each in self._workers):
                        self._announced = True
                        self._announce(rest[0])
                elif kind == FAILED:
                    raise DensepathError(rest[0])
                elif kind == ORDER:
                    self._orders.append((worker, *rest))
                elif kind == OBEYED:
                    self._said = self._said or rest[0]
                    self._left.remove(worker)
        except (EOFError, OSError):
            return

    def _bury(self, worker: _Worker) -> None:
        """Another takes the place of a worker that has died.

        Raises:
            DensepathError: they die as soon as they start.
        """
        self._workers.remove(worker)
        if worker in self._left:
            self._left.remove(worker)
        code = worker.process.exitcode
        worker.pipe.close()
        log("worker died", level=logging.WARNING, pid=worker.process.pid, exit_code=code)
        self._failures += time.monotonic() - worker.started < SHORT_LIFE_S
        if self._failures >= MOST_FAILURES and not self._announced:
            raise DensepathError(f"workers end as soon as they start, with exit code {code}.")
        if self._failures >= MOST_FAILURES:
            time.sleep(1)
        self._start()

    def _next_order(self) -> None:
        """The next order goes to all workers, once all have obeyed the last one."""
        if self._left:
            return
        if self._asking is not None:
            if self._asking in self._workers:
                self._asking.pipe.send((DONE, self._said))
            self._asking = None
        if self._orders:
            self._asking, verb, name = self._orders.pop(0)
            self._said = None
            self._left = [worker for worker in self._workers if worker.is_ready]
            for worker in self._left:
                worker.pipe.send((OBEY, verb, name))

    def _end(self) -> None:
        """All workers have drained, or are killed after their grace."""
        settings = self._settings
        # What the workers listen no more on must not go on taking connections that nobody accepts.
        self._listening.close()
        for worker in self._workers:
            if worker.process.is_alive():
                worker.process.terminate()
        end = time.monotonic() + settings.linger_s + settings.grace_s + 5
        interrupts = self._signals.count(signal.SIGINT)
        while any(worker.process.is_alive() for worker in self._workers):
            wait([worker.process.sentinel for worker in self._workers], 0.1)
            again = self._signals.count(signal.SIGINT) > interrupts
            if again or time.monotonic() > end:
                log("workers killed", level=logging.WARNING)
                for worker in self._workers:
                    worker.process.kill()
                return


def _work(
    settings: Settings, sources: Sequence[ModelSource], listening: socket.socket, pipe: Connection
) -> None:
    """A worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor hears it, too, and tells all
    start_logging(settings.log_format)
    try:
        asyncio.run(_serve(settings, sources, listening, pipe))
    except DensepathError as error:
        pipe.send((FAILED, str(error)))


async def _serve(
    settings: Settings, sources: Sequence[ModelSource], listening: socket.socket, pipe: Connection
) -> None:
    """Serves, and keeps in touch with the supervisor."""
    from densepath.serving.server import describe, serve
    from densepath.serving.service import Service

    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[str | None]] = []

    async def order(verb: str, name: str) -> None:
        """Has every worker obey; raises what one of them said."""
        done: asyncio.Future[str | None] = loop.create_future()
        waiting.append(done)
        pipe.send((ORDER, verb, name))
        said = await done
        if said is not None:
            kind, _, message = said.partition(":")
            raise ERRORS.get(kind, LoadError)(message)

    def ready(service: Service) -> None:
        service.order = order
        loop.add_reader(pipe.fileno(), hear, service)
        pipe.send((READY, describe(service, listening.getsockname()[1])))

    def hear(service: Service) -> None:
        try:
            kind, *rest = pipe.recv()
        except (EOFError, OSError):  # the supervisor is gone: so should be its workers
            loop.remove_reader(pipe.fileno())
            os.kill(os.getpid(), signal.SIGTERM)
            return
        if kind == DONE:
            waiting.pop(0).set_result(rest[0])
        else:
            tasks.add(loop.create_task(obey(service, *rest)))

    async def obey(service: Service, verb: str, name: str) -> None:
        said = None
        try:
            await service.obey(verb, name)
        except RequestError as error:
            said = f"{type(error).__name__}:{error}"
        pipe.send((OBEYED, said))

    tasks: set[asyncio.Task[None]] = set()
    await serve(settings, sources, listening, ready=ready, interruptible=False)
