"""Maps in bfloat16 between the convolutions of a dense layer, and behind a stem's convolution."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn

from densepath.models.densenet import DenseBlock
from densepath.models.spec import DenseNetArch
from densepath.training.blocks.native import NativeOperations
from densepath.training.blocks.operations import Correction, Gradient, Norm
from densepath.training.blocks.stem import norm_relu_pool
from fixtures.blocks import fused, images, results, used

SIZES = [(4, 9, 13), (5, 2, 3), (3, 1, 1), (1, 8, 8), (2, 31, 7)]


def odd_block(seed: int) -> nn.Module:
    """7 channels and 3 · 5 more, over middles of 35: two whole vectors of 16 and a ragged one."""
    torch.manual_seed(seed)
    arch = DenseNetArch(5, (3,), 7, bottleneck=7)
    return used(DenseBlock(arch, 7, 0.0, [0.0] * 3), seed)


def lower(threads: int) -> NativeOperations:
    return NativeOperations(threads, bfloat16=True)


def random_map(operations, dtype, *shape):
    made = operations.new_map(*shape, dtype=dtype)
    return made.copy_(images(*shape, seed=3))


def random_norm(channels):
    scale, shift, centre = images(3, channels, seed=4).float()
    return Norm(scale.contiguous(), shift.contiguous(), centre.contiguous())


def errors(found, wanted):
    """Of the output and of the norms' statistics; relative, and added up, of all gradients."""
    sums = dict.fromkeys(("output", "running", "gradients"), 0.0)
    for name, exact in wanted.items():
        if exact.is_floating_point():
            kind = name if name == "output" else "running" if "running" in name else "gradients"
            sums[kind] += float((found[name] - exact).norm() / exact.norm().clamp(min=1e-6))
    return torch.tensor(list(sums.values()))


def block_errors(size, seed, threads):
    """Ours and those of the modules within autocast."""
    module, x = odd_block(seed), images(size[0], 7, *size[1:], seed=seed)
    wanted = results(module, x, lambda part, x: part(x))
    module, x = module.float(), x.float()
    with torch.autocast("cpu", torch.bfloat16):
        ours = results(module, x, partial(fused, operations=lower(threads)))
        theirs = results(module, x, lambda part, x: part(x))
    return torch.stack([errors(ours, wanted), errors(theirs, wanted)])


@pytest.mark.parametrize("threads", [1, 3])
def test_a_block_is_as_near_to_double_as_autocast_brings_its_modules(threads):
    found = torch.stack(
        [sum(block_errors(size, seed, threads) for seed in range(8)) for size in SIZES]
    )
    ours, theirs = found[:, 0], found[:, 1]
    assert (ours[:, :2] <= theirs[:, :2]).all(), found
    # Which values the rounding moves over a ReLU's kink is chance, and most of a gradient's error.
    assert ours[:, 2].sum() <= 1.2 * theirs[:, 2].sum(), found


@pytest.mark.parametrize("threads", [1, 3])
def test_two_steps_have_the_same_bits(threads):
    module, x = odd_block(0).float(), images(3, 7, 9, 13).float()
    compute = partial(fused, operations=lower(threads))
    first, second = (results(module, x, compute) for _ in range(2))
    assert all(torch.equal(first[name], part) for name, part in second.items())


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("add", [False, True])
def test_a_rounded_product_is_the_product_rounded_and_has_its_statistics(size, add):
    operations, weight = lower(2), images(35, 20, 1, 1).float()
    x, norm = random_map(operations, torch.float32, *size, 20), random_norm(20)
    out = random_map(operations, torch.bfloat16, *size, 35)
    whole = operations.new_map(*size, 35).copy_(out)
    operations.pointwise(x, norm, weight, whole, add=add)
    found = operations.pointwise(x, norm, weight, out, add=add, statistics=True)
    assert torch.equal(out, whole.bfloat16())
    values = out.double().flatten(0, 2)
    torch.testing.assert_close(found.mean, values.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.variance, values.var(0, correction=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_rounded_gradient_is_read_as_its_values(size):
    operations, weight = lower(2), images(35, 20, 1, 1).float()
    x, norm = random_map(operations, torch.float32, *size, 20), random_norm(20)
    correction = Correction(*images(2, 35, seed=5))
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        data, y = (random_map(operations, torch.bfloat16, *size, 35) for _ in range(2))
        data, y = (operations.new_map(*size, 35, dtype=dtype).copy_(one) for one in (data, y))
        into = operations.new_map(*size, 20)
        gradient = Gradient(data, correction, y)
        found.append((*operations.pointwise_backward(x, norm, weight, gradient, into), into))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


CONVOLUTIONS = [(35, 1, 1), (35, 2, 1), (35, 1, 5), (35, 1, 35), (35, 2, 7)]
IN_PAIRS = [(36, 1, 9), (36, 2, 3), (48, 1, 2)]


@pytest.mark.parametrize(("channels", "stride", "groups"), [*CONVOLUTIONS, *IN_PAIRS])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_rounded_map_is_convolved_as_its_values_and_its_gradient_is_rounded(
    size, channels, stride, groups
):
    """But where bfloat16 is multiplied: of groups of even width, and all that AMX does."""
    operations, (number, height, width) = lower(2), size
    in_pairs = operations.has_bfloat16 and groups > 1 and channels // groups % 2 == 0
    in_squares = operations.has_amx and (stride, groups) != (2, 1)
    is_same = is_near if in_pairs or in_squares else torch.equal
    weight, norm = images(channels, channels // groups, 3, 3).float(), random_norm(channels)
    sides = (number, -(-height // stride), -(-width // stride))
    data = Gradient(random_map(operations, torch.float32, *sides, channels))
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        x = random_map(operations, torch.bfloat16, *size, channels)
        x = operations.new_map(*size, channels, dtype=dtype).copy_(x)
        into = operations.new_map(*size, channels, dtype=dtype)
        out = operations.new_map(*sides, channels)
        convolve = partial(operations.convolve, stride=stride, groups=groups)
        moments = convolve(x, norm, weight, out, statistics=True)
        backward = partial(operations.convolve_backward, stride=stride, groups=groups)
        sums = backward(x, norm, weight, data, into)
        found.append((out, *moments, *sums, into.bfloat16()))
    assert all(is_same(one, other) for one, other in zip(*found, strict=True))


def is_near(one, other):
    """But for what numbers of 8 bits and their products lack."""
    apart = (one.double() - other.double()).abs().max()
    return apart <= max(1e-6, other.double().abs().max() / 64)


@pytest.mark.parametrize("padding", ["pad1", "same"])
@pytest.mark.parametrize("size", [(2, 20, 9, 11), (1, 16, 1, 1), (3, 35, 4, 6)], ids=str)
def test_a_stem_pools_a_rounded_map_as_its_values(size, padding):
    torch.manual_seed(0)
    norm = used(nn.BatchNorm2d(size[1])).float().train(size[2] > 1)
    x = images(*size).bfloat16().to(memory_format=torch.channels_last)
    found = []
    for given in (x, x.float()):
        module, leaf = copy.deepcopy(norm), given.clone().requires_grad_()
        out = norm_relu_pool(module, leaf, padding, lower(3))
        (out * images(*out.shape, seed=2)).sum().backward()
        parts = (out.detach(), leaf.grad.float(), module.weight.grad, module.bias.grad)
        found.append((*parts, module.running_var))
        assert leaf.grad.dtype == given.dtype
    for number, (one, other) in enumerate(zip(*found, strict=True)):
        rounding = 0.01 if number == 1 else 0.0
        torch.testing.assert_close(one, other, rtol=rounding, atol=rounding)
