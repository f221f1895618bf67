"""Names in a request that nobody would look at: refused, so that no option is silently ignored."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from densepath.errors import UnknownNameError
from densepath.serving.core.errors import RequestError

MOST_SHOWN = 64


def check_known(names: Iterable[str], known: Collection[str], kind: str) -> None:
    """Raise RequestError unless all are known; it says the nearest names, and all there are.

    Args:
        names: those of the request.
        known: those that mean something there.
        kind: what they are, as "field of the JSON".
    """
    for name in names:
        if name not in known:
            if not known:
                raise RequestError(f"unknown {kind} {name[:MOST_SHOWN]!r}: there are none here.")
            raise RequestError(str(UnknownNameError(kind, name[:MOST_SHOWN], known)))
