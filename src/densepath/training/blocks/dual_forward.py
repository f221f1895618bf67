"""The forward pass of a stage of a Dual Path Network, each value normalised where it is read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from densepath.models.dpn import DualPathBlock
from densepath.models.layers import DropPath
from densepath.training.blocks.dual_parts import (
    Keeping,
    Maps,
    StageLayout,
    make_middle,
    make_spatial,
)
from densepath.training.blocks.norms import NormOfStep
from densepath.training.blocks.operations import Moments, Norm, Operations


class Forward:
    """One forward pass through a stage.

    Attributes:
        maps: what has been computed.
        norms: the BatchNorm of each unit in this step.
    """

    def __init__(
        self, stage: StageLayout, x: Tensor, weights: Sequence[Tensor], operations: Operations
    ) -> None:
        """`x` is a map; `weights` are those of the units' convolutions."""
        self._stage, self._operations = stage, operations
        self._units = iter(zip(stage.units, weights, strict=True))
        # Statistics are taken for every BatchNorm or, where all of them are frozen, for none.
        self._counts = any(unit.bn.training for unit in stage.units)
        images, height, width, _ = x.shape
        self._sides = (images, -(-height // stage.stride), -(-width // stage.stride))
        self.maps = Maps(x, operations.new_map(*self._sides, stage.width), [], [], [], [])
        self.norms: list[NormOfStep] = []
        self._of_dense: Moments | None = None

    def run(self, *, keeps: bool) -> None:
        """Fill the state; what only a backward pass needs is let go unless it `keeps`."""
        maps, stage = self.maps, self._stage
        seen = self._operations.moments(maps.x) if self._counts else None
        path = self._project(seen)
        recomputes = self._operations.recomputes
        for index, block in enumerate(stage.blocks):
            keeping = stage.keeping(index, recomputes=recomputes)
            if keeps and index > 0:
                maps.paths.append(self._copied(path) if keeping.path else None)
            read = stage.reads(index, path if index else maps.x, maps.state)
            spatial, of_spatial = self._features(block, read, seen, keeping)
            of_path = self._append(index, spatial, of_spatial, path)
            seen = self._joined(of_path)
            if not keeps:
                for kept in (maps.middles, maps.spatials, maps.masks, self.norms):
                    kept.clear()

    def _project(self, seen: Moments | None) -> Tensor:
        """Begin the dense path and the residual path, which is given, with what `c1x1_w` makes."""
        stage, x, state = self._stage, self.maps.x, self.maps.state
        path, dense = state[..., : stage.base], state[..., stage.read_by(0)]
        norm, weight = self._next(seen, x)
        of_path, of_dense = weight[: stage.base], weight[stage.base :]
        self._operations.pointwise(x, norm, of_path, path, reading=stage.reading)
        self._of_dense = self._operations.pointwise(
            x, norm, of_dense, dense, reading=stage.reading, statistics=self._counts
        )
        return path

    def _features(
        self, block: DualPathBlock, read: list[Tensor], seen: Moments | None, keeping: Keeping
    ) -> tuple[Tensor, Moments | None]:
        """What `c3x3_b` makes of the map in the segments `read`, and its statistics."""
        operations, counts = self._operations, self._counts
        norm, weight = self._next(seen, read[0])
        middle, of_middle = make_middle(operations, read, norm, weight, statistics=counts)
        norm, weight = self._next(of_middle, middle)
        conv = block.c3x3_b.conv
        spatial, found = make_spatial(operations, middle, norm, weight, conv, statistics=counts)
        self.maps.middles.append(middle if keeping.middle else None)
        self.maps.spatials.append(spatial if keeping.spatial else None)
        return spatial, found

    def _append(
        self, index: int, spatial: Tensor, of_spatial: Moments | None, path: Tensor
    ) -> Moments | None:
        """Add what `c1x1_c` makes to both paths; the statistics of the residual one."""
        stage, operations = self._stage, self._operations
        norm, weight = self._next(of_spatial, spatial)
        new = self.maps.state[..., stage.made_by(index)]
        of_path, of_new = weight[: stage.base], weight[stage.base :]
        # The reader of the last values is another stage, or the network's last BatchNorm.
        counts = self._counts and index + 1 < len(stage.blocks)
        mask = _draw(stage.blocks[index].drop_path, path)
        self.maps.masks.append(mask)
        if mask is None:
            seen = operations.pointwise(spatial, norm, of_path, path, add=True, statistics=counts)
            seen_new = operations.pointwise(spatial, norm, of_new, new, statistics=counts)
        else:
            both = operations.new_map(*self._sides, weight.shape[0])
            operations.pointwise(spatial, norm, weight, both)
            path.addcmul_(both[..., : stage.base], mask)
            torch.mul(both[..., stage.base :], mask, out=new)
            seen, seen_new = (operations.moments(one) if counts else None for one in (path, new))
        self._of_dense = _joined(self._of_dense, seen_new)
        return seen

    def _next(self, seen: Moments | None, x: Tensor) -> tuple[Norm, Tensor]:
        """Norm and weight of the next unit, which reads a map of so many pixels as `x`."""
        unit, weight = next(self._units)
        self.norms.append(NormOfStep(unit.bn, seen, read=x, operations=self._operations))
        return self.norms[-1].norm, weight

    def _copied(self, path: Tensor) -> Tensor:
        """The residual path as the backward pass reads it: the next block adds to it in place."""
        dtype = self._operations.middle_dtype
        return self._operations.new_map(*path.shape, dtype=dtype).copy_(path)

    def _joined(self, of_path: Moments | None) -> Moments | None:
        """The statistics of the state, of which the residual path has these."""
        return _joined(of_path, self._of_dense)


def _joined(one: Moments | None, other: Moments | None) -> Moments | None:
    """The statistics of the channels of both; None where they are not taken."""
    if one is None or other is None:
        return None
    return Moments(*(torch.cat(parts) for parts in zip(one, other, strict=True)))


def _draw(drop_path: DropPath, x: Tensor) -> Tensor | None:
    """What `drop_path` multiplies a map like `x` by, drawn as it draws; None: nothing."""
    if not drop_path.training or drop_path.rate == 0.0:
        return None
    keep = 1.0 - drop_path.rate
    mask = torch.rand((x.shape[0], 1, 1, 1), device=x.device) < keep
    return mask.to(x.dtype) / keep
