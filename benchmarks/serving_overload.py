"""Five times as many requests as a server can answer: what it says to each, and how it recovers."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

from serving_answers import Known, Photo
from serving_load import OpenLoop, Reply, ask_in_turn, ask_without_waiting
from serving_systems import Memory, Server

TIMES = 5
SINGLE_SECONDS = 3.0
BEHIND_SECONDS = 5.0
# A single request is as before when it takes no more than so many times the median before.
AS_BEFORE = 2.0


def overload(
    server: Server, photos: Sequence[Photo], known: Known, *, capacity: float, seconds: float
) -> dict[str, Any]:
    """Of the load, of the single requests before and behind it, and of the server's memory.

    Args:
        server: whose turn it is.
        photos: sent in turns.
        known: their answers.
        capacity: answers a second that it can give.
        seconds: of the load.
    """
    rate = TIMES * capacity
    before = asyncio.run(ask_in_turn(server.url, photos, seconds=SINGLE_SECONDS))
    with Memory().watch(server) as memory:
        loop, behind = asyncio.run(
            ask_without_waiting(
                server.url, photos, rate=rate, seconds=seconds, after=BEHIND_SECONDS
            )
        )
        time.sleep(1)
    end = min(reply.sent for reply in loop.replies) + loop.seconds
    answered = sum(r.status == 200 and r.sent + r.seconds <= end for r in loop.replies)
    return {
        "capacity": round(capacity, 1),
        "rate": round(rate, 1),
        "seconds": round(loop.seconds, 2),
        "answered_per_second": round(answered / loop.seconds, 1),
        **count(loop, known),
        "memory": memory.samples,
        **compare(before, behind, known),
    }


def count(loop: OpenLoop, known: Known) -> dict[str, Any]:
    """How many were answered, refused as they should be, or neither; and how long that took."""
    kinds: dict[str, list[Reply]] = {"right": [], "wrong": [], "refused": [], "other": []}
    for reply in loop.replies:
        kinds[kind_of(reply, known)].append(reply)
    others = Counter(f"{reply.status} {reply.body[:200]!r}" for reply in kinds["other"])
    return {
        "sent": len(loop.replies),
        "unsent": loop.unsent,
        **{kind: len(replies) for kind, replies in kinds.items()},
        "others": dict(others.most_common(5)),
        "right_ms": _tail_ms(kinds["right"]),
        "refused_ms": _tail_ms(kinds["refused"]),
    }


def kind_of(reply: Reply, known: Known) -> str:
    """`right` or `wrong` for an answer, `refused` for a 429 that says so and when to come again."""
    if reply.status == 200:
        return "right" if known.is_right(reply.photo, reply.body) else "wrong"
    if reply.status == 429 and reply.headers.get("retry-after", "").isdigit():
        try:
            said = json.loads(reply.body)["error"]
        except (ValueError, KeyError, TypeError):
            return "other"
        return "refused" if said else "other"
    return "other"


def compare(before: list[Reply], behind: list[Reply], known: Known) -> dict[str, Any]:
    """Single requests: milliseconds before the load, and when they are behind it as before.

    `recovered` is in seconds from the last request of the load to the end of the first single one
    from which on all but a tenth were right and took no longer than AS_BEFORE times the median.
    """
    usual = median(reply.seconds for reply in before)
    stopped = behind[0].sent
    fine = [
        kind_of(reply, known) == "right" and reply.seconds <= AS_BEFORE * usual for reply in behind
    ]
    after = (i for i, ok in enumerate(fine) if ok and sum(fine[i:]) >= 0.9 * len(fine[i:]))
    first = next(after, None)
    recovered = None if first is None else behind[first].sent + behind[first].seconds - stopped
    later = [1e3 * r.seconds for r in behind if r.sent - stopped >= 1]
    return {
        "single_before_ms": round(1e3 * usual, 2),
        "single_behind_ms": round(median(later), 2) if later else None,
        "recovered": None if recovered is None else round(recovered, 3),
        "behind": [
            [round(r.sent - stopped, 3), round(1e3 * r.seconds, 1), r.status] for r in behind
        ],
    }


def _tail_ms(replies: list[Reply]) -> dict[str, float]:
    """The median and the slowest hundredth."""
    if not replies:
        return {}
    ms = sorted(1e3 * reply.seconds for reply in replies)
    return {"p50": round(median(ms), 2), "p99": round(ms[int(0.99 * (len(ms) - 1))], 2)}
