"""training/loss.py: the multi-label loss, by arithmetic."""

from __future__ import annotations

import math

import pytest
import torch

from densepath.training.loss import Loss, count_known


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


NAN = float("nan")


def weighted(**options):
    return Loss(**{"multi_label": True, "label_smoothing": 0.0, **options})


def test_labels_that_are_not_known_give_no_loss_and_no_gradient():
    logits = torch.tensor([[2.0, -1.0], [0.5, 1.5]], requires_grad=True)
    targets = torch.tensor([[1.0, NAN], [NAN, 0.0]])
    loss = weighted()(logits, targets)
    assert loss.item() == pytest.approx((log_loss(2.0, 1) + log_loss(1.5, 0)) / 2)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all()
    assert (gradient == 0).tolist() == [[False, True], [True, False]]
    assert count_known(targets).item() == 1.0
    assert weighted().count_right(logits, targets).item() == 0.5


def test_where_all_labels_are_known_the_number_of_images_divides():
    assert count_known(torch.zeros(3, 7)).item() == 3.0
    assert count_known(torch.tensor([1, 2])).item() == 2.0


def test_weights_multiply_the_terms_of_their_class():
    logits, targets = torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.0]])
    loss = weighted(class_weights=torch.tensor([3.0, 0.5]), pos_weight=torch.tensor([2.0, 9.0]))
    expected = (3 * 2 * log_loss(2.0, 1) + 0.5 * log_loss(-1.0, 0)) / 2
    assert loss(logits, targets).item() == pytest.approx(expected)
    one = Loss(multi_label=False, label_smoothing=0.0, class_weights=torch.tensor([3.0, 0.5]))
    expected = 3 * torch.nn.functional.cross_entropy(logits, torch.tensor([0])).item()
    assert one(logits, torch.tensor([0])).item() == pytest.approx(expected)


def test_the_focal_loss_is_that_of_its_paper():
    logits, targets = torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, 0.0]])
    right = torch.tensor([2.0, 1.0]).sigmoid()  # of a no: 1 - sigmoid(-1)
    expected = -((1 - right) ** 2 * right.log()).mean().item()
    assert weighted(kind="focal")(logits, targets).item() == pytest.approx(expected)
    one = Loss(multi_label=False, label_smoothing=0.0, kind="focal", gamma=3.0)
    p = logits.softmax(1)[0, 1]
    assert one(logits, torch.tensor([1])).item() == pytest.approx(
        (-((1 - p) ** 3) * p.log()).item(), rel=1e-5
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_focal_loss_of_gamma_0_is_the_cross_entropy(smoothing):
    logits, several = torch.randn(4, 3), torch.tensor([[1.0, 0, NAN]] * 4)
    options = {"label_smoothing": smoothing}
    assert weighted(kind="focal", gamma=0.0, **options)(logits, several) == weighted(**options)(
        logits, several
    )
    one = [
        Loss(multi_label=False, kind=k, gamma=0.0, **options) for k in ("focal", "cross_entropy")
    ]
    mixed = torch.tensor([[0.2, 0.7, 0.1]] * 4)
    for targets in (torch.tensor([0, 1, 2, 0]), mixed):
        assert one[0](logits, targets).item() == pytest.approx(one[1](logits, targets).item())
