"""Several processes behind the same ports, and the one that watches over them.

REST's socket is one for all: what a worker has not accepted yet another takes, also when that
worker is killed. gRPC's port is bound by each. All hold the same bundles: an order of the
repository (load, unload) comes from whichever worker a client reached and is obeyed by all or by
none, and one that takes a dead one's place opens what the others hold, whatever is on the disk now.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any

from densepath.errors import DensepathError
from densepath.serving.core.logs import log
from densepath.serving.core.metrics import SHARED_FOLDER, forget_worker, make_shared_folder
from densepath.serving.core.settings import ModelSource, Settings
from densepath.serving.process.obeying import Orders, Watched
from densepath.serving.process.pulse import ASK_S, Pulse
from densepath.serving.process.wanted import Wanted
from densepath.serving.process.worker import (
    FAILED,
    GO,
    HERE,
    OBEYED,
    OPENED,
    ORDER,
    READY,
    Start,
    work,
)

# A worker that dies sooner than this after its start has failed to start.
SHORT_LIFE_S = 5.0
MOST_FAILURES = 3
# Between two tries to replace a worker that cannot be.
RETRY_S, LONGEST_RETRY_S = 2.0, 30.0


def supervise(
    settings: Settings,
    sources: Sequence[ModelSource],
    listening: socket.socket,
    announce: Callable[[str], None],
) -> None:
    """Keep the workers running until a signal; return when all have ended.

    Raises:
        DensepathError: a bundle cannot be opened, or workers die again and again before they have
            answered at all.
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
        self._settings, self._wanted = settings, Wanted(sources)
        self._listening, self._announce = listening, announce
        self._workers: list[Watched] = []
        self._orders, self._pulse = Orders(self._wanted), Pulse()
        self._failures, self._try_at, self._announced = 0, 0.0, False
        self._why_not = ""
        self._signals: list[int] = []
        self._wake, self._woken = socket.socketpair()

    def run(self) -> None:
        """Keep workers running until a signal, and wait for the end of the last one."""
        signals = self._signals
        self._wake.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, frame: signals.append(number))
        signal.set_wakeup_fd(self._wake.fileno())
        try:
            while not (set(signals) & {signal.SIGTERM, signal.SIGINT}):
                if signal.SIGHUP in signals:
                    signals.remove(signal.SIGHUP)
                    for name in self._wanted.names:
                        self._orders.add(None, "load", name)
                self._step()
        finally:
            self._end()

    def _step(self) -> None:
        """Start workers that are missing, wait for something, and see to it."""
        self._fill()
        watched: list[Any] = [self._woken]
        for worker in self._workers:
            watched += [worker.pipe, worker.process.sentinel]
        is_lacking = len(self._workers) < self._settings.workers
        timeout = max(0.0, self._try_at - time.monotonic()) if is_lacking else ASK_S
        for thing in wait(watched, min(timeout, ASK_S)):
            if thing is self._woken:
                self._woken.recv(64)
        for worker in list(self._workers):
            self._hear(worker)
            if not worker.process.is_alive():
                self._bury(worker)
        for worker in self._pulse.feel(self._workers, opening_too=self._announced):
            self._orders.forget(worker)
        self._welcome()
        while self._orders.go_on(self._workers):
            self._try_at = 0.0  # who could not be replaced may be now
            self._welcome()

    def _fill(self) -> None:
        """Start as many workers as are missing, where what the others hold can be opened.

        Raises:
            DensepathError: it cannot, and none has ever answered.
        """
        lacking = self._settings.workers - len(self._workers)
        if not lacking or time.monotonic() < self._try_at:
            return
        if self._announced and not any(worker.opened for worker in self._workers):
            if self._workers:  # one is about to open what there is
                self._try_at = time.monotonic() + RETRY_S
                return
            self._wanted.renew()
            self._start(tolerant=True)
            return
        try:
            self._wanted.find_again()
        except DensepathError as error:
            if not self._announced:
                raise
            self._tell_why_not(str(error))
            self._try_at = time.monotonic() + RETRY_S
            return
        self._why_not = ""
        for _ in range(lacking):
            self._start()

    def _tell_why_not(self, reason: str) -> None:
        """Log, once, why nobody takes the place of one that died."""
        if reason != self._why_not:
            log("worker not replaced", level=logging.WARNING, reason=reason,
                cure="load the model, or put the bundle back")  # fmt: skip
        self._why_not = reason

    def _start(self, *, tolerant: bool = False) -> None:
        """Start one more worker."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        start = Start(
            settings=self._settings,
            sources=list(self._wanted.sources.values()),
            listening=self._listening,
            pipe=theirs,
            holdings=dict(self._wanted.holdings),
            tolerant=tolerant,
        )
        process = context.Process(target=work, args=(start,), daemon=True)
        try:
            process.start()
        except OSError as error:  # too many processes, or no memory
            ours.close()
            log("worker not started", level=logging.WARNING, reason=error.strerror)
            self._postpone(f"none can be started: {error.strerror}")
            return
        finally:
            theirs.close()
        self._workers.append(Watched(process, ours, time.monotonic(), start.holdings))

    def _welcome(self) -> None:
        """Let those that have opened what the others hold take requests; between orders alone."""
        if not self._orders.are_done:
            return
        for worker in self._workers:
            if worker.opened is None or worker.is_welcome or worker.is_stale:
                continue
            if worker.given == self._wanted.holdings:
                self._wanted.adopt(worker.opened)  # less, where it tolerates what is lost
                worker.is_welcome = worker.tell(GO)
            else:  # an order was obeyed while it opened its models
                log("worker out of date", pid=worker.process.pid)
                worker.is_stale = True
                worker.process.kill()

    def _hear(self, worker: Watched) -> None:
        """Handle what the worker has said since.

        Raises:
            DensepathError: it cannot start, and none has before.
        """
        try:
            while worker.pipe.poll():
                self._understand(worker, *worker.pipe.recv())
        except (EOFError, OSError):
            return

    def _understand(self, worker: Watched, kind: str, *rest: Any) -> None:
        """Handle one message of the worker."""
        if kind == HERE:
            worker.is_asked = False
        elif kind == OPENED:
            worker.opened = rest[0]
        elif kind == READY:
            worker.is_ready = True
            enough = len(self._workers) == self._settings.workers
            if not self._announced and enough and all(each.is_ready for each in self._workers):
                self._announced = True
                self._announce(rest[0])
        elif kind == FAILED:
            if not self._announced:
                raise DensepathError(rest[0])
            log("worker failed to start", level=logging.WARNING, reason=rest[0])
        elif kind == ORDER:
            self._orders.add(worker, *rest)
        elif kind == OBEYED:
            self._orders.hear(worker, rest[0])

    def _bury(self, worker: Watched) -> None:
        """Remove a worker that has died; another takes its place in due time.

        Raises:
            DensepathError: they die as soon as they start, and have never answered.
        """
        self._workers.remove(worker)
        self._orders.forget(worker)
        pid, code = worker.process.pid, worker.process.exitcode
        worker.pipe.close()
        if pid is not None:
            forget_worker(pid)
        log("worker died", level=logging.WARNING, pid=pid, exit_code=code)
        if worker.is_stale:
            return
        if worker.is_ready and time.monotonic() - worker.started >= SHORT_LIFE_S:
            self._failures = 0
        else:
            self._postpone(f"workers end as soon as they start, with exit code {code}")

    def _postpone(self, reason: str) -> None:
        """Put off another try, where several have failed.

        Raises:
            DensepathError: none has ever succeeded.
        """
        self._failures += 1
        if self._failures < MOST_FAILURES:
            return
        if not self._announced:
            raise DensepathError(f"{reason}.")
        wait_s = RETRY_S * 2 ** min(self._failures - MOST_FAILURES, 10)
        self._try_at = time.monotonic() + min(wait_s, LONGEST_RETRY_S)

    def _end(self) -> None:
        """Wait until all workers have drained, and kill them after their grace."""
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
