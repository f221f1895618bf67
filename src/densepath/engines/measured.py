"""What a bundle's measured speeds say here: only on the kind of machine that they are from."""

from __future__ import annotations

from collections.abc import Sequence

from densepath.bundle.bundle import Bundle
from densepath.bundle.formats import RUNTIMES, Runtime
from densepath.bundle.speeds import Speeds
from densepath.engines.machine import describe_kind


def speeds_here(bundle: Bundle, *, needs_bfloat16: bool = False) -> Speeds | None:
    """What was measured of this bundle on such a machine; None where nothing was.

    The machine is asked what it is only where there are times, in bfloat16 if that `needs` it.
    """
    speeds = Speeds.of(bundle.manifest.parity)
    if speeds is None or (needs_bfloat16 and not speeds.seconds_bfloat16):
        return None
    return speeds if speeds.machine == describe_kind() else None


def in_measured_order(rows: Sequence[Runtime], speeds: Speeds, precision: str) -> list[Runtime]:
    """The rows, those that were measured in order of their speed and the others in their places.

    The first of them stays the first where it is as fast within the noise.
    """
    times = speeds.times(precision)
    places = [row.name for row in rows if row.name in times]
    if not places:
        return list(rows)
    best = speeds.best_first(places[0], precision)
    measured = iter([name for name in best if name in places])
    return [RUNTIMES[next(measured)] if row.name in places else row for row in rows]
