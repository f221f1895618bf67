"""The loss over a rising learning rate, and what it suggests: a table, no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from densepath.drawing.picture import BLUE, FAINT, GREEN, LINE, ORANGE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HALF_WINDOW = 4  # steps on either side that a loss is averaged with
LEAST_POINTS = 10  # that a suggestion is made of
# The loss counts as falling where it falls by more than this share of what it began with.
LEAST_FALL = 0.02
FALL = (0.1, 0.9)  # the shares of the fall between which the valley lies


@dataclass(frozen=True)
class RateCurve:
    """What a learning-rate range test has found.

    Attributes:
        rates: the learning rate of each step, rising exponentially.
        losses: of its batch, before its move; smoothed: their mean with the steps around.
        stopped_by: why no higher rate was tried: `end`, or `divergence`.
        steepest: the rate where the smoothed loss falls fastest over the logarithm of the rate.
        valley: the rate in the middle, on a logarithmic scale, of its fall from a tenth to nine
            tenths of the way.
        about: what was trained: network, images, batch size, optimiser.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    stopped_by: str
    steepest: float | None
    valley: float | None
    about: str

    @property
    def suggestion(self) -> float | None:
        """The peak learning rate to train with; None where the loss does not fall.

        The steepest point: the valley, the cautious choice, mostly lies two to four times lower.
        """
        return self.steepest

    @property
    def settings(self) -> str:
        """The option of `train` that takes the suggestion; empty without one."""
        return "" if self.suggestion is None else f"--set optimizer.lr={self.suggestion:.2g}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"suggestion": self.suggestion, "settings": self.settings}


def make_curve(
    rates: Sequence[float], losses: Sequence[float], *, stopped_by: str, about: str
) -> RateCurve:
    """The curve of these steps, with its suggestions."""
    smoothed = smooth(losses)
    steepest, valley = find_steepest(rates, smoothed), find_valley(rates, smoothed)
    return RateCurve(list(rates), list(losses), smoothed, stopped_by, steepest, valley, about)


def smooth(losses: Sequence[float]) -> list[float]:
    """Each loss averaged with as many before as behind it, `HALF_WINDOW` at most: no lag."""
    found = []
    for place in range(len(losses)):
        half = min(HALF_WINDOW, place, len(losses) - 1 - place)
        around = losses[place - half : place + half + 1]
        found.append(sum(around) / len(around))
    return found


def find_steepest(rates: Sequence[float], smoothed: Sequence[float]) -> float | None:
    """The rate at which the smoothed loss falls fastest, within its fall; None: it does not fall.

    Source: Smith, arXiv:1506.01186, section 3.3, reads it off by eye.
    """
    fall = _find_fall(smoothed)
    if fall is None:
        return None
    first, last = fall
    slopes = np.gradient(np.asarray(smoothed), np.log(rates))
    return rates[first + int(slopes[first : last + 1].argmin())]


def find_valley(rates: Sequence[float], smoothed: Sequence[float]) -> float | None:
    """The rate in the middle of the fall, on a logarithmic scale; None: the loss does not fall."""
    fall = _find_fall(smoothed)
    return None if fall is None else rates[sum(fall) // 2]


def _find_fall(smoothed: Sequence[float]) -> tuple[int, int] | None:
    """The steps between which the loss goes from a tenth to nine tenths of its way down.

    The way is from the mean of the first steps to the lowest point; the fall is its last one.
    None where there are too few steps, or the loss hardly falls.
    """
    if len(smoothed) < LEAST_POINTS:
        return None
    losses, lowest = np.asarray(smoothed), int(np.argmin(smoothed))
    start = float(losses[: HALF_WINDOW + 1].mean())
    if lowest < LEAST_POINTS // 2 or start - losses[lowest] < LEAST_FALL * abs(start):
        return None
    done = (start - losses[: lowest + 1]) / (start - losses[lowest])
    first = int(np.flatnonzero(done < FALL[0]).max(initial=-1)) + 1
    return first, first + int(np.argmax(done[first:] >= FALL[1]))


def draw_curve(curve: RateCurve) -> Figure:
    """The loss over the learning rate, both points marked."""
    said = "none: the loss does not fall" if not curve.settings else curve.settings
    figure = new_figure(
        8,
        4.8,
        f"Learning rate: {said}",
        curve.about,
        "Each step has a higher rate than the one before, from the first weights on. The points "
        "are the losses of single batches, the line their mean with the steps around. Steepest: "
        "where it falls fastest, which is suggested; valley: the middle of its fall, the cautious "
        "choice.",
    )
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses, ".", color=FAINT, markersize=3, label="a batch")
    axes.plot(curve.rates, curve.smoothed, color=BLUE, label="mean of 9 steps")
    for name, rate, colour in (
        ("valley", curve.valley, GREEN),
        ("steepest", curve.steepest, ORANGE),
    ):
        if rate is not None:
            height = curve.smoothed[curve.rates.index(rate)]
            axes.plot(rate, height, "o", color=colour, label=f"{name}: {rate:.2g}", zorder=3)
    low, first = min(curve.losses), curve.smoothed[0]
    top = min(max(curve.losses), 2 * first)
    margin = 0.05 * max(top - low, 1e-9)
    axes.set_ylim(low - margin, top + margin)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.grid(color=LINE, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="best", fontsize=8.5, framealpha=0.85, edgecolor="none")
    return figure
