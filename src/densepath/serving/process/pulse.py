"""Whether the workers still answer: each is asked every few seconds; a silent one is ended.

One that is stopped (SIGSTOP, a debugger, a driver that hangs) does not die by itself: it
would hold up every order, and its own clients, without end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from densepath.serving.core.logs import log
from densepath.serving.process.obeying import Watched
from densepath.serving.process.worker import ARE_YOU_THERE

# Between two questions, and the longest silence.
ASK_S, SILENT_S = 5.0, 30.0
# For one step of an order, or to open all models: of the largest bundle on the slowest disk.
LONGEST_STEP_S = 600.0


class Pulse:
    """Asks the workers, and ends those that are stuck."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Begin with no worker asked; `now` tells the seconds."""
        self._now, self._looked = now, now()

    def feel(self, workers: Sequence[Watched], *, opening_too: bool) -> list[Watched]:
        """Those that were ended now; to be called at least every `ASK_S`, after hearing them.

        Args:
            workers: all.
            opening_too: those that still open their models have their limit, too.
        """
        now = self._now()
        # This process was stopped itself, with its terminal (Ctrl-Z) or its machine.
        was_away, self._looked = now - self._looked > SILENT_S / 2, now
        ended = []
        for worker in workers:
            if worker.is_stale:
                continue
            if was_away:
                worker.is_asked = False
                worker.told = worker.told and now
            reason = self._why(worker, now, opening_too)
            if reason:
                worker.is_stale, worker.is_welcome = True, False
                log("worker does not answer", level=logging.WARNING, pid=worker.process.pid,
                    reason=reason, cure="it is killed, and another takes its place")  # fmt: skip
                worker.process.kill()
                ended.append(worker)
            elif worker.opened is not None and not worker.is_asked and now >= worker.asked + ASK_S:
                worker.is_asked, worker.asked = worker.tell(ARE_YOU_THERE), now
        return ended

    def _why(self, worker: Watched, now: float, opening_too: bool) -> str:
        """What is wrong with it; nothing for a sound one."""
        if worker.opened is None:
            if opening_too and now - worker.started > LONGEST_STEP_S:
                return f"it has not opened its models for {LONGEST_STEP_S:g} s"
        elif worker.is_asked and now - worker.asked > SILENT_S:
            return f"it has said nothing for {SILENT_S:g} s"
        elif worker.told is not None and now - worker.told > LONGEST_STEP_S:
            return f"it has not done what it was told for {LONGEST_STEP_S:g} s"
        return ""
