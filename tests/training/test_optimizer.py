"""What moves, what decays, what is frozen; the average; the loss."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from densepath.errors import RecipeError
from densepath.models.build import build_model
from densepath.training.ema import Ema
from densepath.training.loss import Loss
from densepath.training.optimizer import build_optimizer, clip_gradients, freeze, train_mode
from densepath.training.recipe_sections import OptimizerSection


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model("densenet_bc_22_12", num_classes=3)


def step_once(model, optimizer):
    model(torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))).sum().backward()
    optimizer.step()


def moved(model, before):
    return {
        name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    }


def test_norms_and_biases_do_not_decay_when_asked(model):
    section = OptimizerSection(weight_decay=0.1, decay_norm_and_bias=False)
    decayed, kept = build_optimizer(model, section).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert {p.dim() for p in decayed["params"]} == {2, 4}
    assert {p.dim() for p in kept["params"]} == {1}
    total = len(list(model.parameters()))
    assert len(decayed["params"]) + len(kept["params"]) == total


def test_everything_decays_by_default(model):
    (group,) = build_optimizer(model, OptimizerSection(weight_decay=0.1)).param_groups
    assert group["weight_decay"] == 0.1
    assert len(group["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("name", "part", "kept", "moving"),
    [
        ("densenet_bc_22_12", "stem", "features.conv0", "features.denseblock1"),
        ("densenet_bc_22_12", 1, "features.transition1", "features.denseblock2"),
        ("densenet_bc_22_12", 3, "features.denseblock3", "features.norm5"),
        ("densenet_bc_22_12", "features", "features.norm5", "classifier"),
        ("dpn68", "stem", "features.conv1_1", "features.conv2_1"),
        ("dpn68", 2, "features.conv3_4", "features.conv4_1"),
        ("dpn68", "features", "features.conv5_bn_ac", "classifier"),
    ],
)
def test_frozen_parts_keep_weights_and_statistics(name, part, kept, moving):
    torch.manual_seed(0)
    model = build_model(name, num_classes=3)
    frozen = freeze(model, part)
    train_mode(model, frozen)
    before = copy.deepcopy(model.state_dict())
    step_once(model, build_optimizer(model, OptimizerSection()))
    changed = moved(model, before)
    assert not [n for n in changed if n.startswith(f"{kept}.")]
    assert [n for n in changed if n.startswith(f"{moving}.")]


def test_freezing_nothing_moves_every_tensor(model):
    before = copy.deepcopy(model.state_dict())
    train_mode(model, freeze(model, "nothing"))
    step_once(model, build_optimizer(model, OptimizerSection()))
    assert moved(model, before) >= {name for name, _ in model.named_parameters()}


def test_freezing_more_stages_than_there_are_is_refused(model):
    with pytest.raises(RecipeError, match="has 3 stages"):
        freeze(model, 4)


def test_clipping_leaves_a_gradient_of_the_given_norm(model):
    model(torch.randn(4, 3, 32, 32)).square().sum().mul(100).backward()
    clip_gradients(model, 0.5)
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
    assert norm == pytest.approx(0.5, rel=1e-4)


def test_the_average_follows_its_formula():
    """From 0 towards 1: a decay of 1/10 leaves 1/10 of the way, then 2/11 of that."""
    model = build_model("densenet_bc_22_12", num_classes=3)
    for parameter in model.parameters():
        parameter.data.zero_()
    ema = Ema(model, 0.999)
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
    ema.update(model)
    first = next(ema.model.parameters()).flatten()[0].item()
    ema.update(model)
    second = next(ema.model.parameters()).flatten()[0].item()
    assert first == pytest.approx(1 - 1 / 10)
    assert second == pytest.approx(1 - 1 / 10 * 2 / 11)


def test_the_average_never_forgets_faster_than_its_decay():
    model = build_model("densenet_bc_22_12", num_classes=3)
    ema = Ema(model, 0.05)
    before = ema.model.classifier.weight.clone()
    model.classifier.weight.data.add_(1.0)
    ema.update(model)
    assert torch.allclose(ema.model.classifier.weight, before + 0.95)


def test_the_loss_is_a_sum_and_smoothing_is_arithmetic():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    targets = torch.tensor([0, 0])
    plain = math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))
    assert Loss(multi_label=False, label_smoothing=0)(logits, targets).item() == pytest.approx(
        plain
    )
    # ε = 0.2 moves 0.1 of the target to the other class, whose loss is larger by the logit gap.
    smooth = plain + 0.1 * 2 + 0.1 * -1
    assert Loss(multi_label=False, label_smoothing=0.2)(logits, targets).item() == pytest.approx(
        smooth
    )


def test_the_multi_label_loss_is_the_mean_over_classes_summed_over_images():
    logits, targets = torch.zeros(3, 4), torch.tensor([[1.0, 0, 0, 1]] * 3)
    loss = Loss(multi_label=True, label_smoothing=0)
    assert loss(logits, targets).item() == pytest.approx(3 * math.log(2))
    assert loss.chance_level(4) == pytest.approx(math.log(2))
    assert loss.count_right(targets * 2 - 1, targets).item() == 3


def test_a_mixed_image_counts_as_right_for_its_larger_part():
    soft = torch.tensor([[0.7, 0.3], [0.4, 0.6]])
    loss = Loss(multi_label=False, label_smoothing=0)
    assert loss.count_right(torch.tensor([[1.0, 0], [1.0, 0]]), soft).item() == 1
