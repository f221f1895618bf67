"""What `serving.py` does with a server in its turns: load it, and compare its answers."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF
from typing import Any

from serving_answers import Known, Photo
from serving_load import Reply, ask_beside, ask_in_turn
from serving_systems import Memory, Server
from serving_wrk import load, wrk_command
from workers import TICKS_A_SECOND, busy_ticks

CHECKED = 32  # photos that every server is asked before anything is measured
CHECKERS = 8  # clients beside wrk whose answers are compared
WARM_UP_SECONDS = 2


@contextmanager
def watch_processors(server: Server) -> Iterator[dict[str, float]]:
    """Afterwards it holds `server`, its seconds of processor time, and `others`.

    The latter is the share of all cores that programs besides the server, wrk and this one used.
    """

    def read() -> tuple[float, float]:
        ours = [resource.getrusage(who) for who in (RUSAGE_SELF, RUSAGE_CHILDREN)]
        seconds = sum(usage.ru_utime + usage.ru_stime for usage in ours)
        return server.processor_seconds(), busy_ticks() / TICKS_A_SECOND - seconds

    used: dict[str, float] = {}
    start, before = time.monotonic(), read()
    yield used
    used["server"], busy = (new - old for new, old in zip(read(), before, strict=True))
    wall = time.monotonic() - start
    used["others"] = max(0.0, busy - used["server"]) / wall / (os.cpu_count() or 1)


@dataclass(frozen=True)
class Bench:
    """What every turn needs.

    Attributes:
        photos: that are sent, one after another and again.
        known: what they must be answered, by the arithmetic.
        script: of wrk.
        seconds: of a turn.
    """

    photos: Sequence[Photo]
    known: dict[str, Known]
    script: Path
    seconds: float

    def measure(self, server: Server, clients: int) -> dict[str, Any]:
        """Requests a second, latency, failures and memory under so many clients."""
        with server.turn():
            load(self.script, server.url, clients, WARM_UP_SECONDS)
            self._drain(server)
            with Memory().watch(server) as memory, watch_processors(server) as used:
                row = load(self.script, server.url, clients, self.seconds)
            self._drain(server)
        row["peak_mb"] = round(memory.peak_bytes / 1e6, 1)
        row["cpu_ms"] = round(1e3 * used["server"] / max(1, row["requests"]), 2)
        row["others"] = round(used["others"], 3)
        said = f"{row['requests_per_second']:.1f}/s, p99 {row['p99_ms']:.0f} ms, "
        said += f"{row['cpu_ms']:.1f} ms of processors, others {row['others']:.0%}"
        print(f"{clients} clients  {server.system.name}: {said} {row['errors'] or ''}", flush=True)
        return row

    def check(self, server: Server, clients: int) -> dict[str, int]:
        """How many answers there are and how many are right: with nothing else, and under load."""
        few = self.photos[:CHECKED]
        command = wrk_command(self.script, server.url, clients, self.seconds)
        with server.turn():
            alone = asyncio.run(ask_in_turn(server.url, few, count=len(few)))
            beside = asyncio.run(
                ask_beside(
                    server.url,
                    self.photos,
                    clients=CHECKERS,
                    seconds=self.seconds - 1,
                    command=command,
                )
            )
            self._drain(server)
        row = {
            "alone": len(alone),
            "right_alone": self._count_right(server, alone),
            "under_load": len(beside),
            "right_under_load": self._count_right(server, beside),
        }
        print(f"answers  {server.system.name}: {row}", flush=True)
        return row

    def _count_right(self, server: Server, replies: list[Reply]) -> int:
        """How many are; the first that is not is printed."""
        known = self.known[server.system.arithmetic]
        wrong = [
            reply
            for reply in replies
            if reply.status != 200 or not known.is_right(reply.photo, reply.body)
        ]
        for reply in wrong[:1]:
            said = f"{reply.status} {reply.body[:300]!r}"
            print(f"{server.system.name}, {reply.photo.path}: {said}", file=sys.stderr)
        return len(replies) - len(wrong)

    def _drain(self, server: Server) -> None:
        """Requests for which nobody waits any more have been answered."""
        asyncio.run(ask_in_turn(server.url, self.photos, seconds=0.5))
