"""The backward pass of a stage of a Dual Path Network: one gradient of the state, gathered."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from densepath.training.blocks.dual_again import Again
from densepath.training.blocks.dual_parts import StepOfStage, in_segments
from densepath.training.blocks.operations import Correction, Gradient, Sums


class Backward:
    """One backward pass through a stage, from the last block to the first.

    Of the gradient of a value is first gathered what its readers' products give. What their
    BatchNorms lack is added once: to the residual path when its one reader is through, to columns
    of the dense path when the turn of the block comes that made them.

    Attributes:
        sums: of each unit that has had its turn.
        of_x: the gradient of what entered the stage, if it is needed.
    """

    def __init__(self, step: StepOfStage) -> None:
        self._stage, self._maps, self._weights, self._norms, self._operations = step
        self._again = Again(step)
        state = self._maps.state
        self._gradient = self._operations.new_map(*state.shape)
        self._pending = torch.zeros((2, state.shape[3]), dtype=torch.float64, device=state.device)
        self._corrects = False
        self.sums: dict[int, Sums] = {}
        self.of_x: Tensor | None = None

    def run(self, gradient: Tensor, *, of_x: bool, of_units: Sequence[bool]) -> None:
        """Pass on `gradient`, of the state, as a map; no further than somebody needs it.

        `of_x`: x does; `of_units`: some parameter of each unit does.
        """
        self._gradient.copy_(gradient)
        # Whether a unit, or what stands before it, needs its gradient.
        works = [of_x or any(of_units[: unit + 1]) for unit in range(len(of_units))]
        for index in reversed(range(len(self._stage.blocks))):
            if not works[3 * index + 3]:
                break
            self._block_backward(index, works)
        if works[0]:
            self._project_backward()
        if of_x:
            self._correct_x()

    def _block_backward(self, index: int, works: Sequence[bool]) -> None:
        """Through block `index`, whose maps go with this call, as far as it `works`."""
        a, b, c = range(3 * index + 1, 3 * index + 4)
        self._settle(index)
        block = self._again.take(index)
        spatial = self._append_backward(index, c, block.spatial)
        if works[b]:
            middle = self._convolve_backward(b, block.middle, spatial)
        if works[a]:
            del spatial
            self._read_backward(index, a, block.read, middle)

    def _settle(self, index: int) -> None:
        """Correct the gradient of the columns that were made at block `index`."""
        columns = self._stage.made_by(index)
        if index == 0:
            columns = slice(self._stage.base, columns.stop)
        if self._corrects:
            own = Correction(*self._pending[:, columns])
            data, made = self._gradient[..., columns], self._maps.state[..., columns]
            self._operations.correct(data, own, made)

    def _append_backward(self, index: int, unit: int, spatial: Tensor) -> Gradient:
        """Through `c1x1_c`: the gradient of what it has read."""
        base, mask = self._stage.base, self._maps.masks[index]
        weight = self._weights[unit]
        of_path, of_new = (
            self._gradient[..., columns] for columns in (slice(base), self._stage.made_by(index))
        )
        outputs = Gradient(of_path, more=of_new)
        if mask is not None:
            images, height, width, _ = spatial.shape
            both = self._operations.new_map(images, height, width, weight.shape[0])
            torch.mul(of_path, mask, out=both[..., :base])
            torch.mul(of_new, mask, out=both[..., base:])
            outputs = Gradient(both)
        into, norm = self._operations.new_map(*spatial.shape), self._norms[unit].norm
        sums = self._operations.pointwise_backward(spatial, norm, weight, outputs, into)
        return self._passed_on(unit, sums, into, spatial)

    def _convolve_backward(self, unit: int, middle: Tensor, outputs: Gradient) -> Gradient:
        """Through `c3x3_b`: the gradient of what it has read."""
        conv = self._stage.units[unit].conv
        into = self._operations.new_map(*middle.shape, dtype=middle.dtype)
        sums = self._operations.convolve_backward(
            middle,
            self._norms[unit].norm,
            self._weights[unit],
            outputs,
            into,
            stride=conv.stride[0],
            groups=conv.groups,
        )
        return self._passed_on(unit, sums, into, middle)

    def _passed_on(self, unit: int, sums: Sums, into: Tensor, read: Tensor) -> Gradient:
        """The gradient of `read`, which `unit` alone has read: corrected by whom reads it next."""
        self.sums[unit] = sums
        return Gradient(into, self._norms[unit].correction(sums), read)

    def _read_backward(self, index: int, unit: int, read: list[Tensor], outputs: Gradient) -> None:
        """Through `c1x1_a`, into the gradient of the state or, of the first block, of x."""
        if index == 0:
            self.of_x = self._operations.new_map(*self._maps.x.shape)
            into = [self.of_x]
        else:
            base, dense = self._stage.base, self._stage.read_by(index)
            into = [self._gradient[..., :base], self._gradient[..., dense]]
        parts = in_segments(read, self._norms[unit].norm, self._weights[unit])
        found = [
            self._operations.pointwise_backward(*part, outputs, data, add=index > 0)
            for part, data in zip(parts, into, strict=True)
        ]
        sums = Sums(
            torch.cat([part.weight for part in found], 1),
            torch.cat([part.gradient for part in found]),
            torch.cat([part.product for part in found]),
        )
        self.sums[unit] = sums
        if index > 0:
            self._correct_state(self._norms[unit].correction(sums), read[0])

    def _correct_state(self, correction: Correction | None, path: Tensor) -> None:
        """Correct the gradient of the residual path at once, that of the dense path later."""
        if correction is None:
            return
        base, num_read = self._stage.base, len(correction.constant)
        own = Correction(*(part[:base] for part in correction))
        self._operations.correct(self._gradient[..., :base], own, path)
        for row, part in zip(self._pending, correction, strict=True):
            row[base:num_read] += part[base:]
        self._corrects = True

    def _project_backward(self) -> None:
        """Through `c1x1_w`, into the gradient of x."""
        assert self.of_x is not None
        outputs = self._gradient[..., : self._stage.read_by(0).stop]
        self.sums[0] = self._operations.pointwise_backward(
            self._maps.x,
            self._norms[0].norm,
            self._weights[0],
            Gradient(outputs),
            self.of_x,
            reading=self._stage.reading,
            add=True,
        )

    def _correct_x(self) -> None:
        """Correct the gradient of x for its two readers."""
        assert self.of_x is not None
        both = [self._norms[unit].correction(self.sums[unit]) for unit in (0, 1)]
        corrections = [one for one in both if one is not None]
        if corrections:
            total = Correction(
                *(torch.stack(parts).sum(0) for parts in zip(*corrections, strict=True))
            )
            self._operations.correct(self.of_x, total, self._maps.x)
