"""The plan of a network against its modules: names, shapes, order, what reads what."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from densepath.models.build import build_model
from densepath.models.catalogue import CATALOGUE
from densepath.models.layers import StemMaxPool, norm_factors
from densepath.models.plan import plan, stage_of, tensor_shapes
from densepath.models.spec import DenseNetArch, DPNArch, ModelSpec

PLAIN = ModelSpec("plain", DenseNetArch(5, (2, 3), 7, bottleneck=0, stem="small"), 32, "none")
WIDE = ModelSpec("wide", DenseNetArch(6, (2, 2, 1), 8, stem_pool="same"), 64, "none")
DUAL = ModelSpec("dual", DPNArch(6, 3, 8, 4, (2, 1), (4, 6), 1, stem="small"), 32, "none")
LARGE = ModelSpec("large", DPNArch(6, 7, 8, 4, (1, 2), (4, 6), 1), 64, "none")
OWN = [PLAIN, WIDE, DUAL, LARGE]


@pytest.mark.parametrize("spec", [*CATALOGUE.values(), *OWN], ids=lambda spec: spec.name)
def test_shapes_and_their_order_are_those_of_the_modules(spec):
    with torch.device("meta"):
        state = build_model(spec, num_classes=11, in_channels=2).state_dict()
    expected = {
        name: tuple(tensor.shape)
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }
    assert list(tensor_shapes(spec, 11, 2).items()) == list(expected.items())


@pytest.mark.parametrize("spec", [*CATALOGUE.values(), *OWN], ids=lambda spec: spec.name)
def test_kernels_strides_and_groups_are_those_of_the_modules(spec):
    with torch.device("meta"):
        modules = dict(build_model(spec, num_classes=11).named_modules())
    weighty = [n for n, m in modules.items() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [layer.name for layer in plan(spec)] == weighty
    for layer in plan(spec)[:-1]:
        conv = modules[layer.name]
        assert (layer.kernel, layer.kernel) == conv.kernel_size
        assert (layer.stride, layer.stride) == conv.stride
        assert (layer.groups, layer.outputs) == (conv.groups, conv.out_channels)
        assert (layer.kernel // 2, layer.kernel // 2) == conv.padding
    pools = [layer.pool for layer in plan(spec) if layer.pool]
    assert pools == [m.padding for m in modules.values() if isinstance(m, StemMaxPool)]


def run_plan(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The logits by the plan alone: its words on reading and writing, and the modules' tensors."""
    modules = dict(model.named_modules())

    def norm_relu(x, name):
        scale, shift = (part.float()[None, :, None, None] for part in norm_factors(modules[name]))
        return (x * scale + shift).relu()

    state = entered = last = images
    part = ""
    for layer in plan(model.spec):
        if layer.part != part:
            part, entered = layer.part, state
        x = entered if layer.reads == "state" else last
        x = norm_relu(x, layer.before) if layer.before else x
        if layer.kind == "classifier":
            return modules["classifier"](x.mean((2, 3)))
        x = F.conv2d(
            x,
            modules[layer.name].weight,
            stride=layer.stride,
            padding=layer.kernel // 2,
            groups=layer.groups,
        )
        x = norm_relu(x, layer.behind) if layer.behind else x
        x = StemMaxPool(layer.pool)(x) if layer.pool else x
        last = F.avg_pool2d(x, 2) if layer.averaged else x
        if layer.writes == "opens":
            state = last
        elif layer.writes != "nothing":
            base = layer.base
            total = state[:, :base] + last[:, :base]
            state = torch.cat([total, state[:, base:], last[:, base:]], 1)
    raise AssertionError("a plan ends with the classifier")


@pytest.mark.parametrize("spec", OWN, ids=lambda spec: spec.name)
def test_what_the_plan_says_computes_the_network(spec):
    torch.manual_seed(0)
    model = build_model(spec, num_classes=5).train()
    images = torch.randn(4, 3, spec.input_size, spec.input_size + 3)
    with torch.no_grad():
        for _ in range(3):  # running statistics of their own
            model(images + torch.rand(1))
        model.eval()
        np.testing.assert_allclose(run_plan(model, images), model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "stages"),
    [
        (
            CATALOGUE["densenet121"],
            {"conv0": 0, "norm0": 0, "pool0": 0, "denseblock2": 2, "transition3": 3, "norm5": 5},
        ),
        (
            CATALOGUE["dpn92"],
            {"conv1_1": 0, "conv1_pool": 0, "conv2_3": 1, "conv5_1": 4, "conv5_bn_ac": 5},
        ),
        (CATALOGUE["densenet_bc_100_12"], {"conv0": 0, "denseblock3": 3, "norm5": 4}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_stages_are_those_of_the_papers_tables(spec, stages):
    assert {name: stage_of(spec, name) for name in stages} == stages


def test_a_plan_is_made_without_torch():
    code = "import sys, densepath.models.plan; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
