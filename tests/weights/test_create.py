"""Networks with weights: by name, for other channels and other classes; and what a SUBJECT is."""

from __future__ import annotations

import pytest
import torch

import densepath
from densepath.errors import CheckpointError, UnknownNameError, UsageError
from densepath.images.preprocess import Preprocess
from densepath.models.build import build_model
from densepath.models.layers import DropPath
from densepath.weights.adapt import adapt_first_layer, adapt_preprocess
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.subject import open_checkpoint

TINY = "densenet_bc_22_12"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run folder with a best and a last checkpoint, whose classifiers' biases are 1 and 2."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    model = build_model(TINY, num_classes=4)
    for bias, name in enumerate(("best", "last"), start=1):
        torch.nn.init.constant_(model.classifier.bias, bias)
        checkpoint = Checkpoint.of(model, preprocess=Preprocess(size=(32, 32)))
        checkpoint.save(folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def logits(model, images):
    with torch.inference_mode():
        return model.eval()(images)


# Subjects


def test_a_run_folder_is_its_best_checkpoint_else_its_last(folder, tmp_path):
    assert open_checkpoint(folder).tensors["classifier.bias"][0] == 1
    (tmp_path / "last.safetensors").write_bytes((folder / "last.safetensors").read_bytes())
    assert open_checkpoint(tmp_path).tensors["classifier.bias"][0] == 2


def test_a_folder_without_checkpoints_is_no_subject(tmp_path):
    with pytest.raises(CheckpointError, match=r"neither best\.safetensors nor last\.safetensors"):
        open_checkpoint(tmp_path)


def test_a_run_that_has_no_checkpoint_yet_is_called_that(tmp_path):
    (tmp_path / "recipe.yaml").write_text("epochs: 3\n")
    with pytest.raises(CheckpointError, match=r"no checkpoint yet.*densepath train .* goes on"):
        open_checkpoint(tmp_path)


def test_a_bare_model_name_is_answered_with_its_published_weights():
    with pytest.raises(UsageError, match=r"without weights.*paddle/DenseNet264"):
        open_checkpoint("densenet264")
    with pytest.raises(UsageError, match=r"`densepath train densenet_bc_40_12` makes one"):
        open_checkpoint("densenet_bc_40_12")


def test_an_unknown_subject_is_answered_with_near_names():
    with pytest.raises(UnknownNameError, match="Did you mean paddle/DPN92"):
        open_checkpoint("paddle/DPN-92")


# create_model


def test_a_model_without_weights_is_built_with_the_options():
    model = densepath.create_model(TINY, num_classes=7, in_channels=1, drop_rate=0.2)
    assert (model.num_classes, model.in_channels) == (7, 1)
    assert model.training


@pytest.mark.parametrize("form", ["folder", "file", "pth"])
def test_weights_from_a_folder_a_checkpoint_or_anothers_file_give_the_same_logits(
    form, folder, images, tmp_path
):
    checkpoint = open_checkpoint(folder)
    torch.save(checkpoint.tensors, tmp_path / "x.pth")
    weights = {"folder": folder, "file": folder / "best.safetensors", "pth": tmp_path / "x.pth"}
    model = densepath.create_model(TINY, weights=weights[form])
    assert model.training
    assert torch.equal(logits(model, images), logits(checkpoint.to_model(), images))


def test_other_classes_get_a_new_classifier_on_the_same_features(folder, images):
    model = densepath.create_model(TINY, weights=folder, num_classes=9).eval()
    pretrained = open_checkpoint(folder).to_model()
    with torch.inference_mode():
        assert model(images).shape == (2, 9)
        assert torch.equal(model.forward_features(images), pretrained.forward_features(images))


def test_gray_images_get_the_logits_of_the_same_images_in_three_channels(folder, images):
    gray = images[:, :1]
    model = densepath.create_model(TINY, weights=folder, in_channels=1)
    theirs = logits(open_checkpoint(folder).to_model(), gray.expand(-1, 3, -1, -1))
    assert torch.allclose(logits(model, gray), theirs, atol=1e-5)


def test_more_channels_repeat_the_filters_and_keep_the_size_of_the_answer():
    weight = torch.arange(6.0).reshape(2, 3, 1, 1)
    five = adapt_first_layer(weight, 5)
    assert torch.allclose(five[0].flatten(), torch.tensor([0, 1, 2, 0, 1]) * 3 / 5)
    assert torch.equal(adapt_first_layer(weight, 3), weight)
    constant = torch.ones(2, 3, 1, 1)
    for channels in (1, 2, 4, 6, 7):
        assert torch.allclose(adapt_first_layer(constant, channels).sum(1), constant.sum(1))


def test_the_preprocessing_of_other_channels_has_the_average_mean():
    adapted = adapt_preprocess(Preprocess(size=(8, 8), mean=(0.1, 0.2, 0.6), std=(1, 2, 3)), 2)
    assert adapted.mean == pytest.approx((0.3, 0.3))
    assert adapted.std == (2, 2)


def test_weights_of_another_model_are_refused_with_those_there_are(folder):
    with pytest.raises(UsageError, match=rf"is a {TINY}, not a dpn98.*paddle/DPN98"):
        densepath.create_model("dpn98", weights=folder)


def test_switches_beside_weights_are_refused(folder):
    with pytest.raises(UsageError, match="bn_eps cannot be chosen"):
        densepath.create_model(TINY, weights=folder, bn_eps=1e-3)


def test_weights_with_switches_of_their_own_keep_them(tmp_path):
    model = build_model("dpn68", num_classes=2, bn_eps=1e-5)
    Checkpoint.of(model, preprocess=Preprocess(size=(64, 64))).save(tmp_path / "x.safetensors")
    loaded = densepath.create_model("dpn68", weights=tmp_path / "x.safetensors")
    assert {m.eps for m in loaded.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-5}
    assert loaded.spec.arch.bn_eps == 1e-5


def test_weights_take_the_rates_of_dropout_and_drop_path_that_are_asked_for(folder):
    def rates(kind, **asked):
        model = densepath.create_model(TINY, weights=folder, **asked)
        return {
            part.p if kind is torch.nn.Dropout else part.rate
            for part in model.modules()
            if isinstance(part, kind)
        }

    for dropout, path in ((0.0, 0.0), (0.25, 0.0), (0.0, 0.5), (0.25, 0.5)):
        asked = {"drop_rate": dropout, "drop_path_rate": path}
        assert rates(torch.nn.Dropout, **asked) == {dropout}
        assert max(rates(DropPath, **asked)) == path


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_a_new_model_has_dropout_only_where_it_is_asked_for(rate):
    model = densepath.create_model(TINY, **({"drop_rate": rate} if rate else {}))
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} <= {rate}
    model.train()
    images = torch.ones(2, 3, 32, 32)
    with torch.no_grad():
        once, twice = (model(images) for _ in range(2))
    assert torch.equal(once, twice) == (rate == 0)
