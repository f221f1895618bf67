"""What Vela says a program costs: in total, and a layer at a time.

Vela estimates cycles from its model of the NPU and its memories; it does not run the program. What
stays on the CPU has no cycles in it: `NotCounted` says how much that is.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from densepath.errors import EngineError
from densepath.models.plan import CLASSIFIER
from densepath.npu.layout import MEMORY_NAMES
from densepath.npu.on_cpu import Work, work_on_cpu
from densepath.quantize.litert_graph import LOGITS
from densepath.wording import counted, percent

# Where Vela counts cycles, and what a layer that spends most there is bound by.
AREAS = {
    "NPU": "compute",
    "SRAM AC": "SRAM",
    "DRAM AC": "DRAM",
    "OnFlash AC": "flash",
    "OffFlash AC": "flash",
}
# In the place of these, of a layer that the CPU runs.
ON_CPU = "CPU"
KIB = 1024
OF_LAYER = re.compile(rf"(features\.[\w.]+|{CLASSIFIER})/")


@dataclass(frozen=True)
class OperatorCost:
    """An operator of the program.

    Attributes:
        name: of the layer that it belongs to, as `densepath models --layers` and `--keep-float`
            have it; of a network without such names what tells its output tensor from others.
        operator: as Vela runs it.
        source: as the network had it.
        on_npu: it runs on the NPU, not on the CPU.
        cycles: in all; 0 on the CPU, where nobody knows them.
        area_cycles: of computing and of each memory; they overlap.
        macs: multiply-accumulates.
        utilisation: share of the NPU's multipliers that work.
        bound_by: `compute`, `SRAM`, `DRAM` or `flash`: where most cycles go; `CPU` on the CPU.
        moved_bytes: that an operator on the CPU reads and writes; None on the NPU.
        tensor: the operator's own name, which is that of its output tensor.
    """

    name: str
    operator: str
    source: str
    on_npu: bool
    cycles: int
    area_cycles: dict[str, int]
    macs: int
    utilisation: float
    bound_by: str
    moved_bytes: int | None = None
    tensor: str = ""


@dataclass(frozen=True)
class NotCounted:
    """What an estimate leaves out, since the CPU beside the NPU runs it.

    Attributes:
        operators: their number.
        macs: their multiply-accumulates.
        share_of_macs: of all of the program.
        moved_bytes: that they read and write.
    """

    operators: int
    macs: int
    share_of_macs: float
    moved_bytes: int

    @classmethod
    def of(cls, layers: Sequence[OperatorCost]) -> NotCounted:
        """What of these layers runs on the CPU."""
        left = [layer for layer in layers if not layer.on_npu]
        macs = sum(layer.macs for layer in left)
        return cls(
            operators=len(left),
            macs=macs,
            share_of_macs=macs / max(sum(layer.macs for layer in layers), 1),
            moved_bytes=sum(layer.moved_bytes or 0 for layer in left),
        )

    def size(self) -> str:
        """`3 operators, 12.3 % of the multiply-adds`."""
        share = percent(self.share_of_macs)
        return f"{counted(self.operators, 'operator')}, {share} of the multiply-adds"

    def __str__(self) -> str:
        """`not counted on the CPU: 3 operators, 12.3 % of the multiply-adds`."""
        return f"not counted on the CPU: {self.size()}"


@dataclass(frozen=True)
class Estimate:
    """A program on its target.

    Attributes:
        inference_ms: of one image.
        cycles: in all.
        memory_bytes: that a board has to have, an entry a memory, by what lies where.
        traffic_bytes: that is moved for one image, an entry a memory.
        sram_limit_bytes: of the SRAM that there is for it.
        macs: multiply-accumulates of one image.
        not_counted: what the CPU runs, of which all others say nothing.
    """

    inference_ms: float
    cycles: int
    memory_bytes: dict[str, int]
    traffic_bytes: dict[str, int]
    sram_limit_bytes: int
    macs: int
    not_counted: NotCounted

    @property
    def fits(self) -> bool:
        """Whether its SRAM is enough."""
        return self.memory_bytes["sram"] <= self.sram_limit_bytes

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self)
        left = values.pop("not_counted")
        return {**values, "fits": self.fits, "not_counted": left}


def read_estimate(
    summary: Path, layers: Sequence[OperatorCost], memory_bytes: dict[str, int], sram_bytes: int
) -> Estimate:
    """The totals of Vela's summary file.

    Args:
        summary: Vela's file; its own sizes of memories leave out what it calls other than it lies.
        layers: of the program, see `read_layers`.
        memory_bytes: that the program needs, see `Layout.memory_bytes`.
        sram_bytes: of the board.

    Raises:
        EngineError: it is not as expected.
    """
    try:
        with summary.open(encoding="utf-8", newline="") as file:
            (row,) = csv.DictReader(file)
        return Estimate(
            inference_ms=1e3 * float(row["inference_time"]),
            cycles=int(float(row["cycles_total"])),
            memory_bytes=memory_bytes,
            traffic_bytes={n: int(float(row[f"{n}_total_bytes"])) for n in MEMORY_NAMES.values()},
            sram_limit_bytes=min(sram_bytes, int(KIB * float(row["arena_cache_size"]))),
            macs=int(float(row["nn_macs"])),
            not_counted=NotCounted.of(layers),
        )
    except (OSError, KeyError, ValueError) as error:
        raise EngineError(f"Vela's summary {summary.name} cannot be read: {error!r}.") from error


def read_layers(per_layer: Path, compiled: Path) -> list[OperatorCost]:
    """The operators of Vela's file of layers; those that cost nothing are part of others.

    Args:
        per_layer: Vela's file.
        compiled: the program, which tells what the operators on the CPU have to do.

    Raises:
        EngineError: it is not as expected.
        BundleError: the program cannot be read.
        MissingPackageError: what reads the program is not installed.
    """
    try:
        with per_layer.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        left = work_on_cpu(compiled) if any(row["Target"] != "NPU" for row in rows) else {}
        return [
            _layer(row) if row["Target"] == "NPU" else _layer_on_cpu(row, left[row["Name"]].pop(0))
            for row in rows
            if _costs(row)
        ]
    except (OSError, LookupError, ValueError) as error:
        raise EngineError(f"Vela's layers {per_layer.name} cannot be read: {error!r}.") from error


def _costs(row: dict[str, str]) -> bool:
    """Whether it is an operator of its own."""
    return float(row["Op Cycles"]) > 0 or row["Target"] != "NPU"


def _layer_on_cpu(row: dict[str, str], work: Work) -> OperatorCost:
    """One row of the file, of an operator that Vela counts nothing for."""
    return OperatorCost(
        _layer_name(row["Name"]),
        row["Original Operator"],
        row["Original Operator"],
        on_npu=False,
        cycles=0,
        area_cycles=dict.fromkeys(AREAS.values(), 0),
        macs=work.macs,
        utilisation=0.0,
        bound_by=ON_CPU,
        moved_bytes=work.moved_bytes,
        tensor=_short(row["Name"]),
    )


def _layer(row: dict[str, str]) -> OperatorCost:
    """One row of the file."""
    areas: dict[str, int] = {}
    for column, bound in AREAS.items():
        areas[bound] = areas.get(bound, 0) + int(float(row[column]))
    return OperatorCost(
        name=_layer_name(row["Name"]),
        operator=row["NNG Operator"],
        source=row["Original Operator"],
        on_npu=True,
        cycles=int(float(row["Op Cycles"])),
        area_cycles=areas,
        macs=int(float(row["MAC Count"])),
        utilisation=float(row["Util% (MAC)"]) / 100,
        bound_by=max(areas, key=lambda bound: areas[bound]),
        tensor=_short(row["Name"]),
    )


def _layer_name(tensor: str) -> str:
    """The layer of `models/plan.py` that an operator belongs to, by its output tensor's name.

    `quantize/litert_graph.py` gives the tensors these names; the last one is the classifier's.
    """
    if tensor.startswith(LOGITS):
        return CLASSIFIER
    found = OF_LAYER.match(tensor)
    return found[1] if found else _short(tensor)


def _short(name: str) -> str:
    """A tensor's name; of one that is made of all modules around it the last ones.

    Of an operator that others were joined into it is the longest of their names.
    """
    if OF_LAYER.match(name):
        return name
    parts = [
        part.strip() for part in name.split(";") if part.strip() and not part.strip().isdigit()
    ]
    longest = max(parts, key=lambda part: part.count("/"), default=name.strip())
    return "/".join(piece.split(".")[-1] for piece in longest.split("/")[-2:])[-60:]
