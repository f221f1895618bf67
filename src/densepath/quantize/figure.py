"""A picture of what 8 bits cost, layer by layer."""

from __future__ import annotations

from pathlib import Path

from densepath.files import write_atomically
from densepath.quantize.sensitivity import Sensitivity

NAMED = 8
DPI = 110


def draw_sensitivity(found: list[Sensitivity], kept: list[str], title: str, path: Path) -> None:
    """`path` (.png) has a bar a convolution; the worst are named, those kept in float marked."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(12, 4.8), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    ratios = [one.snr_db for one in found]
    colours = ["#c44e52" if one.name in kept else "#4c72b0" for one in found]
    axes.bar(range(1, len(found) + 1), ratios, color=colours, width=0.85)
    axes.set_xlim(0, len(found) + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(max(0, min(ratios) - 6), max(ratios) * 1.04)
    axes.set_xlabel("convolution, in the order of the network")
    axes.set_ylabel("SNR of the logits, dB (low: sensitive)")
    axes.set_title(title)
    worst = sorted(range(len(found)), key=lambda i: ratios[i])[:NAMED]
    text = "\n".join(f"{ratios[i]:5.1f} dB  {i + 1}: {found[i].name}" for i in worst)
    axes.text(
        1.01, 0.98, f"most sensitive\n{text}", transform=axes.transAxes, va="top", fontsize=7.5
    )
    if kept:
        axes.bar(1, 0, color="#c44e52", label="kept in float32")
        axes.legend(loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    with write_atomically(path) as temporary:
        figure.savefig(temporary, format="png")
