"""What every engine must do, whatever the runtime; a new engine is one more line in ENGINES."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn

from densepath.engines.eager import EagerEngine
from densepath.engines.null import NullEngine
from densepath.errors import UsageError
from densepath.models.build import build_model

CLASSES, SIDE = 7, 32


def stir(model):
    """Weights and statistics away from their first values, negative scales included."""
    torch.manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.3, 2.0)
            nn.init.uniform_(module.weight, -0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 1.0)
    return model.eval()


def eager_engine():
    return EagerEngine(stir(build_model("densenet_bc_22_12", num_classes=CLASSES)))


def eager_engine_of(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return eager_engine()
    finally:
        torch.set_num_threads(before)


def eager_dpn():
    return EagerEngine(stir(build_model("dpn68", num_classes=CLASSES)))


ENGINES = {
    "null": lambda: NullEngine(num_classes=CLASSES),
    "eager, 1 thread": lambda: eager_engine_of(1),
    "eager, 3 threads": lambda: eager_engine_of(3),
    "eager, DPN": eager_dpn,
}


def images(count, seed=0):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((count, 3, SIDE, SIDE), dtype=np.float32)


@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    made = ENGINES[request.param]()
    yield made
    made.close()
    made.close()


def test_logits_are_float32_with_one_row_an_image_and_one_column_a_class(engine):
    logits = engine.run(images(3))
    assert logits.dtype == np.float32
    assert logits.shape == (3, CLASSES)
    assert engine.info.num_classes == CLASSES


def test_no_images_give_no_logits(engine):
    assert engine.run(images(0)).shape == (0, CLASSES)


def test_an_image_is_answered_alike_in_any_batch(engine):
    batch = images(5)
    alone = np.concatenate([engine.run(batch[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(engine.run(batch), alone, atol=1e-4)


def test_the_images_are_left_as_they_were(engine):
    batch = images(2)
    before = batch.copy()
    engine.run(batch)
    np.testing.assert_array_equal(batch, before)


def test_logits_stay_as_they_were_when_the_engine_runs_again(engine):
    first = engine.run(images(2))
    kept = first.copy()
    engine.run(images(2, seed=1))
    np.testing.assert_array_equal(first, kept)


def test_images_in_another_order_of_memory_are_taken(engine):
    batch = images(2)
    last = np.ascontiguousarray(batch.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(engine.run(last), engine.run(batch), atol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((1, 4, SIDE, SIDE), np.float32),
        np.zeros((3, SIDE, SIDE), np.float32),
        np.zeros((1, 3, SIDE, SIDE), np.uint8),
    ],
    ids=["channels", "no batch", "uint8"],
)
def test_a_batch_of_another_kind_is_refused_with_what_is_taken(engine, wrong):
    with pytest.raises(UsageError, match=r"takes float32 \[N, 3, height, width\]"):
        engine.run(wrong)


def test_threads_that_share_an_engine_get_their_own_answers(engine):
    batches = [images(2, seed) for seed in range(6)]
    wanted = [engine.run(batch) for batch in batches]
    found = [None] * 6

    def work(i):
        found[i] = engine.run(batches[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_an_engine_leaves_the_threads_of_torch_as_they_were(engine):
    before = torch.get_num_threads()
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    engine.run(images(5))
    thread.start()
    thread.join()
    assert [torch.get_num_threads(), *found] == [before, before]
