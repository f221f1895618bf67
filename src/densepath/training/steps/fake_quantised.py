"""A network that computes as its INT8 graph will, in float32 and with gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from densepath.models.build import Model
from densepath.training.recipe_sections import QuantizationSection
from densepath.training.steps.qat_points import LAST_MAP, find_points, quantised_weights
from densepath.training.steps.qat_ranges import Ranges, fake_quantize, fake_quantize_weight

Visit = Callable[[int, Tensor], Tensor]


class FakeQuantised(nn.Module):
    """A network whose weights and activations are rounded as INT8 rounds them.

    images [N, C, H, W] → logits [N, classes]. The network is shared, not copied, and is itself
    again after every call. In training mode and while `observing`, the ranges follow the
    batches.
    """

    def __init__(
        self, network: Model, section: QuantizationSection, ranges: Ranges | None = None
    ) -> None:
        super().__init__()
        self.section, self.observing = section, True
        self.body = _Body(network)
        self.points = find_points(network)
        self.weights = quantised_weights(network)
        # The last map's point comes after those of modules.
        names = [point.grid for point in self.points] + [LAST_MAP]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        self.grid_of = [numbers[name] for name in names]
        percentile = section.percentile if section.ranges == "percentile" else None
        self.ranges = Ranges(self.grid_of, percentile) if ranges is None else ranges

    def of(self, network: Model) -> FakeQuantised:
        """Another network of the same shape, as an average of weights, with these ranges."""
        return FakeQuantised(network, self.section, self.ranges).train(network.training)

    def forward(self, images: Tensor) -> Tensor:
        """Images → logits of the fake-quantised network."""
        scales, zero_points = (values.unbind() for values in self.ranges.grids())
        measured: dict[int, Tensor] = {}
        observes = self.training and self.observing

        def visit(point: int, tensor: Tensor) -> Tensor:
            """The tensor on its grid; its range is measured on the way."""
            if observes:
                measured[point] = self.ranges.measure(tensor)
            grid = self.grid_of[point]
            return fake_quantize(tensor, scales[grid], zero_points[grid])

        with self._visited(visit):
            logits = functional_call(self.body, self._rounded_weights(), (images,))
        if observes:
            self.ranges.update([measured[i] for i in range(len(measured))])
        return logits

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Show the ranges a batch, images [N, C, H, W], of the float network in evaluation mode."""
        measured: dict[int, Tensor] = {}

        def visit(point: int, tensor: Tensor) -> Tensor:
            """The tensor as it is; its range is measured."""
            measured[point] = self.ranges.measure(tensor)
            return tensor

        self.body.eval()
        with self._visited(visit):
            self.body(images)
        self.ranges.update([measured[i] for i in range(len(measured))])

    def _rounded_weights(self) -> dict[str, Tensor]:
        """The fake-quantised weights by their names in the body."""
        bits, network = self.section.weight_bits, self.body.network
        return {
            f"network.{name}": fake_quantize_weight(network.get_parameter(name), bits)
            for name in self.weights
        }

    @contextmanager
    def _visited(self, visit: Visit) -> Iterator[None]:
        """A context in which quantised tensors go through `visit(number of the point, tensor)`."""
        handles: list[Any] = []
        try:
            for number, point in enumerate(self.points):
                module = self.body.network.get_submodule(point.module)
                if point.side == "input":
                    handles.append(module.register_forward_pre_hook(_on_input(visit, number)))
                else:
                    handles.append(module.register_forward_hook(_on_output(visit, number)))
            self.body.on_last_map = lambda tensor: visit(len(self.points), tensor)
            yield
        finally:
            self.body.on_last_map = None
            for handle in handles:
                handle.remove()


class _Body(nn.Module):
    """The network, with a place to change the last map: the ReLU before it is no module."""

    def __init__(self, network: Model) -> None:
        super().__init__()
        self.network = network
        self.on_last_map: Callable[[Tensor], Tensor] | None = None

    def forward(self, images: Tensor) -> Tensor:
        """Images → logits."""
        features = self.network.forward_features(images)
        if self.on_last_map is not None:
            features = self.on_last_map(features)
        return self.network.forward_head(features)


def _on_input(visit: Visit, number: int) -> Callable[[nn.Module, Any], Tensor]:
    """A hook before a module of one input."""
    return lambda module, inputs: visit(number, inputs[0])


def _on_output(visit: Visit, number: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """A hook after a module."""
    return lambda module, inputs, output: visit(number, output)
