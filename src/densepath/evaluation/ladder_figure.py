"""A ladder as a picture: top-1 of each form, and what it costs in bytes and milliseconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from densepath.drawing.picture import (
    BLUE,
    FAINT,
    INK,
    LINE,
    ORANGE,
    VIOLET,
    explain_colours,
    new_figure,
    save_picture,
)
from densepath.evaluation.ladder import TIMED_RUNS, Ladder, Rung
from densepath.wording import literal, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110
COLOURS = {"float32": BLUE, "bfloat16": VIOLET, "int8": ORANGE}
OTHER_COLOUR = FAINT
NAME, WIDE = 44, 110


def draw_ladder(ladder: Ladder, path: Path) -> str | None:
    """`path` (.png) shows the rows from top to bottom; gives the reason if it cannot."""
    return save_picture(path, lambda: _draw(ladder), dpi=DPI)


def _draw(ladder: Ladder) -> Figure:
    """A dot a row on a cut axis of top-1, beside bars from zero of size and latency."""
    rows = ladder.rows
    title = "Accuracy ladder: what each form of the network answers, and what it costs"
    caption = (
        f"Top-1: the dots, and beside them the points lost or won against "
        f"{literal(rows[0].name, NAME)} and the share of images with the same answer. Size: of "
        f"its files. Time: one image on all cores, the median of {TIMED_RUNS}."
    )
    about = f"Images: {literal(ladder.data, WIDE)}."
    figure = new_figure(12, 2.6 + 0.55 * len(rows), title, caption, about)
    left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=(2.2, 1, 1))
    _draw_scores(left, rows)
    _draw_bars(middle, rows, [row.size_bytes / 1e6 for row in rows], "size, MB")
    _draw_bars(right, rows, [row.latency_ms for row in rows], "time of one image, ms")
    left.set_yticks(range(len(rows)), [_name(row) for row in rows], fontsize=8)
    left.set_ylim(len(rows) - 0.4, -0.6)
    explain_colours(left, {row.report.precision: _colour(row) for row in rows}.items())
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_scores(axes: Axes, rows: Sequence[Rung]) -> None:
    """A dot a row, and its figures behind it; the axis shows the part where the dots are."""
    scores = [100 * row.top1 for row in rows]
    finite = [score for score in scores if math.isfinite(score)] or [0.0]
    span = max(max(finite) - min(finite), 1.0)
    low, high = max(0.0, min(finite) - 0.3 * span), max(finite) + 1.3 * span
    for place, (row, score) in enumerate(zip(rows, scores, strict=True)):
        axes.plot([low, score], [place, place], color=LINE, linewidth=1.2, zorder=1)
        axes.plot(score, place, "o", color=_colour(row), markersize=8, zorder=2)
        axes.text(score + 0.05 * span, place, _said(row), va="center", fontsize=8, color=INK)
    axes.set_xlim(low, high)
    begins = "" if low == 0 else f" (axis begins at {low:.1f})"
    axes.set_xlabel(f"top-1, %{begins}")
    axes.set_xticks([tick for tick in axes.get_xticks() if low <= tick <= min(100, high)])


def _draw_bars(axes: Axes, rows: Sequence[Rung], values: Sequence[float | None], name: str) -> None:
    """A bar a row from zero, with its value behind it."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    most = max(known, default=0) or 1.0
    axes.set_xlim(0, 1.3 * most)
    axes.set_xlabel(name)
    for place, (row, value) in enumerate(zip(rows, values, strict=True)):
        if value is not None:
            axes.barh(place, value, color=_colour(row), height=0.62)
        text = "not timed" if value is None else _three_digits(value)
        axes.text((value or 0) + 0.02 * most, place, text, va="center", fontsize=8, color=INK)


def _three_digits(value: float) -> str:
    """`0.43`, `12.3`, `1,234`."""
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def _name(row: Rung) -> str:
    """The form, and below it what ran it."""
    return f"{literal(row.name, NAME)}\n{literal(row.report.engine, NAME)}"


def _colour(row: Rung) -> str:
    """By the row's precision."""
    return COLOURS.get(row.report.precision, OTHER_COLOUR)


def _said(row: Rung) -> str:
    """`77.58 % (−0.02), agrees 99.0 %`."""
    lost = "" if row.snr_db is None else f" ({0 - row.lost_points:+.2f})"
    return f"{percent(row.top1, 2)}{lost}, agrees {percent(row.agreement)}"
