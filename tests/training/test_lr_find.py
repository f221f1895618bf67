"""The learning-rate finder: what it reads off a curve, and that it leaves nothing behind."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pytest
import torch

import densepath
from densepath.errors import ImageError, UsageError
from densepath.training.rate_curve import draw_curve, find_steepest, find_valley, make_curve, smooth
from fixtures.pictures import write_classes
from fixtures.runs import DIGITS

RATES = np.geomspace(1e-6, 10, 141)


def fallen(rate: float) -> float:
    """A loss that falls around 0.01, fastest there, and rises above 1."""
    fall = 2.3 - 2 / (1 + math.exp(-3 * math.log(rate / 0.01)))
    return fall + max(0.0, math.log(rate)) ** 2


def test_the_steepest_point_and_the_valley_lie_where_the_loss_falls():
    losses = [fallen(rate) for rate in RATES]
    assert find_steepest(RATES.tolist(), losses) == pytest.approx(0.01, rel=0.15)
    # The curve is symmetric, and so both are the same.
    assert find_valley(RATES.tolist(), losses) == pytest.approx(0.01, rel=0.3)


def test_noise_and_a_bad_batch_on_the_plateau_move_them_little():
    random = np.random.default_rng(0)
    losses = [fallen(rate) + random.normal(0, 0.03) for rate in RATES]
    losses[40] = 0.2
    smoothed = smooth(losses)
    assert 0.004 < find_steepest(RATES.tolist(), smoothed) < 0.025
    assert 0.004 < find_valley(RATES.tolist(), smoothed) < 0.025


def test_few_steps_and_a_noisy_first_batch_do_not_suggest_the_first_rate():
    rates = np.geomspace(1e-6, 10, 40).tolist()
    losses = smooth([2.9, *(fallen(rate) for rate in rates[1:])])
    assert 0.003 < find_steepest(rates, losses) < 0.03
    assert 0.003 < find_valley(rates, losses) < 0.03


def test_smoothing_does_not_shift_a_line():
    assert smooth([1.0, 2.0, 3.0, 4.0]) == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("losses", [[2.3] * 60, list(np.linspace(1, 2, 60)), [2.0, 1.0] * 3])
def test_a_loss_that_falls_nowhere_suggests_nothing_and_can_be_drawn(losses):
    curve = make_curve(RATES[: len(losses)].tolist(), losses, stopped_by="end", about="x")
    assert (curve.suggestion, curve.settings) == (None, "")
    assert "none" in draw_curve(curve).get_suptitle()


@pytest.fixture
def find(tmp_path, monkeypatch):
    """The finder on the digits in an empty folder, thirty steps."""
    monkeypatch.chdir(tmp_path)

    def run(subject="densenet_bc_22_12", data="digits", **more):
        settings = {**DIGITS, "data.batch_size": 32, **more.pop("settings", {})}
        return densepath.find_learning_rate(
            subject, data=data, settings=settings, steps=30, device="cpu", workers=0, **more
        )

    return run


def test_it_suggests_a_rate_that_trains_and_leaves_no_trace(find, tmp_path):
    before = torch.random.get_rng_state()
    told = []
    curve = find(lowest=1e-4, highest=100.0, tell=lambda *step: told.append(step))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert list(tmp_path.iterdir()) == []
    assert 0.005 < curve.suggestion < 2
    assert curve.settings == f"--set optimizer.lr={curve.suggestion:.2g}"
    assert curve.stopped_by == "divergence"
    assert [step for step, _, _ in told] == list(range(1, len(curve.rates) + 1))
    ratios = np.diff(np.log(curve.rates))
    assert np.allclose(ratios, math.log(1e6) / 29)
    # The same seed, the same batches: the same curve.
    assert find(lowest=1e-4, highest=100.0).losses == curve.losses


def test_a_run_folder_gives_its_recipe_and_stays_as_it_is(find, digits_run, tmp_path):
    folder = shutil.copytree(digits_run, tmp_path / "run")
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}
    curve = find(folder, data=None, settings={"optimizer.name": "adamw"}, highest=1e-4)
    assert "adamw" in curve.about
    assert {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")} == before
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_mixing_averages_and_lower_precision_are_the_recipe_s(find, tmp_path):
    write_classes(tmp_path / "two classes", ["a", "ü"], each=8)
    settings = {
        "data.channels": 3,
        "data.batch_size": 4,
        "data.validation_fraction": 0.25,
        "preprocess.size": 16,
        "augment.mixup": 0.2,
        "augment.cutmix": 1.0,
        "ema.decay": 0.9,
        "compute.precision": "bfloat16",
        "distributed.accumulate": 2,
        "loss.label_smoothing": 0.1,
    }
    curve = find(data=tmp_path / "two classes", settings=settings, highest=1e-3)
    assert len(curve.losses) == 30
    assert "bfloat16" in curve.about


def test_an_image_that_cannot_be_read_is_an_error_or_left_out(find, tmp_path):
    data = write_classes(tmp_path / "data", ["a", "b"], each=8)
    for path in (data / "a" / "0.png", data / "b" / "1.png"):
        path.write_bytes(b"no image")
    fields = {"data.channels": 3, "data.batch_size": 8, "preprocess.size": 16}
    with pytest.raises(ImageError):
        find(data=data, settings=fields)
    curve = find(data=data, settings={**fields, "data.on_error": "skip"}, highest=1e-3)
    assert len(curve.losses) == 30


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ({"lowest": 1.0, "highest": 0.1}, "must rise"),
        ({"lowest": 0.0}, "must rise"),
        ({"subject": "densnet121"}, "Did you mean"),
    ],
)
def test_what_makes_no_curve_is_refused(find, how, part):
    with pytest.raises(UsageError, match=part):
        find(**how)


def test_several_processes_are_refused_with_the_cure(find, monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="accumulate"):
        find()
