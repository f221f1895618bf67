"""Grad-CAM: the maps of the paper's formula, untouched by in-place ReLUs; and their pictures."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from densepath.engines.eager import EagerEngine
from densepath.engines.null import NullEngine
from densepath.errors import UnknownNameError, UsageError
from densepath.images.preprocess import Preprocess
from densepath.models.build import build_model
from densepath.predict.answers import ClassScore, Prediction, find_class
from densepath.predict.pictures import (
    draw_explanation,
    explanation_name,
    lay_over,
    save_explanation,
)
from densepath.predict.predictor import Explanation, Predictor


def network(name):
    torch.manual_seed(5)
    return build_model(name, num_classes=6).eval()


PREPROCESS = Preprocess((32, 32))


def noise(count, side=32):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def normalised(images):
    return torch.from_numpy(PREPROCESS.normalise(images))


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
    images = noise(3, 64)
    wanted = grad_cam_by_the_book(copy.deepcopy(model), normalised(images))
    _, maps = EagerEngine(model, PREPROCESS).explain(images)
    assert maps.shape == tuple(wanted.shape)
    np.testing.assert_allclose(maps, wanted.numpy(), atol=1e-3)


def test_with_mean_pooling_the_map_is_the_class_activation_map():
    model = network("densenet_bc_22_12")
    images = noise(2)
    with torch.inference_mode():
        features = model.forward_features(normalised(images))
        best = model.forward_head(features).argmax(1)
        cam = torch.einsum("nc,nchw->nhw", model.classifier.weight[best], features).relu()
    _, maps = EagerEngine(model, PREPROCESS).explain(images)
    np.testing.assert_allclose(maps, cam / cam.amax((1, 2), keepdim=True), atol=1e-3)


def test_explaining_gives_the_logits_of_running_before_and_after():
    engine, images = EagerEngine(network("dpn68"), PREPROCESS), noise(2)
    before = engine.run(images)
    logits, maps = engine.explain(images)
    np.testing.assert_allclose(logits, before, atol=1e-5)
    np.testing.assert_allclose(engine.run(images), before, atol=1e-5)
    assert maps.min() >= 0
    assert maps.max() <= 1


def test_a_broken_image_has_no_map_and_the_others_keep_theirs(tmp_path):
    model = network("densenet_bc_22_12")
    predictor = Predictor(EagerEngine(model, PREPROCESS), list("abcdef"))
    images = noise(2)
    first, broken, last = predictor.explain([images[0], tmp_path / "none.png", images[1]])
    assert broken.heat is None
    assert "no such file" in broken.prediction.error
    [alone] = predictor.explain([images[1]])
    np.testing.assert_allclose(last.heat, alone.heat, atol=1e-4)
    np.testing.assert_array_equal(first.image, images[0])


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


def test_the_map_of_a_chosen_class_is_that_of_its_own_gradient():
    model = network("densenet_bc_22_12")
    images = noise(2)
    with torch.inference_mode():
        features = model.forward_features(normalised(images))
    engine = EagerEngine(copy.deepcopy(model), PREPROCESS)
    found = {}
    for target in range(6):
        cam = torch.einsum("c,nchw->nhw", model.classifier.weight[target], features).relu()
        cam = cam / cam.amax((1, 2), keepdim=True).clamp_min(1e-30)
        _, found[target] = engine.explain(images, target)
        np.testing.assert_allclose(found[target], cam.detach(), atol=1e-3)
    assert not np.allclose(found[0], found[1])


@pytest.mark.parametrize("target", ["dog", 3, "3", np.int64(3)])
def test_a_predictor_explains_the_class_that_is_asked_for(target, tmp_path):
    labels = ["ant", "bee", "cat", "dog", "eel", "fly"]
    predictor = Predictor(EagerEngine(network("dpn68"), PREPROCESS), labels)
    [image] = noise(1)
    explained, broken = predictor.explain([image, tmp_path / "none.png"], target=target, top_k=6)
    place = explained.prediction.labels.index("dog")
    score = explained.prediction.scores[place]
    assert explained.explained == (3, "dog", pytest.approx(score))
    assert broken.heat is None
    [plain] = predictor.explain([image])
    assert plain.explained.class_id == plain.prediction.class_ids[0]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("3", 2),
        ("1", 1),
        (3, 3),
        ("crane 2", 4),
        ("Crane 2", 4),
        ("e\u0301t\u00e9", 5),
        ("$x^$", 0),
    ],
)
def test_a_class_is_found_by_its_name_first_and_then_by_its_number(wanted, found):
    labels = ["$x^$", "one", "3", "dog", "crane 2", "\u00e9te\u0301"]
    assert find_class(labels, wanted) == found


def test_a_class_that_cannot_be_meant_is_refused_with_what_can_be():
    labels = [f"class {i}" for i in range(1000)] + ["crane", "crane"]
    with pytest.raises(UsageError, match=r"2 classes are called 'crane'.*1000, 1001"):
        find_class(labels, "crane")
    for number in (1002, -1, "1002", "-1"):
        with pytest.raises(UsageError, match="numbered from 0 to 1001"):
            find_class(labels, number)
    with pytest.raises(UnknownNameError, match="Did you mean class 12") as caught:
        find_class(labels, "clas 12")
    assert len(str(caught.value)) < 1000


def test_a_picture_names_class_score_and_file_whatever_they_are_called():
    image, heat = np.zeros((32, 32, 3), np.uint8), np.ones((2, 2), np.float32)
    for name in ("$x^$", "a\nb", "\udcff", "", "日本", "y" * 500):
        made = Explanation(
            Prediction(f"{name}.png", [0], [name], [0.9]), image, heat, ClassScore(1, name, 0.05)
        )
        picture = np.asarray(draw_explanation(made))
        assert picture[:112].min() < 60, "the caption has letters"


def test_a_picture_that_cannot_be_written_is_said_once_for_a_folder(tmp_path, caplog):
    image, heat = np.zeros((32, 32, 3), np.uint8), np.ones((2, 2), np.float32)
    made = Explanation(Prediction("a.png", [0], ["ant"], [0.9]), image, heat)
    (tmp_path / "file").write_text("x")
    for number in range(3):
        assert save_explanation(made, tmp_path / "file" / f"{number}.png") is not None
    assert len(caplog.records) == 1


def test_the_left_panel_is_what_the_network_saw_and_the_right_one_is_heated():
    image, heat = np.full((300, 300, 3), (10, 200, 30), np.uint8), np.ones((2, 2), np.float32)
    made = Explanation(Prediction("a.png", [0], ["ant"], [0.9]), image, heat)
    picture = np.asarray(draw_explanation(made))
    middle = (picture.shape[0] + 112) // 2
    left, right = picture[middle, picture.shape[1] // 4], picture[middle, -picture.shape[1] // 4]
    assert left.tolist() == [10, 200, 30]
    assert right.tolist() != [10, 200, 30]


def test_beside_an_engine_that_cannot_explain_one_is_opened_that_can():
    opened = []

    def open_explainer():
        opened.append(EagerEngine(network("densenet_bc_22_12"), Preprocess((32, 32))))
        return opened[-1]

    predictor = Predictor(
        NullEngine(Preprocess((32, 32)), 6), list("abcdef"), open_explainer=open_explainer
    )
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), np.uint8)
    assert opened == []
    for _ in range(2):
        found = list(predictor.explain(images))
        assert [one.heat is not None for one in found] == [True, True]
    assert len(opened) == 1
