"""A network as one flat list of its layers, made from a ModelSpec; nothing here imports torch.

On the line: between the numbers of a paper's table and whoever walks the network: costs, shapes of
checkpoints, INT8, freezing, names in reports. A layer has one name everywhere: that of its module
in `build_model`'s network.

Every DenseNet and DPN is a growing map: a *state* that each block reads whole, through BatchNorm
and ReLU, and adds to. What a layer does to it is `writes`:

`opens`    a new state of its outputs alone: the stem, a transition, a DPN stage's projection.
`appends`  its outputs, behind all channels that there are: a dense layer.
`adds`     its first `base` outputs to the state's first ones, and appends the rest: a DPN block.
`nothing`  its outputs go to the next layer only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Literal, get_args

from densepath.models.spec import DenseNetArch, DPNArch, ModelSpec, StemPool

Kind = Literal["convolution", "classifier"]
Reads = Literal["images", "state", "layer"]
Writes = Literal["opens", "appends", "adds", "nothing"]

STEM = 0
CLASSIFIER = "classifier"
NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Layer:
    """A convolution, or the classifier, with what stands before and behind it.

    Attributes:
        name: of the module in `build_model`'s network.
        kind: `convolution`, or `classifier`, which reads the mean over all positions.
        inputs, outputs: channels; 0 inputs of the first layer, which the images decide, and 0
            outputs of the classifier.
        kernel, stride, groups: of the convolution, which pads by half its kernel.
        reads: the images, the state as its part found it, or the layer before.
        writes: what becomes of its outputs.
        before: the BatchNorm, and its ReLU, that it reads through; empty where there is none.
        behind: the BatchNorm, and its ReLU, that its outputs go through; empty where none.
        pool: the max-pool of 3 × 3, stride 2, that follows: how it pads; None where none does.
        averaged: a 2 × 2 average of its outputs follows (of its inputs just as well).
        base: of a DPN block's last layer, the outputs that are added.
        stage: 0 of the stem, then 1 and on; of the classifier one more than the last.
        part: the module that it belongs to with its neighbours: a dense layer, a DPN block.
    """

    name: str
    kind: Kind
    inputs: int
    outputs: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    reads: Reads = "layer"
    writes: Writes = "nothing"
    before: str = ""
    behind: str = ""
    pool: StemPool | None = None
    averaged: bool = False
    base: int = 0
    stage: int = STEM
    part: str = ""


@lru_cache(maxsize=64)
def plan(spec: ModelSpec) -> tuple[Layer, ...]:
    """The layers with weights, in the order in which they run."""
    layers = _densenet(spec.arch) if isinstance(spec.arch, DenseNetArch) else _dpn(spec.arch)
    return tuple(layers)


def convolutions(spec: ModelSpec) -> list[Layer]:
    """The layers but the classifier."""
    return [layer for layer in plan(spec) if layer.kind == "convolution"]


def parts(spec: ModelSpec) -> list[tuple[Layer, ...]]:
    """The layers by the module that they make together: stem, dense layers, blocks, and so on."""
    return [tuple(layers) for _, layers in groupby(plan(spec), key=lambda layer: layer.part)]


def units(layers: Sequence[Layer]) -> list[tuple[Layer, str]]:
    """Each layer of a part with its BatchNorm: that it reads through, or the stem's behind it."""
    found, behind = [], ""
    for layer in layers:
        found.append((layer, layer.before or behind or layer.behind))
        behind = layer.behind
    return found


def stage_of(spec: ModelSpec, module: str) -> int:
    """The stage of a child of the network's `features`, by its name below them: 0 of the stem.

    The last BatchNorm is of the classifier's stage.
    """
    name = f"features.{module}"
    for layer in plan(spec):
        own = (layer.name, layer.before, layer.behind)
        if any(one == name or one.startswith(f"{name}.") for one in own):
            return layer.stage
    return STEM  # a ReLU or pool of the stem has no weights


def serialise(spec: ModelSpec) -> tuple[list[str], list[int]]:
    """The plan as the kernels read it: 3 names and 12 numbers a layer, layer behind layer.

    The names are the layer's and those of the BatchNorms before and behind it. The numbers are
    those of `PlanLayer` in `kernels/plan.hpp`, in its order: a word is its place among its choices,
    a part how many parts are before it.
    """
    layers = plan(spec)
    places = {part: place for place, part in enumerate(dict.fromkeys(row.part for row in layers))}
    names, numbers = [], []
    for row in layers:
        names += [row.name, row.before, row.behind]
        numbers += [get_args(Kind).index(row.kind), row.inputs, row.outputs]
        numbers += [row.kernel, row.stride, row.groups]
        numbers += [get_args(Reads).index(row.reads), get_args(Writes).index(row.writes)]
        numbers += [(None, *get_args(StemPool)).index(row.pool), int(row.averaged), row.base]
        numbers.append(places[row.part])
    return names, numbers


def tensor_shapes(
    spec: ModelSpec, num_classes: int, in_channels: int
) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter and running statistic, in the order of the modules."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in plan(spec):
        inputs = layer.inputs or in_channels
        if layer.before:
            shapes |= {f"{layer.before}.{leaf}": (inputs,) for leaf in NORM_TENSORS}
        if layer.kind == "classifier":
            shapes |= {
                "classifier.weight": (num_classes, inputs),
                "classifier.bias": (num_classes,),
            }
            continue
        sides = (layer.kernel, layer.kernel)
        shapes[f"{layer.name}.weight"] = (layer.outputs, inputs // layer.groups, *sides)
        if layer.behind:
            shapes |= {f"{layer.behind}.{leaf}": (layer.outputs,) for leaf in NORM_TENSORS}
    return shapes


def _densenet(arch: DenseNetArch) -> Iterator[Layer]:
    """DenseNet: table 1 of arXiv:1608.06993; section 4.2 for small images."""
    small, width = arch.stem == "small", arch.stem_width
    yield Layer(
        "features.conv0",
        "convolution",
        0,
        width,
        kernel=3 if small else 7,
        stride=1 if small else 2,
        reads="images",
        writes="opens",
        behind="" if small else "features.norm0",
        pool=None if small else arch.stem_pool,
        part="features.conv0",
    )
    for stage, num_layers in enumerate(arch.blocks, start=1):
        for number in range(1, num_layers + 1):
            part = f"features.denseblock{stage}.denselayer{number}"
            yield from _dense_layer(arch, part, width, stage)
            width += arch.growth_rate
        if stage < len(arch.blocks):
            part = f"features.transition{stage}"
            outputs = int(width * arch.compression)
            yield Layer(
                f"{part}.conv",
                "convolution",
                width,
                outputs,
                reads="state",
                writes="opens",
                before=f"{part}.norm",
                averaged=True,
                stage=stage,
                part=part,
            )
            width = outputs
    yield _classifier(width, "features.norm5", len(arch.blocks) + 1)


def _dense_layer(arch: DenseNetArch, part: str, width: int, stage: int) -> Iterator[Layer]:
    """BN-ReLU-1×1-BN-ReLU-3×3, or without the bottleneck BN-ReLU-3×3."""
    last, inputs = f"{part}.conv1", width
    if arch.bottleneck:
        inputs, last = arch.bottleneck * arch.growth_rate, f"{part}.conv2"
        yield Layer(
            f"{part}.conv1",
            "convolution",
            width,
            inputs,
            reads="state",
            before=f"{part}.norm1",
            behind=f"{part}.norm2",
            stage=stage,
            part=part,
        )
    yield Layer(
        last,
        "convolution",
        inputs,
        arch.growth_rate,
        kernel=3,
        reads="layer" if arch.bottleneck else "state",
        writes="appends",
        before="" if arch.bottleneck else f"{part}.norm1",
        stage=stage,
        part=part,
    )


def _dpn(arch: DPNArch) -> Iterator[Layer]:
    """DPN: table 1 of arXiv:1707.01629."""
    small, width = arch.stem == "small", arch.stem_width
    yield Layer(
        "features.conv1_1.conv",
        "convolution",
        0,
        width,
        kernel=3 if small else arch.stem_kernel,
        stride=1 if small else 2,
        reads="images",
        writes="opens",
        behind="features.conv1_1.bn",
        pool=None if small else arch.stem_pool,
        part="features.conv1_1",
    )
    for stage, (num_blocks, increment) in enumerate(
        zip(arch.blocks, arch.dense_increment, strict=True), start=1
    ):
        for number in range(1, num_blocks + 1):
            part = f"features.conv{stage + 1}_{number}"
            yield from _dual_path_block(arch, part, width, stage, first=number == 1)
            base = 64 * arch.base_factor * 2 ** (stage - 1)
            width = base + 3 * increment if number == 1 else width + increment
    yield _classifier(width, "features.conv5_bn_ac.bn", len(arch.blocks) + 1)


def _dual_path_block(
    arch: DPNArch, part: str, width: int, stage: int, *, first: bool
) -> Iterator[Layer]:
    """BN-ReLU-1×1-BN-ReLU-3×3-BN-ReLU-1×1; a stage's first block projects the state, too."""
    middle, base = arch.k_r * 2 ** (stage - 1), 64 * arch.base_factor * 2 ** (stage - 1)
    increment = arch.dense_increment[stage - 1]
    stride = 2 if first and stage > 1 else 1
    if first:
        yield Layer(
            f"{part}.c1x1_w.conv",
            "convolution",
            width,
            base + 2 * increment,
            stride=stride,
            reads="state",
            writes="opens",
            before=f"{part}.c1x1_w.bn",
            stage=stage,
            part=part,
        )
    yield Layer(
        f"{part}.c1x1_a.conv",
        "convolution",
        width,
        middle,
        reads="state",
        before=f"{part}.c1x1_a.bn",
        behind=f"{part}.c3x3_b.bn",
        stage=stage,
        part=part,
    )
    yield Layer(
        f"{part}.c3x3_b.conv",
        "convolution",
        middle,
        middle,
        kernel=3,
        stride=stride,
        groups=arch.groups,
        behind=f"{part}.c1x1_c.bn",
        stage=stage,
        part=part,
    )
    yield Layer(
        f"{part}.c1x1_c.conv",
        "convolution",
        middle,
        base + increment,
        writes="adds",
        base=base,
        stage=stage,
        part=part,
    )


def _classifier(width: int, norm: str, stage: int) -> Layer:
    """The last BatchNorm and ReLU, the mean, and the classifier."""
    return Layer(
        CLASSIFIER,
        "classifier",
        width,
        0,
        reads="state",
        before=norm,
        stage=stage,
        part=CLASSIFIER,
    )
