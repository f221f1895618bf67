"""Learning rates, against arithmetic and PyTorch's schedulers."""

from __future__ import annotations

import itertools

import pytest
import torch

from densepath.training.recipe import Recipe
from densepath.training.recipe_file import make_recipe
from densepath.training.schedule import learning_rate

STEPS = 10


def rates(epochs: int, lr: float = 0.1, **schedule) -> list[float]:
    recipe = make_recipe({"epochs": epochs, "optimizer": {"lr": lr}, "schedule": schedule})
    return [learning_rate(recipe, step, STEPS) for step in range(epochs * STEPS)]


def torch_rates(make_scheduler, num_steps: int, lr: float = 0.1) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make_scheduler(optimizer)
    seen = []
    for _ in range(num_steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


def test_cosine_is_pytorchs():
    expected = torch_rates(
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 50, eta_min=1e-6), 50
    )
    assert rates(5, name="cosine", final_lr=1e-6) == pytest.approx(expected, rel=1e-9)


def test_step_drops_every_so_many_epochs_as_pytorchs_does():
    expected = torch_rates(lambda o: torch.optim.lr_scheduler.StepLR(o, 2 * STEPS, 0.1), 60)
    assert rates(6, name="step", step_epochs=2) == pytest.approx(expected, rel=1e-9)


def test_multi_step_drops_at_half_and_three_quarters_of_the_training():
    seen = rates(4, name="multi_step")
    assert seen == pytest.approx([0.1] * 20 + [0.01] * 10 + [0.001] * 10)


def test_one_cycle_starts_low_peaks_at_three_tenths_and_ends_near_zero():
    seen = rates(10, name="one_cycle")
    assert seen[0] == pytest.approx(0.1 / 25)
    assert max(seen) == pytest.approx(0.1)
    assert seen.index(max(seen)) == 30
    assert seen[-1] < 1e-4
    assert seen[:31] == sorted(seen[:31])
    assert seen[30:] == sorted(seen[30:], reverse=True)


def test_warm_up_rises_in_equal_parts_and_then_the_schedule_takes_all_its_course():
    seen = rates(3, name="cosine", warmup_epochs=1)
    steps = [b - a for a, b in itertools.pairwise(seen[:10])]
    assert steps == pytest.approx([0.1 / 11] * 9)
    assert seen[10:] == pytest.approx(rates(2, name="cosine"))


def test_constant_stays_and_warm_up_can_start_above_zero():
    seen = rates(2, name="constant", warmup_epochs=1, warmup_start=0.5)
    assert seen[0] == pytest.approx(0.1 * (0.5 + 0.5 / 11))
    assert seen[10:] == [0.1] * 10


def test_the_default_recipe_has_a_positive_rate_at_every_step():
    recipe = Recipe()
    assert all(learning_rate(recipe, s, STEPS) > 0 for s in range(recipe.epochs * STEPS))
