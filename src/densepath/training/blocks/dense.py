"""A dense block as one autograd operation: one buffer that grows, and one gradient of it.

Forwards each layer writes its features into its columns of the buffer, whose statistics are taken
then, once for all later layers. Backwards each layer adds to the gradient of what it has read; the
correction of all BatchNorms that have read a column is applied once, when the turn of the column's
own layer comes. Kept in between are the buffer, which is the block's output, the map between the
two convolutions of a layer (not of every one, see `CHEAP`; with `recomputes` of none), and a byte
an element where there is dropout: memory grows linearly with the layers, where modules keep every
concatenation and its normalised copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from densepath.models.densenet import BottleneckLayer, DenseBlock, PlainLayer
from densepath.training.blocks.dropping import Dropped, draw
from densepath.training.blocks.maps import as_images, as_map
from densepath.training.blocks.norms import NormOfStep
from densepath.training.blocks.obstacles import Kind, Shape
from densepath.training.blocks.operations import Correction, Gradient, Moments, Operations
from densepath.training.blocks.precision import without_autocast

DenseLayer = BottleneckLayer | PlainLayer

# A layer's middle map is computed again in the backward pass where the layer's inputs have at most
# so many times its channels. Early layers have few inputs and, in early blocks, large maps: of
# DenseNet-121 at 224 that is two thirds of the middle maps' memory for 4 % of the step's time.
CHEAP = 2


def dense_block(block: DenseBlock, x: Tensor, operations: Operations) -> Tensor:
    """What `block` computes of `x` [N, C, H, W], channels last in memory."""
    layers = list(block.children())
    parameters = [part for layer in layers for part in _parameters(layer)]
    with torch.autocast(x.device.type, enabled=False):
        if torch.is_grad_enabled() and any(one.requires_grad for one in (x, *parameters)):
            out: Tensor = FusedDenseBlock.apply(x, layers, operations, *parameters)
            return out
        growth = _Growth(x, layers, operations)
        for layer in layers:
            growth.append(layer)
        return as_images(growth.buffer)


def shapes(block: DenseBlock, width: int) -> Iterator[tuple[str, nn.Conv2d, Shape]]:
    """The convolutions of a block of that many input channels, and what the operation takes them
    to be.
    """
    for name, layer in block.named_children():
        inputs, units = width, _units(layer)
        for number, (_, conv) in enumerate(units, start=1):
            kernel = 3 if number == len(units) else 1
            yield f"{name}.conv{number}", conv, Shape(inputs, kernel)
            inputs = conv.out_channels
        width += inputs


def _units(layer: nn.Module) -> list[tuple[nn.BatchNorm2d, nn.Conv2d]]:
    """The one or two BN-ReLU-convolutions of a layer."""
    assert isinstance(layer, DenseLayer)
    if isinstance(layer, BottleneckLayer):
        return [(layer.norm1, layer.conv1), (layer.norm2, layer.conv2)]
    return [(layer.norm1, layer.conv1)]


def _parameters(layer: nn.Module) -> list[Tensor]:
    """Of each BN-ReLU-convolution the scale, the shift and the convolution's weight."""
    return [part for norm, conv in _units(layer) for part in (norm.weight, norm.bias, conv.weight)]


def _new_middle(operations: Operations, x: Tensor, channels: int) -> Tensor:
    """An unwritten map between the convolutions of a layer that reads `x` [N, H, W, C]."""
    images, height, width, _ = x.shape
    return operations.new_map(images, height, width, channels, dtype=operations.middle_dtype)


class _Pass(NamedTuple):
    """A layer in one forward pass: it read the first `start` columns, and wrote up to `end`."""

    start: int
    end: int
    norms: list[NormOfStep]
    drop_scale: float


class _Kept(NamedTuple):
    """The tensors of such a pass.

    Of a plain layer there is neither `reduce` nor `middle`, of some the `middle` is not kept.
    """

    reduce: Tensor | None
    grow: Tensor
    middle: Tensor | None
    mask: Tensor | None


class _Growth:
    """A forward pass: the buffer, how many of its columns are written, and their statistics."""

    def __init__(self, x: Tensor, layers: list[nn.Module], operations: Operations) -> None:
        images, self.width, height, breadth = x.shape
        total = self.width + sum(_units(layer)[-1][1].out_channels for layer in layers)
        self.operations = operations
        self.buffer = operations.new_map(images, height, breadth, total)
        self.buffer[..., : self.width].copy_(as_map(x))
        self._trains = any(norm.training for layer in layers for norm, _ in _units(layer))
        self._moments = torch.zeros((2, total), dtype=torch.float64, device=x.device)
        if self._trains:
            self._note(operations.moments(self.buffer[..., : self.width]), 0, self.width)

    def append(self, layer: nn.Module) -> tuple[_Pass, _Kept]:
        """Compute a layer's features into their columns."""
        assert isinstance(layer, DenseLayer)
        units = _units(layer)
        weight = units[-1][1].weight
        start, self.width = self.width, self.width + len(weight)
        x, new = self.buffer[..., :start], self.buffer[..., start : self.width]
        seen = Moments(*self._moments[:, :start].unbind())
        norms, middle = [self._norm(units[0][0], seen)], None
        if len(units) == 2:
            middle, moments = self._reduce(x, norms[0], units[0][1].weight, units[1][0])
            norms.append(self._norm(units[1][0], moments))
        dropped = draw(layer.dropout, layer.drop_path, weight, new)
        counts = self._trains and self.width < self.buffer.shape[3]
        moments = self.operations.convolve(
            x if middle is None else middle,
            norms[-1].norm,
            weight,
            new,
            statistics=counts and dropped is None,
        )
        if dropped is not None:
            dropped.apply(new)
            moments = self.operations.moments(new) if counts else None
        if moments is not None:
            self._note(moments, start, self.width)
        mask, scale = dropped or (None, 1.0)
        reduce = units[0][1].weight if middle is not None else None
        if middle is not None:
            cheap = start <= CHEAP * middle.shape[3]
            middle = None if cheap or self.operations.recomputes else middle
        return _Pass(start, self.width, norms, scale), _Kept(reduce, weight, middle, mask)

    def _reduce(
        self, x: Tensor, norm: NormOfStep, weight: Tensor, behind: nn.BatchNorm2d
    ) -> tuple[Tensor, Moments | None]:
        """The map between a layer's convolutions, and its statistics if the norm behind trains."""
        middle = _new_middle(self.operations, x, len(weight))
        return middle, self.operations.pointwise(
            x, norm.norm, weight, middle, statistics=behind.training
        )

    def _norm(self, module: nn.BatchNorm2d, moments: Moments | None) -> NormOfStep:
        """A BatchNorm of this pass."""
        return NormOfStep(module, moments, read=self.buffer, operations=self.operations)

    def _note(self, moments: Moments, start: int, end: int) -> None:
        """Write down the statistics of columns."""
        for row, found in zip(self._moments[:, start:end].unbind(), moments, strict=True):
            row.copy_(found)


class FusedDenseBlock(torch.autograd.Function):
    """x, layers, operations, the layers' parameters in their order → the block's output."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, layers: list[nn.Module], operations: Operations, *parameters: Tensor
    ) -> Tensor:
        """The output [N, C + layers · k, H, W], which is also what the backward pass reads."""
        growth = _Growth(x, layers, operations)
        done = [growth.append(layer) for layer in layers]
        out = as_images(growth.buffer)
        # As inputs, outputs and maps that autograd knows of: a change in place is noticed.
        ctx.save_for_backward(out, *(tensor for _, kept in done for tensor in kept))
        ctx.passes = [one for one, _ in done]
        ctx.operations, ctx.kind = operations, x.dtype
        return out

    @staticmethod
    @once_differentiable
    @without_autocast
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """The gradients of x and of the parameters."""
        out, *tensors = ctx.saved_tensors
        size = len(_Kept._fields)
        kept = [_Kept(*tensors[at : at + size]) for at in range(0, len(tensors), size)]
        of_x, _, _, *needed = ctx.needs_input_grad
        shrinking = _Shrinking(as_map(out), as_map(gradient), ctx.operations)
        found: list[Tensor | None] = [None] * len(needed)
        end = len(needed)
        for one, tensors_of_it in zip(reversed(ctx.passes), reversed(kept), strict=True):
            if not (of_x or any(needed[:end])):
                break
            parts = shrinking.pass_on(one, tensors_of_it)
            found[end - len(parts) : end] = parts
            end -= len(parts)
        of_input = shrinking.of_input(ctx.passes[0].start, ctx.kind) if of_x else None
        given = [part if need else None for part, need in zip(found, needed, strict=True)]
        return of_input, None, None, *given


class _Shrinking:
    """A backward pass: the gradient of the buffer, and what its columns are to be corrected by."""

    def __init__(self, buffer: Tensor, gradient: Tensor, operations: Operations) -> None:
        self._buffer, self._operations = buffer, operations
        self._gradient = operations.new_map(*buffer.shape)
        self._gradient.copy_(gradient)
        self._corrections = buffer.new_zeros((2, buffer.shape[3]), dtype=torch.float64)
        self._corrects = False

    def pass_on(self, one: _Pass, kept: _Kept) -> list[Tensor]:
        """Add to the gradient of what a layer has read; the gradients of its parameters."""
        x, into = self._buffer[..., : one.start], self._gradient[..., : one.start]
        new, operations = self._of_new(one, kept.mask), self._operations
        norm = one.norms[0]
        if kept.reduce is None:
            sums = [operations.convolve_backward(x, norm.norm, kept.grow, new, into, add=True)]
        else:
            found = self._middle(x, norm, kept)
            middle = operations.new_map(*found.shape, dtype=found.dtype)
            behind = one.norms[1]
            last = operations.convolve_backward(found, behind.norm, kept.grow, new, middle)
            lazy = Gradient(middle, behind.correction(last), found)
            first = operations.pointwise_backward(x, norm.norm, kept.reduce, lazy, into, add=True)
            sums = [first, last]
        self._corrects |= norm.correction(sums[0], self._correction(0, one.start)) is not None
        pairs = zip(one.norms, sums, strict=True)
        return [part for norm, own in pairs for part in (*norm.gradients(own), own.weight)]

    def _middle(self, x: Tensor, norm: NormOfStep, kept: _Kept) -> Tensor:
        """The map between a layer's convolutions: kept, or computed again to the same bits."""
        if kept.middle is not None:
            return kept.middle
        assert kept.reduce is not None
        middle = _new_middle(self._operations, x, len(kept.reduce))
        self._operations.pointwise(x, norm.norm, kept.reduce, middle)
        return middle

    def _of_new(self, one: _Pass, mask: Tensor | None) -> Gradient:
        """The gradient of a layer's last convolution, all of whose readers have had their turn."""
        columns = slice(one.start, one.end)
        data, features = self._gradient[..., columns], self._buffer[..., columns]
        correction = self._correction(one.start, one.end) if self._corrects else None
        if mask is None:
            return Gradient(data, correction, features)
        if correction is not None:
            self._operations.correct(data, correction, features)
        Dropped(mask, one.drop_scale).apply(data)
        return Gradient(data)

    def _correction(self, start: int, end: int) -> Correction:
        """What columns are to be corrected by, so far; what is added to it stays."""
        return Correction(*self._corrections[:, start:end].unbind())

    def of_input(self, width: int, dtype: torch.dtype) -> Tensor:
        """The gradient of the first columns, those of the block's input: [N, width, H, W]."""
        data, features = self._gradient[..., :width], self._buffer[..., :width]
        if self._corrects:
            self._operations.correct(data, self._correction(0, width), features)
        return as_images(data).to(dtype)


DENSE_BLOCK = Kind("dense block", dense_block, frozenset({BottleneckLayer, PlainLayer}), shapes)
