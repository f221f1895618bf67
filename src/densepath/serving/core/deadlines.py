"""Waiting for work: all of it, or until a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, TypeVar

from densepath.errors import UsageError
from densepath.serving.core.errors import LateError, RequestError

Result = TypeVar("Result")


async def gather(work: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """All results, in order; when one fails, the others are cancelled."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def in_time(work: Awaitable[Result], deadline: float) -> Result:
    """What the work comes to, by the deadline of `time.monotonic`; else it is cancelled.

    Raises:
        LateError: the deadline passed.
        RequestError: the engine refused the input.
    """
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            return await work
    except TimeoutError:
        raise LateError("the answer was not ready by the deadline.") from None
    except UsageError as error:  # of an engine, about a shape that it cannot take
        if isinstance(error, RequestError):
            raise
        raise RequestError(str(error)) from error
