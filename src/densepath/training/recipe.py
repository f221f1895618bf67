"""The Recipe: everything that decides a training's result, nested, typed and closed.

A recipe is data: it never enters a network. Where it runs (device, workers, output folder) is
no part of it, so the same recipe means the same training on any machine. `None` in a field
stands for "as the model has it"; `resolve.py` replaces it before the training starts.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Interpolation = Literal["bilinear", "bicubic", "cv2_bilinear"]
FREEZE_PARTS = ("nothing", "stem", "features")
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Index = Annotated[int, Field(ge=0)]
Range = tuple[Positive, Positive]


class Section(BaseModel):
    """A closed group of fields: an unknown one is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ModelSection(Section):
    """The network and its first weights."""

    name: str | None = None
    """A name of the catalogue; None with `weights`: the network of those weights."""
    weights: str | None = None
    """A published name, a checkpoint file or a run folder to start from."""
    freeze: str | int = "nothing"
    """What keeps its weights and BatchNorm statistics: `stem`, `features` (all but the
    classifier) or N, the stem and the first N stages."""
    drop_rate: Rate = 0.0
    drop_path_rate: Rate = 0.0
    stem: Literal["imagenet", "small"] | None = None
    bn_eps: Positive | None = None
    stem_pool: Literal["pad1", "same"] | None = None

    @field_validator("freeze", mode="before")
    @classmethod
    def _check_freeze(cls, value: Any) -> Any:
        """Returns a part's name, or a number of stages (also written as text)."""
        number = int(value) if isinstance(value, str) and value.isdigit() else value
        is_number = isinstance(number, int) and not isinstance(number, bool) and number >= 1
        if is_number or number in FREEZE_PARTS:
            return number
        raise ValueError(
            f"model.freeze is {value!r}; choices: {', '.join(FREEZE_PARTS)}, or a number of stages"
        )


class DataSection(Section):
    """The images, and how many make one step."""

    source: str = "digits"
    """`digits`, `cifar10`, a folder, a list file, a CSV or a CIFAR-10 archive."""
    channels: Literal[1, 3] | None = None
    """1: images are read as grayscale. None: as the weights have it, else 3."""
    root: str | None = None
    """The folder that a list file's paths start from."""
    batch_size: Count = 64
    """Images of one optimiser step, over all processes and accumulated parts together."""
    evaluate_on: Literal["validation", "test"] = "validation"
    validation_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    on_error: Literal["fail", "skip"] = "fail"


class PreprocessSection(Section):
    """How an evaluated image becomes the network's input; training shares size and statistics."""

    size: Count | tuple[Count, Count] | None = None
    """Side in pixels, or (height, width)."""
    resize_short: Index | None = None
    """The short side in pixels before the centre crop; 0 resizes straight to `size`."""
    interpolation: Interpolation | None = None
    side_rounding: Literal["truncate", "round"] | None = None
    crop_rounding: Literal["round", "floor"] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[Positive, ...] | None = None


class AugmentSection(Section):
    """Random changes of training images. Rates are probabilities."""

    crop: Literal["random_resized_crop", "pad_crop", "none"] | None = None
    scale: Range = (0.08, 1.0)
    """The area that `random_resized_crop` keeps."""
    ratio: Range = (3 / 4, 4 / 3)
    padding: Index = 4
    """Pixels on each side before `pad_crop`."""
    hflip: Share | None = None
    """None: 0.5, and 0 for digits, which a mirror makes unreadable."""
    vflip: Share = 0.0
    color_jitter: NotNegative = 0.0
    """Strength for brightness, contrast and saturation."""
    randaugment_ops: Index = 0
    randaugment_magnitude: Annotated[float, Field(ge=0.0, le=10.0)] = 9.0
    random_erasing: Share = 0.0
    mixup: NotNegative = 0.0
    """α of the Beta distribution; 0 is off."""
    cutmix: NotNegative = 0.0


class OptimizerSection(Section):
    """How a gradient moves the weights."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: Positive = 0.1
    """The peak learning rate, for the batch size of the recipe: nothing is scaled."""
    momentum: Rate = 0.9
    nesterov: bool = True
    betas: tuple[Rate, Rate] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: NotNegative = 1e-4
    decay_norm_and_bias: bool = True
    """Whether BatchNorm's parameters and biases decay too."""
    clip_norm: Positive | None = None
    """The largest norm of the gradient of all weights together."""


class ScheduleSection(Section):
    """The learning rate over the steps, as a share of `optimizer.lr`."""

    name: Literal["constant", "cosine", "step", "multi_step", "one_cycle"] = "cosine"
    warmup_epochs: NotNegative = 0.0
    """Linear rise from `warmup_start` times the peak; whole epochs or parts of one."""
    warmup_start: Rate = 0.0
    final_lr: NotNegative = 0.0
    """Where `cosine` and `one_cycle` end."""
    step_epochs: Count = 30
    """`step` multiplies by `gamma` every so many epochs."""
    milestones: tuple[Share, ...] = (0.5, 0.75)
    """`multi_step` multiplies by `gamma` at these shares of the training."""
    gamma: Positive = 0.1


class LossSection(Section):
    """Cross-entropy of one class, or binary cross-entropy of each class of a multi-label set."""

    label_smoothing: Rate = 0.0


class EmaSection(Section):
    """An exponential moving average of the weights, which is then evaluated and kept."""

    decay: Rate = 0.0
    """0 is off."""


class ComputeSection(Section):
    """How the arithmetic is done; changes speed, and results within rounding."""

    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False
    compile: bool = False


class DistributedSection(Section):
    """How one batch is spread over processes and parts."""

    accumulate: Count = 1
    """Parts that each process's share of a batch is computed in, one after the other."""
    sync_bn: bool = False
    """BatchNorm statistics over the images of all processes."""


class CheckpointSection(Section):
    """When the state for an exact resume is written, beside the end of every epoch."""

    every_steps: Count | None = None
    every_minutes: Positive | None = 10.0


class Recipe(Section):
    """Everything that decides a training's result."""

    seed: Index = 0
    epochs: Count = 10
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
    checkpoint: CheckpointSection = CheckpointSection()

    @model_validator(mode="after")
    def _holds_together(self) -> Recipe:
        """Returns the recipe when its fields do not contradict each other."""
        if self.optimizer.name == "adamw" and "momentum" in self.optimizer.model_fields_set:
            raise ValueError("optimizer.momentum belongs to sgd; adamw has optimizer.betas")
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
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain values for YAML and JSON."""
        return self.model_dump(mode="json")
