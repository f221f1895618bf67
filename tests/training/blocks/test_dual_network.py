"""A Dual Path Network whose stages are one operation each, and when they are left to modules."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from densepath.models.dpn import DualPathBlock
from densepath.models.intermediates import FeatureNet
from densepath.training.blocks.choose import Arithmetic, Fused, fuse
from densepath.training.blocks.portable import PortableOperations
from fixtures.blocks import CPU, assert_close, images, results, used
from fixtures.networks import TINY_DUAL, new_network

NUM_BLOCKS = sum(TINY_DUAL.arch.blocks)


@pytest.fixture(autouse=True)
def _one_thread():
    """Maps are small: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Convolving(PortableOperations):
    """Operations in double that count their 3×3 convolutions: one a fused block."""

    def __init__(self):
        super().__init__(CPU, torch.float64)
        self.calls = 0

    def convolve(self, *arguments, **options):
        self.calls += 1
        return super().convolve(*arguments, **options)


class Told(list):
    """What is said, a line each."""

    __call__ = list.append


def new_dual(**options):
    """A network in double whose stages are fused, its operations, and what it says."""
    network, operations, told = used(new_network(TINY_DUAL, **options)), Convolving(), Told()
    fuse(network, Fused(Arithmetic(operations, operations, torch.float64, ""), told))
    return network, operations, told


def plain(network):
    """A copy that leaves its stages to the modules."""
    network = copy.deepcopy(network)
    fuse(network, None)
    return network


def step(network, x):
    return results(network, x, lambda network, x: network(x))


def test_a_copy_of_a_network_computes_with_its_own_weights():
    network, operations, _ = new_dual()
    x = images(3, 3, 9, 14)
    before = step(network, x)
    twin = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.25)
    operations.calls = 0
    found = step(twin, x)
    assert operations.calls == NUM_BLOCKS
    assert not torch.equal(found["output"], before["output"])
    assert_close(found, step(plain(twin), x), 1e-9)
    assert_close(step(network, x), before, 0.0)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_intermediates_are_those_of_the_modules(training):
    network, operations, _ = new_dual()
    network.train(training)
    x = images(3, 3, 9, 14)
    last, found = network.forward_intermediates(x)
    assert operations.calls == NUM_BLOCKS
    wanted_last, wanted = plain(network).forward_intermediates(x)
    torch.testing.assert_close(last, wanted_last)
    assert len(found) == len(TINY_DUAL.arch.blocks) + 1
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("points", [(1, 2), (1,)], ids=str)
def test_a_feature_net_gives_the_maps_of_the_modules(points):
    network, _, _ = new_dual()
    wanted = FeatureNet(plain(network), points)(images(3, 3, 9, 14))
    torch.testing.assert_close(FeatureNet(network, points)(images(3, 3, 9, 14)), wanted)


def blocks_of(network):
    return [module for module in network.modules() if type(module) is DualPathBlock]


@pytest.mark.parametrize("place", [0, 1], ids=["first block", "second block"])
def test_a_hook_on_a_block_sees_what_the_block_computes(place):
    network, operations, told = new_dual()
    seen = []
    for one in (network, plain(network)):
        block = blocks_of(one)[place]
        block.register_forward_hook(lambda _, inputs, output: seen.append((*inputs, output)))
        one(images(3, 3, 9, 14))
    torch.testing.assert_close(seen[0], seen[1])
    assert operations.calls == TINY_DUAL.arch.blocks[1]
    assert len(told) == 1
    assert "hooks" in told[0]


def hook_a_norm(network):
    blocks_of(network)[1].c1x1_a.bn.register_forward_hook(lambda *_: None)


def parametrise(network):
    parametrizations.weight_norm(blocks_of(network)[1].c3x3_b.conv)


def take_another_norm(network):
    block = blocks_of(network)[0]
    block.c1x1_c.bn = nn.GroupNorm(1, block.c1x1_c.bn.num_features).double()


@pytest.mark.parametrize("change", [hook_a_norm, parametrise, take_another_norm])
def test_a_stage_with_an_unusual_module_is_left_to_its_modules(change):
    network, operations, told = new_dual()
    change(network)
    x = images(3, 3, 9, 14)
    found = step(network, x)
    assert operations.calls == TINY_DUAL.arch.blocks[1]
    assert len(told) == 1
    step(network, x)
    assert len(told) == 1
    assert_close(found, step(plain(network), x), 1e-9)


class Doubled(nn.Sequential):
    """What its module computes, twice."""

    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("name", ["conv2_1", "conv2_2"])
def test_a_block_that_was_put_in_anothers_place_computes(name):
    network, operations, _ = new_dual()
    before = step(network, images(3, 3, 9, 14))["output"]
    setattr(network.features, name, Doubled(network.features.get_submodule(name)))
    operations.calls = 0
    found = step(network, images(3, 3, 9, 14))
    assert operations.calls == TINY_DUAL.arch.blocks[1]
    assert not torch.allclose(found["output"], before)
    assert_close(found, step(plain(network), images(3, 3, 9, 14)), 1e-9)


@pytest.mark.parametrize("change", ["input", "output"])
def test_a_map_that_is_changed_before_the_backward_pass_is_noticed(change):
    network, _, _ = new_dual()
    maps = network.forward_stages(images(3, 3, 9, 14))
    with torch.no_grad():
        maps[0 if change == "input" else 1].add_(1)
    with pytest.raises(RuntimeError, match=r"modified (by an )?inplace"):
        maps[1].sum().backward()


def test_a_block_that_is_called_by_itself_computes_itself():
    network, operations, _ = new_dual()
    _, second, *_ = blocks_of(network)
    state = images(2, second.c1x1_a.bn.num_features, 5, 7)
    torch.testing.assert_close(second(state), blocks_of(plain(network))[1](state))
    assert operations.calls == 0


@pytest.mark.parametrize("frozen", [0, 1], ids=["first stage", "last stage"])
def test_a_frozen_stage_keeps_its_statistics_and_gets_no_gradients(frozen):
    network, operations, _ = new_dual()
    count = TINY_DUAL.arch.blocks[0]
    for block in blocks_of(network)[count * frozen : count + frozen * NUM_BLOCKS]:
        block.eval().requires_grad_(False)
    x = images(3, 3, 9, 14)
    assert_close(step(network, x), step(plain(network), x), 1e-9)
    assert operations.calls == NUM_BLOCKS


def test_one_value_a_channel_is_refused_as_the_modules_refuse_it():
    network, _, _ = new_dual()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        network(images(1, 3, 2, 2))


def test_a_network_is_traced_by_its_modules():
    network, operations, _ = new_dual()
    network.eval()
    x = images(2, 3, 8, 8)
    program = torch.export.export(network, (x,)).module()
    assert operations.calls == 0
    torch.testing.assert_close(program(x), network(x))
    assert operations.calls == NUM_BLOCKS
