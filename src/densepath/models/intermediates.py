"""The maps inside a backbone, for those who build on it: timm's two ways to ask for them.

What is behind a stage is the growing map as it stands, all its channels, with no BatchNorm and
ReLU: whoever reads it in the network has a BatchNorm of its own. The last BatchNorm and ReLU fit
the last stage alone. The stem's map has been through its BatchNorm and ReLU, but for a DenseNet's
small stem, which has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from densepath.errors import UnknownNameError, UsageError
from densepath.models.feature_info import FeatureInfo, Indices, feature_points, take_indices
from densepath.models.layers import check_images
from densepath.models.stages import Stages

if TYPE_CHECKING:
    from densepath.models.build import Model
    from densepath.models.spec import ModelSpec

OutputFormat = Literal["NCHW", "NLC"]


class Backbone(nn.Module):
    """A network whose `features` are a stem and stages."""

    spec: ModelSpec
    in_channels: int
    features: Stages

    def forward_intermediates(
        self,
        x: Tensor,
        indices: Indices = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: OutputFormat = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The last features and the maps at `indices`; see the function of this name."""
        return forward_intermediates(
            self,
            x,
            indices,
            norm=norm,
            stop_early=stop_early,
            output_fmt=output_fmt,
            intermediates_only=intermediates_only,
        )

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        """Images → the raw map of each stage, behind its last layer: no transition, no last BN."""
        stages = range(1, len(self.spec.arch.blocks) + 1)
        found = forward_intermediates(self, x, stages, stop_early=True, intermediates_only=True)
        assert isinstance(found, list)
        return found


def forward_intermediates(
    model: Backbone,
    x: Tensor,
    indices: Indices = None,
    *,
    norm: bool = False,
    stop_early: bool = False,
    output_fmt: OutputFormat = "NCHW",
    intermediates_only: bool = False,
) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
    """The maps at points of the network, and the last features with them.

    Args:
        model: the network, or what is left of it in a `FeatureNet`.
        x: images [N, in_channels, H, W].
        indices: points: all for None, the last n for a number, else those, in their order.
        norm: put the last stage's map through the last BatchNorm and ReLU.
        stop_early: compute nothing behind the last point; only with `intermediates_only`.
        output_fmt: `NCHW`, or `NLC`: [N, H · W, C].
        intermediates_only: give the maps without the last features.

    Raises:
        UsageError: there is no such point; or images that the network cannot take.
        UnknownNameError: no such format.
    """
    if output_fmt not in get_args(OutputFormat):
        raise UnknownNameError("format of maps", output_fmt, get_args(OutputFormat))
    if stop_early and not intermediates_only:
        raise UsageError(
            "stop_early leaves the last features out; ask for intermediates_only=True, too."
        )
    check_images(x, model.in_channels, model.spec.least_side)
    names = [point.module.removeprefix("features.") for point in feature_points(model.spec)]
    wanted = take_indices(len(names), indices)
    last = len(names) - 1
    maps: dict[int, Tensor] = {}
    for name, out in model.features.walk(x, names):
        x = out
        if name in names:
            maps[names.index(name)] = x
        if stop_early and wanted and len(maps) > wanted[-1] and not (norm and wanted[-1] == last):
            break
    if model.spec.family == "densenet" and len(maps) > last:
        x = F.relu(x) if "norm5" in model.features._modules else x
    if norm and last in maps:
        maps[last] = x
    found = [_in_format(maps[index], output_fmt) for index in wanted]
    return found if intermediates_only else (x, found)


def _in_format(tensor: Tensor, output_fmt: OutputFormat) -> Tensor:
    """[N, C, H, W] as it is, or as [N, H · W, C]."""
    return tensor if output_fmt == "NCHW" else tensor.flatten(2).transpose(1, 2)


class FeatureNet(nn.Module):
    """A backbone: images → the maps at `out_indices`, a list; timm's `features_only`.

    What stands behind the last of them is left out. As in timm a DenseNet's last map comes through
    the last BatchNorm and ReLU, a DPN's as it stands.

    Attributes:
        feature_info: channels and reduction of each map.
    """

    def __init__(self, model: Model, out_indices: Sequence[int] | None = None) -> None:
        """`model` gives its modules, and is no longer to be used."""
        super().__init__()
        points = feature_points(model.spec)
        taken = take_indices(len(points), out_indices)
        if not taken:
            raise UsageError("out_indices is empty; name at least one point, as (1, 2, 3, 4).")
        self.feature_info = FeatureInfo(points, taken)
        self.spec, self.in_channels = model.spec, model.in_channels
        self.norm = model.spec.family == "densenet" and taken[-1] == len(points) - 1
        self.features = Stages()
        end = points[taken[-1]].module.removeprefix("features.")
        for name, module in model.features.named_children():
            self.features.add_module(name, module)
            if name == end and not self.norm:
                break

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images [N, in_channels, H, W] → a map [N, C, H / reduction, W / reduction] a point."""
        found = forward_intermediates(
            self,  # type: ignore[arg-type]  # it has what is asked of a network
            x,
            self.feature_info.out_indices,
            norm=self.norm,
            intermediates_only=True,
        )
        assert isinstance(found, list)
        return found
