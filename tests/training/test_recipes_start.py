"""The recipes that nobody can run here start all the same: some steps on generated images."""

from __future__ import annotations

import csv

import pytest
import torch
import torch.nn.functional as F

from densepath.training.loss import Loss
from densepath.training.one_vs_rest import OneVsRest
from densepath.training.recipe_file import make_recipe, read_recipe
from densepath.training.recipe_names import recipe_names
from fixtures.networks import checkpoint_of, new_network
from fixtures.pictures import write_classes
from fixtures.runs import train_quietly

# As the recipe has it, but for what makes it hours on a server: sizes, the network's depth, epochs.
SMALLER = {
    "data.batch_size": 6,
    "data.validation_fraction": 0.25,
    "preprocess.size": 40,
    "preprocess.resize_short": 44,
    "augment.size": 32,
    "schedule.warmup_epochs": 0.5,
}
MODERN = [name for name in recipe_names() if name.startswith("imagenet_modern/")]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_classes(
        tmp_path_factory.mktemp("photos"), ["a", "b", "c"], each=8, shape=(50, 60, 3)
    )


def losses_of(folder) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", MODERN)
def test_a_modern_recipe_takes_its_steps(name, data, tmp_path):
    model = {"dpn": "dpn68", "densenet": "densenet121"}[name.rsplit("/", 1)[1]]
    small = {**SMALLER, "model.name": model}
    result = train_quietly(data, tmp_path / "run", small, subject=f"recipe:{name}")
    assert result.finished
    [loss] = losses_of(tmp_path / "run")
    # The mean over the classes of a binary cross-entropy begins near ln 2.
    assert 0.2 < loss < 2
    recipe = make_recipe(read_recipe(tmp_path / "run" / "recipe.yaml"))
    assert (recipe.augment.size, recipe.preprocess.size) == (32, (40, 40))
    assert recipe.loss.one_vs_rest


def test_the_modern_recipes_say_what_they_should():
    assert MODERN == ["imagenet_modern/densenet", "imagenet_modern/dpn"]
    for name in MODERN:
        recipe = make_recipe(read_recipe(f"recipe:{name}"))
        assert (recipe.augment.size, recipe.preprocess.size) == (224, 288)
        assert recipe.augment.mixup
        assert recipe.augment.cutmix
        assert recipe.augment.randaugment_ops == 2
        assert recipe.ema.decay
        assert recipe.schedule.name == "cosine"
        assert recipe.epochs == 300


def test_the_fine_tuning_recipe_takes_its_steps(data, tmp_path):
    weights = tmp_path / "x.safetensors"
    checkpoint_of(new_network()).save(weights)
    small = {"data.batch_size": 6, "model.weights": str(weights), "schedule.warmup_epochs": 0.5}
    result = train_quietly(data, tmp_path / "run", small, subject="recipe:fine_tune")
    assert result.finished
    assert losses_of(tmp_path / "run")


def test_one_against_the_rest_is_the_binary_cross_entropy_of_one_hot_targets():
    torch.manual_seed(0)
    logits, targets = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    loss = OneVsRest(label_smoothing=0.1)
    aims = F.one_hot(targets, 3) * 0.9 + 0.05
    wanted = F.binary_cross_entropy_with_logits(logits, aims) * 4
    assert loss(logits, targets) == pytest.approx(wanted.item())
    mixed = torch.tensor([[0.7, 0.3, 0.0]]).repeat(4, 1)
    assert loss(logits, mixed) == pytest.approx(
        Loss(multi_label=True, label_smoothing=0.1)(logits, mixed).item()
    )
    assert loss.count_right(logits, targets) == (logits.argmax(1) == targets).sum()


def test_a_recipe_without_the_younger_fields_is_written_as_it_was():
    plain = make_recipe({"model": {"name": "dpn68"}}).to_dict()
    assert "one_vs_rest" not in plain["loss"]
    assert "size" not in plain["augment"]
    assert not {"block", "recompute"} & set(plain["compute"])
    used = make_recipe({"loss": {"one_vs_rest": True}, "augment": {"size": 32}})
    assert make_recipe(used.to_dict()) == used
