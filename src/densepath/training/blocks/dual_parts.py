"""A stage of a Dual Path Network: its blocks and columns, and the maps that a step keeps of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from torch import Tensor, nn

from densepath.models.dpn import DualPathBlock, NormReluConv
from densepath.training.blocks.norms import NormOfStep
from densepath.training.blocks.operations import Moments, Norm, Operations, Reading


class Keeping(NamedTuple):
    """Which maps of a block a forward pass keeps; the backward pass computes the others again.

    Attributes:
        path: the residual path before it.
        middle, spatial: see `Maps`.
    """

    path: bool = True
    middle: bool = True
    spatial: bool = True


class StageLayout:
    """The blocks of a stage, and which columns of its state they read and make.

    Attributes:
        base: the channels of the residual path.
        increment: the channels that a block adds to the dense path.
        width: the channels of the state behind the last block.
        stride: of the first block; the other blocks have 1.
        reading: the pixels that `c1x1_w` reads.
        units: every BN-ReLU-convolution: `c1x1_w`, then `c1x1_a`, `c3x3_b`, `c1x1_c` of each block.
    """

    def __init__(self, blocks: Sequence[DualPathBlock]) -> None:
        first = blocks[0]
        self.blocks = tuple(blocks)
        self.base, self.stride = first.base, first.c3x3_b.conv.stride[0]
        self.increment = first.c1x1_c.conv.out_channels - self.base
        self.width = self.read_by(len(blocks)).stop
        self.reading: Reading = "second" if self.stride == 2 else "all"
        threes = ((block.c1x1_a, block.c3x3_b, block.c1x1_c) for block in blocks)
        self.units: list[NormReluConv] = [
            first.c1x1_w,
            *(unit for three in threes for unit in three),
        ]

    def parameters(self) -> list[Tensor]:
        """Scale, shift and weight of each unit."""
        threes = ((unit.bn.weight, unit.bn.bias, unit.conv.weight) for unit in self.units)
        return [parameter for three in threes for parameter in three]

    def read_by(self, index: int) -> slice:
        """The columns of the dense path that stand in the state before block `index` appends."""
        return slice(self.base, self.base + (index + 2) * self.increment)

    def made_by(self, index: int) -> slice:
        """The columns of the state that block `index` appends."""
        start = self.read_by(index).stop
        return slice(start, start + self.increment)

    def reads(self, index: int, path: Tensor, state: Tensor) -> list[Tensor]:
        """The maps that block `index` reads, side by side; `path` of the first one is x."""
        return [path, state[..., self.read_by(index)]] if index else [path]

    def keeping(self, index: int, *, recomputes: bool) -> Keeping:
        """Which maps of block `index` are kept: all of them, or if it `recomputes` the narrowest.

        From the residual path before a block follow its maps; from its middle map what it has added
        to the path, and so that path. What the first block reads is another stage's, and kept.
        """
        if not recomputes:
            return Keeping()
        narrow = index == 0 or self.base <= self.blocks[index].c1x1_a.conv.out_channels
        return Keeping(path=narrow, middle=not narrow, spatial=False)


class Maps(NamedTuple):
    """What a backward pass reads besides the weights; None is computed again (`Keeping`).

    Attributes:
        x: what enters the stage.
        state: what leaves it.
        paths: the residual path behind each block but the last.
        middles: what each `c1x1_a` makes.
        spatials: what each `c3x3_b` makes.
        masks: what drop-path multiplies each block's new features by, [N, 1, 1, 1] or None.
    """

    x: Tensor
    state: Tensor
    paths: list[Tensor | None]
    middles: list[Tensor | None]
    spatials: list[Tensor | None]
    masks: list[Tensor | None]

    def to_list(self) -> list[Tensor | None]:
        """All of them, in an order that `from_list` knows."""
        return [self.x, self.state, *self.paths, *self.middles, *self.spatials, *self.masks]

    @classmethod
    def from_list(cls, maps: Sequence[Any], num_blocks: int) -> Maps:
        """The maps that `to_list` gave, of a stage of so many blocks."""
        x, state, *others = maps
        ends = list(accumulate([num_blocks - 1, *[num_blocks] * 3], initial=0))
        parts = [others[start:end] for start, end in pairwise(ends)]
        return cls(x, state, *parts)


class StepOfStage(NamedTuple):
    """A forward pass that is over; `weights` and `norms` are those of the units."""

    stage: StageLayout
    maps: Maps
    weights: Sequence[Tensor]
    norms: Sequence[NormOfStep]
    operations: Operations


def make_middle(
    operations: Operations,
    read: Sequence[Tensor],
    norm: Norm,
    weight: Tensor,
    *,
    statistics: bool = False,
) -> tuple[Tensor, Moments | None]:
    """What a `c1x1_a` makes of the maps that it reads, and its statistics."""
    images, height, width, _ = read[0].shape
    dtype, found = operations.middle_dtype, None
    middle = operations.new_map(images, height, width, len(weight), dtype=dtype)
    for number, (part, own, columns) in enumerate(in_segments(read, norm, weight), start=1):
        found = operations.pointwise(
            part,
            own,
            columns,
            middle,
            add=number > 1,
            statistics=statistics and number == len(read),
        )
    return middle, found


def make_spatial(
    operations: Operations,
    middle: Tensor,
    norm: Norm,
    weight: Tensor,
    conv: nn.Conv2d,
    *,
    statistics: bool = False,
) -> tuple[Tensor, Moments | None]:
    """What a `c3x3_b` of this `conv` makes of a middle map, and its statistics."""
    images, height, width, _ = middle.shape
    stride = conv.stride[0]
    sides = (images, -(-height // stride), -(-width // stride))
    spatial = operations.new_map(*sides, len(weight), dtype=operations.middle_dtype)
    return spatial, operations.convolve(
        middle, norm, weight, spatial, stride=stride, groups=conv.groups, statistics=statistics
    )


def in_segments(
    maps: Sequence[Tensor], norm: Norm, weight: Tensor
) -> Iterator[tuple[Tensor, Norm, Tensor]]:
    """Each map of those that lie side by side, with its channels' part of a 1×1 that reads them."""
    start = 0
    for part in maps:
        end = start + part.shape[3]
        own = Norm(*(factor[start:end] for factor in norm))
        yield part, own, weight[:, start:end].contiguous()
        start = end
