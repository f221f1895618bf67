"""What a network costs: arithmetic on the numbers of its row, so that tables need no torch.

The walk below passes the layers of `plan.py` in their order. A test counts the same figures on the
modules themselves, as PyTorch runs them, and wants them equal to the byte.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from densepath.models.plan import Layer, plan
from densepath.models.spec import ModelSpec, StemPool

FLOAT_BYTES = 4
INDEX_BYTES = 8  # a max-pool keeps the place of each largest value as int64


@dataclass(frozen=True)
class Cost:
    """The cost of one image.

    Attributes:
        parameters: trainable numbers; BatchNorm's running statistics are not among them.
        macs: multiply-accumulates of convolutions and classifier. FLOPs are twice that.
        activations: numbers written by convolutions and classifier (arXiv:2003.13678, 2).
        training_bytes_per_image: what autograd keeps for the backward pass, in float32.
        training_bytes_fixed: weights, gradients and one momentum buffer, in float32.
    """

    parameters: int
    macs: int
    activations: int
    training_bytes_per_image: int
    training_bytes_fixed: int

    def training_bytes(self, batch_size: int) -> int:
        """An estimate of the memory of one training step of SGD with momentum, in bytes.

        Workspaces of convolutions, fragmentation and the framework itself come on top.
        """
        return self.training_bytes_fixed + batch_size * self.training_bytes_per_image


def count_cost(
    spec: ModelSpec,
    input_size: int | tuple[int, int] | None = None,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
) -> Cost:
    """The cost of a network on images of `input_size` pixels.

    Args:
        spec: the network.
        input_size: the images' side, or height and width; by default the spec's own side.
        num_classes: the logits.
        in_channels: the channels of the images.

    Raises:
        UsageError: the network cannot take images of that size.
    """
    walk = _Walk(_images(spec, input_size, in_channels))
    for layer in plan(spec):
        walk.run(layer, num_classes)
    return Cost(
        walk.parameters,
        walk.macs,
        walk.activations,
        walk.kept_bytes,
        3 * FLOAT_BYTES * walk.parameters,
    )


@dataclass(frozen=True)
class LayerCost:
    """What a layer costs of one image, with the BatchNorms beside it.

    Attributes:
        layer: of the plan.
        height, width: of its outputs, before a pool behind it; 1 of the classifier.
        parameters, macs: as in `Cost`.
        receptive_field: the side in pixels of the square that an output can depend on, as if the
            image had no edge; None of the classifier, which reads all of it.
        state: channels, height and width of the growing map once the layer has run, pooled.
        state_field: as `receptive_field`, of the growing map.
    """

    layer: Layer
    height: int
    width: int
    parameters: int
    macs: int
    receptive_field: int | None
    state: tuple[int, int, int]
    state_field: int


def count_layers(
    spec: ModelSpec,
    input_size: int | tuple[int, int] | None = None,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
) -> list[LayerCost]:
    """The cost of each layer; the arguments are those of `count_cost`, whose sums these are."""
    walk = _Walk(_images(spec, input_size, in_channels))
    found = []
    for layer in plan(spec):
        before = walk.parameters, walk.macs
        height, width = walk.run(layer, num_classes)
        parameters, macs = walk.parameters - before[0], walk.macs - before[1]
        field = None if layer.kind == "classifier" else walk.convolved.field
        state, shape = walk.state, (walk.state.channels, walk.state.height, walk.state.width)
        costs = parameters, macs, field
        found.append(LayerCost(layer, height, width, *costs, shape, state.field))
    return found


def _images(spec: ModelSpec, input_size: int | tuple[int, int] | None, channels: int) -> _Map:
    """One image, as the network gets it."""
    return _Map(channels, *spec.check_size(spec.input_size if input_size is None else input_size))


@dataclass
class _Map:
    """A map of so many channels and pixels, and whether autograd keeps it already.

    `field` is the side in pixels of the square of the image that a value can depend on, the
    largest of the channels', and `jump` how far apart those of neighbours are.
    """

    channels: int
    height: int
    width: int
    is_kept: bool = False
    field: int = 1
    jump: int = 1

    def seen_by(self, kernel: int, stride: int) -> tuple[int, int]:
        """`field` and `jump` of what such a window makes of this map.

        Source: Araujo et al., "Computing Receptive Fields of Convolutional Neural Networks",
        Distill 2019, equations 1 and 2.
        """
        return self.field + (kernel - 1) * self.jump, self.jump * stride

    @property
    def numbers(self) -> int:
        """The number of values."""
        return self.channels * self.height * self.width


class _Walk:
    """The way through the network, and what it cost.

    What autograd keeps is counted where it is made: the input of every convolution, BatchNorm
    and pool, and the result of every ReLU; a map that two of them read, once.
    """

    def __init__(self, images: _Map) -> None:
        self.parameters = self.macs = self.activations = self.kept_bytes = 0
        self.state = self._entered = self._last = self.convolved = images
        self._part = ""

    def run(self, layer: Layer, num_classes: int) -> tuple[int, int]:
        """One layer more; gives height and width of its outputs."""
        if layer.part != self._part:
            self._part, self._entered = layer.part, self.state
        found = self._entered if layer.reads == "state" else self._last
        if layer.before:
            found = self._norm_relu(found)
        if layer.kind == "classifier":
            self._classify(found, num_classes)
            return 1, 1
        found = self.convolved = self._convolve(found, layer)
        sides = found.height, found.width
        if layer.behind:
            found = self._norm_relu(found)
        if layer.pool is not None:
            found = self._max_pool(found, layer.pool)
        if layer.averaged:
            self._keep(found)
            sides_now = found.height // 2, found.width // 2
            found = _Map(found.channels, *sides_now, False, *found.seen_by(2, 2))
        self._last = found
        if layer.writes == "opens":
            self.state = found
        elif layer.writes != "nothing":
            channels = self.state.channels + found.channels - layer.base
            field = max(self.state.field, found.field)
            self.state = _Map(channels, *sides, field=field, jump=found.jump)
        return sides

    def _keep(self, kept: _Map) -> None:
        """Count the map as kept for the backward pass."""
        if not kept.is_kept:
            self.kept_bytes += FLOAT_BYTES * kept.numbers
            kept.is_kept = True

    def _convolve(self, read: _Map, layer: Layer) -> _Map:
        """A convolution without bias; its padding keeps the size, but for the stride."""
        self._keep(read)
        height, width = -(-read.height // layer.stride), -(-read.width // layer.stride)
        weights = read.channels // layer.groups * layer.kernel**2 * layer.outputs
        made = _Map(layer.outputs, height, width, False, *read.seen_by(layer.kernel, layer.stride))
        self.parameters += weights
        self.macs += weights * height * width
        self.activations += made.numbers
        return made

    def _norm_relu(self, read: _Map) -> _Map:
        """BatchNorm, with a mean and a deviation a channel, and ReLU, in place of its result."""
        self._keep(read)
        self.parameters += 2 * read.channels
        self.kept_bytes += FLOAT_BYTES * read.channels
        made = replace(read, is_kept=False)
        self._keep(made)
        return made

    def _max_pool(self, read: _Map, padding: StemPool) -> _Map:
        """3×3, stride 2, which keeps the places of the largest; `same` pads a copy of the map."""
        self._keep(read)
        if padding == "same":
            height, width = (n + 1 + n % 2 for n in (read.height, read.width))
            self.kept_bytes += FLOAT_BYTES * read.channels * height * width
        sides = -(-read.height // 2), -(-read.width // 2)
        made = _Map(read.channels, *sides, False, *read.seen_by(3, 2))
        self.kept_bytes += INDEX_BYTES * made.numbers
        return made

    def _classify(self, features: _Map, num_classes: int) -> None:
        """Count the mean over all positions, which the classifier keeps, and its bias."""
        self.kept_bytes += FLOAT_BYTES * features.channels
        self.parameters += (features.channels + 1) * num_classes
        self.macs += features.channels * num_classes
        self.activations += num_classes
