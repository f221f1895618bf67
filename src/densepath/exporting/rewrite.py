"""The network in the form that is exported: the same function, cheaper to run anywhere.

On the line: a Checkpoint's network enters, `torch.export` takes what leaves. Each step is exact
up to float32 rounding and can be left out, so that `benchmarks/rewriting.py` can say what it pays:

`fold`        a BatchNorm right behind a convolution goes into its weights and bias.
`pool_first`  a transition averages 2×2 before its 1×1 convolution, with which it commutes: a
              quarter of the work there, 8 % of DenseNet-121's.
`split`       a DPN block's last convolution becomes two, one that adds to the residual path (a sum
              that runtimes fuse into the convolution) and one that appends to the dense path: no
              slices are copied.

A BatchNorm in front of a ReLU, as every dense layer has one, belongs to no convolution: it stays,
and runtimes join it with the ReLU. A fourth step is not among those done by default:

`depthwise`   such a BatchNorm becomes a depthwise 1×1 convolution, for compilers that have no
              BatchNorm in integers.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densepath.errors import UnknownNameError
from densepath.models.build import Model
from densepath.models.layers import (
    StemMaxPool,
    check_images,
    convolution_at,
    folded_convolution,
    norm_at,
    norm_factors,
    pool_and_classify,
)
from densepath.models.plan import Layer, parts

Step = Literal["fold", "pool_first", "split", "depthwise"]
ALL_STEPS: tuple[Step, ...] = get_args(Step)
STEPS: tuple[Step, ...] = ("fold", "pool_first", "split")


class RewrittenDenseLayer(nn.Module):
    """BN-ReLU-1×1-ReLU-3×3, the second BN inside the 1×1 or behind it; or BN-ReLU-3×3."""

    def __init__(self, model: Model, layers: Sequence[Layer], *, fold: bool) -> None:
        super().__init__()
        *squeeze, last = layers
        self.norm = norm_at(model, layers[0].before)
        self.squeeze = _convolution(model, squeeze[0], fold=fold) if squeeze else None
        self.conv = convolution_at(model, last)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, C + k, H, W]: the features before, and this layer's."""
        new = F.relu(self.norm(x))
        if self.squeeze is not None:
            new = F.relu(self.squeeze(new))
        return torch.cat([x, self.conv(new)], 1)


class PooledTransition(nn.Module):
    """BN-ReLU, 2×2 average, 1×1."""

    def __init__(self, model: Model, layer: Layer) -> None:
        super().__init__()
        self.norm, self.conv = norm_at(model, layer.before), convolution_at(model, layer)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, θC, ⌊H/2⌋, ⌊W/2⌋]."""
        return self.conv(F.avg_pool2d(F.relu(self.norm(x)), 2))


class RewrittenDualPathBlock(nn.Module):
    """A DPN block; its state is the residual path and the pieces of the dense path."""

    def __init__(self, model: Model, layers: Sequence[Layer], *, fold: bool) -> None:
        super().__init__()
        *opening, a, b, c = layers
        self.first = bool(opening)
        if opening:
            self.project_norm = norm_at(model, opening[0].before)
            project = convolution_at(model, opening[0])
            self.project = nn.ModuleList(split_outputs(project, c.base))
        self.norm = norm_at(model, a.before)
        self.a = _convolution(model, a, fold=fold)
        self.b = _convolution(model, b, fold=fold)
        self.c = nn.ModuleList(split_outputs(convolution_at(model, c), c.base))

    def forward(self, state: list[Tensor]) -> list[Tensor]:
        """Residual [N, base, H, W] and pieces of the dense path → the same, one piece more.

        The first block of a stage takes the stage before.
        """
        x = torch.cat(state, 1) if len(state) > 1 else state[0]
        if self.first:
            projected = F.relu(self.project_norm(x))
            state = [conv(projected) for conv in self.project]
        new = F.relu(self.b(F.relu(self.a(F.relu(self.norm(x))))))
        to_residual, to_dense = self.c
        return [to_residual(new) + state[0], *state[1:], to_dense(new)]


class RewrittenDPN(nn.Module):
    """The body of a DPN with `split` blocks; images → the map before pooling."""

    def __init__(self, stem: nn.Sequential, blocks: list[nn.Module], norm: nn.Module) -> None:
        super().__init__()
        self.stem, self.blocks, self.norm = stem, nn.ModuleList(blocks), norm

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, H, W] → [N, num_features, H', W']."""
        state = [self.stem(x)]
        for block in self.blocks:
            state = block(state)
        return F.relu(self.norm(torch.cat(state, 1)))


class Rewritten(nn.Module):
    """A rewritten network; images [N, in_channels, H, W] → logits [N, num_classes]."""

    def __init__(self, model: Model, body: nn.Module) -> None:
        super().__init__()
        self.spec, self.in_channels = model.spec, model.in_channels
        self.num_classes, self.test_pooling = model.num_classes, model.test_pooling
        self.body, self.classifier = body, model.classifier

    def forward(self, images: Tensor) -> Tensor:
        """Images → logits."""
        check_images(images, self.in_channels, self.spec.least_side)
        window = self.spec.last_map_side
        return pool_and_classify(self.body(images), self.classifier, self.test_pooling, window)


def rewrite(model: Model, steps: Collection[Step] = STEPS) -> nn.Module:
    """The same function as `model`, rewritten by `steps`; `model` is in evaluation mode.

    Weights that no step changes are shared with `model`.

    Raises:
        UnknownNameError: no such step.
    """
    assert not model.training
    for step in steps:
        if step not in ALL_STEPS:
            raise UnknownNameError("step", step, ALL_STEPS)
    body = _rewrite_body(model, steps)
    if "depthwise" in steps:
        body = _with_depthwise(body)
    return Rewritten(model, body).eval()


def split_outputs(conv: nn.Conv2d, first: int) -> tuple[nn.Conv2d, nn.Conv2d]:
    """A convolution as two of the same input: one of its `first` outputs, one of the rest."""
    assert conv.groups == 1
    kernel, stride, padding = conv.kernel_size, conv.stride, conv.padding
    halves = []
    for rows in (slice(0, first), slice(first, None)):
        weight = conv.weight.detach()[rows].clone()
        outputs, inputs = weight.shape[:2]
        half = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=conv.bias is not None)  # type: ignore[arg-type]
        half.weight = nn.Parameter(weight)
        if conv.bias is not None:
            half.bias = nn.Parameter(conv.bias.detach()[rows].clone())
        halves.append(half)
    return halves[0], halves[1]


class DepthwiseNorm(nn.Conv2d):
    """A BatchNorm in evaluation mode as a depthwise 1×1 convolution."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        channels = len(scale)
        super().__init__(channels, channels, 1, groups=channels)
        self.weight = nn.Parameter(scale.reshape(channels, 1, 1, 1))
        self.bias = nn.Parameter(shift)


def _with_depthwise(body: nn.Module) -> nn.Module:
    """A copy whose BatchNorms are depthwise convolutions; other weights are shared."""
    shared = {id(parameter): parameter for parameter in (*body.parameters(), *body.buffers())}
    copied = copy.deepcopy(body, memo=dict(shared))
    for module in list(copied.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                scale, shift = norm_factors(child)
                setattr(module, name, DepthwiseNorm(scale.float(), shift.float()))
    return copied


def _rewrite_body(model: Model, steps: Collection[Step]) -> nn.Module:
    """Stem, the parts between, last BN and ReLU, as the plan has them."""
    stem, *middle, last = parts(model.spec)
    first = list(_rewrite_stem(model, stem[-1], fold="fold" in steps))
    between = [_rewrite_part(model, layers, steps) for layers in middle]
    norm = norm_at(model, last[-1].before)
    if any(isinstance(module, RewrittenDualPathBlock) for module in between):
        return RewrittenDPN(nn.Sequential(*first), between, norm)
    return nn.Sequential(*first, *between, norm, nn.ReLU())


def _rewrite_stem(model: Model, layer: Layer, *, fold: bool) -> Iterator[nn.Module]:
    """The first convolution, with its BatchNorm, ReLU and pool where it has them."""
    yield _convolution(model, layer, fold=fold)
    if layer.behind:
        yield nn.ReLU()
    if layer.pool:
        yield StemMaxPool(layer.pool)


def _rewrite_part(model: Model, layers: Sequence[Layer], steps: Collection[Step]) -> nn.Module:
    """A dense layer, transition or block; one that no step changes is the model's own."""
    last, fold = layers[-1], "fold" in steps
    if last.writes == "appends":
        return RewrittenDenseLayer(model, layers, fold=fold)
    if last.averaged and "pool_first" in steps:
        return PooledTransition(model, last)
    if last.writes == "adds" and (fold or "split" in steps):
        return RewrittenDualPathBlock(model, layers, fold=fold)
    return model.get_submodule(last.part)


def _convolution(model: Model, layer: Layer, *, fold: bool) -> nn.Module:
    """The convolution, the BatchNorm behind it inside its weights or as a module of its own."""
    if fold or not layer.behind:
        return folded_convolution(model, layer)
    return nn.Sequential(convolution_at(model, layer), norm_at(model, layer.behind))
