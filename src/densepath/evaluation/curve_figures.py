"""A report's pictures of rankings: ROC, precision and recall, calibration before and after."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from densepath.drawing.picture import BLUE, FAINT, INK, RED, new_figure
from densepath.metrics.metrics import Bin, Share, calibration_error
from densepath.metrics.ranking import Curve
from densepath.wording import literal, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of more classes the weakest have a colour and a name, and the others a grey line.
MOST_COLOURED = 8
NAME, WIDE = 22, 70


class Ranked(Protocol):
    """What is drawn of a Report; its own docstring says what each attribute is."""

    @property
    def subject(self) -> str: ...
    @property
    def data(self) -> str: ...
    @property
    def images(self) -> int: ...
    @property
    def figures(self) -> dict[str, Share]: ...
    @property
    def per_class(self) -> list[dict[str, Any]]: ...
    @property
    def curves(self) -> list[Curve]: ...
    @property
    def reliability(self) -> list[Bin]: ...
    @property
    def reliability_before(self) -> list[Bin]: ...


def draw_roc(report: Ranked) -> Figure:
    """True positive rate against false positive rate of each class."""
    title = f"ROC: mean AUROC {_with_interval(report.figures, 'macro_auroc')}"
    caption = (
        "Each line: one class against all others. From the bottom left the threshold falls: more "
        "of the class's images are found (up), and more of the others are taken for it (right). "
        "The dashed line is chance." + _caption_of_points(report) + _caption_of_grey(report)
    )
    figure = new_figure(7.4, 7.8, title, caption, _about(report))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1.0, linestyle="--")
    _draw_all(axes, report, "auroc", lambda c: (c.fallout, c.recall), start=(0.0, 0.0))
    axes.set(xlabel="false positive rate", ylabel="true positive rate (recall)")
    _finish(axes, "lower right")
    return figure


def draw_precision_recall(report: Ranked) -> Figure:
    """Precision against recall of each class."""
    title = (
        "Precision and recall: mean average precision "
        f"{_with_interval(report.figures, 'mean_average_precision')}"
    )
    caption = (
        "Each line: one class. From the left the threshold falls: more of the class's images are "
        "found (recall), and fewer of the answers with it are right (precision). A rare class "
        "starts lower at the same AUROC." + _caption_of_points(report) + _caption_of_grey(report)
    )
    figure = new_figure(7.4, 7.8, title, caption, _about(report))
    axes = figure.subplots()
    _draw_all(axes, report, "average_precision", lambda c: (c.recall, c.precision), start=None)
    axes.set(xlabel="recall", ylabel="precision")
    _finish(axes, "lower left")
    return figure


def draw_calibration(report: Ranked) -> Figure:
    """Share that is right against score, before the temperature and after."""
    before, after = (
        _percent(calibration_error(bins))
        for bins in (report.reliability_before, report.reliability)
    )
    title = f"Calibration: expected error {before} before, {after} after"
    caption = (
        "Each point: the scores that lie in one of 15 bins, and the share of them that is a yes "
        "(or a right answer). Of a calibrated network the points lie on the dashed line. The "
        "temperature was fitted on these same images."
    )
    figure = new_figure(6.4, 6.9, title, caption, _about(report))
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1.0, linestyle="--", label="calibrated")
    for bins, colour, name in (
        (report.reliability_before, RED, "before"),
        (report.reliability, BLUE, "after"),
    ):
        seen = [part for part in bins if part.count]
        axes.plot(
            [part.confidence or 0.0 for part in seen],
            [part.accuracy or 0.0 for part in seen],
            color=colour,
            marker="o",
            markersize=4.5,
            label=name,
        )
    axes.set(xlabel="score", ylabel="share that is right")
    _finish(axes, "upper left")
    return figure


def _draw_all(
    axes: Axes,
    report: Ranked,
    column: str,
    points: Callable[[Curve], tuple[NDArray[np.float64], NDArray[np.float64]]],
    *,
    start: tuple[float, float] | None,
) -> None:
    """A line a class, the weakest in colour, with a dot at its threshold where it has its own."""
    from matplotlib import colormaps

    rows = {row["label"]: row for row in report.per_class}
    weakest = sorted(report.curves, key=lambda curve: rows[curve.label][column])
    coloured = weakest[:MOST_COLOURED]
    shades = colormaps["tab10"].colors  # type: ignore[attr-defined]
    for curve in weakest[MOST_COLOURED:]:
        x, y = _from(points(curve), start)
        axes.plot(x, y, color=FAINT, linewidth=0.8, alpha=0.6)
    for shade, curve in zip(shades, coloured, strict=False):
        row = rows[curve.label]
        x, y = points(curve)
        label = f"{literal(curve.label, NAME)} {_with_interval(row, column)}"
        axes.plot(*_from((x, y), start), color=shade, linewidth=1.6, label=label)
        if row.get("threshold") is not None:
            above = np.flatnonzero(curve.thresholds > row["threshold"])
            if len(above):
                axes.plot(x[above[-1]], y[above[-1]], "o", color=shade, markersize=6.5)


def _from(
    points: tuple[NDArray[np.float64], NDArray[np.float64]], start: tuple[float, float] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The line with its first point, where it has one before the highest score."""
    x, y = points
    if start is None:
        return x, y
    return np.append(start[0], x), np.append(start[1], y)


def _finish(axes: Axes, corner: Literal["lower right", "lower left", "upper left"]) -> None:
    """Shares on both axes, and the legend."""
    from matplotlib.ticker import PercentFormatter

    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.03))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.legend(frameon=True, framealpha=0.85, edgecolor="none", loc=corner, fontsize=8.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_aspect("equal")


def _with_interval(values: dict[str, Any], name: str) -> str:
    """`0.912 (0.897 to 0.926)`."""
    value, low, high = (values.get(f"{name}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return "undefined"
    between = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
    return f"{value:.3f}{between}"


def _caption_of_points(report: Ranked) -> str:
    """What stands in brackets, and what a dot is, where there are any."""
    own = any(row.get("threshold") is not None for row in report.per_class)
    brackets = " In brackets: where it lies in 95 % of the resamples of the images."
    return brackets + (" A dot is the class's threshold." if own else "")


def _caption_of_grey(report: Ranked) -> str:
    """What a grey line is, where there are any."""
    left = len(report.curves) - MOST_COLOURED
    return f" Grey: the {left:,} classes that do better." if left > 0 else ""


def _about(report: Ranked) -> str:
    """What was measured on what."""
    subject, data = literal(report.subject, WIDE), literal(report.data, WIDE)
    return f"{subject} on {data}; images measured: {report.images:,}."


def _percent(share: float) -> str:
    """`1.23 %`."""
    return percent(share, 2)
