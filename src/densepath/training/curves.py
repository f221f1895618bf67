"""The learning curves of a run as one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from densepath.drawing.picture import LINE, new_figure
from densepath.training.epochs import EpochRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAIN, EVALUATED, BEST, FLOAT = "#8a8f98", "#0b6e99", "#c2410c", "#7c6aa8"


def draw_curves(
    rows: Sequence[EpochRow],
    title: str,
    judged_on: str,
    chosen: tuple[int, str] | None = None,
) -> Figure:
    """Loss and accuracy over the epochs, and the best epoch.

    Args:
        rows: of metrics.csv, one an epoch, at least one.
        title: the headline.
        judged_on: which images are evaluated after each epoch: `validation`, `test`.
        chosen: the best epoch and the figure that says so, where that is not the score drawn.
    """
    multi_label = rows[0].multi_label
    figure = new_figure(9, 4.5, title, _caption(rows, judged_on, multi_label))
    left, right = figure.subplots(1, 2)
    epochs = [row.epoch for row in rows]
    _draw(left, epochs, [row.train_loss for row in rows], TRAIN, "training images")
    _draw(left, epochs, [row.loss for row in rows], EVALUATED, f"{judged_on} images")
    left.set_title("Loss", loc="left")
    score = "micro-F1" if multi_label else "Top-1"
    found = [100 * row.top1 for row in rows]
    _draw(right, epochs, [100 * row.train_accuracy for row in rows], TRAIN, "training images")
    _draw(right, epochs, found, EVALUATED, f"{judged_on} images")
    if rows[-1].float_top1 is not None:
        as_float = [math.nan if row.float_top1 is None else 100 * row.float_top1 for row in rows]
        _draw(right, epochs, as_float, FLOAT, "the same, not rounded")
    right.set_title(f"{score}, %", loc="left")
    if any(row.macro_auroc is not None for row in rows):
        areas = [math.nan if row.macro_auroc is None else 100 * row.macro_auroc for row in rows]
        _draw(right, epochs, areas, FLOAT, "mean AUROC, %")
    if chosen is None:
        _mark_best(right, epochs, found)
    else:
        _mark_chosen(right, *chosen, found[epochs.index(chosen[0])])
    for axes in (left, right):
        _finish(axes)
    left.set_ylim(0, 1.05 * left.get_ylim()[1])
    for axes in (left, right):
        axes.legend(loc="best", fontsize=8.5, framealpha=0.85, edgecolor="none")
    return figure


def _caption(rows: Sequence[EpochRow], judged_on: str, multi_label: bool) -> str:
    """What the lines are."""
    how = "share of right decisions" if multi_label else "share of right answers"
    rounded = (
        " Both are of the network rounded to 8 bits." if rows[-1].float_top1 is not None else ""
    )
    lacking = [row.epoch for row in rows if not math.isfinite(row.loss)]
    gaps = f" No finite loss after epoch {', '.join(map(str, lacking[:5]))}." if lacking else ""
    return (
        f"Training images: loss and {how} as means over the epoch, augmented and while the weights "
        f"moved. {judged_on.capitalize()} images: after the epoch, as they are.{rounded}{gaps}"
    )


def _draw(
    axes: Axes, epochs: Sequence[int], values: Sequence[float], colour: str, name: str
) -> None:
    """Draw one curve; few epochs as dots, and a gap where there is no finite number."""
    marker = "o" if len(epochs) < 3 else None
    finite = [value if math.isfinite(value) else math.nan for value in values]
    axes.plot(epochs, finite, color=colour, marker=marker, markersize=4, label=name)


def _mark_best(axes: Axes, epochs: Sequence[int], found: Sequence[float]) -> None:
    """Set a dot at the first epoch with the highest score."""
    finite = [place for place in range(len(found)) if math.isfinite(found[place])]
    if not finite:
        return
    best = max(finite, key=lambda place: (found[place], -place))
    label = f"best: {found[best]:.2f} %, epoch {epochs[best]}"
    axes.plot(epochs[best], found[best], "o", color=BEST, markersize=6, zorder=3, label=label)


def _mark_chosen(axes: Axes, epoch: int, figure: str, score: float) -> None:
    """Set a dot at the epoch that another figure has chosen."""
    label = f"best {figure}: epoch {epoch}, here {score:.2f} %"
    axes.plot(epoch, score, "o", color=BEST, markersize=6, zorder=3, label=label)


def _finish(axes: Axes) -> None:
    """Draw the grid, and number whole epochs."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.grid(color=LINE, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
