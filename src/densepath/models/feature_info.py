"""Where a backbone's maps can be taken, and how large they are: arithmetic on the plan, no torch.

There is one point before the stem's pooling and one at the end of each stage, in the order in which
they run: the five of timm's `features_only` for a network with four stages.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, overload

from densepath.errors import UsageError
from densepath.models.cost import count_layers
from densepath.models.plan import CLASSIFIER
from densepath.models.spec import DenseNetArch, ModelSpec

Indices = int | Sequence[int] | None


@dataclass(frozen=True)
class FeaturePoint:
    """A place where a map can be taken.

    Attributes:
        num_chs: the map's channels.
        reduction: the image's side over the map's.
        module: the last module before it, by its name in the network.
    """

    num_chs: int
    reduction: int
    module: str


class FeatureInfo:
    """The points of a network that are taken, as timm's `feature_info` has them."""

    def __init__(self, points: Sequence[FeaturePoint], out_indices: Sequence[int]) -> None:
        self.points, self.out_indices = tuple(points), tuple(out_indices)

    def channels(self) -> list[int]:
        """The channels of each map that is taken."""
        return [point.num_chs for point in self]

    def reduction(self) -> list[int]:
        """The image's side over that of each map that is taken."""
        return [point.reduction for point in self]

    def module_name(self) -> list[str]:
        """The last module before each."""
        return [point.module for point in self]

    def get_dicts(self) -> list[dict[str, Any]]:
        """The points that are taken as dictionaries, with their number."""
        return [
            {"num_chs": p.num_chs, "reduction": p.reduction, "module": p.module, "index": index}
            for p, index in zip(self, self.out_indices, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.out_indices)

    def __iter__(self) -> Iterator[FeaturePoint]:
        return (self.points[index] for index in self.out_indices)

    @overload
    def __getitem__(self, place: int) -> FeaturePoint: ...

    @overload
    def __getitem__(self, place: slice) -> list[FeaturePoint]: ...

    def __getitem__(self, place: int | slice) -> FeaturePoint | list[FeaturePoint]:
        return list(self)[place]

    def __repr__(self) -> str:
        """Channels and reductions in one line."""
        shown = ", ".join(f"{point.num_chs} at 1/{point.reduction}" for point in self)
        return f"<FeatureInfo: {shown}>"


def feature_points(spec: ModelSpec) -> list[FeaturePoint]:
    """The points of the network, those of the stem and of each stage."""
    side = spec.least_side * 8  # divides at every halving
    layers = [one for one in count_layers(spec, side) if one.layer.name != CLASSIFIER]
    stem, *_ = layers
    names = _point_modules(spec)
    points = [FeaturePoint(stem.layer.outputs, side // stem.height, f"features.{names[0]}")]
    stages = groupby(layers[1:], key=lambda one: one.layer.stage)
    for name, (_, stage) in zip(names[1:], stages, strict=True):
        # A transition, the last layer of its stage, opens the next map.
        last = [one for one in stage if not one.layer.averaged][-1]
        channels, height, _ = last.state
        points.append(FeaturePoint(channels, side // height, f"features.{name}"))
    return points


def _point_modules(spec: ModelSpec) -> list[str]:
    """The child of the network's `features` that each point is behind."""
    if isinstance(spec.arch, DenseNetArch):
        stem = "conv0" if spec.arch.stem == "small" else "relu0"
        return [stem, *(f"denseblock{stage}" for stage in range(1, len(spec.arch.blocks) + 1))]
    last = [f"conv{stage}_{number}" for stage, number in enumerate(spec.arch.blocks, start=2)]
    return ["conv1_1", *last]


def take_indices(count: int, indices: Indices) -> list[int]:
    """The points to take of `count`, in their order: all for None, the last n for n, else those.

    Raises:
        UsageError: there is no such point.
    """
    if indices is None:
        return list(range(count))
    try:
        if not isinstance(indices, Sequence):
            return list(range(count))[-_within(operator.index(indices), 1, count) :]
        return sorted({_within(operator.index(one), -count, count - 1) % count for one in indices})
    except (TypeError, ValueError):
        raise UsageError(
            f"indices is {indices!r}; the network has the points 0 (the stem) to {count - 1} (the "
            f"last stage). Name some of them, as (1, -1), or how many of the last, as {count}."
        ) from None


def _within(value: int, least: int, most: int) -> int:
    """`value` itself; ValueError where it lies outside."""
    if not least <= value <= most:
        raise ValueError(value)
    return value
