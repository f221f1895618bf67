"""Tensors of a checkpoint → the plan that `library.cpp` builds its network from.

BatchNorm behind a convolution goes into its weights, in float64; in front of one it becomes a
factor and a summand a channel. Weights are written inputs first, as the kernels read them.
Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from densepath.models.spec import DenseNetArch, DPNArch, ModelSpec

Tensors: TypeAlias = Mapping[str, NDArray[Any]]

VERSION = 1  # PLAN_VERSION in library.cpp
STEM_POOLS = {None: 0, "pad1": 1, "same": 2}  # StemPool in network.hpp
# Winograd's way costs four times the weights' memory and pays where a map has many tiles.
LEAST_WINOGRAD_SIDE = 24


class Plan:
    """The two arrays, growing."""

    def __init__(self, tensors: Tensors, bn_eps: float) -> None:
        self._tensors, self._bn_eps = tensors, bn_eps
        self._integers: list[int] = []
        self._numbers: list[NDArray[np.float32]] = []

    def arrays(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """int32 and float32, flat."""
        return np.array(self._integers, np.int32), np.concatenate(self._numbers)

    def integers(self, *values: int) -> None:
        """Numbers of the architecture."""
        self._integers.extend(values)

    def norm(self, name: str) -> None:
        """A BatchNorm in front of a ReLU."""
        for values in self._affine(name):
            self._put(values)

    def conv(self, name: str, *, norm: str | None = None, rows: slice = slice(None)) -> None:
        """A convolution of outputs `rows`; with the BatchNorm behind it, a bias follows.

        [outputs, inputs, kh, kw] is written as [kh, kw, inputs, outputs].
        """
        weight = self._get(f"{name}.weight")[rows]
        if norm is None:
            self._put(weight.transpose(2, 3, 1, 0))
            return
        scale, shift = self._affine(norm)
        self._put((weight * scale[:, None, None, None]).transpose(2, 3, 1, 0))
        self._put(shift)

    def zeros(self, count: int) -> None:
        """A bias that adds nothing."""
        self._put(np.zeros(count))

    def classifier(self) -> None:
        """[classes, features] as [features, classes], and the bias."""
        self._put(self._get("classifier.weight").T)
        self._put(self._get("classifier.bias"))

    def outputs(self, name: str) -> int:
        """The outputs of a convolution or of the classifier."""
        return int(self._tensors[f"{name}.weight"].shape[0])

    def _get(self, name: str) -> NDArray[np.float64]:
        return self._tensors[name].astype(np.float64)

    def _affine(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        scale = self._get(f"{name}.weight") / np.sqrt(
            self._get(f"{name}.running_var") + self._bn_eps
        )
        return scale, self._get(f"{name}.bias") - self._get(f"{name}.running_mean") * scale

    def _put(self, values: NDArray[Any]) -> None:
        self._numbers.append(np.ascontiguousarray(values, np.float32).ravel())


def plan_network(
    spec: ModelSpec, tensors: Tensors, *, in_channels: int, size: tuple[int, int]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The plan of a network whose images are mostly `size` pixels; others are taken too.

    Args:
        spec: the architecture.
        tensors: by the names of `build_model`'s network.
        in_channels: the channels of the images.
        size: height and width, which say where Winograd's way will pay.
    """
    arch = spec.arch
    plan = Plan(tensors, arch.bn_eps)
    stem, norm = (
        ("features.conv0", "features.norm0" if arch.stem == "imagenet" else None)
        if isinstance(arch, DenseNetArch)
        else ("features.conv1_1.conv", "features.conv1_1.bn")
    )
    kernel = tensors[f"{stem}.weight"].shape[-1]
    imagenet = arch.stem == "imagenet"
    plan.integers(VERSION, isinstance(arch, DPNArch), plan.outputs("classifier"))
    plan.integers(in_channels, kernel, 2 if imagenet else 1, arch.stem_width, norm is not None)
    plan.integers(STEM_POOLS[arch.stem_pool if imagenet else None], len(arch.blocks))
    plan.conv(stem, norm=norm)
    if norm is None:
        plan.zeros(arch.stem_width)
    if isinstance(arch, DenseNetArch):
        _plan_densenet(plan, arch, min(size) // (4 if imagenet else 1))
    else:
        _plan_dpn(plan, arch)
    plan.classifier()
    return plan.arrays()


def _plan_densenet(plan: Plan, arch: DenseNetArch, side: int) -> None:
    """Blocks, transitions, the last BatchNorm; `side` of the first block's map."""
    for i, layers in enumerate(arch.blocks, start=1):
        last = i == len(arch.blocks)
        transition = f"features.transition{i}"
        middle = arch.bottleneck * arch.growth_rate
        plan.integers(layers, middle, arch.growth_rate)
        plan.integers(0 if last else plan.outputs(f"{transition}.conv"))
        plan.integers(side >= LEAST_WINOGRAD_SIDE)
        for j in range(1, layers + 1):
            layer = f"features.denseblock{i}.denselayer{j}"
            plan.norm(f"{layer}.norm1")
            if arch.bottleneck:
                plan.conv(f"{layer}.conv1", norm=f"{layer}.norm2")
            plan.conv(f"{layer}.conv2" if arch.bottleneck else f"{layer}.conv1")
        if not last:
            plan.norm(f"{transition}.norm")
            plan.conv(f"{transition}.conv")
        side //= 2
    plan.norm("features.norm5")


def _plan_dpn(plan: Plan, arch: DPNArch) -> None:
    """Blocks of all stages, the last BatchNorm."""
    for stage, (blocks, increment) in enumerate(
        zip(arch.blocks, arch.dense_increment, strict=True)
    ):
        base = 64 * arch.base_factor * 2**stage
        plan.integers(blocks, base, increment, arch.k_r * 2**stage, arch.groups)
        plan.integers(2 if stage else 1)
        for b in range(1, blocks + 1):
            block = f"features.conv{stage + 2}_{b}"
            if b == 1:
                plan.norm(f"{block}.c1x1_w.bn")
                plan.conv(f"{block}.c1x1_w.conv")
            plan.norm(f"{block}.c1x1_a.bn")
            plan.conv(f"{block}.c1x1_a.conv", norm=f"{block}.c3x3_b.bn")
            plan.conv(f"{block}.c3x3_b.conv", norm=f"{block}.c1x1_c.bn")
            plan.conv(f"{block}.c1x1_c.conv", rows=slice(0, base))
            plan.conv(f"{block}.c1x1_c.conv", rows=slice(base, None))
    plan.norm("features.conv5_bn_ac.bn")
