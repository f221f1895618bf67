"""State, run folder, and what happens when a disk is full or a training diverges."""

from __future__ import annotations

import csv
import json
import resource
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image

from densepath import Checkpoint, train
from densepath.errors import (
    CheckpointError,
    DataError,
    DivergedError,
    ImageError,
    OutputError,
    RecipeError,
    UsageError,
)
from densepath.models.build import build_model
from densepath.training import curves, loop
from densepath.training.ema import Ema
from densepath.training.epochs import EpochSums
from densepath.training.optimizer import build_optimizer
from densepath.training.recipe_sections import OptimizerSection
from densepath.training.state import Position, StateParts, read_state, write_state
from fixtures.runs import DIGITS, train_quietly


def train_small(output, epochs=1, **options):
    return train_quietly("digits", output, DIGITS, epochs=epochs, **options)


@contextmanager
def files_no_larger_than(size_bytes):
    """As on a full disk: writing more fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def trained_parts(name):
    torch.manual_seed(0)
    model = build_model("densenet_bc_22_12", num_classes=3)
    section = OptimizerSection(name=name) if name == "adamw" else OptimizerSection()
    optimizer, ema = build_optimizer(model, section), Ema(model, 0.9)
    return StateParts(model, optimizer, ema)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_state_read_back_goes_on_bit_for_bit(name, tmp_path):
    def steps(parts, count):
        model, optimizer, ema = parts.model, parts.optimizer, parts.ema
        for seed in range(count):
            generator = torch.Generator().manual_seed(seed)
            optimizer.zero_grad()
            model(torch.randn(4, 3, 32, 32, generator=generator)).square().sum().backward()
            optimizer.step()
            ema.update(model)

    straight = trained_parts(name)
    steps(straight, 2)
    sums = EpochSums(0.1, 2.0, 3.0, 0.0, 3.0)
    position = Position(epoch=1, step=2, sums=sums, best=0.5, recent_loss=0.3)
    write_state(tmp_path / "state", position, straight)
    resumed = trained_parts(name)
    assert read_state(tmp_path / "state", resumed) == position
    steps(straight, 2)
    steps(resumed, 2)
    for left, right in ((straight.model, resumed.model), (straight.ema.model, resumed.ema.model)):
        for key, tensor in left.state_dict().items():
            assert torch.equal(tensor, right.state_dict()[key]), key


def test_the_same_command_with_resume_goes_on_with_fine_tuning(digits_run, tmp_path):
    """The recipe leaves the model and the preprocessing to the weights, the second time too."""
    for _ in range(2):
        result = train(
            data="digits",
            epochs=1,
            output=tmp_path / "tuned",
            resume=True,
            settings={"model.weights": str(digits_run), "data.batch_size": 512},
            device="cpu",
            progress="none",
        )
        assert result.finished


def test_a_damaged_or_foreign_state_is_refused(tmp_path):
    parts = trained_parts("sgd")
    write_state(tmp_path / "state", Position(), parts)
    whole = (tmp_path / "state").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged or of another training"):
        read_state(tmp_path / "cut", parts)
    with pytest.raises(CheckpointError, match="no state to resume from"):
        read_state(tmp_path / "none", parts)
    other = build_model("densenet_bc_22_12", num_classes=4)
    foreign = StateParts(other, build_optimizer(other, OptimizerSection()))
    with pytest.raises(CheckpointError, match="another training"):
        read_state(tmp_path / "state", foreign)


def test_a_full_disk_is_a_clear_error_and_the_old_state_stays(tmp_path):
    parts = trained_parts("sgd")
    write_state(tmp_path / "state", Position(epoch=4), parts)
    with files_no_larger_than(10_000), pytest.raises(OutputError, match="cannot write"):
        write_state(tmp_path / "state", Position(epoch=5), parts)
    assert read_state(tmp_path / "state", parts).epoch == 4
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_a_training_on_a_full_disk_ends_with_a_clear_error(tmp_path):
    with files_no_larger_than(100_000), pytest.raises(OutputError, match="cannot write"):
        train_small(tmp_path / "run")


def test_a_run_leaves_everything_needed_to_use_judge_and_repeat_it(digits_run):
    names = {p.relative_to(digits_run).as_posix() for p in digits_run.rglob("*") if p.is_file()}
    assert names == {
        "README.md",
        "best.safetensors",
        "curves.png",
        "environment.json",
        "images.npz",
        "last.safetensors",
        "metrics.csv",
        "recipe.yaml",
        "state/state.safetensors",
        "train.log",
    }
    rows = list(csv.DictReader((digits_run / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    checkpoint = Checkpoint.load(digits_run / "last.safetensors")
    assert checkpoint.labels == [str(n) for n in range(10)]
    assert checkpoint.preprocess.size == (8, 8)
    assert checkpoint.provenance["top1"] == pytest.approx(float(rows[1]["top1"]), rel=1e-5)
    with Image.open(digits_run / "curves.png") as picture:
        assert picture.format == "PNG"
    assert "## Use it" in (digits_run / "README.md").read_text()


def test_the_environment_names_no_machine_and_no_folder(digits_run):
    import getpass
    import platform

    text = (digits_run / "environment.json").read_text()
    environment = json.loads(text)
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["processes"] == 1
    words = set(text.replace('"', " ").split())
    assert platform.node() not in words
    assert getpass.getuser() not in words
    assert "/" not in text


def test_a_folder_of_another_recipe_is_refused_with_the_difference(digits_run):
    with pytest.raises(RecipeError, match=r"optimizer\.lr: 0\.1 against 0\.3"):
        train_small(digits_run, epochs=2, resume=True, optimizer__lr=0.3)


def test_a_folder_of_the_same_recipe_goes_on_only_when_asked(digits_run):
    with pytest.raises(UsageError, match="densepath train"):
        train_small(digits_run, epochs=2)
    before = (digits_run / "last.safetensors").read_bytes()
    assert train_small(digits_run, epochs=2, resume=True).finished
    assert train(digits_run, progress="none", device="cpu").epochs == 2
    assert (digits_run / "last.safetensors").read_bytes() == before


def test_a_folder_with_other_things_or_a_file_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        train_small(tmp_path)
    with pytest.raises(OutputError, match="is a file"):
        train_small(tmp_path / "thesis.txt")


def test_diverging_stops_with_an_explanation_and_keeps_what_was_good(tmp_path):
    with pytest.raises(DivergedError) as caught:
        train_small(tmp_path / "run", epochs=3, optimizer__lr=1e30, optimizer__weight_decay=0)
    for part in ("learning rate of", "epoch 1", "--lr", "schedule.warmup_epochs"):
        assert part in str(caught.value)
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_diverging_later_keeps_the_last_good_state(tmp_path, monkeypatch):
    from densepath.training import parts

    rate = parts.learning_rate
    monkeypatch.setattr(
        parts, "learning_rate", lambda r, s, n: rate(r, s, n) if s < n else float("nan")
    )
    with pytest.raises(DivergedError, match=r"keeps the last good best\.safetensors"):
        train_small(tmp_path / "run", epochs=2)
    checkpoint = Checkpoint.load(tmp_path / "run" / "best.safetensors")
    assert checkpoint.provenance["epochs"] == 1
    assert all(torch.isfinite(t).all() for t in checkpoint.tensors.values())


def test_fine_tuning_keeps_frozen_weights_and_starts_from_the_given_ones(digits_run, tmp_path):
    result = train_small(
        tmp_path / "tuned",
        subject=None,
        model__weights=str(digits_run),
        model__freeze="features",
        optimizer__lr=0.001,
    )
    start = Checkpoint.load(digits_run / "best.safetensors")
    tuned = Checkpoint.load(tmp_path / "tuned" / "last.safetensors")
    for name, tensor in start.tensors.items():
        assert torch.equal(tensor, tuned.tensors[name]) is not name.startswith("classifier"), name
    assert result.top1 is not None
    assert abs(result.top1 - start.provenance["top1"]) < 0.2


def test_a_kept_average_is_what_is_evaluated_and_saved(tmp_path):
    train_small(tmp_path / "plain", optimizer__lr=0.01)
    train_small(tmp_path / "averaged", optimizer__lr=0.01, ema__decay=0.999)
    plain, averaged = (
        Checkpoint.load(tmp_path / name / "last.safetensors") for name in ("plain", "averaged")
    )
    assert not torch.equal(
        plain.tensors["classifier.weight"], averaged.tensors["classifier.weight"]
    )


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="multiple of 3"):
        train_small(tmp_path / "run", distributed__accumulate=3)


def test_accumulated_parts_give_the_gradient_of_the_whole_batch(tmp_path):
    """BatchNorm sees parts, so it is frozen with everything but the classifier."""
    train_small(tmp_path / "start")
    common = {
        "subject": None,
        "model__weights": str(tmp_path / "start"),
        "model__freeze": "features",
        "optimizer__lr": 0.01,
    }
    train_small(tmp_path / "whole", **common)
    train_small(tmp_path / "parts", **common, distributed__accumulate=4)
    whole, parts = (
        Checkpoint.load(tmp_path / name / "last.safetensors") for name in ("whole", "parts")
    )
    torch.testing.assert_close(parts.tensors, whole.tensors, rtol=1e-5, atol=1e-6)


def test_several_labels_an_image_are_learnt_by_binary_cross_entropy(tmp_path):
    """Bright at the left, at the right, at both or at neither: two yes-or-no questions."""
    lines = ["path,left,right"]
    rng = np.random.default_rng(0)
    for number in range(80):
        left, right = number % 2, number // 2 % 2
        pixels = rng.integers(0, 100, (16, 16, 3))
        pixels[:, :8] += 150 * left
        pixels[:, 8:] += 150 * right
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{left},{right}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    result = train(
        "densenet_bc_22_12",
        data=tmp_path / "table.csv",
        epochs=5,
        output=tmp_path / "run",
        settings={
            **{"data.batch_size": 16, "data.validation_fraction": 0.2, "preprocess.size": 16},
            **{"augment.hflip": 0, "augment.crop": "none", "optimizer.lr": 0.05},
        },
        device="cpu",
        progress="none",
    )
    assert result.best_top1 is not None
    assert result.best_top1 > 0.9
    checkpoint = Checkpoint.load(tmp_path / "run" / "best.safetensors")
    assert (checkpoint.multi_label, checkpoint.labels) == (True, ["left", "right"])
    assert "micro-F1" in (tmp_path / "run" / "README.md").read_text()


def test_broken_images_end_or_are_counted_and_changed_data_cannot_go_on(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("dark", "light"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(4):
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{number}.png")
    (tmp_path / "data" / "val" / "dark" / "0.png").write_bytes(b"no image")

    def train_on(output, on_error):
        return train(
            "densenet_bc_22_12",
            data=tmp_path / "data",
            epochs=1,
            output=tmp_path / output,
            settings={"data.batch_size": 8, "data.on_error": on_error},
            device="cpu",
            progress="none",
        )

    with pytest.raises(ImageError, match=r"0\.png"):
        train_on("failed", "fail")
    assert train_on("skipped", "skip").skipped == 1
    (tmp_path / "data" / "train" / "dark" / "0.png").unlink()
    with pytest.raises(CheckpointError, match=r"1 training image is gone: train/dark/0\.png"):
        train(tmp_path / "skipped", progress="none", device="cpu")


def test_evaluation_images_of_other_classes_are_refused(tmp_path):
    for folder in ("train/cat", "train/dog", "val/cat", "val/fox"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / folder / "0.png")
    with pytest.raises(DataError, match="fox"):
        train("densenet_bc_22_12", data=tmp_path, output=tmp_path / "run", progress="none")


def write_noise(root, names, images_each=8):
    """A folder a class in train/ and val/."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in names:
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(images_each):
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"$p_{number}^.png")
    return root


def train_on_noise(data, output, epochs=2):
    return train_quietly(data, output, data__batch_size=8, preprocess__size=16, epochs=epochs)


@pytest.mark.parametrize("name", ["$x^$", "a\\b $_$ 日本"])
def test_a_training_on_a_folder_called_like_a_formula_finishes_and_goes_on(
    name, tmp_path, monkeypatch
):
    data = write_noise(tmp_path / name, ["$x^$", "a\\b"])
    output = tmp_path / f"run {name}"
    steps = loop._finish_epoch

    def stop_after_the_epoch(training, *ended):
        steps(training, *ended)
        training.stop.signal = "SIGTERM"

    monkeypatch.setattr(loop, "_finish_epoch", stop_after_the_epoch)
    assert train_on_noise(data, output).stopped_by == "SIGTERM"
    monkeypatch.undo()
    result = train(output, device="cpu", progress="none")
    assert (result.finished, result.epochs) == (True, 2)
    with Image.open(output / "curves.png") as picture:
        assert picture.format == "PNG"


def test_the_state_and_the_checkpoints_are_there_before_anything_is_drawn(tmp_path, monkeypatch):
    data = write_noise(tmp_path / "data", ["ant", "bee"])
    found = []

    def draw(rows, title, judged_on, chosen):
        names = ("state/state.safetensors", "best.safetensors", "metrics.csv", "README.md")
        found.append([(tmp_path / "run" / name).is_file() for name in names])
        raise RuntimeError("no font at all")

    monkeypatch.setattr(curves, "draw_curves", draw)
    result = train_on_noise(data, tmp_path / "run", epochs=1)
    assert result.finished
    assert found
    assert all(all(names) for names in found)
    assert not (tmp_path / "run" / "curves.png").exists()
    log = (tmp_path / "run" / "train.log").read_text()
    assert "curves.png: no font at all (RuntimeError)" in log
    assert log.endswith("finished\n")


def test_lines_about_epochs_have_top5_where_it_tells_something(tmp_path, capsys):
    data = write_noise(tmp_path / "data", ["ant", "bee", "cat"])
    train(
        "densenet_bc_22_12",
        data=data,
        epochs=1,
        output=tmp_path / "run",
        settings={"data.batch_size": 8, "preprocess.size": 16},
        device="cpu",
        progress="lines",
    )
    said = capsys.readouterr().err
    assert "top-1" in said
    assert "top-5" not in said
    train("densenet_bc_22_12", data="digits", epochs=1, output=tmp_path / "digits",
          settings=DIGITS, device="cpu", progress="lines")  # fmt: skip
    assert "top-5" in capsys.readouterr().err


def test_a_finished_run_is_not_written_to_again_for_it_may_be_read_only(tmp_path):
    data, output = write_noise(tmp_path / "data", ["ant", "bee"]), tmp_path / "run"
    train_on_noise(data, output, epochs=1)

    def written() -> dict[str, int]:
        return {str(p): p.stat().st_mtime_ns for p in (output, *output.rglob("*"))}

    before = written()
    result = train(output, device="cpu", progress="none")
    assert result.already_finished
    assert written() == before


def test_a_link_to_a_folder_that_is_not_there_becomes_a_run(tmp_path):
    data = write_noise(tmp_path / "data", ["ant", "bee"])
    (tmp_path / "run").symlink_to("elsewhere")
    assert train_on_noise(data, tmp_path / "run", epochs=1).finished
    assert (tmp_path / "run").is_symlink()
    assert (tmp_path / "elsewhere" / "best.safetensors").is_file()
