"""The step of a quantisation-aware training (QAT): forwards as INT8, backwards as float32.

Weights and activations are rounded (`fake_quantised.py`), and the targets are mostly the float
network's answers at the start. Nothing of this stays in the checkpoint: its names and types are
those of any other, and its weights have learned to be rounded.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densepath.models.build import Model
from densepath.training.epochs import EpochRow
from densepath.training.recipe_sections import QuantizationSection
from densepath.training.state import Position
from densepath.training.steps.fake_quantised import FakeQuantised
from densepath.wording import percent


class QuantisedStep:
    """A `Step` that rounds the network, and judges epochs on the rounded one.

    Args:
        network: with trained weights; shared, not copied, but for the teacher.
        section: how it is rounded and taught.
        multi_label: whether an image can have several classes.
        device: where the network is.
    """

    def __init__(
        self,
        network: Model,
        section: QuantizationSection,
        *,
        multi_label: bool,
        device: torch.device,
    ) -> None:
        self.section = section
        self.module = FakeQuantised(network, section).to(device)
        freezes = section.norm_statistics == "frozen"
        self.frozen: Sequence[nn.Module] = batch_norms(network) if freezes else ()
        self.teacher: Teacher | None = None
        parts: dict[str, nn.Module] = {"ranges": self.module.ranges}
        if section.teacher:
            self.teacher = Teacher(network, section.teacher, multi_label=multi_label)
            parts["teacher"] = self.teacher
        self.state = nn.ModuleDict(parts)

    @property
    def batches_to_calibrate(self) -> int:
        """As the recipe says, until the ranges have seen a batch."""
        return 0 if self.module.ranges.num_batches else self.section.calibration_batches

    @property
    def calibrated(self) -> Sequence[Tensor]:
        """The ranges of the activations."""
        return list(self.module.ranges.buffers())

    def calibrate(self, images: Tensor) -> None:
        """Measure the ranges of the float network's activations."""
        self.module.calibrate(images)

    def begin(self, share_done: float) -> None:
        """Let the ranges follow the batches for a first share of the training."""
        self.module.observing = share_done < self.section.observe

    def targets(self, images: Tensor, targets: Tensor) -> Tensor:
        """The teacher's targets, where there is one."""
        return targets if self.teacher is None else self.teacher.targets(images, targets)

    def pause_statistics(self) -> None:
        """Let the ranges stay."""
        self.module.observing = False

    def judged(self, network: Model) -> nn.Module:
        """The network rounded."""
        return self.module.of(network)

    def provenance(self, row: EpochRow) -> dict[str, Any]:
        """What the weights were trained for, and their score when nothing is rounded."""
        said = {"aware_of": self.section.target, "weight_bits": self.section.weight_bits}
        return {"quantization": said | {"float_top1": row.float_top1}}

    def describe(self, position: Position) -> str:
        """What was trained, and a table of the scores at the start and of the best epoch."""
        start, section, share = position.start, self.section, self.section.teacher
        assert start is not None
        best = position.best_row
        assert best.float_top1 is not None
        taught = (
            f" Of its targets {percent(share, 0)} were the float network's first answers."
            if share
            else ""
        )
        return f"""
Quantisation-aware, for {section.target.upper()} with weights of {section.weight_bits} bits: the
weights are ordinary float32 ones that have learned to be rounded. The scores below are of the
rounded network, emulated in float32; `densepath quantize` makes the real one.{taught}

| score | rounded | as float32 |
|---|---|---|
| start | {percent(start.top1, 2)} | {percent(start.float_top1, 2)} |
| best epoch | {percent(best.top1, 2)} | {percent(best.float_top1, 2)} |
"""


class Teacher(nn.Module):
    """The float network as it was at the start, whose answers the rounded one learns to give.

    Labels alone would move a trained network about, and cost it more than rounding does;
    against its own answers there is only the error of rounding to learn from (arXiv:1503.02531).
    """

    def __init__(self, network: Model, share: float, *, multi_label: bool) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.share, self.multi_label = share, multi_label

    @torch.no_grad()
    def targets(self, images: Tensor, labels: Tensor) -> Tensor:
        """`share` of the network's scores and the rest of the labels, float32 [N, classes].

        A label that is not known stays so: its class has no part in the loss.
        """
        logits = self.network(images).float()
        scores = logits.sigmoid() if self.multi_label else logits.softmax(1)
        if not labels.is_floating_point():
            labels = F.one_hot(labels, logits.shape[1]).float()
        return labels.lerp(scores, self.share)


def batch_norms(network: nn.Module) -> list[nn.Module]:
    """The BatchNorms, whose statistics stay when they are kept in evaluation mode."""
    return [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
