"""The learning curves of a run as one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TRAIN, EVALUATED, BEST = "#8a8f98", "#0b6e99", "#c2410c"


def draw_curves(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """The PNG file `path` shows loss and accuracy over the epochs, and the best epoch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in rows]
    _draw(
        left,
        epochs,
        [row["train_loss"] for row in rows],
        [row["loss"] for row in rows],
        "upper right",
    )
    left.set_title("Loss", loc="left")
    left.set_ylim(bottom=0)
    accuracy = [100 * row["top1"] for row in rows]
    _draw(right, epochs, [100 * row["train_accuracy"] for row in rows], accuracy, "center right")
    right.set_title("Accuracy, %", loc="left")
    best = max(range(len(rows)), key=lambda i: (accuracy[i], -i))
    right.plot(epochs[best], accuracy[best], "o", color=BEST, markersize=6, zorder=3)
    right.text(
        0.97,
        0.05,
        f"● best: {accuracy[best]:.2f} %, epoch {epochs[best]}",
        transform=right.transAxes,
        ha="right",
        color=BEST,
    )
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    figure.savefig(path, format="png", dpi=150)


def _draw(
    axes: Any, epochs: list[int], trained: list[float], evaluated: list[float], legend: str
) -> None:
    """One pair of curves."""
    marker = "o" if len(epochs) < 3 else None
    axes.plot(epochs, trained, color=TRAIN, marker=marker, markersize=3, label="training")
    axes.plot(epochs, evaluated, color=EVALUATED, marker=marker, markersize=3, label="evaluation")
    axes.set_xlabel("epoch")
    axes.grid(color="#e5e7eb", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, loc=legend)
