"""Grad-CAM: the maps of the paper's formula, untouched by in-place ReLUs; and their pictures."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from densepath.engines.eager import EagerEngine
from densepath.engines.pictures import draw_explanation, explanation_name, lay_over
from densepath.engines.predictor import Explanation, Predictor
from densepath.models.build import build_model
from densepath.predictions import Prediction
from densepath.preprocess import Preprocess


def network(name):
    torch.manual_seed(5)
    return build_model(name, num_classes=6).eval()


def grad_cam_by_the_book(model, images):
    """Gradient of the best logit through the whole plain network, with autograd all the way."""
    features = model.forward_features(images)
    features.retain_grad()
    logits = model.forward_head(features)
    logits.amax(1).sum().backward()
    weights = features.grad.mean((2, 3), keepdim=True)
    maps = (weights * features).sum(1).relu().detach()
    return maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-30)


@pytest.mark.parametrize("name", ["densenet_bc_22_12", "dpn68"])
def test_the_maps_are_those_of_a_backward_pass_through_the_plain_network(name):
    model = network(name)
    images = torch.randn(3, 3, 64, 64)
    wanted = grad_cam_by_the_book(copy.deepcopy(model), images)
    _, maps = EagerEngine(model).explain(images.numpy())
    assert maps.shape == tuple(wanted.shape)
    np.testing.assert_allclose(maps, wanted.numpy(), atol=1e-3)


def test_with_mean_pooling_the_map_is_the_class_activation_map():
    model = network("densenet_bc_22_12")
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        features = model.forward_features(images)
        best = model.forward_head(features).argmax(1)
        cam = torch.einsum("nc,nchw->nhw", model.classifier.weight[best], features).relu()
    _, maps = EagerEngine(model).explain(images.numpy())
    np.testing.assert_allclose(maps, cam / cam.amax((1, 2), keepdim=True), atol=1e-3)


def test_explaining_gives_the_logits_of_running_before_and_after():
    engine = EagerEngine(network("dpn68"))
    images = torch.randn(2, 3, 32, 32).numpy()
    before = engine.run(images)
    logits, maps = engine.explain(images)
    np.testing.assert_allclose(logits, before, atol=1e-5)
    np.testing.assert_allclose(engine.run(images), before, atol=1e-5)
    assert maps.min() >= 0
    assert maps.max() <= 1


def test_a_broken_image_has_no_map_and_the_others_keep_theirs(tmp_path):
    model = network("densenet_bc_22_12")
    predictor = Predictor(EagerEngine(model), Preprocess((32, 32)), list("abcdef"))
    generator = np.random.default_rng(0)
    noise = [generator.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(2)]
    first, broken, last = predictor.explain([noise[0], tmp_path / "none.png", noise[1]])
    assert broken.heat is None
    assert "no such file" in broken.prediction.error
    [alone] = predictor.explain([noise[1]])
    np.testing.assert_allclose(last.heat, alone.heat, atol=1e-4)
    np.testing.assert_array_equal(first.image, noise[0])


def test_warm_places_are_coloured_and_cold_ones_keep_the_picture():
    picture = Image.new("RGB", (64, 64), (128, 128, 128))
    heat = np.zeros((2, 2), np.float32)
    heat[0, 0] = 1
    laid = np.asarray(lay_over(picture, heat)).astype(int)
    change = abs(laid - 128).sum(2)
    assert change[4, 4] > 2 * change[-4, -4]


@pytest.mark.parametrize(("height", "width", "channels"), [(32, 32, 1), (300, 300, 3), (40, 80, 3)])
def test_a_picture_shows_both_panels_for_images_of_any_shape(height, width, channels):
    image = np.full((height, width, channels), 200, np.uint8)
    heat = np.ones((2, 2), np.float32)
    picture = draw_explanation(Explanation(Prediction("a.png", [0], ["ant"], [0.9]), image, heat))
    assert picture.mode == "RGB"
    assert picture.width > 2 * 448


def test_picture_names_are_safe_whatever_the_image_is_called():
    names = ["../../etc/passwd.png", "a/b.png", "c/b.png", "日本.jpg", "x" * 300, "-rf .png", ""]
    made = [
        explanation_name(Explanation(Prediction(name, [0], ["ant"], [1.0])), i)
        for i, name in enumerate(names)
    ]
    assert len(set(made)) == len(names)
    for name in made:
        assert name.isascii()
        assert "/" not in name
        assert len(name) < 80
        assert name[0].isdigit()
