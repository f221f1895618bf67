"""training/weighting.py: a recipe's loss with its weights by class, for every kind of set."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densepath.data.balance import class_weights, positive_weights
from densepath.errors import RecipeError
from densepath.training.one_vs_rest import OneVsRest
from densepath.training.recipe_sections import LossSection
from densepath.training.weighting import build_loss

CPU = torch.device("cpu")


class Ten:
    """Ten images of three classes: 6, 3 and 1."""

    class_names = ("a", "b", "c")
    multi_label = False
    targets = np.array([0] * 6 + [1] * 3 + [2])

    def __len__(self):
        return len(self.targets)

    def target(self, index):
        return self.targets[index]


def test_a_set_of_one_class_an_image_has_weights_of_its_yeses_too():
    np.testing.assert_allclose(positive_weights(Ten()), [4 / 6, 7 / 3, 9])
    np.testing.assert_allclose(class_weights(Ten()), [10 / 18, 10 / 9, 10 / 3])


def test_one_against_the_rest_takes_all_that_several_labels_take():
    section = LossSection(one_vs_rest=True, pos_weight="balanced", kind="focal", focal_gamma=0.0)
    loss = build_loss(section, Ten(), CPU)
    assert isinstance(loss, OneVsRest)
    logits, targets = torch.randn(10, 3), torch.tensor(Ten.targets)
    wanted = F.binary_cross_entropy_with_logits(
        logits,
        F.one_hot(targets, 3).float(),
        pos_weight=torch.tensor([4 / 6, 7 / 3, 9]),
        reduction="none",
    )
    torch.testing.assert_close(loss(logits, targets), wanted.mean(1).sum())


def test_weights_of_yeses_without_yeses_are_refused_with_what_does_it():
    with pytest.raises(RecipeError, match=r"loss\.one_vs_rest=true"):
        build_loss(LossSection(pos_weight=(1.0, 2.0, 3.0)), Ten(), CPU)
    assert build_loss(LossSection(one_vs_rest=True, pos_weight=(1, 2, 3)), Ten(), CPU)
