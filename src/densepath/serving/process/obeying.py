"""Orders that all workers obey: one after another, and each step by all before the next.

A worker that dies meanwhile, or is ended since it answers no more (`pulse.py`), is not waited for;
the one that takes its place starts from what came of the order.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from densepath.serving.core.held import Holdings
from densepath.serving.process.wanted import Steps, Wanted
from densepath.serving.process.worker import DONE


@dataclass(eq=False)
class Watched:
    """A worker's process, and the pipe to it.

    Attributes:
        given, opened: what it was told to hold, and what it does; None until it has opened it.
        is_welcome: it may take requests, and obeys orders.
        is_ready: it takes requests.
        is_stale: it was ended: what it was given is out of date, or it answered no more.
        asked, is_asked: when it was asked whether it is there, and that it has not said so yet.
        told: when it was told to do a step of an order; None once it has.
    """

    process: BaseProcess
    pipe: Connection
    started: float
    given: Holdings
    opened: Holdings | None = None
    is_welcome: bool = False
    is_ready: bool = False
    is_stale: bool = False
    asked: float = 0.0
    is_asked: bool = False
    told: float | None = None

    def tell(self, *message: Any) -> bool:
        """Whether it can be told; one that cannot is as good as dead."""
        try:
            self.pipe.send(message)
        except OSError:
            self.process.kill()
            return False
        return True


class Orders:
    """The orders that wait, and the one that is obeyed now."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._waiting: list[tuple[Watched | None, str, str]] = []
        self._steps: Steps | None = None
        self._asking: Watched | None = None
        # Who has still to do the last step, and what the others said of it.
        self._left: list[Watched] = []
        self._said: str | None = None

    @property
    def are_done(self) -> bool:
        """Whether no order is obeyed now."""
        return self._steps is None

    def add(self, asking: Watched | None, verb: str, name: str) -> None:
        """Add an order, of a worker's client or of nobody's."""
        self._waiting.append((asking, verb, name))

    def hear(self, worker: Watched, said: str | None) -> None:
        """Note that the worker has done its step, or why not."""
        worker.told = None
        if worker in self._left:
            self._left.remove(worker)
            self._said = self._said or said

    def forget(self, worker: Watched) -> None:
        """Forget a worker that has died, or is about to."""
        if worker in self._left:
            self._left.remove(worker)

    def go_on(self, workers: list[Watched]) -> bool:
        """Have the workers do what comes next; gives whether an order has come to its end."""
        if self._left:
            return False
        if self._steps is None:
            if not self._waiting:
                return False
            self._asking, verb, name = self._waiting.pop(0)
            self._steps = self._wanted.load(name) if verb == "load" else self._wanted.unload(name)
        answer, self._said = self._said, None
        try:
            message = self._steps.send(answer)
        except StopIteration as end:
            self._steps = None
            if self._asking in workers:
                self._asking.tell(DONE, end.value)
            return True
        welcome = [worker for worker in workers if worker.is_welcome]
        self._left = [worker for worker in welcome if worker.tell(*message)]
        for worker in self._left:
            worker.told = time.monotonic()
        return not self._left and self.go_on(workers)
