"""What a network is, as data: the architecture numbers of a row of the papers' tables.

Nothing here imports torch, so that names and tables answer at once.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from densepath.errors import UnknownNameError, UsageError

Stem = Literal["imagenet", "small"]
StemPool = Literal["pad1", "same"]

# An input of more pixels than the largest image that is read at all (preprocess.MOST_PIXELS).
LARGEST_SIDE = 9_459

DENSENET_PAPER = "arXiv:1608.06993"
DPN_PAPER = "arXiv:1707.01629"


@dataclass(frozen=True)
class DenseNetArch:
    """The numbers of one DenseNet (Huang et al., arXiv:1608.06993, table 1 and section 4.2).

    Attributes:
        growth_rate: k, the channels that each layer adds.
        blocks: the layers of each dense block.
        stem_width: the channels of the first convolution.
        bottleneck: the 1×1 convolution makes `bottleneck * growth_rate` channels; 0 for a
            plain layer of a single 3×3 convolution (DenseNet without "B").
        compression: θ, the share of the channels that a transition keeps (1.0 without "C").
        stem: `imagenet` 7×7 stride 2 and max-pool; `small` one 3×3 convolution (CIFAR).
        stem_pool: how the max-pool of the stem pads: `pad1` on every side, or `same` as
            MindSpore does (the odd pixel at the bottom and on the right).
        bn_eps: ε of every BatchNorm.
    """

    growth_rate: int
    blocks: tuple[int, ...]
    stem_width: int
    bottleneck: int = 4
    compression: float = 0.5
    stem: Stem = "imagenet"
    stem_pool: StemPool = "pad1"
    bn_eps: float = 1e-5


@dataclass(frozen=True)
class DPNArch:
    """The numbers of one Dual Path Network (Chen et al., arXiv:1707.01629, table 1).

    Attributes:
        stem_width: the channels of the first convolution.
        stem_kernel: its side, 3 or 7.
        k_r: the width of the first stage's 3×3 convolutions; it doubles at each stage.
        groups: the groups of the 3×3 convolutions.
        blocks: the blocks of each stage.
        dense_increment: the channels that a block adds to the dense path, a stage each.
        base_factor: the residual path is `64 * base_factor` wide, and doubles at each stage.
        stem: `imagenet` stride 2 and max-pool; `small` one 3×3 convolution of stride 1.
        stem_pool: as in `DenseNetArch`.
        bn_eps: ε of every BatchNorm: 1e-3 in the authors' MXNet weights, timm's and
            MindCV's; 1e-5 in PaddleClas's.
    """

    stem_width: int
    stem_kernel: int
    k_r: int
    groups: int
    blocks: tuple[int, ...]
    dense_increment: tuple[int, ...]
    base_factor: int = 4
    stem: Stem = "imagenet"
    stem_pool: StemPool = "pad1"
    bn_eps: float = 1e-3


Arch = DenseNetArch | DPNArch
_FAMILIES: dict[str, type[DenseNetArch] | type[DPNArch]] = {
    "densenet": DenseNetArch,
    "dpn": DPNArch,
}


@dataclass(frozen=True)
class SeedFigures:
    """What PaddleClas's model documents print for a model.

    Attributes:
        top1, top5: ImageNet-1k accuracy, as a share.
        gflops: 10⁹ of their floating-point operations.
        mparams: 10⁶ parameters.
        remark: where the figure is not what their own code builds, and why.
    """

    top1: float
    top5: float
    gflops: float
    mparams: float
    remark: str = ""


@dataclass(frozen=True)
class ModelSpec:
    """One row of the catalogue.

    Attributes:
        name: the model's name, as `create_model` takes it.
        arch: its numbers.
        input_size: the side in pixels of the images it was published for.
        paper: arXiv id and, for small networks, the row of the paper's table.
        seed: the figures of the seed documents, where they have the model.
    """

    name: str
    arch: Arch
    input_size: int
    paper: str
    seed: SeedFigures | None = None

    @property
    def family(self) -> str:
        """`densenet` or `dpn`."""
        return "densenet" if isinstance(self.arch, DenseNetArch) else "dpn"

    @property
    def least_side(self) -> int:
        """The smallest height and width in pixels that leaves a last map of one pixel."""
        halvings = len(self.arch.blocks) - 1
        return 2 ** (halvings + (2 if self.arch.stem == "imagenet" else 0))

    @property
    def last_map_side(self) -> int:
        """The side of the last map at `input_size`: 7 for 224 pixels and the ImageNet stem."""
        return max(self.input_size // self.least_side, 1)

    def check_size(self, size: object) -> tuple[int, int]:
        """Height and width in pixels of the input `size`, a side or both.

        Raises:
            UsageError: not whole numbers, or a side that the network cannot take.
        """
        sides = to_sides(size)
        if min(sides) < self.least_side or max(sides) > LARGEST_SIDE:
            least = self.least_side
            raise UsageError(
                f"size is {size}; {self.name} needs at least {least} × {least} pixels and takes at "
                f"most {LARGEST_SIDE:,} × {LARGEST_SIDE:,}. It was published for "
                f"{self.input_size} × {self.input_size}."
            )
        return sides

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        return {
            "name": self.name,
            "family": self.family,
            "arch": dataclasses.asdict(self.arch),
            "input_size": self.input_size,
            "paper": self.paper,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelSpec:
        """The spec that `to_dict` wrote; the seeds' figures are not carried along.

        Raises:
            UsageError: a field is missing, unknown or of the wrong kind.
        """
        try:
            family = values["family"]
            if family not in _FAMILIES:
                raise UnknownNameError("model family", family, _FAMILIES)
            numbers: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in values["arch"].items()
            }
            arch = check_arch(_FAMILIES[family](**numbers))
            return cls(values["name"], arch, int(values["input_size"]), values["paper"])
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"not a model description: {error}") from error


def to_sides(size: object) -> tuple[int, int]:
    """Height and width in pixels of an input `size`: a side, or both.

    Raises:
        UsageError: it is no whole number, nor two of them.
    """
    sides = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(sides) != 2 or any(type(side) is not int for side in sides):
        raise UsageError(
            f"size is {size!r}; name a side in whole pixels, as 224, or height and width, as "
            "(224, 224)."
        )
    return sides


def replace_arch(arch: Arch, **changes: Any) -> Arch:
    """`arch` with those of `changes` that are not None.

    Raises:
        UsageError: a value that no network can have.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    return check_arch(dataclasses.replace(arch, **given))


def check_arch(arch: Arch) -> Arch:
    """`arch` itself, once its numbers are known to make a network.

    Raises:
        UnknownNameError: an unknown stem or stem pool.
        UsageError: a number that no network can have.
    """
    if arch.stem not in get_args(Stem):
        raise UnknownNameError("stem", arch.stem, get_args(Stem))
    if arch.stem_pool not in get_args(StemPool):
        raise UnknownNameError("stem pool", arch.stem_pool, get_args(StemPool))
    if not 0 < arch.bn_eps < 1:
        raise UsageError(f"bn_eps is {arch.bn_eps}; it must lie between 0 and 1, as 1e-5 does.")
    if not arch.blocks or any(not isinstance(n, int) or n < 1 for n in arch.blocks):
        raise UsageError(f"blocks is {arch.blocks}; every stage needs at least one layer.")
    if isinstance(arch, DenseNetArch) and not 0 < arch.compression <= 1:
        raise UsageError(f"compression is {arch.compression}; it must lie in (0, 1].")
    if isinstance(arch, DPNArch) and arch.k_r % arch.groups:
        raise UsageError(f"k_r {arch.k_r} is not a multiple of the {arch.groups} groups.")
    return arch


def check_build(num_classes: int, in_channels: int, drop_rate: float, drop_path: float) -> None:
    """Returns when a network can be built with these options.

    Raises:
        UsageError: a count below 1, or a rate outside [0, 1).
    """
    for name, count in (("num_classes", num_classes), ("in_channels", in_channels)):
        if count < 1:
            raise UsageError(f"{name} is {count}; it must be at least 1.")
    for name, rate in (("drop_rate", drop_rate), ("drop_path_rate", drop_path)):
        if not 0.0 <= rate < 1.0:
            raise UsageError(f"{name} is {rate}; it must lie in [0, 1).")
