"""The operations of blocks against their modules, computed in double, away from ReLU's kink."""

from __future__ import annotations

import pytest
import torch

from fixtures.blocks import (
    WIDTH,
    assert_close,
    fused,
    images,
    new_block,
    new_transition,
    results,
    ways,
)

MODULES = {
    "bottleneck": new_block,
    "plain layers": lambda: new_block(0),
    "dropout": lambda: new_block(drop_rate=0.3),
    "drop-path": lambda: new_block(drop_path=0.3),
    "both": lambda: new_block(0, drop_rate=0.3, drop_path=0.3),
    "transition": new_transition,
}


@pytest.fixture(params=ways(), ids=lambda way: way.name)
def way(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param.threads)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("size", [(4, 5, 7), (1, 8, 8), (5, 2, 3)], ids=str)
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", MODULES)
def test_one_operation_computes_what_the_modules_do(way, name, mode, size):
    """Output, every gradient, running statistics, and what is left of the random numbers."""
    module = MODULES[name]().train(mode == "train")
    number, *sides = size
    x = images(number, WIDTH, *sides)
    wanted = results(module, x, lambda part, x: part(x))
    operations = way.build()
    found = results(
        module.to(way.dtype), x.to(way.dtype), lambda part, x: fused(part, x, operations)
    )
    assert_close(found, wanted, way.tolerance)
