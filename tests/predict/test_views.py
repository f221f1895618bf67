"""Test-time augmentation through a predictor and an evaluation, whatever engine answers."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

import densepath
from densepath.errors import UsageError
from densepath.images.preprocess import Preprocess
from fixtures.networks import LABELS, SMALL, TINY, checkpoint_of, used_network
from fixtures.pictures import write_classes

WAY = Preprocess((32, 32), 40)


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """A checkpoint file whose crop has a margin, and images of its classes."""
    folder = tmp_path_factory.mktemp("tta")
    from densepath.weights.checkpoint import Checkpoint

    network = used_network(TINY, num_classes=3, spread=0.3)
    Checkpoint.of(network, preprocess=WAY, labels=LABELS).save(folder / "x.safetensors")
    write_classes(folder / "data", LABELS, each=2, shape=(48, 60, 3))
    return folder


def scores_of(predictor, data):
    return {
        answer.path: dict(zip(answer.labels, answer.scores, strict=True))
        for answer in predictor.predict(str(data))
    }


@pytest.mark.parametrize("form", ["checkpoint", "bundle"])
def test_the_scores_are_those_of_the_mean_logits(subject, form, tmp_path):
    what = subject / "x.safetensors"
    if form == "bundle":
        densepath.export(what, tmp_path / "bundle", to=["torch"])
        what = tmp_path / "bundle"
    paths = sorted((subject / "data").rglob("*.png"))
    with densepath.load(what) as plain:
        found = [plain.read(path, str(path)).image for path in paths]
        images = np.stack(found)
        mean = (plain.engine.run(images) + plain.engine.run(images[:, :, ::-1].copy())) / 2
        wanted = plain.answer(mean, [str(path) for path in paths])
    with densepath.load(what, tta="flip") as predictor:
        assert predictor.views.count == 2
        answers = list(predictor.predict(str(subject / "data")))
        again = pickle.loads(pickle.dumps(predictor))
        with again:
            assert again.views.how == "flip"
    for answer, other in zip(answers, wanted, strict=True):
        assert answer.labels == other.labels
        assert answer.scores == pytest.approx(other.scores, abs=1e-5)


def test_an_unreadable_image_among_views_keeps_its_place(subject):
    with densepath.load(subject / "x.safetensors", tta="flip+five-crop") as predictor:
        images = [np.zeros((50, 50, 3), np.uint8), b"no image", np.zeros((40, 70, 3), np.uint8)]
        errors = [answer.error for answer in predictor.predict(images)]
    assert [error is None for error in errors] == [True, False, True]


def test_an_evaluation_says_it_and_has_the_predictor_s_answers(subject):
    said = []
    options = {"say": said.append, "batch_size": 4}
    report = densepath.evaluate(
        subject / "x.safetensors", subject / "data", tta="five-crop", **options
    )
    assert (report.settings["tta"], report.settings["views"]) == ("five-crop", 5)
    assert any("5 times the network's work" in line for line in said)
    with densepath.load(subject / "x.safetensors", tta="five-crop") as predictor:
        scores = scores_of(predictor, subject / "data")
    truth = {path: path.split("/")[-2] for path in scores}
    losses = [-np.log(row[truth[path]]) for path, row in scores.items()]
    assert report.figures["loss"] == pytest.approx(np.mean(losses), abs=1e-4)
    plain = densepath.evaluate(subject / "x.safetensors", subject / "data")
    assert "tta" not in plain.settings
    assert plain.figures["loss"] != report.figures["loss"]


def test_explanations_and_digits_refuse_it(subject, digits_run, tmp_path):
    with (
        densepath.load(subject / "x.safetensors", tta="flip") as predictor,
        pytest.raises(UsageError, match="of one view"),
    ):
        predictor.explain(str(subject / "data"))
    with pytest.raises(UsageError, match="mirror makes digits unreadable"):
        densepath.load(digits_run, tta="flip")
    with pytest.raises(UsageError, match="mirror makes digits unreadable"):
        densepath.evaluate(digits_run, tta="flip+five-crop")
    checkpoint_of(used_network(SMALL, num_classes=3), labels=LABELS).save(
        tmp_path / "y.safetensors"
    )
    with pytest.raises(UsageError, match="resized straight to 32 × 32"):
        densepath.load(tmp_path / "y.safetensors", tta="five-crop")


def test_the_command_line_says_what_it_costs(run, subject):
    code, out, err = run(
        *("predict", subject / "x.safetensors", subject / "data", "--tta", "flip", "--json")
    )
    assert code == 0
    assert len([json.loads(line) for line in out.splitlines()]) == 6
    assert "2 times the network's work" in err
    code, out, err = run(
        *("evaluate", subject / "x.safetensors", "--data", subject / "data"),
        *("--tta", "flip+five-crop", "--json", "--engine", "eager"),
    )
    assert json.loads(out)["settings"]["views"] == 10
    assert "10 times" in err
    code, _, err = run(
        *("predict", subject / "x.safetensors", subject / "data", "--tta", "flip"),
        *("--explain", subject / "explained"),
    )
    assert (code, "leave --tta flip out" in err) == (2, True)
