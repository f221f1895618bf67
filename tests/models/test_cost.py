"""What a network costs: the arithmetic of `cost.py` against the modules as PyTorch runs them."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from densepath.errors import UsageError
from densepath.images.preprocess import MOST_PIXELS
from densepath.models.build import Model, build_model, resolve_spec
from densepath.models.catalogue import CATALOGUE, find_spec
from densepath.models.cost import Cost, count_cost, count_layers
from densepath.models.spec import LARGEST_SIDE, DenseNetArch, DPNArch, ModelSpec, to_sides

# Trainable parameters and multiply-accumulates at 224 x 224, counted in PaddleClas 2.6, MindCV
# 0.3 and timm on their own modules (convolutions and classifier).
UPSTREAM = {
    "densenet121": (7978856, 2834161664),
    "densenet161": (28681000, 7727907072),
    "densenet169": (14149480, 3359843328),
    "densenet201": (20013928, 4291365888),
    "densenet264": (33337704, 5751653376),
    "dpn68": (12611602, 2326163456),
    "dpn68b": (12611602, 2326163456),
    "dpn92": (37668392, 6501684224),
    "dpn98": (61570728, 11671217152),
    "dpn107": (86917800, 18298764288),
    "dpn131": (79254504, 16013648896),
}
# Table 2 of arXiv:1608.06993 prints millions with one decimal.
PAPER_MILLIONS = {
    "densenet_40_12": 1.0,
    "densenet_100_12": 7.0,
    "densenet_100_24": 27.2,
    "densenet_bc_100_12": 0.8,
    "densenet_bc_250_24": 15.3,
    "densenet_bc_190_40": 25.6,
}


def measure_cost(model: Model, size: tuple[int, int]) -> Cost:
    """The cost of an image, counted by hooks while two of them pass the module in training.

    The model is on the device `meta`, where tensors have shapes and no memory.
    """
    images = torch.empty(2, model.in_channels, *size, device="meta")
    macs, activations = [], []

    def count(module, _, output):
        macs.append(output.numel() * module.weight[0].numel())
        activations.append(output.numel())

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    own = {p.untyped_storage()._cdata for p in [*model.parameters(), *model.buffers()]}
    kept = {}

    def pack(tensor):
        key = tensor.untyped_storage()._cdata
        if key not in own:
            kept[key] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model.train()(images).sum()
        kept_bytes = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del loss  # the graph lives until here: a freed address may be used again
    parameters = sum(p.numel() for p in model.parameters())
    return Cost(parameters, sum(macs) // 2, sum(activations) // 2, kept_bytes // 2, 12 * parameters)


def sizes_of(spec: ModelSpec) -> list[tuple[int, int]]:
    """The published size, and one with odd maps that are not square."""
    least = spec.least_side
    return [(spec.input_size, spec.input_size), (least + 13, 2 * least + 5)]


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_figure_is_the_modules_own_to_the_byte(name):
    for size, classes, channels in zip(sizes_of(find_spec(name)), (1000, 7), (3, 1), strict=True):
        with torch.device("meta"):
            model = build_model(name, num_classes=classes, in_channels=channels)
        counted = count_cost(model.spec, size, num_classes=classes, in_channels=channels)
        assert counted == measure_cost(model, size)


@pytest.mark.parametrize("name", ["dpn92", "densenet121"])
@pytest.mark.parametrize("switch", [{"stem": "small"}, {"stem_pool": "same"}])
def test_the_switches_of_a_row_are_counted_too(name, switch):
    spec = resolve_spec(name, **switch)
    for size in sizes_of(spec):
        with torch.device("meta"):
            model = build_model(spec)
        assert count_cost(spec, size) == measure_cost(model, size)


def test_counting_needs_no_torch():
    code = (
        "import sys; from densepath.models.catalogue import CATALOGUE; "
        "from densepath.models.cost import count_cost; "
        "[count_cost(spec) for spec in CATALOGUE.values()]; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "size is 0; densenet121 needs at least 32 × 32"),
        (-3, "size is -3; densenet121 needs at least"),
        (31, "published for 224 × 224"),
        (10**30, "at most 9,459 × 9,459"),
        ((64, 8), r"size is \(64, 8\); densenet121 needs"),
        ("32", "size is '32'; name a side in whole pixels"),
        (224.0, "name a side in whole pixels"),
        (True, "name a side in whole pixels"),
        ((1, 2, 3), "height and width"),
    ],
)
def test_a_size_that_no_network_takes_is_named_with_those_it_takes(size, words):
    with pytest.raises(UsageError, match=words):
        count_cost(find_spec("densenet121"), size)


def test_the_largest_side_is_that_of_the_largest_image_that_is_read():
    assert math.isqrt(MOST_PIXELS) == LARGEST_SIDE
    assert to_sides([64, 32]) == (64, 32)


@pytest.mark.parametrize("name", UPSTREAM)
def test_parameters_and_macs_equal_those_of_the_upstream_code(name):
    cost = count_cost(find_spec(name), 224)
    assert (cost.parameters, cost.macs) == UPSTREAM[name]


@pytest.mark.parametrize("name", PAPER_MILLIONS)
def test_small_image_densenets_have_the_parameters_of_the_papers_table(name):
    millions = count_cost(find_spec(name), num_classes=10).parameters / 1e6
    assert millions == pytest.approx(PAPER_MILLIONS[name], abs=0.06)


def test_training_memory_counts_what_autograd_keeps_of_a_known_network():
    # One dense layer (k = 2, B = 1) on 4 input maps of 8 x 8, then BN and classifier.
    spec = ModelSpec.from_dict(
        {
            "name": "tiny",
            "family": "densenet",
            "arch": {
                "growth_rate": 2,
                "blocks": [1],
                "stem_width": 4,
                "bottleneck": 1,
                "stem": "small",
            },
            "input_size": 8,
            "paper": "",
        }
    )
    cost = count_cost(spec, 8, num_classes=3)
    pixels = 8 * 8
    maps = {
        "image, kept by the first convolution": 3,
        "its output, kept by norm1": 4,
        "normalised, kept by conv1 and ReLU": 4,
        "middle, kept by norm2": 2,
        "normalised, kept by conv2 and ReLU": 2,
        "concatenation, kept by norm5": 6,
        "output of the last ReLU, kept for its gradient": 6,
    }
    statistics = 2 * (4 + 2 + 6)  # mean and 1/std of each BatchNorm, once for a batch of two
    pooled = 6  # kept by the classifier
    expected = 4 * (sum(maps.values()) * pixels + statistics / 2 + pooled)
    assert cost.training_bytes_per_image == expected
    assert cost.training_bytes(0) == 3 * 4 * cost.parameters


def seen_side(model: Model, name: str, size: int) -> int:
    """How many pixels a side of the image the middle of that module's output depends on.

    Every weight is positive, so that no influence is lost; a mean stands for the max-pool.
    """
    kept: list[torch.Tensor] = []
    module = model.get_submodule(name)
    handle = module.register_forward_hook(lambda _, __, output: kept.append(output))
    image = torch.rand(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    model(image)
    handle.remove()
    [output] = kept
    middle = output[0, :, output.shape[2] // 2, output.shape[3] // 2].sum()
    (gradient,) = torch.autograd.grad(middle, image)
    rows = gradient[0].abs().sum((0, 2)).nonzero()
    return int(rows.max() - rows.min() + 1)


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec("d", DenseNetArch(2, (2, 1, 1), 4), 32, ""),
        ModelSpec("p", DPNArch(4, 7, 4, 2, (2, 1, 1), (2, 2, 2), 1), 32, ""),
        ModelSpec("s", DenseNetArch(2, (2, 2), 4, 0, 1.0, stem="small"), 32, ""),
    ],
    ids=lambda spec: spec.name,
)
def test_receptive_fields_are_those_that_gradients_show(spec):
    model = build_model(spec, num_classes=2).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.abs() + 0.1)
    for name, module in model.named_modules():
        if type(module).__name__ == "StemMaxPool":
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, nn.AvgPool2d(3, 2, padding=1))
    for one in count_layers(spec, 256):
        if one.receptive_field is not None:
            assert seen_side(model, one.layer.name, 256) == one.receptive_field, one.layer.name
