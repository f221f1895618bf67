"""Blocks of several processes whose BatchNorms count all their images, against the modules of one.

The processes are threads here; `test_synced_processes.py` has real ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from densepath.models.dpn import DPN, DualPathStage
from densepath.models.layers import StemMaxPool
from densepath.models.spec import DPNArch, ModelSpec
from densepath.models.stages import Stage, StemStage
from densepath.training.blocks.choose import Arithmetic, Fused, choose_arithmetic
from densepath.training.blocks.portable import PortableOperations
from densepath.training.distributed import Ranks
from densepath.training.sync_bn import synchronise
from fixtures.blocks import CPU, WIDTH, assert_close, images, new_block, new_transition, used, ways
from fixtures.networks import new_network
from fixtures.ranks import ThreadRanks, in_threads

SHARES = [(2, 2), (3, 1), (4, 0), (0, 1, 3)]
DUAL = ModelSpec("dual", DPNArch(8, 3, 16, 4, (1, 2), (4, 8), 1, stem="small"), 32, "none")


def new_stage() -> Stage:
    """A stage of two blocks that halves its maps."""
    network = new_network(DUAL)
    assert isinstance(network, DPN)
    stage = list(network.features.stages.values())[-1]
    assert type(stage) is DualPathStage
    return used(stage)


def new_stem() -> Stage:
    """BatchNorm, ReLU and max-pool."""
    return used(StemStage(nn.BatchNorm2d(WIDTH), nn.ReLU(), StemMaxPool("pad1")))


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "bottleneck": lambda: new_block(layers=2),
    "plain layers": lambda: new_block(0, layers=2),
    "transition": new_transition,
    "stage": new_stage,
    "stem": new_stem,
}


def width_of(block: nn.Module) -> int:
    """The channels that a block reads."""
    return next(part.num_features for part in block.modules() if isinstance(part, nn.BatchNorm2d))


def step(block: nn.Module, x: Tensor, weights: Tensor, compute: Callable) -> dict[str, Tensor]:
    """Of one step of a copy: output, the gradients that there are, and what the norms keep."""
    block = copy.deepcopy(block)
    x = x.clone().requires_grad_()
    out = compute(block, x)
    (out * weights).sum().backward()
    named = {"output": out.detach(), "input": x.grad}
    named |= {f"{name} (gradient)": part.grad for name, part in block.named_parameters()}
    return named | dict(block.named_buffers())


def fused_by(operations, dtype: torch.dtype) -> Fused:
    """What computes blocks by these operations, and fails where their modules would have to."""
    return Fused(Arithmetic(operations, operations, dtype, ""), pytest.fail)


def steps_of(block: nn.Module, x: Tensor, weights: Tensor, shares, way) -> list[dict[str, Tensor]]:
    """The step of each process, which has so many of the images; by rank."""
    synced = copy.deepcopy(block).to(way.dtype)
    synchronise(synced, CPU)
    parts = list(zip(x.to(way.dtype).split(shares), weights.split(shares), strict=True))

    def take(ranks: ThreadRanks) -> dict[str, Tensor]:
        """One process's."""
        fused = fused_by(way.build(ranks=ranks), way.dtype)
        return step(synced, *parts[ranks.rank], fused)

    return in_threads(len(shares), take)[0]


def joined(steps: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """What all processes have computed: images side by side, gradients of parameters added up.

    Statistics have to be the same bits in all.
    """
    named = {}
    for name, first in steps[0].items():
        each = [found[name] for found in steps]
        if name in ("output", "input"):
            named[name] = torch.cat(each)
        elif name.endswith("(gradient)"):
            named[name] = torch.stack(each).sum(0)
        else:
            assert all(torch.equal(one, first) for one in each), name
            named[name] = first
    return named


@pytest.mark.parametrize("shares", SHARES, ids=str)
@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("way", ways(), ids=lambda way: way.name)
def test_processes_compute_together_what_one_does(way, name, shares):
    block = BLOCKS[name]()
    x = images(4, width_of(block), 6, 7)
    out = copy.deepcopy(block)(x)
    weights = images(*out.shape, seed=2)
    wanted = step(block, x, weights, lambda block, x: block(x))
    torch.set_num_threads(way.threads)
    found = joined(steps_of(block, x, weights, shares, way))
    assert_close(found, wanted, way.tolerance)


@pytest.mark.parametrize("frozen", ["norm1", "norm2"])
def test_a_frozen_norm_has_its_own_statistics_beside_others_that_count_together(frozen):
    block = new_block(layers=2)
    block.denselayer2.get_submodule(frozen).eval()
    x = images(4, WIDTH, 5, 7)
    weights = images(4, WIDTH + 8, 5, 7, seed=2)
    wanted = step(block, x, weights, lambda block, x: block(x))
    for way in ways():
        found = joined(steps_of(block, x, weights, (3, 1), way))
        assert_close(found, wanted, way.tolerance)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("mode", ["train", "frozen", "eval"])
def test_a_norm_exchanges_once_each_way_and_one_that_learns_nothing_never(name, mode):
    block = BLOCKS[name]()
    norms = [part for part in block.modules() if isinstance(part, nn.BatchNorm2d)]
    synchronise(block, CPU)
    for norm in norms if mode == "eval" else norms[:1] if mode == "frozen" else []:
        norm.eval()
    x = images(2, width_of(block), 6, 7)

    def take(ranks: ThreadRanks) -> None:
        """A step, of one image."""
        fused = fused_by(PortableOperations(CPU, torch.float64, ranks=ranks), torch.float64)
        own = copy.deepcopy(block)
        fused(own, x[ranks.rank :][:1].requires_grad_()).square().sum().backward()

    _, meeting = in_threads(2, take)
    assert meeting.num_exchanges == 2 * sum(norm.training for norm in norms)


@pytest.mark.parametrize("shares", [(3, 1), (4, 0)], ids=str)
def test_one_value_a_channel_is_enough_where_others_have_more(shares):
    """The modules of one process refuse that; all processes have to choose alike."""
    block = new_block(layers=2)
    x, weights = images(4, WIDTH, 1, 1), images(4, WIDTH + 8, 1, 1, seed=2)
    wanted = step(block, x, weights, lambda block, x: block(x))
    for way in ways():
        assert_close(joined(steps_of(block, x, weights, shares, way)), wanted, way.tolerance)


def test_a_mean_far_from_zero_costs_no_digits():
    """Of values about 10⁶ a difference of squares would leave four digits of a variance."""
    block, way = new_transition(), ways()[0]
    x = images(4, WIDTH, 4, 4) + 1e6
    weights = images(4, WIDTH // 2, 2, 2, seed=2)
    wanted = step(block, x, weights, lambda block, x: block(x))
    assert_close(joined(steps_of(block, x, weights, (3, 1), way)), wanted, 1e-8)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_only_norms_that_count_together_are_computed_together(device):
    """Those of either kind: torch's own are the ones on a GPU."""
    plain, synced = new_transition(), new_transition()
    synchronise(synced, torch.device(device))
    x = images(2, WIDTH, 4, 4)
    for ranks, block, other in ((Ranks(), plain, synced), (Ranks(0, 2), synced, plain)):
        said: list[str] = []
        operations = PortableOperations(CPU, torch.float64, ranks=ranks)
        fused = Fused(Arithmetic(operations, operations, torch.float64, ""), said.append)
        assert fused(block.eval(), x) is not None
        assert fused(other, x) is None
        kind = type(other.norm).__name__
        assert f"norm is another {kind} than densepath's" in said[0]


def test_all_operations_of_a_device_count_the_images_of_the_same_processes():
    ranks = Ranks(1, 3)
    for dtype in (torch.float32, torch.float64):
        chosen = choose_arithmetic(CPU, dtype, ranks)
        assert chosen.operations.ranks is chosen.lower.ranks is ranks
        assert chosen.synced
    assert not choose_arithmetic(CPU, torch.float64).synced
