"""Weights by class, and epochs in which all classes come alike often."""

from __future__ import annotations

import numpy as np
import pytest

from densepath.data.augment import Augment
from densepath.data.balance import class_weights, draw_balanced, image_weights, positive_weights
from densepath.data.loader import TrainLoader
from densepath.images.preprocess import Preprocess

AUGMENT = Augment(Preprocess((8, 8)), crop="pad_crop", padding=2, hflip=0.5)


class Labelled:
    """Images of noise with given targets."""

    named, groups, description = True, None, "noise"

    def __init__(self, targets):
        self.targets = np.asarray(targets)
        self.multi_label = self.targets.ndim == 2
        count = self.targets.shape[1] if self.multi_label else int(self.targets.max()) + 1
        self.class_names = [str(number) for number in range(count)]

    def __len__(self):
        return len(self.targets)

    def target(self, index):
        return self.targets[index] if self.multi_label else int(self.targets[index])

    def path(self, index):
        return f"{index}.png"

    def load(self, index):
        from densepath.data.dataset import Sample

        noise = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)
        return Sample(noise, self.target(index), self.path(index))


SKEWED = Labelled([0] * 90 + [1] * 9 + [2])
SEVERAL = Labelled(
    np.array([[1, 0]] * 8 + [[1, 1]] * 2 + [[0, np.nan]] * 10, np.float32),
)


def test_balanced_weights_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    expected = sklearn.compute_class_weight("balanced", classes=np.arange(3), y=SKEWED.targets)
    np.testing.assert_allclose(class_weights(SKEWED), expected)


def test_positive_weights_are_noes_over_yeses_that_are_known():
    np.testing.assert_allclose(positive_weights(SEVERAL), [10 / 10, 8 / 2])


def test_a_class_that_has_no_yes_weighs_as_others():
    assert positive_weights(Labelled(np.array([[0, 1], [0, 0]], np.float32))).tolist() == [1, 1]


def test_classes_come_alike_often():
    weights = image_weights(SKEWED)
    drawn = np.concatenate([draw_balanced(weights, 0, epoch) % 100 for epoch in range(60)])
    shares = np.bincount(SKEWED.targets[drawn]) / len(drawn)
    np.testing.assert_allclose(shares, [1 / 3] * 3, atol=0.02)


def test_an_image_of_several_classes_weighs_as_its_rarest_and_those_of_none_are_a_class():
    weights = image_weights(SEVERAL)
    np.testing.assert_allclose(weights[[0, 8, 10]] / weights[0], [1, 10 / 2, 10 / 10])


def test_each_time_that_an_image_comes_in_an_epoch_it_has_another_number():
    drawn = draw_balanced(image_weights(SKEWED), 3, 1)
    assert len(set(drawn.tolist())) == 100
    assert (drawn % 100 == 99).sum() > 20
    times = np.sort(drawn[drawn % 100 == 99] // 100)
    assert times.tolist() == list(range(len(times)))


def test_the_order_depends_on_seed_and_epoch_alone_and_is_shared_by_any_number_of_processes():
    def order(epoch, **options):
        loader = TrainLoader(SKEWED, AUGMENT, sampler="balanced", **options)
        return [step.tolist() for step in loader.order(epoch)]

    one = order(1, batch_size=24, seed=5)
    assert one == order(1, batch_size=24, seed=5)
    assert one != order(2, batch_size=24, seed=5)
    halves = [order(1, batch_size=12, seed=5, rank=rank, world_size=2) for rank in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == one


def test_a_repeated_image_is_changed_by_other_draws_and_keeps_its_number():
    loader = TrainLoader(SKEWED, AUGMENT, batch_size=100, seed=1, sampler="balanced")
    (batch,) = loader.epoch(0)
    same = batch.images[batch.indices == 99]
    assert len(same) > 20
    assert batch.indices.max() == 99
    assert len(np.unique(same.numpy().reshape(len(same), -1), axis=0)) > 3
