"""`profile`: which layers of a program cost what, why, and what to change."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from densepath.files import write_text
from densepath.npu.estimate import NotCounted, OperatorCost
from densepath.npu.fitting import less_flash, more_sram, why_unfit
from densepath.npu.program import Program
from densepath.wording import first_of, percent

AREAS = ("compute", "SRAM", "DRAM", "flash")
CSV_COLUMNS = (
    "name",
    "operator",
    "source",
    "on_npu",
    "ms",
    "cycles",
    "bound_by",
    "macs",
    "utilisation",
    *(f"{area}_cycles" for area in AREAS),
    "moved_bytes",
    "tensor",
)
CSV_DIGITS = {"ms": 5, "utilisation": 4}
LOW_UTILISATION = 0.1
LARGE_SHARE = 0.15


@dataclass(frozen=True)
class Profile:
    """A program's layers and what they come to.

    Attributes:
        program: that was compiled.
        layers: in the order they run.
    """

    program: Program
    layers: list[OperatorCost]

    @property
    def cycles(self) -> int:
        """Of all layers, as if none overlapped."""
        return sum(layer.cycles for layer in self.layers)

    @property
    def on_npu(self) -> list[OperatorCost]:
        """The layers whose cycles are known."""
        return [layer for layer in self.layers if layer.on_npu]

    @property
    def on_cpu(self) -> list[OperatorCost]:
        """The layers whose time nobody knows."""
        return [layer for layer in self.layers if not layer.on_npu]

    @property
    def not_counted(self) -> NotCounted:
        """What the estimate leaves out."""
        return NotCounted.of(self.layers)

    def share_by(self, key: str) -> dict[str, float]:
        """The share of the NPU's cycles by `operator` or `bound_by`, the largest first."""
        total: Counter[str] = Counter()
        for layer in self.on_npu:
            total[getattr(layer, key)] += layer.cycles
        return {name: count / max(self.cycles, 1) for name, count in total.most_common()}

    def milliseconds(self, layer: OperatorCost) -> float:
        """Of a layer on the NPU, by its clock."""
        return 1e3 * layer.cycles / self.program.description.target.clock_hz

    def advice(self) -> list[str]:
        """What to change, from what costs most."""
        target = self.program.description.target
        said = []
        bound, operators = self.share_by("bound_by"), self.share_by("operator")
        if bound.get("DRAM", 0) > LARGE_SHARE:
            said.append(
                f"{percent(bound['DRAM'], 0)} of the cycles wait for DRAM: {more_sram(target)} "
                "shortens them."
            )
        if bound.get("flash", 0) > LARGE_SHARE:
            said.append(
                f"{percent(bound['flash'], 0)} of the cycles wait for weights from flash: "
                f"{less_flash(target)}."
            )
        if operators.get("DepthwiseConv2D", 0) > LARGE_SHARE:
            said.append(
                f"{percent(operators['DepthwiseConv2D'], 0)} of the cycles are BatchNorms behind "
                "a Concat, as depthwise convolutions, which use few multipliers: a network with "
                "fewer, wider layers has fewer of them."
            )
        if operators.get("MemoryCopy", 0) > LARGE_SHARE:
            said.append(
                f"{percent(operators['MemoryCopy'], 0)} of the cycles copy features into a "
                "Concat: a smaller input has less to copy."
            )
        used = self.utilisation()
        if used < LOW_UTILISATION:
            said.append(
                f"{percent(used)} of the multipliers work: a target with fewer takes little longer."
            )
        if self.on_cpu:
            names = first_of([f"{layer.source} {layer.name}" for layer in self.on_cpu])
            said.append(
                f"{self.not_counted}: {names}. The time of these is a board's to measure; every "
                "one is a way there and back, too."
            )
        unfit = why_unfit(self.program.description)
        if unfit is not None:
            said.append(unfit)
        return said

    def utilisation(self) -> float:
        """The share of the multipliers that work, over all cycles."""
        macs = self.program.description.target.macs_per_cycle
        return sum(layer.macs for layer in self.on_npu) / max(self.cycles * macs, 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        about = self.program.description.to_dict()
        return {
            "model": about["model"],
            "target": about["target"],
            "estimate": about["estimate"],
            "operators": about["operators"],
            "utilisation": self.utilisation(),
            "by_operator": self.share_by("operator"),
            "by_bound": self.share_by("bound_by"),
            "not_counted": asdict(self.not_counted),
            "advice": self.advice(),
            "layers": [self._row(layer) for layer in self.layers],
        }

    def _row(self, layer: OperatorCost) -> dict[str, Any]:
        """A layer's figures by their names; None where nobody knows them, as of those on the CPU.

        The bytes that a layer moves are known of those on the CPU alone.
        """
        known = layer.on_npu
        return {
            "name": layer.name,
            "operator": layer.operator,
            "source": layer.source,
            "on_npu": layer.on_npu,
            "ms": self.milliseconds(layer) if known else None,
            "cycles": layer.cycles if known else None,
            "bound_by": layer.bound_by,
            "macs": layer.macs,
            "utilisation": layer.utilisation if known else None,
            **{f"{area}_cycles": layer.area_cycles[area] if known else None for area in AREAS},
            "moved_bytes": layer.moved_bytes,
            "tensor": layer.tensor,
        }

    def to_csv(self) -> str:
        """A row a layer, with what `to_dict` has of it; empty where nobody knows a figure."""
        text = io.StringIO()
        writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for layer in self.layers:
            row = self._row(layer)
            for name, digits in CSV_DIGITS.items():
                if row[name] is not None:
                    row[name] = f"{row[name]:.{digits}f}"
            writer.writerow(row)
        return text.getvalue()


def profile(program: Program) -> Profile:
    """The program's layers, by Vela's estimate.

    Raises:
        EngineError: the estimate cannot be read.
    """
    return Profile(program, program.layers())


def write_csv(made: Profile, path: Path) -> None:
    """`path` has a row a layer."""
    write_text(path, made.to_csv())
