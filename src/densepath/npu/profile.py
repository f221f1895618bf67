"""`densepath.npu.profile`: which layers of a program cost what, why, and what to change."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densepath.files import write_text
from densepath.npu.estimate import LayerCost
from densepath.npu.program import Program
from densepath.wording import percent

AREAS = ("compute", "SRAM", "DRAM", "flash")
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
    layers: list[LayerCost]

    @property
    def cycles(self) -> int:
        """Of all layers, as if none overlapped."""
        return sum(layer.cycles for layer in self.layers)

    def share_by(self, key: str) -> dict[str, float]:
        """The share of the cycles by `operator` or `bound_by`, the largest first."""
        total: Counter[str] = Counter()
        for layer in self.layers:
            total[getattr(layer, key)] += layer.cycles
        return {name: count / max(self.cycles, 1) for name, count in total.most_common()}

    def milliseconds(self, layer: LayerCost) -> float:
        """Of a layer, by the NPU's clock."""
        return 1e3 * layer.cycles / float(self.program.about["target"]["clock_hz"])

    def advice(self) -> list[str]:
        """What to change, from what costs most."""
        about = self.program.about
        said = []
        bound, operators = self.share_by("bound_by"), self.share_by("operator")
        memory = about["estimate"]["memory_bytes"]
        if bound.get("DRAM", 0) > LARGE_SHARE:
            said.append(
                f"{percent(bound['DRAM'], 0)} of the cycles wait for DRAM: a memory mode with more "
                "SRAM, or a faster memory system (--system-config), shortens them."
            )
        if bound.get("flash", 0) > LARGE_SHARE:
            said.append(
                f"{percent(bound['flash'], 0)} of the cycles wait for weights from flash: a "
                "smaller classifier, or Sram_Only where the weights fit, shortens them."
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
        if about["operators"]["cpu"]:
            names = ", ".join(about["operators"]["cpu"][:3])
            said.append(f"on the CPU: {names}; every such operator is a way there and back.")
        if not about["estimate"]["fits"]:
            limit = about["estimate"]["sram_limit_bytes"] / 1024
            said.append(
                f"it needs {memory['sram'] / 1024:.0f} KiB of SRAM, and there are {limit:.0f}: "
                "a smaller --size, a smaller network, or a Dedicated_Sram memory mode."
            )
        return said

    def utilisation(self) -> float:
        """The share of the multipliers that work, over all cycles."""
        macs = self.program.about["target"]["macs_per_cycle"]
        return sum(layer.macs for layer in self.layers) / max(self.cycles * macs, 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        about = self.program.about
        return {
            "model": about["model"],
            "target": about["target"],
            "estimate": about["estimate"],
            "operators": about["operators"],
            "utilisation": self.utilisation(),
            "by_operator": self.share_by("operator"),
            "by_bound": self.share_by("bound_by"),
            "advice": self.advice(),
        }

    def to_csv(self) -> str:
        """A row a layer."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(
            [
                *("name", "operator", "source", "on_npu", "ms", "cycles", "bound_by"),
                *("macs", "utilisation", *(f"{area}_cycles" for area in AREAS)),
            ]
        )
        for one in self.layers:
            writer.writerow(
                [
                    *(one.name, one.operator, one.source, one.on_npu),
                    *(f"{self.milliseconds(one):.5f}", one.cycles, one.bound_by, one.macs),
                    *(f"{one.utilisation:.4f}", *(one.area_cycles[area] for area in AREAS)),
                ]
            )
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
