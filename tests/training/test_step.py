"""training/step.py: what dropout draws belongs to one place of the training alone."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from densepath import train
from densepath.training import step


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        path = folder / ("val", "train")[number < 12] / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def states_of(data: Path, output: Path, monkeypatch, **settings) -> list[bytes]:
    """What dropout is to draw from, at the start of each pass of the training."""
    found: list[bytes] = []
    statistics_of = step._statistics_of

    def see(training, images):
        found.append(torch.get_rng_state().numpy().tobytes())
        return statistics_of(training, images)

    small = {"preprocess.size": 4, "augment.crop": "none", "model.drop_rate": 0.5}
    with monkeypatch.context() as patched:
        patched.setattr(step, "_statistics_of", see)
        train(
            "densenet_bc_22_12",
            data=data,
            epochs=2,
            output=output,
            settings=small | {"data.batch_size": 4} | settings,
            device="cpu",
            progress="none",
        )
    return found


def test_dropout_draws_anew_in_each_pass_and_the_same_in_the_same_training(
    data, tmp_path, monkeypatch
):
    """Two epochs of three steps, each in two parts."""
    parts = {"distributed.accumulate": 2}
    states = states_of(data, tmp_path / "a", monkeypatch, **parts)
    assert len(states) == len(set(states)) == 12
    assert states_of(data, tmp_path / "b", monkeypatch, **parts) == states


def test_seed_epoch_step_and_process_draw_each_their_own(monkeypatch):
    class Drawn(Exception):  # noqa: N818  no error: the step goes no further
        pass

    def take(seed: int) -> None:
        raise Drawn(seed)

    monkeypatch.setattr(torch, "manual_seed", take)
    seeds = set()
    for seed, epoch, at, rank in itertools.product(range(3), repeat=4):
        training = SimpleNamespace(
            recipe=SimpleNamespace(seed=seed),
            position=SimpleNamespace(epoch=epoch, step=at),
            ranks=SimpleNamespace(rank=rank),
        )
        with pytest.raises(Drawn) as drawn:
            step.take_step(training, None, None)
        seeds.add(drawn.value.args[0])
    assert len(seeds) == 3**4
