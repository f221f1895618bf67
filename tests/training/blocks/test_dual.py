"""A stage of a Dual Path Network as one operation, against its modules in double."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from densepath.models.dpn import DualPathBlock
from densepath.models.spec import DPNArch
from densepath.training.blocks.choose import Arithmetic, Fused, fuse
from densepath.training.blocks.dual import dual_stage
from densepath.training.blocks.portable import PortableOperations
from fixtures.blocks import CPU, WIDTH, assert_close, images, lower_ways, results, used, ways
from fixtures.networks import TINY_DUAL, new_network

# Its residual path has 64 channels in the first stage and 128 in the second, whose stride is 2.
ARCH = DPNArch(
    WIDTH, 3, k_r=4, groups=2, blocks=(2, 2), dense_increment=(3, 2), base_factor=1, stem="small"
)
# The same with middle maps that are wider than the residual path.
WIDE = replace(ARCH, k_r=192)
DOUBLE = PortableOperations(CPU, torch.float64)
AGAIN = PortableOperations(CPU, torch.float64, recomputes=True)
SIZES = [(2, 5, 7), (1, 4, 3), (3, 1, 1)]


def new_stage(stage=0, *, blocks=2, drop_path=0.0, seed=0, arch=ARCH):
    """The blocks of a stage that reads `WIDTH` channels."""
    torch.manual_seed(seed)
    modules, width = [], WIDTH
    for index in range(blocks):
        block = DualPathBlock(arch, stage, width, index == 0, drop_path)
        modules.append(block)
        increment = arch.dense_increment[stage]
        width = block.base + 3 * increment if index == 0 else width + increment
    return used(nn.Sequential(*modules), seed)


def freeze_norms(module, *, every=1):
    """Put every so many'th BatchNorm into evaluation mode, as a frozen one is."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms[::every]:
        norm.eval()
    return module


def fused(module, x, operations=DOUBLE):
    """The blocks of `module` as one operation."""
    return dual_stage(list(module), x, operations)


def maps(size):
    """Images of `WIDTH` channels."""
    number, *sides = size
    return images(number, WIDTH, *sides)


def both_ways(module, x, way):
    """The results of one step in one operation, and of the modules in double."""
    operations = way.build()
    found = results(
        copy.deepcopy(module).to(way.dtype),
        x.to(way.dtype),
        lambda module, x: fused(module, x, operations),
    )
    return found, results(module, x, lambda module, x: module(x))


@pytest.fixture(autouse=True)
def _one_thread():
    """Maps are small: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=ways(), ids=lambda way: way.name)
def way(request):
    torch.set_num_threads(request.param.threads)
    return request.param


# Of the wide ones seed 0 has a value of 5e-7 before a ReLU, whose sign rounding may turn.
CASES = {
    "batch statistics": new_stage,
    "frozen norms": lambda stage: freeze_norms(new_stage(stage)),
    "every second norm frozen": lambda stage: freeze_norms(new_stage(stage), every=2),
    "every third norm frozen": lambda stage: freeze_norms(new_stage(stage), every=3),
    "drop-path": lambda stage: new_stage(stage, drop_path=0.4),
    "drop-path and frozen norms": lambda stage: freeze_norms(new_stage(stage, drop_path=0.4)),
    "one block": lambda stage: new_stage(stage, blocks=1),
    "three blocks": lambda stage: new_stage(stage, blocks=3),
    "wide middles": lambda stage: new_stage(stage, blocks=3, arch=WIDE, seed=1),
    "wide middles and drop-path": lambda stage: new_stage(stage, drop_path=0.4, arch=WIDE, seed=1),
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("stage", [0, 1], ids=["stride 1", "stride 2"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("operations", [DOUBLE, AGAIN], ids=["kept", "again"])
def test_a_stage_has_the_gradient_of_what_it_computes(case, stage, size, operations):
    module, x = CASES[case](stage), maps(size).requires_grad_()
    start = copy.deepcopy(dict(module.named_buffers()))

    def compute(*_):
        for name, buffer in module.named_buffers():
            buffer.copy_(start[name])
        torch.manual_seed(5)
        return fused(module, x, operations)

    assert torch.autograd.gradcheck(compute, (x, *module.parameters()), fast_mode=True)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("stage", [0, 1], ids=["stride 1", "stride 2"])
@pytest.mark.parametrize("case", CASES)
def test_a_stage_in_one_operation_is_its_modules(case, stage, size, way):
    found, wanted = both_ways(CASES[case](stage), maps(size), way)
    assert_close(found, wanted, way.tolerance)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_the_layout_of_the_images_is_of_no_account(layout, way):
    x = maps((2, 5, 7)).contiguous(memory_format=layout)
    assert_close(*both_ways(new_stage(1), x, way), way.tolerance)


def test_stages_follow_each_other_without_a_copy(way):
    first, second = new_stage(0), used(DualPathBlock(ARCH, 1, 64 + 4 * 3, True, 0.0))
    operations = way.build()
    whole = nn.ModuleList([first, nn.Sequential(second)])
    found = results(
        copy.deepcopy(whole).to(way.dtype),
        maps((2, 5, 7)).to(way.dtype),
        lambda both, x: fused(both[1], fused(both[0], x, operations), operations),
    )
    wanted = results(whole, maps((2, 5, 7)), lambda both, x: both[1](both[0](x)))
    assert_close(found, wanted, way.tolerance)


def test_without_gradients_a_step_moves_the_statistics_alike(way):
    module, x = new_stage(1, drop_path=0.3), maps((2, 5, 7))
    plain, one = copy.deepcopy(module), copy.deepcopy(module).to(way.dtype)
    with torch.no_grad():
        torch.manual_seed(3)
        wanted = {"output": plain(x)} | dict(plain.named_buffers())
        torch.manual_seed(3)
        found = {"output": fused(one, x.to(way.dtype), way.build())} | dict(one.named_buffers())
    assert_close(found, wanted, way.tolerance)


FROZEN = {
    "the first block": lambda name: name.startswith("0."),
    "all but the last projection": lambda name: not name.startswith("1.c1x1_c"),
    "all but the last 3×3": lambda name: not name.startswith("1.c3x3_b"),
    "all but the first projection": lambda name: not name.startswith("0.c1x1_w"),
    "all but one scale of the first block": lambda name: name != "0.c3x3_b.bn.weight",
    "all convolutions": lambda name: name.endswith("conv.weight"),
    "every parameter": lambda _: True,
}


@pytest.mark.parametrize(
    ("case", "reaches"),
    [
        *((case, True) for case in FROZEN),
        *((case, False) for case in FROZEN if "every" not in case),
    ],
)
def test_what_needs_no_gradient_gets_none_and_the_rest_its_own(case, reaches):
    """`reaches`: whether x needs one."""
    module, x = new_stage(1), maps((2, 5, 7))
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(not FROZEN[case](name))

    def gradients(compute):
        own, start = copy.deepcopy(module), x.clone().requires_grad_(reaches)
        out = compute(own, start)
        (out * images(*out.shape, seed=2)).sum().backward()
        return {"x": start.grad} | {name: part.grad for name, part in own.named_parameters()}

    assert_close(gradients(fused), gradients(lambda module, x: module(x)), 1e-9)


class Counting:
    """Operations that count what is asked of them."""

    def __init__(self):
        self.calls = Counter()

    def __getattr__(self, name):
        self.calls[name] += 1
        return getattr(DOUBLE, name)


def test_no_work_is_done_for_blocks_that_need_no_gradient():
    module, counting = new_stage(1, blocks=3), Counting()
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.startswith("2.c3x3_b"))
    fused(module, maps((2, 5, 7)), counting).sum().backward()
    # The last block's c1x1_c, and its c3x3_b.
    assert counting.calls["pointwise_backward"] == 1
    assert counting.calls["convolve_backward"] == 1


def test_frozen_norms_cost_no_statistics_and_no_corrections():
    counting = Counting()
    x = maps((2, 5, 7)).requires_grad_()
    fused(freeze_norms(new_stage(1)), x, counting).sum().backward()
    assert not {"moments", "correct"} & counting.calls.keys()


def test_a_graph_that_is_kept_gives_the_same_twice():
    module, x = new_stage(1, drop_path=0.4), maps((2, 5, 7)).requires_grad_()
    total = fused(module, x).square().sum()
    inputs = (x, *module.parameters())
    once = torch.autograd.grad(total, inputs, retain_graph=True)
    again = torch.autograd.grad(total, inputs)
    assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))


def test_a_second_derivative_is_refused():
    x = maps((2, 5, 7)).requires_grad_()
    total = fused(new_stage(), x).square().sum()
    (gradient,) = torch.autograd.grad(total, x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("name", ["0.c1x1_w.conv", "0.c3x3_b.conv", "1.c1x1_c.conv"])
def test_a_weight_that_is_changed_before_the_backward_pass_is_noticed(name):
    module = new_stage()
    total = fused(module, maps((2, 5, 7))).sum()
    with torch.no_grad():
        module.get_submodule(name).weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def kept_bytes(module, x, compute):
    """What a forward pass keeps for the backward pass, but for parameters, and its output."""
    storages = {}
    own = {part.untyped_storage().data_ptr() for part in module.parameters()}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = tensor, storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = compute(module, x)
    return sum(size for _, size in storages.values()), out


@pytest.mark.parametrize(("blocks", "share"), [(4, 0.6), (8, 0.55)])
def test_what_is_kept_grows_linearly_with_the_blocks(blocks, share):
    module, x = new_stage(1, blocks=blocks), maps((2, 16, 16))
    kept, out = kept_bytes(module, x, fused)
    plain, _ = kept_bytes(module, x, lambda module, x: module(x))
    base, middle, pixels = 128, 8, 2 * 8 * 8
    state = base + (blocks + 2) * 2
    channels = state + (blocks - 1) * base + 2 * blocks * middle
    # The first c1x1_a reads all pixels, and so does x.
    exact = 8 * (channels * pixels + 3 * pixels * middle + 4 * pixels * WIDTH)
    assert exact <= kept <= exact * 1.02
    assert out.shape[1] == state
    assert kept < share * plain


@pytest.mark.parametrize("stage", [0, 1], ids=["stride 1", "stride 2"])
@pytest.mark.parametrize(("arch", "width"), [(ARCH, 4), (WIDE, 64)], ids=["middles", "paths"])
def test_what_can_be_computed_again_is_not_kept(stage, arch, width):
    module, x = new_stage(stage, blocks=5, arch=arch), maps((2, 16, 16))
    kept, out = kept_bytes(module, x, partial(fused, operations=AGAIN))
    pixels = out[:, 0].numel()
    # Of each block but the first the narrower of both, which are twice as wide in the second stage.
    exact = 8 * (pixels * (out.shape[1] + 4 * width * 2**stage) + x.numel())
    assert exact <= kept <= exact * 1.02


def compared(network, x):
    """A step of a network in double as its modules compute it, and with its stages fused."""
    wanted = results(network, x, lambda network, x: network(x))
    counting = Counting()
    fuse(network, Fused(Arithmetic(counting, counting, torch.float64, ""), pytest.fail))
    found = results(network, x, lambda network, x: network(x))
    assert counting.calls["convolve"] == sum(network.spec.arch.blocks)
    return found, wanted


@pytest.mark.parametrize("drop_path_rate", [0.0, 0.5])
def test_a_small_network_with_fused_stages_is_its_modules(drop_path_rate):
    network = used(new_network(TINY_DUAL, drop_path_rate=drop_path_rate))
    assert_close(*compared(network, images(3, 3, 9, 14)), 1e-9)


def test_dpn68_with_fused_stages_is_its_modules():
    assert_close(*compared(used(new_network("dpn68")), images(2, 3, 64, 96)), 1e-9)


def errors(found, wanted):
    """The relative errors of the output, and of all gradients together."""
    sizes = {
        name: float((found[name].double() - part).norm() / part.norm().clamp(min=1e-6))
        for name, part in wanted.items()
        if part.is_floating_point() and "running" not in name
    }
    return torch.tensor([sizes.pop("output"), sum(sizes.values())])


@pytest.mark.parametrize("way", lower_ways(), ids=lambda way: way.name)
@pytest.mark.parametrize("stage", [0, 1], ids=["stride 1", "stride 2"])
def test_in_bfloat16_a_stage_is_as_near_to_double_as_autocast_brings_its_modules(stage, way):
    lower = way.build()
    ours, theirs = torch.zeros(2), torch.zeros(2)
    for seed in range(8):
        module, x = new_stage(stage, blocks=3, seed=seed), images(4, WIDTH, 9, 8, seed=seed)
        wanted = results(module, x, lambda module, x: module(x))
        module, x = module.float(), x.float()
        with torch.autocast("cpu", torch.bfloat16):
            ours += errors(results(module, x, lambda m, x: fused(m, x, lower)), wanted)
            theirs += errors(results(module, x, lambda m, x: m(x)), wanted)
    assert ours[0] <= theirs[0]
    # Which values the rounding moves over a ReLU's kink is chance, and most of a gradient's error.
    assert ours[1] <= 1.2 * theirs[1]
