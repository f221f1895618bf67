"""The sections of a Recipe: typed, closed groups of fields.

A docstring below a field is its help. `None` in a field stands for "as the model has it".
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from densepath.choices import (
    CropRounding,
    FloatPrecision,
    Interpolation,
    LossKind,
    Monitor,
    OnError,
    Sampler,
    SideRounding,
    Uncertain,
)
from densepath.data.options import DataOptions
from densepath.images.intensity import Intensity

NO_INTENSITY = "none"
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

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, use_attribute_docstrings=True
    )


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
    """Dropout: DenseNet after each dense layer, DPN before the classifier."""
    drop_path_rate: Rate = 0.0
    """Stochastic depth of the deepest layer; it grows linearly from 0."""
    stem: Literal["imagenet", "small"] | None = None
    """`imagenet`: a convolution and a pool that quarter the sides; `small`: one 3×3 convolution,
    for images of 32 to 64 pixels."""
    bn_eps: Positive | None = None
    """ε of every BatchNorm."""
    stem_pool: Literal["pad1", "same"] | None = None
    """How the stem's max-pool pads: `pad1` a pixel all round; `same` is MindCV's DPN."""

    @field_validator("freeze", mode="before")
    @classmethod
    def _check_freeze(cls, value: Any) -> Any:
        """A part's name, or a number of stages, also of one written as text."""
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
    channels: Annotated[int, Field(ge=1, le=16)] | None = None
    """1: images are read as grayscale; others than 1 and 3: TIFFs of as many pages and `.npy`
    arrays. None: as the weights have it, else 3."""
    root: str | None = None
    """The folder that a list's or table's paths start from."""
    train: str | None = None
    """The folder in `source` to train on, where its name does not say so; `.`: the folders of
    `source` are classes, whatever they are called."""
    validation: str | None = None
    """The folder in `source` that each epoch is judged on, or a source of its own."""
    test: str | None = None
    """The folder in `source` that is kept for `evaluate`, or a source of its own."""
    path_column: str | None = None
    """A table's column of files."""
    label_column: str | None = None
    """Its column of class names."""
    split_column: str | None = None
    """Its column of splits."""
    group_column: str | None = None
    """Its column of patients, scenes or other groups: none is on both sides of a held-out part."""
    group_pattern: str | None = None
    """A regular expression for groups without a column: images in whose paths (below `source`) it
    finds the same text, in its first group if it has one, are never on both sides. Of `p7/a.png`
    and `p7/b.png` `^([^/]+)/` finds `p7`."""
    class_columns: tuple[str, ...] | None = None
    """Its columns of 0 and 1, one a class; blank, NaN and -1 are labels that are not known."""
    uncertain: Uncertain = "mask"
    """What a label of -1 is: `mask`: not known, as a blank one; `zeros`: a no; `ones`: a yes
    (CheXpert, arXiv:1901.07031)."""
    multi_label: bool | None = None
    """Whether an image can have several classes; None: as the source shows."""
    sampler: Sampler = "shuffle"
    """`shuffle`: each image once an epoch; `balanced`: as many images, drawn so that all classes
    come alike often, those of a rare one several times with other augmentations."""
    batch_size: Count = 64
    """Images of one optimiser step, over all processes and accumulated parts together."""
    evaluate_on: Literal["validation", "test"] = "validation"
    """The split that each epoch is judged on, and the best one chosen by; with `test` no images
    are left that had no part in the training."""
    validation_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    """The part of the training images held out for validation where the set has no such split.
    None: 0.1, and 0 where `evaluate_on` is `test`."""
    on_error: OnError = "fail"
    """What an unreadable image does; skipped ones are counted."""

    @model_validator(mode="before")
    @classmethod
    def _train_alone_is_the_source(cls, values: Any) -> Any:
        """A source of training images that is named alone stands for `source`, not for `digits`."""
        if isinstance(values, dict) and values.get("train") and not values.get("source"):
            return {**values, "source": values["train"], "train": None}
        return values

    def to_options(self, seed: int) -> DataOptions:
        """How the source is to be read; `seed` draws what is held out."""
        names = {one.name for one in dataclasses.fields(DataOptions)}
        given = {name: getattr(self, name) for name in names - {"seed", "validation_fraction"}}
        return DataOptions(**given, seed=seed, validation_fraction=self.held_out)

    @property
    def held_out(self) -> float:
        """The part held out for validation: by default none when the test images judge."""
        if self.validation_fraction is not None:
            return self.validation_fraction
        return 0.0 if self.evaluate_on == "test" else 0.1


class PreprocessSection(Section):
    """How an evaluated image becomes the network's input; training shares size and statistics."""

    size: Count | tuple[Count, Count] | None = None
    """Side in pixels, or (height, width)."""
    resize_short: Index | None = None
    """The short side in pixels before the centre crop; 0 resizes straight to `size`."""
    interpolation: Interpolation | None = None
    """Pillow's antialiased `bilinear` or `bicubic`, or OpenCV's plain one as `cv2_bilinear`."""
    side_rounding: SideRounding | None = None
    """How the long side is made whole: `truncate` or `round`."""
    crop_rounding: CropRounding | None = None
    """How the corner of the crop is made whole: `round` or `floor`."""
    mean: tuple[float, ...] | None = None
    """Of values scaled to 0…1, one a channel."""
    std: tuple[Positive, ...] | None = None
    """Likewise."""
    intensity: str | None = None
    """Which values of a file of more than 8 bits are black and white: `range:LOW,HIGH`,
    `window:CENTRE,WIDTH`, `percentiles:LOW,HIGH` of each image, or `file`, its own; `none`: such
    files are read as photos are. None: as the weights have it."""

    @field_validator("intensity")
    @classmethod
    def _check_intensity(cls, value: str | None) -> str | None:
        """The setting in its shortest form; UsageError, a ValueError, where it is none."""
        return value if value in (None, NO_INTENSITY) else Intensity.parse(str(value)).to_text()


class AugmentSection(Section):
    """Random changes of training images. Rates are probabilities."""

    size: Count | None = None
    """Side in pixels of the images that are trained on; None: `preprocess.size`, which epochs are
    judged at. A larger one to judge at suits random crops (arXiv:1906.06423)."""
    first_sizes: tuple[tuple[Share, Count], ...] = ()
    """Other sides to begin with, for small images cost little: `[[0.4, 16], [0.7, 24]]` trains the
    first 40 % of the epochs on 16 pixels, those up to 70 % on 24 and the rest on `size`
    (arXiv:2104.00298, section 4). `padding` shrinks along."""
    crop: Literal["random_resized_crop", "clamped_crop", "pad_crop", "none"] | None = None
    """None: `pad_crop` up to 64 pixels, `random_resized_crop` above; `clamped_crop` is PaddleClas's
    way to draw the latter; `none` takes images as they are judged."""
    scale: Range = (0.08, 1.0)
    """The area that a random crop keeps; with quantization, by default (0.5, 1.0)."""
    ratio: Range = (3 / 4, 4 / 3)
    """Its width over its height."""
    padding: Index = 4
    """Pixels on each side before `pad_crop`."""
    hflip: Share | None = None
    """None: 0.5, and 0 for digits, which a mirror makes unreadable."""
    vflip: Share = 0.0
    """Mirroring upside down."""
    color_jitter: NotNegative = 0.0
    """Strength for brightness, contrast and saturation."""
    randaugment_ops: Index = 0
    """N of RandAugment (arXiv:1909.13719); 0 is off."""
    randaugment_magnitude: Annotated[float, Field(ge=0.0, le=10.0)] = 9.0
    """M of RandAugment."""
    random_erasing: Share = 0.0
    """The rate of Random Erasing (arXiv:1708.04896)."""
    mixup: NotNegative = 0.0
    """α of the Beta distribution; 0 is off."""
    cutmix: NotNegative = 0.0
    """Likewise; with both, each half of the time."""

    @field_validator("first_sizes")
    @classmethod
    def _check_first_sizes(
        cls, value: tuple[tuple[float, int], ...]
    ) -> tuple[tuple[float, int], ...]:
        """The pairs, whose shares rise between 0 and 1; else raise ValueError."""
        shares = [share for share, _ in value]
        if shares != sorted(set(shares)) or not all(0 < share < 1 for share in shares):
            raise ValueError(
                f"augment.first_sizes has the shares {', '.join(f'{s:g}' for s in shares)}; they "
                "must rise, and lie between 0 and 1, as in [[0.4, 16], [0.7, 24]]"
            )
        return value


class OptimizerSection(Section):
    """How a gradient moves the weights."""

    name: Literal["sgd", "adamw"] = "sgd"
    """`sgd` with momentum, or `adamw`."""
    lr: Positive = 0.1
    """The peak learning rate, for the batch size of the recipe: nothing is scaled."""
    momentum: Rate = 0.9
    """Of `sgd`."""
    nesterov: bool = True
    """Of `sgd`: Nesterov's momentum."""
    betas: tuple[Rate, Rate] = (0.9, 0.999)
    """Of `adamw`."""
    eps: Positive = 1e-8
    """Of `adamw`."""
    weight_decay: NotNegative = 1e-4
    """Added to the gradient by `sgd`, taken off the weights by `adamw`."""
    decay_norm_and_bias: bool = True
    """Whether BatchNorm's parameters and biases decay too."""
    clip_norm: Positive | None = None
    """The largest norm of the gradient of all weights together."""


class ScheduleSection(Section):
    """The learning rate over the steps, as a share of `optimizer.lr`."""

    name: Literal["constant", "cosine", "step", "multi_step", "one_cycle"] = "cosine"
    """The course over the steps, after the warm-up; `one_cycle` has none, it rises by itself."""
    warmup_epochs: NotNegative = 0.0
    """Linear rise from `warmup_start` times the peak; whole epochs or parts of one."""
    warmup_start: Rate = 0.0
    """The share of the peak that the warm-up starts from."""
    final_lr: NotNegative = 0.0
    """Where `cosine` and `one_cycle` end."""
    step_epochs: Count = 30
    """`step` multiplies by `gamma` every so many epochs."""
    milestones: tuple[Share, ...] = (0.5, 0.75)
    """`multi_step` multiplies by `gamma` at these shares of the training."""
    gamma: Positive = 0.1
    """The factor of `step` and `multi_step`."""


class LossSection(Section):
    """Cross-entropy of one class, or binary cross-entropy of each class of a multi-label set."""

    kind: LossKind = "cross_entropy"
    """`focal`: easy answers weigh less (arXiv:1708.02002)."""
    focal_gamma: NotNegative = 2.0
    """γ of the focal loss; with 0 it is the cross-entropy."""
    class_weights: Literal["balanced"] | tuple[Positive, ...] | None = None
    """A factor for each class's terms, in the order of the classes; `balanced`: the inverse of its
    training images, so that the mean over classes is that of equal ones."""
    pos_weight: Literal["balanced"] | tuple[Positive, ...] | None = None
    """Of a multi-label set, or with `one_vs_rest`, a factor for each class's yes; `balanced`: its
    noes over its yeses."""
    one_vs_rest: bool = False
    """Of images with one class: binary cross-entropy of each class, as if it were a yes or no
    (arXiv:2110.00476). A multi-label set has that anyway."""
    label_smoothing: Rate = 0.0
    """ε: this much of the target goes to all classes alike (arXiv:1512.00567)."""


class EmaSection(Section):
    """An exponential moving average of the weights, which is then evaluated and kept."""

    decay: Rate = 0.0
    """0 is off."""


class ComputeSection(Section):
    """How the arithmetic is done; changes speed, and results within rounding."""

    precision: FloatPrecision = "float32"
    """`bfloat16`: convolutions multiply so by autocast, or in a block that is one operation those
    that its kernels have so on this processor; the evaluation is in float32."""
    channels_last: bool = False
    """NHWC in memory, which CPUs and GPUs convolve faster."""
    compile: bool = False
    """torch.compile, for GPUs; needs a C compiler."""
    block: Literal["auto", "plain", "fused"] = "auto"
    """`fused`: a dense block, a transition or a DPN's stage is one operation, in memory that grows
    linearly with its layers; `plain`: its modules one by one; `auto`: fused where it is faster, on
    a CPU, unless the training takes but a minute or two."""
    recompute: bool = False
    """For larger batches: a fused block keeps as little as it can for the backward pass, which
    computes the rest again."""


class DistributedSection(Section):
    """How one batch is spread over processes and parts."""

    accumulate: Count = 1
    """Parts that each process's share of a batch is computed in, one after the other."""
    sync_bn: bool = False
    """BatchNorm statistics over the images of all processes."""


class QuantizationSection(Section):
    """Fine-tuning for INT8: weights and activations are rounded as a deployed graph does."""

    target: Literal["none", "int8"] = "none"
    """`int8`: train and evaluate so, from `model.weights`; the checkpoint stays a float one."""
    weight_bits: Literal[7, 8] = 8
    """7: for a quantiser of your own that makes weights of 7 bits; `densepath quantize` makes 8."""
    ranges: Literal["minmax", "percentile"] = "minmax"
    """The range of an activation in a batch: its extremes, or what `percentile` leaves of them."""
    percentile: Annotated[float, Field(gt=50.0, lt=100.0)] = 99.99
    """Of the values at either end, in percent."""
    calibration_batches: Count = 8
    """Training batches of the float network that give the first ranges."""
    observe: Share = 0.5
    """The share of the training in which ranges follow the batches; then they stay."""
    teacher: Share = 1.0
    """The share of the targets that are the answers of the float network at the start; the rest
    are the labels."""
    norm_statistics: Literal["frozen", "moving"] = "frozen"
    """BatchNorm's: those of the weights, as the deployed graph has them, or of the batches."""


class LoggingSection(Section):
    """What is kept of a training beside its run folder's own files; changes no result."""

    tensorboard: bool = False
    """Curves, pictures and the recipe for TensorBoard, in `tensorboard/` of the run folder; needs
    the extra `tensorboard`."""


class CheckpointSection(Section):
    """Which epoch is the best, when to end early, and when the state for an exact resume is
    written beside the end of every epoch.
    """

    monitor: Monitor | None = None
    """The figure of `metrics.csv` that chooses the best epoch: of losses the lowest, of others the
    highest. None: `top1`, which of a multi-label set is micro-F1."""
    patience: Count | None = None
    """End after so many epochs in a row that were no better; None: train all epochs."""

    every_steps: Count | None = None
    """After so many steps of an epoch; None: never."""
    every_minutes: Positive | None = 10.0
    """After so many minutes; None: never."""
