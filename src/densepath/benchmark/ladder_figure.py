"""A ladder as a picture: top-1 of each form, and what it costs in bytes and milliseconds."""

from __future__ import annotations

from pathlib import Path

from densepath.benchmark.ladder import Ladder, Row
from densepath.files import write_atomically

DPI = 110
COLOURS = {"float32": "#4c72b0", "bfloat16": "#8172b2", "int8": "#dd8452"}


def draw_ladder(ladder: Ladder, path: Path) -> None:
    """`path` (.png) shows the rows from top to bottom."""
    from matplotlib.figure import Figure

    rows = ladder.rows
    figure = Figure(figsize=(12, 1.6 + 0.5 * len(rows)), dpi=DPI, layout="constrained")
    left, middle, right = figure.subplots(1, 3, sharey=True, width_ratios=(2, 1, 1))
    places = range(len(rows))
    colours = [COLOURS[row.precision] for row in rows]
    left.barh(places, [100 * row.top1 for row in rows], color=colours, height=0.7)
    lowest, highest = (100 * pick(row.top1 for row in rows) for pick in (min, max))
    span = max(highest - lowest, 1.0)
    left.set_xlim(max(0, lowest - span), min(100, highest + 1.6 * span))
    for place, row in zip(places, rows, strict=True):
        left.text(100 * row.top1 + 0.03 * span, place, _said(row), va="center", fontsize=8)
    left.set_yticks(places, [f"{row.name}\n{row.engine}" for row in rows], fontsize=8)
    left.invert_yaxis()
    left.set_xlabel("top-1, %")
    middle.barh(places, [row.size_bytes / 1e6 for row in rows], color=colours, height=0.7)
    middle.set_xlabel("size, MB")
    right.barh(places, [row.latency_ms or 0 for row in rows], color=colours, height=0.7)
    right.set_xlabel("one image, ms")
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"Accuracy ladder on {ladder.data}", fontsize=10)
    with write_atomically(path) as temporary:
        figure.savefig(temporary, format="png")


def _said(row: Row) -> str:
    """`77.58 (−0.02), agrees 99.0 %`."""
    lost = "" if row.snr_db is None else f" ({0 - row.lost_points:+.2f})"
    return f"{row.top1:.2%}{lost}, agrees {row.agreement:.1%}"
