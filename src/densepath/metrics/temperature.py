"""A temperature: what logits are divided by so that scores mean what they say.

Source: Guo et al., arXiv:1706.04599, section 4.2. One number for all classes, fitted on the
likelihood of labelled images; it changes no order of scores within a class.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch

from densepath.metrics.answers import Answers, answer_logits

LOWEST, HIGHEST = 0.05, 20.0
STEPS = 60  # of the golden section: the interval is then 10⁻¹² of what it was


def fit_temperature(answers: Answers) -> float:
    """The temperature with the least mean loss; `answers` have their logits.

    The loss is convex in 1 / T, so that it has one minimum in between; a network that is right
    everywhere has none, and gets the lowest.
    """
    low, high = math.log(LOWEST), math.log(HIGHEST)
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = _loss_at(answers, left), _loss_at(answers, right)
    for _ in range(STEPS):
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = _loss_at(answers, left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = _loss_at(answers, right)
    return math.exp((low + high) / 2)


def at_temperature(answers: Answers, temperature: float) -> Answers:
    """The answers of the same logits divided by `temperature`."""
    assert answers.logits is not None
    logits = torch.from_numpy(answers.logits / np.float32(temperature))
    made = answer_logits(logits, _targets(answers), torch.from_numpy(answers.indices), [])
    return dataclasses.replace(made, errors=answers.errors, logits=logits.numpy())


def _targets(answers: Answers) -> torch.Tensor:
    """The targets as a batch has them."""
    if not answers.multi_label:
        return torch.from_numpy(np.asarray(answers.targets, np.int64))
    targets = answers.targets.astype(np.float32)
    return torch.from_numpy(np.where(answers.known_labels, targets, np.float32(np.nan)))


def _loss_at(answers: Answers, log_temperature: float) -> float:
    """The mean loss at a temperature, in float64."""
    assert answers.logits is not None
    values = answers.logits.astype(np.float64) / math.exp(log_temperature)
    if answers.multi_label:
        signed = np.where(answers.targets, -values, values)
        return float(np.logaddexp(0.0, signed)[answers.known_labels].mean())
    rows = np.arange(len(values))
    highest = values.max(1)
    total = np.log(np.exp(values - highest[:, None]).sum(1)) + highest
    return float((total - values[rows, answers.targets.astype(np.int64)]).mean())
