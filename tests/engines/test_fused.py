"""engines/fused.py: the rewritten networks compute what the plain ones do."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from densepath.engines.eager import EagerEngine
from densepath.engines.fused import fuse
from densepath.images.preprocess import Preprocess
from densepath.models.build import build_model


def stirred(name, **options):
    """A network with statistics away from their first values and logits of order 1 to 10."""
    torch.manual_seed(3)
    model = build_model(name, num_classes=9, **options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.3, 2.0)
            nn.init.uniform_(module.weight, -0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
    with torch.inference_mode():
        largest = model(torch.randn(2, model.in_channels, 64, 64)).abs().max()
    model.classifier.weight.data *= 5 / largest
    return model


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("densenet121", (64, 64), {}),
        ("densenet121", (65, 97), {"stem_pool": "same"}),
        ("densenet_40_12", (32, 32), {}),
        ("densenet_bc_22_12", (33, 40), {"in_channels": 1}),
        ("dpn68", (64, 64), {}),
        ("dpn68", (65, 97), {"stem_pool": "same"}),
        ("dpn92", (48, 48), {"bn_eps": 1e-5}),
        ("dpn68", (32, 32), {"stem": "small"}),
    ],
)
def test_a_fused_network_gives_the_logits_of_the_plain_one_to_1e_4(name, size, options):
    model = stirred(name, **options)
    images = torch.randn(2, model.in_channels, *size)
    with torch.inference_mode():
        wanted = model(images)
        found = fuse(copy.deepcopy(model))(images)
    assert 1 < wanted.abs().max() < 20
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", ["densenet_bc_22_12", "dpn68"])
def test_a_second_run_at_another_size_is_not_touched_by_the_first(name):
    model = stirred(name)
    fused = fuse(copy.deepcopy(model))
    large, small = torch.randn(3, 3, 64, 64), torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        fused(large)
        torch.testing.assert_close(fused(small), model(small), atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(fused(large), model(large), atol=1e-4, rtol=1e-5)


def test_fusing_leaves_the_plain_network_as_it_was():
    model = stirred("densenet_bc_22_12")
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        before = model(images)
        fuse(model)(images)
        torch.testing.assert_close(model(images), before, atol=1e-4, rtol=1e-5)


def test_mean_max_pooling_survives_fusion():
    model = stirred("densenet_bc_22_12")
    model.test_pooling = "mean_max"
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        wanted = model(images)
        torch.testing.assert_close(fuse(model)(images), wanted, atol=1e-4, rtol=1e-5)


PREPROCESS = Preprocess((32, 32))


def test_bfloat16_answers_are_near_those_of_float32():
    model = stirred("densenet_bc_22_12")
    images = torch.randn(4, 3, 32, 32).numpy()
    full = EagerEngine(copy.deepcopy(model), PREPROCESS).run_tensor(images)
    half = EagerEngine(model, PREPROCESS, precision="bfloat16").run_tensor(images)
    assert abs(full - half).max() < 0.05 * abs(full).max()
    assert abs(full - half).max() > 0


def test_a_batch_too_large_for_the_memory_is_halved():
    engine = EagerEngine(stirred("densenet_bc_22_12"), PREPROCESS, mode="latency")
    images = torch.randn(5, 3, 32, 32).numpy()
    wanted, network, sizes = engine.run_tensor(images), engine._network, []

    def limited(batch):
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        return network(batch)

    engine._network = limited
    assert abs(engine.run_tensor(images) - wanted).max() < 1e-4
    assert sizes == [5, 2, 3, 1, 2]
