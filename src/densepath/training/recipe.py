"""The Recipe: everything that decides a training's result, nested, typed and closed.

A recipe is data: it never enters a network. Where it runs (device, workers, output folder) is
no part of it, so the same recipe means the same training on any machine. `None` in a field
stands for "as the model has it"; `resolve.py` replaces it before the training starts.
"""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from densepath.training.recipe_sections import (
    AugmentSection,
    CheckpointSection,
    ComputeSection,
    Count,
    DataSection,
    DistributedSection,
    EmaSection,
    Index,
    LoggingSection,
    LossSection,
    ModelSection,
    OptimizerSection,
    PreprocessSection,
    QuantizationSection,
    ScheduleSection,
    Section,
)

_WARMUP = ("warmup_epochs", "warmup_start")
# Fields that only some choices of another field give a meaning: section, that field, and for
# each choice its fields.
_BELONGINGS: tuple[tuple[str, str, dict[str, tuple[str, ...]]], ...] = (
    ("optimizer", "name", {"sgd": ("momentum", "nesterov"), "adamw": ("betas", "eps")}),
    (
        "schedule",
        "name",
        {
            "constant": _WARMUP,
            "cosine": (*_WARMUP, "final_lr"),
            "step": (*_WARMUP, "step_epochs", "gamma"),
            "multi_step": (*_WARMUP, "milestones", "gamma"),
            "one_cycle": ("final_lr",),  # which rises by itself
        },
    ),
    (
        "augment",
        "crop",
        {
            "random_resized_crop": ("scale", "ratio"),
            "clamped_crop": ("scale", "ratio"),
            "pad_crop": ("padding",),
            "none": (),
        },
    ),
    (
        "quantization",
        "target",
        {"none": (), "int8": tuple(n for n in QuantizationSection.model_fields if n != "target")},
    ),
    ("quantization", "ranges", {"minmax": (), "percentile": ("percentile",)}),
)

# Fields that came later: written only where they say something, so that recipes of trainings that
# do without can be read by any densepath.
YOUNGER = (
    *(("data", field) for field in ("group_pattern", "uncertain", "sampler")),
    ("preprocess", "intensity"),
    *(("augment", field) for field in ("size", "first_sizes")),
    *(("loss", field) for field in ("kind", "focal_gamma", "class_weights", "pos_weight")),
    ("loss", "one_vs_rest"),
    *(("checkpoint", field) for field in ("monitor", "patience")),
    *(("compute", field) for field in ("block", "recompute")),
    ("logging", "tensorboard"),
)


def _check_belongings(
    name: str, section: Section, choice: str, belongings: dict[str, tuple[str, ...]]
) -> None:
    """Raise unless the section's choice gives every field that is set a meaning.

    Raises:
        ValueError: one is; its default may stand, so that a resolved recipe can be read.
    """
    chosen = getattr(section, choice)
    if chosen is None:
        return
    for field in sorted({field for fields in belongings.values() for field in fields}):
        value = getattr(section, field)
        if field in belongings[chosen] or value == type(section).model_fields[field].default:
            continue
        owners = " or ".join(c for c, fields in belongings.items() if field in fields)
        raise ValueError(
            f"{name}.{field} is {value!r}, but {name}.{choice} is {chosen}; {field} belongs to "
            f"{owners}"
        )


class Recipe(Section):
    """Everything that decides a training's result."""

    seed: Index = 0
    """Of every random draw."""
    epochs: Count = 10
    """Passes over the training images."""
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    preprocess: PreprocessSection = PreprocessSection()
    augment: AugmentSection = AugmentSection()
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    loss: LossSection = LossSection()
    ema: EmaSection = EmaSection()
    compute: ComputeSection = ComputeSection()
    distributed: DistributedSection = DistributedSection()
    quantization: QuantizationSection = QuantizationSection()
    checkpoint: CheckpointSection = CheckpointSection()
    logging: LoggingSection = LoggingSection()

    @model_validator(mode="after")
    def _holds_together(self) -> Recipe:
        """The recipe, whose fields do not contradict each other; else raise ValueError."""
        for section, choice, belongings in _BELONGINGS:
            _check_belongings(section, getattr(self, section), choice, belongings)
        if self.optimizer.name == "sgd" and self.optimizer.nesterov and not self.optimizer.momentum:
            raise ValueError(
                "optimizer.nesterov needs a momentum above 0; set optimizer.nesterov=false"
            )
        if self.schedule.warmup_epochs >= self.epochs:
            raise ValueError(
                f"schedule.warmup_epochs is {self.schedule.warmup_epochs:g}, but the training has "
                f"only {self.epochs} epochs; the warm-up must be shorter"
            )
        if list(self.schedule.milestones) != sorted(set(self.schedule.milestones)):
            raise ValueError("schedule.milestones must rise")
        if self.schedule.final_lr > self.optimizer.lr:
            raise ValueError(
                f"schedule.final_lr {self.schedule.final_lr:g} is above optimizer.lr "
                f"{self.optimizer.lr:g}"
            )
        for name in ("scale", "ratio"):
            low, high = getattr(self.augment, name)
            if low > high:
                raise ValueError(f"augment.{name} is ({low:g}, {high:g}); the first is the lower")
        if self.quantization.target != "none":
            self._check_quantization()
        self._check_blocks()
        return self

    def _check_blocks(self) -> None:
        """Raise ValueError where blocks that have to be one operation cannot be."""
        reason = self.why_plain_blocks()
        if self.compute.block == "fused" and reason:
            raise ValueError(
                f"compute.block is fused, but {reason}; set compute.block=auto, or leave that out"
            )
        if self.compute.block == "plain":
            reason = "compute.block is plain"
        if self.compute.recompute and reason:
            raise ValueError(
                f"compute.recompute is for blocks that are one operation, but {reason}; set "
                "compute.recompute=false, or leave that out"
            )

    def why_plain_blocks(self) -> str | None:
        """What keeps blocks from being one operation: a half-sentence; None: nothing does."""
        if self.quantization.target != "none":
            return "quantization.target rounds the maps between their modules"
        if self.compute.compile:
            return "compute.compile compiles their modules"
        return None

    def _check_quantization(self) -> None:
        """Raise ValueError unless a training for INT8 has what it needs, and nothing it ignores."""
        target = self.quantization.target
        if self.model.weights is None:
            raise ValueError(
                f"quantization.target is {target}, which fine-tunes a trained network; name it: "
                "densepath train --qat SUBJECT, or set model.weights"
            )
        if self.compute.compile:
            raise ValueError(
                f"quantization.target is {target}, which runs uncompiled; set compute.compile=false"
            )
        if self.distributed.sync_bn and self.quantization.norm_statistics == "frozen":
            raise ValueError(
                "distributed.sync_bn has nothing to do where quantization.norm_statistics is "
                "frozen; set distributed.sync_bn=false or quantization.norm_statistics=moving"
            )

    def __repr__(self) -> str:
        """The network, the data and the length in one line."""
        network = self.model.name or self.model.weights
        return (
            f"<Recipe: {network} on {self.data.source}, {self.epochs} epochs, {self.optimizer.name}"
            f" with a rate of {self.optimizer.lr:g}, seed {self.seed}>"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML and JSON, without younger fields that say nothing."""
        values = self.model_dump(mode="json")
        for section, field in YOUNGER:
            owner = getattr(self, section)
            if getattr(owner, field) == type(owner).model_fields[field].default:
                del values[section][field]
            if not values[section]:
                del values[section]
        return values
