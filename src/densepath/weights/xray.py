"""torchxrayvision's networks: their 18 findings, their thresholds and their range of values.

Source: torchxrayvision 1.5.7 `models.py` (`DenseNet`, `op_norm`), Apache-2.0. Its input is in
`published.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from densepath.weights.stand_ins import ModuleTable
from densepath.weights.xray_files import points_of

ORIGIN = "torchxrayvision"
THRESHOLDS = "op_threshs"
# `DenseNet.targets`, the order of the outputs of every network with 18.
FINDINGS = (
    *("Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema"),
    *("Fibrosis", "Effusion", "Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule"),
    *("Mass", "Hernia", "Lung Lesion", "Fracture", "Lung Opacity", "Enlarged Cardiomediastinum"),
)


@dataclass(frozen=True)
class Findings:
    """What such a network says of its classes.

    Attributes:
        kept: the outputs that stand for a finding, by their number.
        labels: their names; None where the file has none and they are not the usual 18.
        thresholds: their operating points; None where the file has none.
        notes: what was left out or is otherwise than there, in sentences.
    """

    kept: list[int]
    labels: list[str] | None
    thresholds: list[float] | None
    notes: list[str] = field(default_factory=list)


def is_xray(tensors: Mapping[str, Any], prefix: str, whole: ModuleTable | None) -> bool:
    """Whether a network is torchxrayvision's: by its class, else by its thresholds."""
    if whole is not None:
        part = whole.parts.get(prefix.rstrip("."))
        return part is not None and part.kind.startswith("torchxrayvision.")
    return f"{prefix}{THRESHOLDS}" in tensors


def read_findings(
    tensors: Mapping[str, Tensor],
    prefix: str,
    whole: ModuleTable | None,
    num_classes: int,
    file_name: str,
) -> Findings:
    """The names and operating points of a network's outputs.

    A network that was trained on some of the findings has empty names for the others, and NaN
    where their operating points would be: its own code answers 0.5 for them, whatever the image.
    """
    given = _names(whole, prefix)
    labels = given if given and len(given) == num_classes else None
    if labels is None and num_classes == len(FINDINGS):
        labels = list(FINDINGS)
    points = tensors.get(f"{prefix}{THRESHOLDS}")
    values = points.flatten().tolist() if points is not None else []
    published = points_of(file_name) if points is None and num_classes == len(FINDINGS) else None
    if published is not None:
        values = [math.nan if value is None else value for value in published]
    values = [float(value) for value in values] if len(values) == num_classes else []
    kept = [
        number
        for number in range(num_classes)
        if not (labels and not labels[number].strip())
        and not (values and not 0 < values[number] < 1)
    ]
    notes = []
    if published is not None:
        notes.append(
            "has no thresholds; they are those that torchxrayvision 1.5.7 has for a file of this "
            "name."
        )
    if 0 < len(kept) < num_classes:
        notes.append(
            f"left out {num_classes - len(kept)} of {num_classes} outputs, which the file has no "
            "finding for: they were never trained."
        )
    kept = kept or list(range(num_classes))
    thresholds = [values[number] for number in kept] if values else None
    if thresholds and not all(math.isfinite(value) and 0 < value < 1 for value in thresholds):
        thresholds = None
    if thresholds:
        notes.append(
            "scores are the sigmoid's, and each finding has its own threshold (op_threshs); "
            "torchxrayvision stretches them so that every threshold lies at 0.5. Which findings "
            "are a yes is the same."
        )
    names = [labels[number] for number in kept] if labels else None
    return Findings(kept, names, thresholds, notes)


def _names(whole: ModuleTable | None, prefix: str) -> Sequence[str] | None:
    """The findings that a pickled network names."""
    part = whole.parts.get(prefix.rstrip(".")) if whole is not None else None
    for name in ("targets", "pathologies"):
        value = part.values.get(name) if part is not None else None
        if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
            return list(value)
    return None
