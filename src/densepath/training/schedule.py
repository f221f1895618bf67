"""The learning rate as a function of the step: no state, so that a resume needs none."""

from __future__ import annotations

import math

from densepath.training.recipe import Recipe
from densepath.training.recipe_sections import ScheduleSection

# A one-cycle schedule rises for this share of the training (arXiv:1708.07120 has 0.45;
# fast.ai and PyTorch's OneCycleLR settled on 0.3) from 1/25 of the peak.
ONE_CYCLE_RISE = 0.3
ONE_CYCLE_START = 1 / 25


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The learning rate of optimiser step `step`, counted from 0 over the whole training."""
    schedule, peak = recipe.schedule, recipe.optimizer.lr
    warmup_steps = schedule.warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        share = (step + 1) / (warmup_steps + 1)
        return peak * (schedule.warmup_start + (1 - schedule.warmup_start) * share)
    num_steps = recipe.epochs * steps_per_epoch
    if schedule.name == "one_cycle":
        return _one_cycle(schedule, peak, step / num_steps)
    if schedule.name == "cosine":
        return _cosine(peak, schedule.final_lr, (step - warmup_steps) / (num_steps - warmup_steps))
    return peak * schedule.gamma ** _num_drops(schedule, step, steps_per_epoch, num_steps)


def _cosine(start: float, end: float, share: float) -> float:
    """From `start` to `end` along half a cosine (arXiv:1608.03983, equation 5)."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))


def _one_cycle(schedule: ScheduleSection, peak: float, share: float) -> float:
    """Up along half a cosine, then down along another."""
    if share < ONE_CYCLE_RISE:
        return _cosine(peak * ONE_CYCLE_START, peak, share / ONE_CYCLE_RISE)
    return _cosine(peak, schedule.final_lr, (share - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))


def _num_drops(schedule: ScheduleSection, step: int, steps_per_epoch: int, num_steps: int) -> int:
    """How often `gamma` has been applied before this step."""
    if schedule.name == "step":
        return step // (schedule.step_epochs * steps_per_epoch)
    if schedule.name == "multi_step":
        return sum(step >= round(share * num_steps) for share in schedule.milestones)
    return 0
