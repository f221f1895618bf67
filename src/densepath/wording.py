"""Figures as a person reads them, formed alike by every verb, report and picture."""

from __future__ import annotations


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """`1 image`, `2,000 images`."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def percent(share: float, digits: int | None = 1) -> str:
    """`12.3 %` for the share 0.123; without `digits` as many as it needs, at most three: `10 %`."""
    return f"{share * 100:.3g} %" if digits is None else f"{share * 100:.{digits}f} %"
