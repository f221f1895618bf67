"""training/loss.py: the multi-label loss, by arithmetic."""

from __future__ import annotations

import math

import pytest
import torch

from densepath.training.loss import Loss


def log_loss(logit: float, target: float) -> float:
    """−t ln σ(x) − (1 − t) ln(1 − σ(x)), and ln(1 − σ(x)) = ln σ(x) − x."""
    sure = -math.log(1 + math.exp(-logit))
    return -target * sure - (1 - target) * (sure - logit)


@pytest.mark.parametrize(
    ("smoothing", "low", "high"), [(0.0, 0.0, 1.0), (0.2, 0.1, 0.9), (0.5, 0.25, 0.75)]
)
def test_smoothing_moves_the_labels_of_an_image_halfway_to_one_another(smoothing, low, high):
    logits = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 0.25, 1.0]])
    targets = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    wanted = sum(
        log_loss(x, high if t else low)
        for x, t in zip(logits.flatten().tolist(), targets.flatten().tolist(), strict=True)
    )
    loss = Loss(multi_label=True, label_smoothing=smoothing)
    assert loss(logits, targets).item() == pytest.approx(wanted / 3)


def test_right_decisions_are_counted_by_the_sign_of_the_logit_smoothed_or_not():
    logits = torch.tensor([[0.3, -0.3, 4.0, -4.0], [0.3, 0.3, 0.3, 0.3]])
    targets = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    for smoothing in (0.0, 0.4):
        loss = Loss(multi_label=True, label_smoothing=smoothing)
        assert loss.count_right(logits, targets).item() == 3 / 4 + 1 / 4


def test_a_network_of_one_class_is_measured_against_two():
    """Cross-entropy has no chance level of 0, which no loss could be above."""
    one = Loss(multi_label=False, label_smoothing=0.0)
    assert one.chance_level(1) == one.chance_level(2) == pytest.approx(math.log(2))
    assert one.chance_level(3) == pytest.approx(math.log(3))


def test_a_mixed_image_is_right_where_its_larger_part_is_among_any_number_of_classes():
    loss = Loss(multi_label=False, label_smoothing=0.0)
    mixed = torch.tensor([[0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    assert loss.count_right(torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), mixed).item() == 1
    assert loss.count_right(torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), mixed).item() == 2
