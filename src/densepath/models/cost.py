"""What a network costs: arithmetic on the numbers of its row, so that tables need no torch.

The walk below passes the layers in the order of `densenet.py` and `dpn.py`. A test counts the
same figures on the modules themselves, as PyTorch runs them, and wants them equal to the byte.
"""

from __future__ import annotations

from dataclasses import dataclass

from densepath.models.spec import DenseNetArch, DPNArch, ModelSpec, StemPool

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
    height, width = spec.check_size(spec.input_size if input_size is None else input_size)
    walk = _Walk(in_channels, height, width)
    if isinstance(spec.arch, DenseNetArch):
        _walk_densenet(walk, spec.arch)
    else:
        _walk_dpn(walk, spec.arch)
    walk.classify(num_classes)
    return Cost(
        walk.parameters,
        walk.macs,
        walk.activations,
        walk.kept_bytes,
        3 * FLOAT_BYTES * walk.parameters,
    )


class _Walk:
    """A map of so many channels and pixels on its way through the network, and what it cost.

    What autograd keeps is counted where it is made: the input of every convolution, BatchNorm
    and pool, and the result of every ReLU; a map that two of them read, once.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        self.channels, self.height, self.width = channels, height, width
        self.parameters = self.macs = self.activations = self.kept_bytes = 0
        self.map_is_kept = False

    def keep_map(self) -> None:
        """The map as it is stays for the backward pass."""
        if not self.map_is_kept:
            self.kept_bytes += FLOAT_BYTES * self.channels * self.height * self.width
            self.map_is_kept = True

    def conv(self, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        """A convolution without bias; its padding keeps the size, but for the stride."""
        self.keep_map()
        self.height, self.width = -(-self.height // stride), -(-self.width // stride)
        weights = self.channels // groups * kernel**2 * outputs
        self.parameters += weights
        self.macs += weights * self.height * self.width
        self.activations += outputs * self.height * self.width
        self.channels, self.map_is_kept = outputs, False

    def norm_relu(self) -> None:
        """BatchNorm, with a mean and a deviation a channel, and ReLU, in place of its input."""
        self.keep_map()
        self.parameters += 2 * self.channels
        self.kept_bytes += FLOAT_BYTES * self.channels
        self.map_is_kept = False
        self.keep_map()

    def append(self, channels: int) -> None:
        """The map is now so many channels wide, in a tensor of its own."""
        self.channels, self.map_is_kept = channels, False

    def max_pool(self, padding: StemPool) -> None:
        """3×3, stride 2, which keeps the places of the largest; `same` pads a copy of the map."""
        self.keep_map()
        if padding == "same":
            height, width = (n + 1 + n % 2 for n in (self.height, self.width))
            self.kept_bytes += FLOAT_BYTES * self.channels * height * width
        self.height, self.width = -(-self.height // 2), -(-self.width // 2)
        self.kept_bytes += INDEX_BYTES * self.channels * self.height * self.width
        self.map_is_kept = False

    def average_pool(self) -> None:
        """2×2, stride 2."""
        self.keep_map()
        self.height, self.width = self.height // 2, self.width // 2
        self.map_is_kept = False

    def classify(self, num_classes: int) -> None:
        """The mean over all positions, which the classifier keeps, and the classifier's bias."""
        self.kept_bytes += FLOAT_BYTES * self.channels
        self.parameters += (self.channels + 1) * num_classes
        self.macs += self.channels * num_classes
        self.activations += num_classes


def _walk_densenet(walk: _Walk, arch: DenseNetArch) -> None:
    """`DenseNet.features`, and the ReLU behind it."""
    if arch.stem == "small":
        walk.conv(arch.stem_width, 3)
    else:
        walk.conv(arch.stem_width, 7, stride=2)
        walk.norm_relu()
        walk.max_pool(arch.stem_pool)
    for number, num_layers in enumerate(arch.blocks, start=1):
        for _ in range(num_layers):
            width = walk.channels
            walk.norm_relu()
            if arch.bottleneck:
                walk.conv(arch.bottleneck * arch.growth_rate, 1)
                walk.norm_relu()
            walk.conv(arch.growth_rate, 3)
            walk.append(width + walk.channels)
        walk.norm_relu()  # of the transition, or the last one
        if number < len(arch.blocks):
            walk.conv(int(walk.channels * arch.compression), 1)
            walk.average_pool()


def _walk_dpn(walk: _Walk, arch: DPNArch) -> None:
    """`DPN.features`."""
    small = arch.stem == "small"
    walk.conv(arch.stem_width, 3 if small else arch.stem_kernel, stride=1 if small else 2)
    walk.norm_relu()
    if not small:
        walk.max_pool(arch.stem_pool)
    for stage, num_blocks in enumerate(arch.blocks):
        for block in range(num_blocks):
            _walk_dual_path_block(walk, arch, stage, first=block == 0)
    walk.norm_relu()


def _walk_dual_path_block(walk: _Walk, arch: DPNArch, stage: int, *, first: bool) -> None:
    """`DualPathBlock`: a stage's first projects the state; all have a branch, and append."""
    base, middle = 64 * arch.base_factor * 2**stage, arch.k_r * 2**stage
    increment = arch.dense_increment[stage]
    stride = 2 if first and stage > 0 else 1
    state = walk.channels
    if first:
        before = walk.channels, walk.height, walk.width
        walk.norm_relu()
        walk.conv(base + 2 * increment, 1, stride=stride)
        state = walk.channels
        walk.channels, walk.height, walk.width = before
        walk.map_is_kept = True  # by the projection's BatchNorm
    walk.norm_relu()
    walk.conv(middle, 1)
    walk.norm_relu()
    walk.conv(middle, 3, stride=stride, groups=arch.groups)
    walk.norm_relu()
    walk.conv(base + increment, 1)
    walk.append(state + increment)
