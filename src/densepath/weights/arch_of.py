"""The architecture that the shapes of another system's convolutions are of.

A reader that knows how a file names its layers learns from this which network they make, of the
catalogue or not: the numbers of a paper's table all stand in the shapes.
"""

from __future__ import annotations

from collections.abc import Sequence

from densepath.models.spec import Arch, DenseNetArch, DPNArch, ModelSpec
from densepath.weights.structure.numbers import name_spec

Shape = tuple[int, ...]
_BASE = 64  # f · 64 channels are added in the first stage of a DPN


def densenet_arch(convolutions: Sequence[Shape]) -> DenseNetArch | None:
    """The DenseNet-B of these convolutions [outputs, inputs, height, width], as they run.

    None where they are not those of one.
    """
    if any(len(shape) != 4 or min(shape) < 1 for shape in convolutions):
        return None
    sides = [shape[2] for shape in convolutions]
    if len(sides) < 3 or sides[1:3] != [1, 3]:
        return None
    blocks, at, compression = [0], 1, 0.5
    while at < len(sides):
        if sides[at : at + 2] == [1, 3]:
            blocks[-1] += 1
            at += 2
        elif sides[at] == 1:
            outputs, inputs = convolutions[at][:2]
            compression = 0.5 if outputs == inputs // 2 else outputs / inputs
            blocks.append(0)
            at += 1
        else:
            return None
    growth_rate, middle = convolutions[2][0], convolutions[1][0]
    if not all(blocks) or compression > 1 or middle < growth_rate:
        return None
    return DenseNetArch(
        growth_rate,
        tuple(blocks),
        convolutions[0][0],
        middle // growth_rate,
        compression,
        stem="imagenet" if sides[0] == 7 else "small",
    )


def dpn_arch(
    stem: Shape, stages: Sequence[tuple[int, Shape, Shape, Shape, Shape]]
) -> DPNArch | None:
    """The DPN of a stem and of each stage's blocks, and its first block's four convolutions.

    Args:
        stem: the first convolution, [outputs, inputs, height, width].
        stages: how many blocks, and the shapes of `c1x1_w`, `c1x1_a`, `c3x3_b` and `c1x1_c`.

    Returns:
        None where they are not those of a DPN.
    """
    shapes = [stem, *(shape for stage in stages for shape in stage[1:])]
    if not stages or any(len(shape) != 4 or min(shape) < 1 for shape in shapes):
        return None
    increments = tuple(w[0] - c[0] for _, w, _, _, c in stages)
    _, _, a, b, c = stages[0]
    base = c[0] - increments[0]
    if min(increments) < 1 or base < _BASE or a[0] % b[1]:
        return None
    blocks = tuple(number for number, *_ in stages)
    return DPNArch(
        stem[0], stem[2], a[0], a[0] // b[1], blocks, increments, base_factor=base // _BASE
    )


def spec_of(arch: Arch) -> ModelSpec:
    """The catalogue's row of an architecture, whatever its switches; else a row of its own.

    Raises:
        KeyMismatchError: numbers that no network can have.
    """
    return name_spec(arch, None, halves=False)
