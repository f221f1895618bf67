"""The maps that the backward pass of a DPN's stage reads: what was kept, and the rest once more."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from densepath.training.blocks.dual_parts import StepOfStage, make_middle, make_spatial
from densepath.training.blocks.operations import Norm


class BlockMaps(NamedTuple):
    """Those of one block.

    Attributes:
        read: the maps that its `c1x1_a` reads, side by side.
        middle, spatial: what `c1x1_a` and `c3x3_b` make.
    """

    read: list[Tensor]
    middle: Tensor
    spatial: Tensor


class Again:
    """The maps of the blocks of a stage, from the last block to the first."""

    def __init__(self, step: StepOfStage) -> None:
        self._stage, self._maps, self._weights, self._norms, self._operations = step
        # The residual path behind the block whose turn is next, where it is not kept.
        self._path: Tensor | None = None

    def take(self, index: int) -> BlockMaps:
        """The maps of the block before the one that was taken last."""
        stage, maps, operations = self._stage, self._maps, self._operations
        path = maps.paths[index - 1] if index else maps.x
        if not index:
            self._path = None
        middle, spatial = maps.middles[index], maps.spatials[index]
        if middle is None:
            assert path is not None
            given = self._unit(3 * index + 1)
            middle, _ = make_middle(operations, stage.reads(index, path, maps.state), *given)
        if spatial is None:
            conv = stage.blocks[index].c3x3_b.conv
            spatial, _ = make_spatial(operations, middle, *self._unit(3 * index + 2), conv)
        if path is None:
            path = self._path = self._path_before(index, spatial)
        return BlockMaps(stage.reads(index, path, maps.state), middle, spatial)

    def _unit(self, unit: int) -> tuple[Norm, Tensor]:
        """Norm and weight of a unit."""
        return self._norms[unit].norm, self._weights[unit]

    def _path_before(self, index: int, spatial: Tensor) -> Tensor:
        """The residual path before a block: that behind it without what the block has added."""
        base, operations = self._stage.base, self._operations
        path = self._path
        if path is None:
            behind = self._maps.state[..., :base]
            path = operations.new_map(*behind.shape).copy_(behind)
        norm, weight = self._unit(3 * index + 3)
        mask, of_path = self._maps.masks[index], weight[:base]
        if mask is None:
            operations.pointwise(spatial, norm, -of_path, path, add=True)
            return path
        added = operations.new_map(*path.shape)
        operations.pointwise(spatial, norm, of_path, added)
        return path.addcmul_(added, mask, value=-1)
