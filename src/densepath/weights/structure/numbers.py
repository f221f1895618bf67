"""The numbers of a network from the shapes of its layers, as the papers' tables have them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from densepath.errors import KeyMismatchError, UsageError
from densepath.models.catalogue import CATALOGUE
from densepath.models.spec import (
    DENSENET_PAPER,
    DPN_PAPER,
    Arch,
    DenseNetArch,
    DPNArch,
    ModelSpec,
    StemPool,
    check_arch,
)
from densepath.weights.structure.attributes import misfit
from densepath.weights.structure.densenet import DenseNetNumbers
from densepath.weights.structure.dpn import DPNNumbers
from densepath.weights.structure.walk import Found

# θ of DenseNet-BC, and of DenseNets without compression.
_SHARES = (0.5, 1.0)


def common_epsilon(found: Sequence[Found], *, default: float) -> float:
    """The ε of most BatchNorms; the default where there is none."""
    norms = [norm for layer in found for norm in (layer.before, layer.behind) if norm]
    counts = Counter(norm.epsilon for norm in norms if norm.epsilon > 0)
    return counts.most_common(1)[0][0] if counts else default


def densenet_arch(
    found: Sequence[Found], numbers: DenseNetNumbers, stem_pool: StemPool, bn_eps: float
) -> DenseNetArch:
    """The numbers of a DenseNet whose layers these are.

    Raises:
        KeyMismatchError: no numbers give these widths.
    """
    if min(numbers.blocks) < 1:
        raise misfit(found[0].node, "begins a network with a block of no dense layer")
    step = 2 if numbers.bottleneck else 1
    growth_rate = found[step].weight.shape[0]
    middle = found[1].weight.shape[0] if numbers.bottleneck else 0
    if middle % growth_rate:
        raise misfit(
            found[1].node,
            f"makes {middle} channels, which is no multiple of the growth rate {growth_rate}",
        )
    ends = np.cumsum(np.array(numbers.blocks[:-1], int) * step + 1)
    transitions = [found[end].weight.shape[1::-1] for end in ends]
    return DenseNetArch(
        growth_rate,
        numbers.blocks,
        found[0].weight.shape[0],
        middle // growth_rate,
        _compression(transitions, found),
        numbers.stem,
        stem_pool,
        bn_eps,
    )


def _compression(widths: Sequence[tuple[int, ...]], found: Sequence[Found]) -> float:
    """θ, for which every transition keeps ⌊θ · inputs⌋ channels; (inputs, outputs) of each."""
    if not widths:
        return 0.5
    # The least share that keeps so many channels of each; a hair more, for it is rounded.
    least = max(outputs / inputs for inputs, outputs in widths)
    for share in (*_SHARES, least, float(np.nextafter(least, 2))):
        if 0 < share <= 1 and all(int(i * share) == o for i, o in widths):
            return share
    ratios = ", ".join(f"{outputs} of {inputs}" for inputs, outputs in widths)
    raise misfit(
        found[0].node, f"begins a network whose transitions keep {ratios} channels: no one share"
    )


def dpn_arch(
    found: Sequence[Found], numbers: DPNNumbers, stem_pool: StemPool, bn_eps: float
) -> DPNArch:
    """The numbers of a DPN whose layers these are.

    Raises:
        KeyMismatchError: its residual path is no multiple of 64 channels.
    """
    base = numbers.bases[0] if numbers.bases else 0
    if not base or base % 64:
        raise misfit(found[0].node, f"begins a network with a residual path of {base} channels")
    place, increments = 1, list[int]()
    for blocks, width in zip(numbers.blocks, numbers.bases, strict=True):
        increments.append(found[place + 3].weight.shape[0] - width)
        place += 1 + 3 * blocks
    grouped = found[3].weight
    return DPNArch(
        found[0].weight.shape[0],
        found[0].weight.shape[2],
        grouped.shape[0],
        grouped.shape[0] // grouped.shape[1],
        numbers.blocks,
        tuple(increments),
        base // 64,
        numbers.stem,
        stem_pool,
        bn_eps,
    )


def name_spec(arch: Arch, size: tuple[int, int] | None, *, halves: bool) -> ModelSpec:
    """The catalogue's row with these numbers, switches aside; else a spec of its own.

    Of `dpn68` and `dpn68b`, which compute the same, `halves` says that it is stored as the second.

    Raises:
        KeyMismatchError: numbers that no network can have.
    """
    try:
        check_arch(arch)
    except UsageError as error:
        raise KeyMismatchError(f"its numbers make no network: {error}") from error
    plain = _without_switches(arch)
    rows = [row for row in CATALOGUE.values() if _without_switches(row.arch) == plain]
    if rows:
        return dataclasses.replace(rows[-1 if halves else 0], arch=arch)
    default = 32 if arch.stem == "small" else 224
    side = min(size) if size else default
    paper = DENSENET_PAPER if isinstance(arch, DenseNetArch) else DPN_PAPER
    return ModelSpec(_own_name(arch), arch, side, f"{paper}, numbers of its own")


def _without_switches(arch: Arch) -> Arch:
    """The numbers with one ε and padding of the pool."""
    return dataclasses.replace(arch, bn_eps=1e-5, stem_pool="pad1")


def _own_name(arch: Arch) -> str:
    """A name for numbers that the catalogue lacks: family, first number, layers of each block."""
    blocks = "_".join(map(str, arch.blocks))
    if isinstance(arch, DenseNetArch):
        return f"densenet_k{arch.growth_rate}_{blocks}"
    return f"dpn_k{arch.k_r}_{blocks}"
