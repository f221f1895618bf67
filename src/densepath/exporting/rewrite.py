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
from collections.abc import Collection
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from densepath.errors import UnknownNameError
from densepath.models.build import Model
from densepath.models.densenet import BottleneckLayer, DenseNet, PlainLayer, Transition
from densepath.models.dpn import DualPathBlock
from densepath.models.layers import check_images, norm_factors, pool_and_classify

Step = Literal["fold", "pool_first", "split", "depthwise"]
ALL_STEPS: tuple[Step, ...] = get_args(Step)
STEPS: tuple[Step, ...] = ("fold", "pool_first", "split")


class RewrittenDenseLayer(nn.Module):
    """BN-ReLU-1×1-ReLU-3×3, the second BN inside the 1×1; or BN-ReLU-3×3."""

    def __init__(self, layer: BottleneckLayer | PlainLayer) -> None:
        super().__init__()
        self.norm = layer.norm1
        if isinstance(layer, BottleneckLayer):
            self.squeeze: nn.Conv2d | None = fuse_conv_bn_eval(layer.conv1, layer.norm2)
            self.conv = layer.conv2
        else:
            self.squeeze, self.conv = None, layer.conv1

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, C + k, H, W]: the features before, and this layer's."""
        new = F.relu(self.norm(x))
        if self.squeeze is not None:
            new = F.relu(self.squeeze(new))
        return torch.cat([x, self.conv(new)], 1)


class PooledTransition(nn.Module):
    """BN-ReLU, 2×2 average, 1×1."""

    def __init__(self, transition: Transition) -> None:
        super().__init__()
        self.norm, self.conv = transition.norm, transition.conv

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, θC, ⌊H/2⌋, ⌊W/2⌋]."""
        return self.conv(F.avg_pool2d(F.relu(self.norm(x)), 2))


class RewrittenDualPathBlock(nn.Module):
    """A DPN block; its state is the residual path and the pieces of the dense path."""

    def __init__(self, block: DualPathBlock, *, fold: bool) -> None:
        super().__init__()
        self.first, self.fold = block.first, fold
        if block.first:
            self.project_norm = block.c1x1_w.bn
            self.project = nn.ModuleList(split_outputs(block.c1x1_w.conv, block.base))
        self.norm = block.c1x1_a.bn
        a, b, c = block.c1x1_a.conv, block.c3x3_b.conv, block.c1x1_c.conv
        self.norm_a: nn.Module = nn.Identity() if fold else block.c3x3_b.bn
        self.norm_b: nn.Module = nn.Identity() if fold else block.c1x1_c.bn
        self.a = fuse_conv_bn_eval(a, block.c3x3_b.bn) if fold else a
        self.b = fuse_conv_bn_eval(b, block.c1x1_c.bn) if fold else b
        self.c = nn.ModuleList(split_outputs(c, block.base))

    def forward(self, state: list[Tensor]) -> list[Tensor]:
        """Residual [N, base, H, W] and pieces of the dense path → the same, one piece more.

        The first block of a stage takes the stage before.
        """
        x = torch.cat(state, 1) if len(state) > 1 else state[0]
        if self.first:
            projected = F.relu(self.project_norm(x))
            state = [conv(projected) for conv in self.project]
        new = F.relu(self.norm_a(self.a(F.relu(self.norm(x)))))
        new = F.relu(self.norm_b(self.b(new)))
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
    body = _densenet(model, steps) if isinstance(model, DenseNet) else _dpn(model, steps)
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


def to_depthwise(norm: nn.BatchNorm2d) -> nn.Conv2d:
    """A BatchNorm in evaluation mode as a depthwise 1×1 convolution."""
    scale, shift = norm_factors(norm)
    channels = norm.num_features
    conv = nn.Conv2d(channels, channels, 1, groups=channels)
    conv.weight = nn.Parameter(scale.float().reshape(channels, 1, 1, 1))
    conv.bias = nn.Parameter(shift.float())
    return conv


def _with_depthwise(body: nn.Module) -> nn.Module:
    """A copy whose BatchNorms are depthwise convolutions; other weights are shared."""
    shared = {id(parameter): parameter for parameter in (*body.parameters(), *body.buffers())}
    copied = copy.deepcopy(body, memo=dict(shared))
    for module in list(copied.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, to_depthwise(child))
    return copied


def _densenet(model: DenseNet, steps: Collection[Step]) -> nn.Sequential:
    """Stem, blocks, transitions, last BN and ReLU."""
    body = nn.Sequential()
    fold, names = "fold" in steps, [name for name, _ in model.features.named_children()]
    for name, module in model.features.named_children():
        if name == "conv0" and "norm0" in names and fold:
            norm = cast(nn.BatchNorm2d, model.features.norm0)
            body.append(fuse_conv_bn_eval(cast(nn.Conv2d, module), norm))
        elif name.startswith("denseblock") and fold:
            layers = cast(list[BottleneckLayer], list(module.children()))
            body.extend(RewrittenDenseLayer(layer) for layer in layers)
        elif isinstance(module, Transition) and "pool_first" in steps:
            body.append(PooledTransition(module))
        elif name != "norm0" or not fold:
            body.append(module)
    return body.append(nn.ReLU())


def _dpn(model: Model, steps: Collection[Step]) -> nn.Module:
    """Stem, blocks of all stages, last BN and ReLU."""
    if "split" not in steps and "fold" not in steps:
        return model.features
    features, fold = list(model.features.children()), "fold" in steps
    first = next(i for i, m in enumerate(features) if isinstance(m, DualPathBlock))
    stem = nn.Sequential(*features[:first])
    if fold:
        conv = cast(nn.Conv2d, features[0].conv)
        folded = fuse_conv_bn_eval(conv, cast(nn.BatchNorm2d, features[0].bn))
        stem = nn.Sequential(folded, nn.ReLU(), *features[1:first])
    blocks = cast(list[DualPathBlock], features[first:-1])
    rewritten = [RewrittenDualPathBlock(block, fold=fold) for block in blocks]
    return RewrittenDPN(stem, list(rewritten), cast(nn.Module, features[-1].bn))
