"""The operations of whole blocks against finite differences, in double."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from densepath.training.blocks.portable import PortableOperations
from fixtures.blocks import CPU, WIDTH, fused, images, new_block, new_transition

DOUBLE = PortableOperations(CPU, torch.float64)


def check(module: nn.Module, x: torch.Tensor) -> None:
    """Compare the gradients of x and of all parameters that need one with finite differences."""
    x = x.requires_grad_()
    start = copy.deepcopy(dict(module.named_buffers()))

    def compute(*_):
        for name, buffer in module.named_buffers():
            buffer.copy_(start[name])
        torch.manual_seed(5)
        return fused(module, x, DOUBLE)

    parameters = [part for part in module.parameters() if part.requires_grad]
    assert torch.autograd.gradcheck(compute, (x, *parameters), fast_mode=True)


@pytest.mark.parametrize("bottleneck", [2, 0], ids=["bottleneck", "plain"])
@pytest.mark.parametrize("size", [(2, 5, 7), (1, 3, 2), (3, 1, 1)], ids=str)
def test_a_dense_block_has_the_gradient_of_what_it_computes(bottleneck, size):
    number, *sides = size
    check(new_block(bottleneck, layers=2), images(number, WIDTH, *sides))


@pytest.mark.parametrize("size", [(2, 5, 7), (1, 2, 4), (3, 3, 2)], ids=str)
def test_a_transition_has_the_gradient_of_what_it_computes(size):
    number, *sides = size
    check(new_transition(), images(number, WIDTH, *sides))


def test_dropped_elements_and_samples_have_no_part_in_a_gradient():
    check(new_block(drop_rate=0.4), images(3, WIDTH, 3, 4))
    check(new_block(drop_path=0.4), images(3, WIDTH, 3, 4))
    check(new_block(0, drop_rate=0.3, drop_path=0.3), images(3, WIDTH, 3, 4))


def test_a_norm_with_statistics_of_its_own_corrects_nothing():
    check(new_block().eval(), images(2, WIDTH, 5, 7))
    check(new_transition().eval(), images(2, WIDTH, 5, 7))


@pytest.mark.parametrize("frozen", ["denselayer1.norm1", "denselayer2.norm2", "denselayer3.norm1"])
def test_norms_of_both_kinds_read_the_same_columns(frozen):
    block = new_block()
    block.get_submodule(frozen).eval()
    check(block, images(2, WIDTH, 3, 4))


def test_what_needs_no_gradient_gets_none():
    block = new_block()
    block.denselayer1.requires_grad_(False)
    block.denselayer2.conv2.weight.requires_grad_(False)
    check(block, images(2, WIDTH, 3, 4))
    x = images(2, WIDTH, 3, 4)
    fused(block, x, DOUBLE).sum().backward()
    assert {name for name, part in block.named_parameters() if part.grad is None} == {
        *(f"denselayer1.{name}" for name, _ in block.denselayer1.named_parameters()),
        "denselayer2.conv2.weight",
    }
