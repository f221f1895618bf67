"""Features of images: those that the classifier reads; files of them, and nearest neighbours."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import densepath
from densepath.errors import UsageError
from densepath.predict.feature_file import write_features
from densepath.predict.neighbours import find_neighbours, spread_queries
from fixtures.bundles import COLOUR, FLOWERS, flowers
from fixtures.pictures import write_noise

KNOWN = np.array([[1, 0], [2, 0.1], [0, 1], [0, 3], [-1, 0]], np.float32)


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """A checkpoint file, and a folder of images with odd names, one of which is none."""
    folder = tmp_path_factory.mktemp("features")
    flowers().save(folder / "x.safetensors")
    for number, name in enumerate(("a b", "ü", "蘭", "d")):
        write_noise(folder / "photos" / f"{name}.png", (40, 50, 3), seed=number)
    (folder / "photos" / "broken.png").write_bytes(b"no image")
    return folder


def test_features_are_the_mean_of_the_last_map_and_the_classifier_gives_the_answer(subject):
    model = flowers().to_model().eval()
    with densepath.load(subject / "x.safetensors") as predictor:
        found = list(predictor.embed(str(subject / "photos")))
        assert [one.features is None for one in found] == [False, True, False, False, False]
        plain = list(predictor.predict(str(subject / "photos")))
    for one, answer in zip(found, plain, strict=True):
        assert one.prediction.path == answer.path
        if one.features is None:
            assert one.prediction.error == answer.error
            continue
        assert one.prediction.labels == answer.labels
        with Image.open(answer.path) as image:
            tensor = torch.from_numpy(COLOUR(np.asarray(image)))[None]
        with torch.inference_mode():
            wanted = model.forward_features(tensor).mean((2, 3))[0].numpy()
        assert one.features.dtype == np.float32
        assert one.features == pytest.approx(wanted, abs=1e-4)


def test_a_bundle_gives_them_from_its_float_weights_whatever_engine_answers(subject, tmp_path):
    densepath.export(subject / "x.safetensors", tmp_path / "bundle", to=["torch"])
    image = str(subject / "photos" / "d.png")
    with (
        densepath.load(tmp_path / "bundle") as bundle,
        densepath.load(subject / "x.safetensors") as checkpoint,
    ):
        assert bundle.engine.info.name != "eager"
        [one], [other] = list(bundle.embed(image)), list(checkpoint.embed(image))
    assert one.features == pytest.approx(other.features, abs=1e-4)


def test_neighbours_are_those_of_the_smallest_angle_and_never_the_query():
    found = find_neighbours(KNOWN, k=2)
    assert found.nearest[:, 0].tolist() == [1, 0, 3, 2, 2]
    assert found.distances[2, 0] == pytest.approx(0, abs=1e-6)
    assert found.distances[4].tolist() == pytest.approx([1, 1])
    assert find_neighbours(KNOWN, [3], k=9).nearest.shape == (1, 4)
    assert spread_queries(100, 3) == [0, 50, 99] or spread_queries(100, 3) == [0, 49, 99]
    assert spread_queries(2) == [0, 1]


@pytest.mark.parametrize(
    ("features", "queries", "part"),
    [
        (KNOWN[:1], None, "two images at least"),
        (KNOWN, [5], "from 0 to 4"),
        (np.full((2, 2), np.nan, np.float32), None, "no numbers"),
    ],
)
def test_what_has_no_neighbours_is_refused(features, queries, part):
    with pytest.raises(UsageError, match=part):
        find_neighbours(features, queries)


def test_the_command_writes_rows_names_and_a_picture(run, subject, tmp_path):
    rows, picture = tmp_path / "Merkmale ü.npy", tmp_path / "n.png"
    code, out, err = run(
        *("predict", subject / "x.safetensors", subject / "photos", "--json"),
        *("--features", rows, "--neighbours", picture),
    )
    assert code == 0, err
    answers = [json.loads(line) for line in out.splitlines()]
    features, side = np.load(rows), json.loads(rows.with_suffix(".json").read_text())
    assert features.shape == (4, flowers().to_model().num_features)
    assert features.dtype == np.float32
    assert side["shape"] == list(features.shape)
    read = [answer for answer in answers if "error" not in answer or answer["error"] is None]
    assert [row["path"] for row in side["images"]] == [answer["path"] for answer in read]
    assert [row["label"] for row in side["images"]] == [answer["labels"][0] for answer in read]
    assert [row["path"].rsplit("/", 1)[1] for row in side["unreadable"]] == ["broken.png"]
    assert {row["label"] for row in side["images"]} <= set(FLOWERS)
    with Image.open(picture) as drawn:
        assert drawn.width > 500
    assert "nearest neighbours in" in err


def test_wrong_names_and_combinations_are_refused_before_anything_is_read(run, subject, tmp_path):
    def refused(*options):
        code, out, err = run("predict", subject / "x.safetensors", subject / "photos", *options)
        assert (code, out) == (2, "") or code == 1
        return err

    assert "ends in .npy" in refused("--features", tmp_path / "x.txt")
    assert "ends in .npy" in refused("--features", "-")
    assert "one at a time" in refused(
        "--features", tmp_path / "x.npy", "--explain", tmp_path / "explained"
    )
    assert "one view" in refused("--features", tmp_path / "x.npy", "--tta", "flip")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_no_half_a_file(run, subject, tmp_path):
    code, _, _ = run(
        *("predict", subject / "x.safetensors", subject / "photos", "--on-error", "fail"),
        *("--features", tmp_path / "x.npy"),
    )
    assert code == 1
    assert list(tmp_path.iterdir()) == []


def test_no_rows_are_a_file_too(tmp_path):
    with write_features(tmp_path / "x.npy", subject="x"):
        pass
    assert np.load(tmp_path / "x.npy").shape == (0, 0)
