"""Recipes: closed, typed, layered; and the ones in `recipes/` say what they should."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from densepath.errors import RecipeError, UsageError
from densepath.images.intensity import Intensity
from densepath.images.preprocess import Preprocess
from densepath.models.build import build_model, resolve_spec
from densepath.models.catalogue import find_spec
from densepath.training.recipe import Recipe
from densepath.training.recipe_file import (
    find_differences,
    make_recipe,
    merge_flags,
    parse_settings,
    read_recipe,
    write_recipe,
)
from densepath.training.recipe_names import find_recipe, recipe_names
from densepath.training.resolve import build_preprocess, resolve
from densepath.training.train import plan
from densepath.weights.checkpoint import Checkpoint

RECIPES = Path(__file__).parents[2] / "recipes"
FILES = sorted(RECIPES.rglob("*.yaml"))
IMAGENET_MODELS = {
    *("densenet121", "densenet161", "densenet169", "densenet201", "densenet264"),
    *("dpn68", "dpn92", "dpn98", "dpn107", "dpn131"),
}


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("optimiser.lr=1", "Did you mean optimizer?"),
        ("optimizer.weight_decai=1", "Did you mean optimizer.weight_decay?"),
        ("optimizer.wd=1", "betas, clip_norm, decay_norm_and_bias, eps, lr"),
        ("lr=1", "Did you mean optimizer.lr?"),
    ],
)
def test_an_unknown_field_is_refused_with_near_names(setting, part):
    with pytest.raises(RecipeError, match="unknown recipe field") as caught:
        make_recipe(parse_settings([setting]))
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("optimizer.lr=-1", "optimizer.lr is -1"),
        ("optimizer.lr=abc", "optimizer.lr is 'abc'"),
        ("optimizer.lr=.inf", "optimizer.lr is inf"),
        ("epochs=1.5", "epochs is 1.5"),
        ("model.freeze=all", "nothing, stem, features, or a number of stages"),
        ("model.freeze=true", "nothing, stem, features, or a number of stages"),
        ("data.on_error=ignore", "'skip' or 'fail'"),
        ("augment.scale=[1, 0.2]", "augment.scale"),
        ("augment.first_sizes=[[0.7, 16], [0.4, 24]]", "the shares 0.7, 0.4; they must rise"),
        ("augment.first_sizes=[[0.5, 16], [1.0, 24]]", "and lie between 0 and 1"),
        ("augment.first_sizes=[[0.5, 0]]", "augment.first_sizes"),
        ("schedule.warmup_epochs=10", "warm-up must be shorter"),
        ("schedule.final_lr=0.5", "above optimizer.lr"),
        ("optimizer.momentum=0", "nesterov"),
        ("augment=3", "augment is 3"),
        ("data.channels=17", "less than or equal to 16"),
        ("preprocess.intensity=windw:1,2", "Did you mean window?"),
        ("preprocess.intensity=range:9,1", "the first number must be less"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_field(setting, part):
    with pytest.raises(RecipeError) as caught:
        make_recipe(parse_settings([setting]))
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        (["optimizer.name=adamw", "optimizer.momentum=0.8"], "momentum belongs to sgd"),
        (["schedule.milestones=[0.3]"], "milestones belongs to multi_step"),
        (["schedule.name=step", "schedule.final_lr=0.01"], "final_lr belongs to cosine or one_c"),
        (["augment.crop=none", "augment.padding=2"], "padding belongs to pad_crop"),
        (
            ["schedule.name=one_cycle", "schedule.warmup_epochs=1"],
            "warmup_epochs belongs to constant",
        ),
    ],
)
def test_a_field_that_the_choice_would_ignore_is_refused(settings, part):
    with pytest.raises(RecipeError, match=part):
        make_recipe(parse_settings(settings))


def test_milestones_that_do_not_rise_are_refused():
    settings = ["schedule.name=multi_step", "schedule.milestones=[0.7, 0.5]"]
    with pytest.raises(RecipeError, match="must rise"):
        make_recipe(parse_settings(settings))


def test_a_field_that_the_resolved_choice_would_ignore_is_refused():
    recipe = make_recipe({"model": {"name": "densenet121"}, "augment": {"padding": 2}})
    with pytest.raises(RecipeError, match="padding belongs to pad_crop"):
        resolve(recipe, None)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_resolved_recipe_can_be_read_again(name, tmp_path):
    recipe = resolve(make_recipe({"model": {"name": "dpn68"}, "optimizer": {"name": name}}), None)
    write_recipe(tmp_path / "a.yaml", recipe, "")
    assert make_recipe(read_recipe(tmp_path / "a.yaml")) == recipe


@pytest.mark.parametrize(
    ("given", "own", "made"),
    [
        (None, None, None),
        ("range:0,4095", None, "range:0,4095"),
        (None, "window:40,400", "window:40,400"),
        ("file", "window:40,400", "file"),
        ("none", "window:40,400", None),
    ],
)
def test_the_intensity_is_the_recipe_s_else_the_weights_own(given, own, made):
    spec = find_spec("densenet_bc_22_12")
    settings = [] if given is None else [f"preprocess.intensity={given}"]
    recipe = make_recipe({"model": {"name": spec.name}}, parse_settings(settings))
    checkpoint = None
    if own is not None:
        preprocess = Preprocess((32, 32), intensity=Intensity.parse(own))
        checkpoint = Checkpoint.of(build_model(spec, num_classes=2), preprocess=preprocess)
    found = build_preprocess(resolve(recipe, checkpoint)).intensity
    assert (found and found.to_text()) == made


def test_images_of_other_channels_have_statistics_for_each():
    recipe = make_recipe({"model": {"name": "densenet_bc_22_12"}, "data": {"channels": 5}})
    assert build_preprocess(resolve(recipe, None)).mean == (0.5,) * 5


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "schedule: {final_lr: 1e-6}\noptimizer: {name: adamw, eps: 1E-7}\n"
    )
    recipe = make_recipe(read_recipe(tmp_path / "a.yaml"), parse_settings(["optimizer.lr=5e-3"]))
    assert (recipe.schedule.final_lr, recipe.optimizer.eps, recipe.optimizer.lr) == (
        1e-6,
        1e-7,
        5e-3,
    )


def test_settings_override_the_file_and_the_file_overrides_defaults(tmp_path):
    (tmp_path / "a.yaml").write_text("optimizer: {lr: 0.5, momentum: 0.8}\nepochs: 3\n")
    recipe, folder, resume = plan(
        "dpn68", tmp_path / "a.yaml", {"optimizer": {"lr": 0.25}}, None, resume=False
    )
    assert (recipe.optimizer.lr, recipe.optimizer.momentum, recipe.epochs) == (0.25, 0.8, 3)
    assert recipe.optimizer.weight_decay == 1e-4
    assert (recipe.model.name, folder, resume) == ("dpn68", Path("runs/dpn68-digits"), False)


def test_a_field_given_twice_is_refused_unless_both_agree():
    flags = {"optimizer.lr": 0.2}
    assert merge_flags(parse_settings(["optimizer.lr=0.2"]), flags) == {"optimizer": {"lr": 0.2}}
    with pytest.raises(RecipeError, match=r"optimizer\.lr is given twice: 0\.3 and 0\.2"):
        merge_flags(parse_settings(["optimizer.lr=0.3"]), flags)


@pytest.mark.parametrize("setting", ["optimizer.lr", "=3", "optimizer.lr=[1"])
def test_a_malformed_setting_is_refused(setting):
    with pytest.raises(RecipeError, match="--set"):
        parse_settings([setting])


def test_a_recipe_that_cannot_be_read_says_why(tmp_path):
    with pytest.raises(RecipeError, match="there is no file"):
        read_recipe(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(RecipeError, match="must be a mapping"):
        read_recipe(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    with pytest.raises(RecipeError, match="not YAML"):
        read_recipe(tmp_path / "broken.yaml")


def test_a_written_recipe_is_read_back_the_same(tmp_path):
    recipe = make_recipe(
        parse_settings(["model.name=dpn68", "schedule.final_lr=1e-6", "model.freeze=2"])
    )
    write_recipe(tmp_path / "a.yaml", recipe, "a comment\nof two lines")
    assert make_recipe(read_recipe(tmp_path / "a.yaml")) == recipe
    assert find_differences(recipe, make_recipe(parse_settings(["seed=1"]))) == [
        "seed: 0 against 1",
        "model.name: 'dpn68' against None",
        "model.freeze: 2 against 'nothing'",
        "schedule.final_lr: 1e-06 against 0.0",
    ]


def test_a_misspelt_model_and_a_plain_folder_are_refused(tmp_path):
    with pytest.raises(UsageError, match="Did you mean densenet121"):
        plan("densnet121", None, {}, None, resume=False)
    with pytest.raises(UsageError, match="no run folder"):
        plan(tmp_path, None, {}, None, resume=False)


def test_a_run_under_way_takes_no_new_options(tmp_path):
    write_recipe(tmp_path / "recipe.yaml", Recipe(), "")
    with pytest.raises(UsageError, match="cannot be changed on the way"):
        plan(tmp_path, None, {"optimizer": {"lr": 0.3}}, None, resume=False)


def test_what_a_recipe_leaves_open_comes_from_the_model():
    large = resolve(make_recipe({"model": {"name": "densenet121"}}), None)
    assert large.augment.crop == "random_resized_crop"
    preprocess = build_preprocess(large)
    assert (preprocess.size, preprocess.resize_short) == ((224, 224), 256)
    small = resolve(make_recipe({"model": {"name": "densenet_bc_40_12"}}), None)
    assert small.augment.crop == "pad_crop"
    assert (build_preprocess(small).size, build_preprocess(small).resize_short) == ((32, 32), None)
    assert resolve(large, None) == large


def test_digits_are_never_mirrored_unless_asked_for():
    model = {"name": "densenet_bc_22_12"}
    assert resolve(make_recipe({"model": model}), None).augment.hflip == 0
    other = make_recipe({"model": model, "data": {"source": "cifar10"}})
    assert resolve(other, None).augment.hflip == 0.5


def test_every_imagenet_model_has_a_recipe():
    names = {path.stem for path in FILES if path.parent.name == "imagenet"}
    assert names == IMAGENET_MODELS


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(RECIPES).as_posix())
def test_recipe_opens_with_paper_command_and_cost_and_builds_its_model(path):
    comment = path.read_text(encoding="utf-8").split("\nepochs:")[0]
    assert "arXiv:" in comment
    name = path.relative_to(RECIPES).with_suffix("").as_posix()
    assert f"densepath train recipe:{name} " in comment
    assert "Cost: " in comment
    recipe = make_recipe(read_recipe(path))
    name = recipe.model.name or str(recipe.model.weights).split("/")[1].split(".")[0]
    channels = recipe.data.channels or 3
    with torch.device("meta"):
        model = build_model(
            resolve_spec(name, bn_eps=recipe.model.bn_eps), num_classes=10, in_channels=channels
        ).eval()
        size = recipe.preprocess.size or 224
        logits = model(torch.empty(2, channels, size, size))
    assert logits.shape == (2, 10)


def test_upstream_settings_are_kept_in_the_imagenet_recipes():
    """PaddleClas 2.6 DenseNet121.yaml and DPN92.yaml."""
    dense = yaml.safe_load((RECIPES / "imagenet/densenet121.yaml").read_text())
    dual = yaml.safe_load((RECIPES / "imagenet/dpn92.yaml").read_text())
    assert (dense["epochs"], dual["epochs"]) == (120, 200)
    assert (dense["schedule"]["name"], dual["schedule"]["name"]) == ("step", "cosine")
    assert (dual["augment"]["mixup"], dual["loss"]["label_smoothing"]) == (0.2, 0.1)
    for recipe in (dense, dual):
        assert recipe["data"]["batch_size"] == 4 * 64
        assert (recipe["optimizer"]["lr"], recipe["optimizer"]["nesterov"]) == (0.1, False)


def test_every_recipe_of_the_repository_has_a_name():
    names = {path.relative_to(RECIPES).with_suffix("").as_posix() for path in FILES}
    assert set(recipe_names()) == names
    for name in names:
        assert find_recipe(f"recipe:{name}").samefile(RECIPES / f"{name}.yaml")


@pytest.mark.parametrize("name", ["recipe:digits", "recipe:digits.yaml", "recipe:imagenet/dpn92"])
def test_a_recipe_is_read_by_name_wherever_one_stands(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe, folder, goes_on = plan(name, None, {}, None, resume=False)
    assert recipe == make_recipe(read_recipe(find_recipe(name)))
    assert folder.parts[0] == "runs"
    assert not goes_on
    by_option, _, _ = plan(None, name, {}, None, resume=False)
    assert by_option == recipe


@pytest.mark.parametrize(
    ("subject", "part"),
    [
        ("recipe:digit", "Did you mean digits?"),
        ("recipe:densenet121", "Did you mean imagenet/densenet121 or "),
        ("recipe:", "Choices: cifar10/densenet_100_12, "),
        ("recipe:../recipes/digits", "unknown recipe '../recipes/digits'"),
        ("recipes/digits.yaml", "no file recipes/digits.yaml. Did you mean recipe:digits?"),
        ("mine/dpn92.yml", "Did you mean recipe:imagenet/dpn92?"),
        ("mine.yaml", "typed as recipe:NAME: digits, fine_tune, cifar10/densenet_100_12"),
    ],
)
def test_a_recipe_that_is_not_there_is_answered_with_those_that_are(
    subject, part, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for subject_and_recipe in ((subject, None), (None, subject)):
        with pytest.raises(UsageError) as caught:
            plan(*subject_and_recipe, {}, None, resume=False)
        assert part in str(caught.value)
        assert "not YAML" not in str(caught.value)


def test_a_folder_of_the_user_is_not_shadowed_by_a_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe:digits").mkdir()
    with pytest.raises(UsageError, match="is a folder, but no run folder"):
        plan("recipe:digits", None, {}, None, resume=False)
