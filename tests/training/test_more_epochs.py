"""More epochs on a run: bit for bit where the schedule allows it, else a command that works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from densepath import train
from densepath.errors import RecipeError, UsageError
from densepath.training.more_epochs import command_from_weights, extend
from densepath.training.recipe_file import make_recipe
from densepath.training.run_folder import read_run_recipe
from fixtures.runs import DIGITS, train_quietly

SMALL = {
    **DIGITS,
    **{"data.batch_size": 512, "optimizer.lr": 0.05, "schedule.name": "constant"},
}


def train_digits(output, epochs, **settings):
    return train_quietly("digits", output, SMALL, epochs=epochs, **settings)


@pytest.fixture(scope="module")
def constant(tmp_path_factory):
    """A finished run of one epoch at a constant learning rate."""
    folder = tmp_path_factory.mktemp("runs") / "constant"
    assert not train_digits(folder, 1).already_finished
    return folder


@pytest.fixture(scope="module")
def cosine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a cosine"
    settings = {"schedule__name": "cosine", "schedule__warmup_epochs": 0.5}
    train_digits(folder, 1, **settings, schedule__final_lr=0.01)
    return folder


def test_a_run_made_longer_has_the_bits_of_one_that_was_planned_so(run, tmp_path):
    train_digits(tmp_path / "long", 2)
    train_digits(tmp_path / "made", 1)
    status, _, err = run("train", tmp_path / "made", "--epochs", 2, "--device", "cpu")
    assert status == 0, err
    made, long = (tmp_path / name for name in ("made", "long"))
    assert (made / "last.safetensors").read_bytes() == (long / "last.safetensors").read_bytes()
    assert read_run_recipe(made) == read_run_recipe(long)
    assert len((made / "metrics.csv").read_text().splitlines()) == 3
    assert "2 epochs (finished)" in (made / "README.md").read_text()
    assert "goes on to 2 epochs; planned: 1" in (made / "train.log").read_text()


def test_the_same_command_with_more_epochs_and_resume_goes_on_too(tmp_path):
    train_digits(tmp_path / "run", 1)
    result = train_digits(tmp_path / "run", 2, resume=True)
    assert (result.epochs, result.planned_epochs, result.finished) == (2, 2, True)


def test_a_finished_run_says_so_and_what_one_can_do(run, constant):
    before = (constant / "last.safetensors").read_bytes()
    for more in ([], ["--epochs", 1]):
        status, out, err = run("train", constant, *more)
        assert (status, out) == (0, "")
        assert "already finished: 1 of 1 epochs; nothing was trained." in err
        assert f"To train longer: densepath train {constant} --epochs 2" in err
        assert "data: digits" not in err  # nothing is trained, so nothing is said of images
    assert (constant / "last.safetensors").read_bytes() == before
    assert train(constant, progress="none").already_finished


def test_fewer_epochs_are_refused_with_what_is_possible(run, constant, cosine):
    longer = make_recipe(read_run_recipe(constant).to_dict(), {"epochs": 5})
    with pytest.raises(UsageError, match=r"planned for 5 epochs; --epochs 2 is less"):
        extend(longer, 2, constant)
    for folder, epochs in ((constant, 0), (cosine, -3)):
        status, _, err = run("train", folder, "--epochs", epochs)
        assert status == 2
        assert f"epochs is {epochs}" in err


@pytest.mark.parametrize("name", ["cosine", "one_cycle", "multi_step"])
def test_a_schedule_that_depends_on_the_epochs_is_not_stretched(name, tmp_path):
    recipe = make_recipe({"model": {"name": "dpn68"}, "schedule": {"name": name}})
    with pytest.raises(UsageError, match=rf"schedule.name {name}.* Start anew from its weights"):
        extend(recipe, 12, tmp_path)


@pytest.mark.parametrize("observe", [0, 1])
def test_a_training_for_int8_goes_on_where_its_ranges_do_not_depend_on_the_epochs(
    observe, tmp_path
):
    layers = {"model": {"weights": "x"}, "schedule": {"name": "constant"}}
    recipe = make_recipe(layers, {"quantization": {"target": "int8"}})
    with pytest.raises(UsageError, match=r"quantization\.observe 0\.5"):
        extend(recipe, 12, tmp_path)
    recipe = make_recipe(layers, {"quantization": {"target": "int8", "observe": observe}})
    assert extend(recipe, 12, tmp_path).epochs == 12


def test_the_size_of_the_images_follows_from_the_epochs_too(tmp_path):
    layers = {"model": {"name": "dpn68"}, "schedule": {"name": "constant"}}
    recipe = make_recipe(layers, {"augment": {"first_sizes": [[0.5, 16]]}})
    with pytest.raises(UsageError, match=r"augment.first_sizes.*augment.first_sizes=\[\]"):
        extend(recipe, 12, tmp_path)


def test_the_command_that_is_named_instead_works(run, cosine):
    """Also from a folder with a space, with a warm-up that would be too long."""
    status, _, err = run("train", cosine, "--epochs", 2)
    assert status == 2
    found = re.search(r"Start anew from its weights: densepath (train .*)", err)
    assert found is not None
    arguments = shlex.split(found[1])
    assert arguments[-1] == f"{cosine}-more"
    status, _, err = run(*arguments, "--device", "cpu")
    assert status == 0, err
    recipe = read_run_recipe(arguments[-1])
    assert (recipe.epochs, recipe.model.weights) == (1, str(cosine))
    assert recipe.optimizer.lr == recipe.schedule.final_lr == 0.01


@pytest.mark.parametrize("inside", [".", "state/.."])
def test_from_inside_a_run_the_folder_that_is_named_stands_beside_it(
    run, cosine, monkeypatch, inside
):
    monkeypatch.chdir(cosine)
    status, _, err = run("train", inside, "--epochs", 2)
    assert status == 2
    option, output = shlex.split(err)[-2:]
    assert option == "--output"
    assert Path(output).resolve() == cosine.resolve().parent / f"{cosine.name}-more"


def test_weights_of_a_run_start_a_new_one(run, cosine, tmp_path):
    status, _, err = run(
        "train",
        "--weights",
        cosine,
        "--data",
        "digits",
        "--epochs",
        1,
        "--lr",
        0.001,
        "--batch-size",
        512,
        "--device",
        "cpu",
        "--output",
        tmp_path / "new",
    )
    assert status == 0, err
    assert "best top-1" in err


def test_other_options_of_a_run_are_refused_with_the_way_to_start_anew(run, constant):
    for options in (["--epochs", 3, "--lr", 1], ["--batch-size", 8], ["--set", "epochs=3.5"]):
        status, _, err = run("train", constant, *options)
        assert status == 2
        assert "--weights" in err or "epochs is 3.5" in err


def test_an_unusable_number_is_a_mistake_in_the_recipe(constant):
    with pytest.raises(RecipeError, match="epochs is 0"):
        train(constant, epochs=0, progress="none")


@pytest.mark.parametrize(
    ("folder", "named"),
    [("runs/a", "runs/a-more"), (".", "../inside-more"), ("../inside", "../inside-more")],
)
def test_the_folder_of_a_new_start_lies_beside_the_run(tmp_path, monkeypatch, folder, named):
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    command = command_from_weights(make_recipe({"epochs": 2}), 4, Path(folder))
    assert shlex.split(command)[-1] == named
