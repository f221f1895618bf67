"""training/loop.py: every image is used, and a step that has shrunk ends nothing."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densepath import train
from densepath.errors import CheckpointError, DatasetError, ImageError, RecipeError
from densepath.training import judging, state, step
from fixtures.runs import train_quietly

# Four pixels become one in the last maps: BatchNorm needs two images at a time.
TINY = {"preprocess.size": 4, "augment.crop": "none", "optimizer.lr": 0.01}


def make_images(folder: Path, count: int, broken: tuple[int, ...] = ()) -> Path:
    """`count` training images of two classes in turn, those in `broken` no images, and 4 others."""
    rng = np.random.default_rng(0)
    for split, images in (("train", count), ("val", 4)):
        for number in range(images):
            path = folder / split / ("dark", "light")[number % 2] / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            low = 128 * (number % 2)
            pixels = rng.integers(low, low + 128, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            if split == "train" and number in broken:
                path.write_bytes(b"no image")
    return folder


def train_on(data: Path, output: Path, epochs: int = 1, **settings):
    return train_quietly(data, output, TINY, epochs=epochs, **settings)


def rows_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


@pytest.fixture
def sizes(monkeypatch):
    """The images of each pass through the network, in order."""
    seen: list[int] = []
    statistics_of = step._statistics_of

    def see(training, images):
        seen.append(len(images))
        return statistics_of(training, images)

    monkeypatch.setattr(step, "_statistics_of", see)
    return seen


def test_the_last_image_of_a_set_joins_the_others(tmp_path, sizes):
    """Of 9 images in batches of 8, or 3 in batches of 2, one would be left for the last step."""
    train_on(make_images(tmp_path / "nine", 9), tmp_path / "1", data__batch_size=8)
    train_on(make_images(tmp_path / "three", 3), tmp_path / "2", data__batch_size=2)
    assert sizes == [5, 4, 3]


def test_a_broken_image_that_fills_no_batch_ends_the_training_under_fail(tmp_path):
    for number in range(9):
        data = make_images(tmp_path / str(number), 9, broken=(number,))
        with pytest.raises(ImageError, match=f"{number:03}.png"):
            train_on(data, tmp_path / "run" / str(number), data__batch_size=8)


@pytest.mark.parametrize("broken", [(0,), (0, 2, 3), (0, 1, 2, 3, 4, 5, 6)])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_with_one_readable_image_or_none_is_skipped_and_counted(
    tmp_path, sizes, broken, accumulate
):
    data = make_images(tmp_path / "data", 12, broken=broken)
    settings = {"data__batch_size": 4, "distributed__accumulate": accumulate}
    train_on(data, tmp_path / "run", epochs=3, data__on_error="skip", **settings)
    skipped = [int(row["train_skipped"]) for row in rows_of(tmp_path / "run")]
    assert sum(sizes) + sum(skipped) == 3 * 12
    assert all(count >= len(broken) for count in skipped)
    assert min(sizes) >= 2


def test_a_step_that_is_too_small_for_its_parts_is_still_used(tmp_path, sizes):
    """Three images in batches of 8, each in four parts: they were never trained on."""
    settings = {"data__batch_size": 8, "distributed__accumulate": 4}
    result = train_on(make_images(tmp_path / "data", 3), tmp_path / "run", **settings)
    assert sizes == [3]
    assert result.skipped == 0


def test_images_that_are_skipped_are_named_once_and_their_number_stands_in_the_readme(
    tmp_path, capsys
):
    """Of training and of evaluation; twelve are too many for the terminal, not for the log."""
    data = make_images(tmp_path / "data", 16, broken=tuple(range(11)))
    (data / "val" / "dark" / "002.png").write_bytes(b"no image")
    run = tmp_path / "run"
    train(
        "densenet_bc_22_12",
        **{"data": data, "epochs": 2, "output": run, "device": "cpu", "progress": "lines"},
        settings=TINY | {"data.on_error": "skip", "data.batch_size": 8},
    )
    log = (run / "train.log").read_text().splitlines()
    named = [line.partition("could not be read: ")[2] for line in log if "could not be" in line]
    assert len(named) == len(set(named)) == 12
    assert any(line.startswith(f"{data / 'val' / 'dark' / '002.png'}: ") for line in named)
    said = [line for line in capsys.readouterr().err.splitlines() if "could not be" in line]
    assert said[:10] == [f"could not be read: {line}" for line in named[:10]]
    assert said[10:] == ["could not be read: 2 more; train.log names them all"]
    readme = (run / "README.md").read_text()
    assert "Measured on the 3 readable ones of the 4 validation images" in readme
    assert (
        "**Left out in epoch 2**: 11 of 16 training images and 1 of 4 validation images" in readme
    )


def test_the_readme_of_a_run_without_skipped_images_says_nothing_of_them(tmp_path):
    train_on(make_images(tmp_path / "data", 8), tmp_path / "run")
    readme = (tmp_path / "run" / "README.md").read_text()
    assert "Left out" not in readme
    assert "Measured on the 4 validation images" in readme
    assert "\n1 epoch (finished), " in readme


def test_an_epoch_without_one_readable_image_is_an_error_with_the_count(tmp_path):
    data = make_images(tmp_path / "data", 6, broken=tuple(range(6)))
    with pytest.raises(DatasetError, match=r"not one of 6 training images could be read"):
        train_on(data, tmp_path / "run", data__on_error="skip")


def test_one_image_at_a_time_is_refused_before_anything_is_written(tmp_path):
    data = make_images(tmp_path / "data", 6)
    with pytest.raises(RecipeError, match=r"data.batch_size is 1\. Choose --batch-size 2 or more"):
        train_on(data, tmp_path / "run", data__batch_size=1)
    assert not (tmp_path / "run").exists()
    assert train_on(data, tmp_path / "run", data__batch_size=2).finished


def test_a_frozen_batch_norm_trains_on_one_image_at_a_time(tmp_path, sizes):
    data = make_images(tmp_path / "data", 6)
    train_on(data, tmp_path / "run", data__batch_size=1, model__freeze="features")
    assert sizes == [1] * 6


def test_with_larger_maps_one_image_at_a_time_is_enough(tmp_path, sizes):
    data = make_images(tmp_path / "data", 5)
    train_on(data, tmp_path / "run", data__batch_size=1, preprocess__size=8)
    assert sizes == [1] * 5


def test_of_equal_epochs_the_first_is_the_best(tmp_path, monkeypatch):
    data = make_images(tmp_path / "data", 6)
    tops = iter([0.25, 0.75, 0.75, 0.5])
    summarise = judging.summarise
    monkeypatch.setattr(
        judging, "summarise", lambda sums: dataclasses.replace(summarise(sums), top1=next(tops))
    )
    result = train_on(data, tmp_path / "run", epochs=4)
    assert (result.best_top1, result.best_epoch) == (0.75, 2)


def test_a_state_whose_steps_had_other_images_is_refused_with_a_way_on(tmp_path, monkeypatch):
    data = make_images(tmp_path / "data", 6)
    monkeypatch.setattr(state, "FORMAT", 1)
    train_on(data, tmp_path / "run")
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"state format 1, not 2.* Start anew") as caught:
        train(tmp_path / "run", device="cpu", progress="none")
    assert f"densepath train {tmp_path / 'run' / 'recipe.yaml'} --weights" in str(caught.value)
