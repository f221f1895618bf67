"""Calibration images, ranges of activations, and what the quantisers leave of a network."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from densepath.bundle.bundle import Bundle
from densepath.errors import (
    DatasetError,
    OutputError,
    ParityError,
    UnknownNameError,
    UsageError,
)
from densepath.exporting.rewrite import ALL_STEPS, STEPS, rewrite
from densepath.images.preprocess import Preprocess
from densepath.models.plan import plan
from densepath.predict.load import load
from densepath.quantize import quantize as quantizing
from densepath.quantize.calibration import Calibration, draw_calibration
from densepath.quantize.layers import choose_layers, rewritten_paths
from densepath.quantize.quantize import quantize
from densepath.quantize.scoring import float_logits, score, signal_to_noise
from densepath.quantize.sensitivity import measure_sensitivity, worst_layers
from densepath.quantize.user_functions import load_user_functions
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.subject import open_checkpoint
from fixtures.networks import SHIPPED, TINY_DUAL, checkpoint_of, used_network

SMALL = Preprocess((32, 32), 36)


def dual_path() -> Checkpoint:
    return checkpoint_of(used_network(TINY_DUAL, num_classes=5), size=16, labels=list("abcde"))


# Calibration images


def test_a_seed_draws_the_same_images_and_another_seed_others(photographs):
    first, held = draw_calibration(photographs, SMALL, num_images=6, num_held_out=4, seed=1)
    again, _ = draw_calibration(photographs, SMALL, num_images=6, num_held_out=4, seed=1)
    other, _ = draw_calibration(photographs, SMALL, num_images=6, num_held_out=4, seed=2)
    assert first.images.shape == (6, 32, 32, 3)
    assert held is not None
    assert len(held) == 4
    assert first.notes == ()
    assert first.digest() == again.digest() != other.digest()
    assert first.names == again.names
    assert not set(first.names) & set(held.names)


def test_images_to_calibrate_with_come_before_those_to_choose_by(photographs):
    total = len(list(photographs.iterdir()))
    drawn, held = draw_calibration(photographs, SMALL, num_images=4, num_held_out=99)
    assert (len(drawn), len(held)) == (4, total // 3)
    images = list(np.zeros((60, 40, 50, 3), np.uint8))
    drawn, held = draw_calibration(images, SMALL, num_images=40, num_held_out=100)
    assert (len(drawn), len(held)) == (40, 20)
    assert drawn.notes == ()


def test_too_few_images_unreadable_ones_and_other_files_are_said(photographs, tmp_path):
    for photograph in sorted(photographs.glob("*.png"))[:6]:
        shutil.copy(photograph, tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "raw.dng").write_bytes(b"x")
    drawn, held = draw_calibration(tmp_path, SMALL, num_images=200, num_held_out=100)
    assert (len(drawn), len(held)) == (4, 2)
    few, unreadable, passed_over = drawn.notes
    assert "only 6 images to calibrate with" in few
    assert "4 of the 200 asked for measure ranges, 2 of 100 are held out" in few
    assert "1 image could not be read: broken.png: not an image" in unreadable
    assert "1 raw photo (1 .dng)" in passed_over


FOUR = Preprocess((32, 32), mean=(0.5,) * 4, std=(0.5,) * 4)


def test_files_for_a_network_of_four_channels_are_refused_with_the_ways_that_work(photographs):
    with pytest.raises(DatasetError, match=r"network takes 4; give it a TIFF .*or an \.npy array"):
        draw_calibration(photographs, FOUR, num_images=2)


def test_a_network_of_four_channels_is_calibrated_by_a_function_or_by_arrays(photographs):
    def add_channel(image):
        small = np.asarray(image)[:32, :32]
        return np.concatenate([small, small[:, :, :1]], axis=2)

    drawn, _ = draw_calibration(photographs, FOUR, num_images=3, prepare=add_channel)
    assert drawn.images.shape == (3, 32, 32, 4)
    arrays = [np.full((40, 50, 4), value, np.uint8) for value in (1, 2, 3)]
    drawn, _ = draw_calibration(arrays, FOUR, num_images=3)
    assert sorted(drawn.images[:, 0, 0, 0]) == [1, 2, 3]


def test_a_list_of_paths_and_labels_calibrates_as_well_as_one_of_names(photographs, tmp_path):
    for photograph in sorted(photographs.glob("*.png"))[:4]:
        shutil.copy(photograph, tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    for labels in ("", " 0"):
        (tmp_path / "list.txt").write_text("".join(f"{name}{labels}\n" for name in names))
        drawn, _ = draw_calibration(tmp_path / "list.txt", SMALL, num_images=3)
        assert len(drawn) == 3
        assert drawn.notes == ()


def test_calibration_batches_are_the_networks_input(photographs):
    drawn, _ = draw_calibration(photographs, SMALL, num_images=5)
    (batch, rest) = drawn.batches(3)
    assert batch.shape == (3, 3, 32, 32)
    assert len(rest) == 2
    np.testing.assert_array_equal(batch[0], SMALL.normalise(drawn.images[0]))


def test_data_sets_are_drawn_from_their_training_split():
    drawn, _ = draw_calibration("digits", Preprocess((8, 8), mean=(0.5,), std=(0.5,)), num_images=4)
    assert drawn.images.shape == (4, 8, 8, 1)
    assert "digits" in drawn.description


def test_unreadable_images_are_passed_over_and_none_at_all_is_an_error(photographs, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match="none of its images can be read"):
        draw_calibration(tmp_path, SMALL, num_images=2)
    (tmp_path / "whole.png").write_bytes((photographs / "flower-131x411.png").read_bytes())
    drawn, held = draw_calibration(tmp_path, SMALL, num_images=2, num_held_out=5)
    assert (drawn.names, held) == (["whole.png"], None)
    with pytest.raises(DatasetError, match="no such file or folder"):
        draw_calibration(tmp_path / "none", SMALL, num_images=2)
    with pytest.raises(UsageError, match="num_images is 0; it must be at least 1"):
        draw_calibration(tmp_path, SMALL, num_images=0)


def test_a_users_preprocessing_takes_the_place_of_the_networks_and_is_checked(
    photographs, tmp_path
):
    file = tmp_path / "own.py"
    file.write_text("def preprocess(image):\n    return image[:32, :32] // 2\n")
    own = load_user_functions(file)
    drawn, _ = draw_calibration(photographs, SMALL, num_images=3, prepare=own.preprocess)
    assert drawn.images.max() <= 127
    file.write_text("def preprocess(image):\n    return image[:31]\n")
    with pytest.raises(UsageError, match=r"the network takes uint8 \(32, 32, 3\)"):
        draw_calibration(
            photographs, SMALL, num_images=3, prepare=load_user_functions(file).preprocess
        )


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1", "defines neither of the functions preprocess and evaluate"),
        ("import no_such_module", "fails: ModuleNotFoundError"),
        ("def evaluate(logits, names):\n    return 1 / 0", "its function evaluate fails: ZeroDiv"),
    ],
)
def test_a_file_of_functions_that_is_wrong_is_told_by_its_name(tmp_path, code, message):
    file = tmp_path / "own.py"
    file.write_text(code)
    with pytest.raises(UsageError, match=message):
        load_user_functions(file).evaluate(np.zeros((1, 2), np.float32), ["a"])
    with pytest.raises(UsageError, match="no such Python file"):
        load_user_functions(tmp_path / "none.py")


# Scores


def test_the_ratio_of_signal_to_noise_is_in_decibels():
    logits = np.ones((4, 10), np.float32)
    assert signal_to_noise(logits * 1.1, logits) == pytest.approx(20, abs=1e-3)
    assert signal_to_noise(logits, logits) == np.inf
    assert signal_to_noise(logits * np.nan, logits) == -np.inf


def test_a_users_measure_comes_before_ours():
    expected = np.eye(3, dtype=np.float32)
    near = score(expected * 1.01, expected, names=list("abc"), evaluate=lambda logits, _: 0.0)
    far = score(expected * 2, expected, names=list("abc"), evaluate=lambda logits, _: 1.0)
    assert far.order > near.order
    assert near.agreement == far.agreement == 1


# Layers


@pytest.mark.parametrize("steps", [STEPS, ALL_STEPS, ()])
def test_a_layer_is_found_in_the_rewritten_network_as_modules_of_its_weights(steps):
    for checkpoint in (open_checkpoint(SHIPPED), dual_path()):
        model = checkpoint.to_model()
        network = rewrite(model, steps)
        found = rewritten_paths(checkpoint.spec, network)
        assert list(found) == [layer.name for layer in plan(checkpoint.spec)]
        for layer in plan(checkpoint.spec):
            made = torch.cat([network.get_submodule(path).weight for path in found[layer.name]])
            own = model.get_submodule(layer.name).weight
            if layer.behind and "fold" in steps:  # rows by the BatchNorm's factors
                made, own = (
                    one / one.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for one in (made, own)
                )
                made = made * (made * own).flatten(1).sum(1).sign().view(-1, 1, 1, 1)
            torch.testing.assert_close(made, own)


def test_layers_are_named_by_their_module_or_one_around_it():
    spec = open_checkpoint(SHIPPED).spec
    assert choose_layers(spec, ["features.conv0"]) == [plan(spec)[0]]
    assert choose_layers(spec, ["classifier"]) == [plan(spec)[-1]]
    block = choose_layers(spec, ["features.denseblock2"])
    assert {layer.name.split(".")[1] for layer in block} == {"denseblock2"}
    with pytest.raises(UnknownNameError, match=r"features\.conv0"):
        choose_layers(spec, ["features.conv9"])


def test_the_layers_that_8_bits_hurt_are_told_and_the_network_is_left_as_it_was(photographs):
    checkpoint = open_checkpoint(SHIPPED)
    drawn, _ = draw_calibration(photographs, checkpoint.preprocess, num_images=8)
    name = "features.denseblock2.denselayer1.conv1"
    # Large weights of an input that is always 0: they change nothing but the scale of all others.
    norm = name.replace("conv1", "norm1")
    checkpoint.tensors[f"{norm}.weight"][0] = checkpoint.tensors[f"{norm}.bias"][0] = 0
    before = float_logits(checkpoint, drawn)
    checkpoint.tensors[f"{name}.weight"][:, 0] = 30
    np.testing.assert_array_equal(float_logits(checkpoint, drawn), before)
    found = {one.name: one.snr_db for one in measure_sensitivity(checkpoint, drawn)}
    assert min(found, key=found.get) == name
    assert worst_layers(measure_sensitivity(checkpoint, drawn), 0.01) == [name]
    np.testing.assert_array_equal(float_logits(checkpoint, drawn), before)


# Whole bundles


@pytest.fixture(scope="module")
def server(photographs, tmp_path_factory):
    """The shipped network's INT8 bundle for servers."""
    folder = tmp_path_factory.mktemp("bundles") / "int8"
    return quantize(
        SHIPPED, folder, data=photographs, num_images=10, num_held_out=8, sensitivity=True
    )


def test_each_form_is_the_best_of_its_methods_and_all_of_it_is_in_int8(server):
    said = server.manifest.quantization
    assert server.manifest.precision == "int8"
    assert set(said["formats"]) == {"native", "openvino", "onnx"}
    for form in said["formats"].values():
        ratios = {name: score["snr_db"] for name, score in form["tried"].items()}
        assert ratios[form["method"]] == max(ratios.values()) > 20
        assert form["size_bytes"] < 300_000
    for name in ("native", "openvino", "onnx"):
        form = said["formats"][name]
        assert form["operators"]["share"] > 0.95
        assert "Convolution" not in form["operators"]["others"]
    assert said["calibration"]["num_images"] == 10
    assert len(said["calibration"]["names"]) == 10
    assert said["judged_on"] == {
        "images": said["judged_on"]["images"],
        "num_images": 8,
        "held_out": True,
    }


def test_a_bundle_in_int8_is_verified_and_answers_by_every_engine_of_its_formats(
    server, photographs
):
    Bundle.open(server.folder, verify="all")
    reference = load(SHIPPED, engine="eager")
    files = sorted(photographs.iterdir())[:6]
    wanted = list(reference.predict(files))
    for engine in ("native", "openvino", "onnxruntime"):
        with load(server.folder, engine=engine) as predictor:
            assert predictor.engine.info.precision == "int8"
            found = list(predictor.predict(files))
        for one, other in zip(found, wanted, strict=True):
            assert one.error is None
            assert abs(one.scores[0] - other.scores[0]) < 0.25


def test_a_bundle_in_int8_says_what_cannot_be_done_with_it(server):
    with pytest.raises(UsageError, match=r"is quantised to int8, and cannot be run in bfloat16"):
        load(server.folder, precision="bfloat16")
    with pytest.raises(UsageError, match="computes in float32 and bfloat16, not in int8"):
        load(server.folder, engine="eager")


def test_the_report_of_a_bundle_has_a_picture_and_the_worst_layers(server):
    text = (server.folder / "quantization.md").read_text(encoding="utf-8")
    assert "| openvino |" in text
    assert "features.conv0" in text
    assert (server.folder / "sensitivity.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((server.folder / "quantization.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_same_images_give_the_same_onnx_bytes(photographs, tmp_path):
    made = [
        quantize(
            SHIPPED,
            tmp_path / str(i),
            **{"data": photographs, "num_images": 4, "num_held_out": 2, "to": ["onnx"]},
            method="minmax",
        )
        for i in range(2)
    ]
    first, second = (bundle.manifest.files["model.onnx"].sha256 for bundle in made)
    assert first == second


@pytest.mark.slow
def test_layers_that_are_kept_stay_float_in_both_forms(photographs, tmp_path):
    bundle = quantize(
        dual_path(),
        tmp_path / "kept",
        **{"data": photographs, "num_images": 4, "num_held_out": 2, "method": "minmax"},
        keep_float=["features.conv2_1"],
    )
    found = rewritten_paths(dual_path().spec, rewrite(dual_path().to_model()))
    kept = {name: paths for name, paths in found.items() if "conv2_1." in name}
    formats = bundle.manifest.quantization["formats"]
    assert convolutions(formats["native"]) == len(kept)
    assert convolutions(formats["onnx"]) == sum(map(len, kept.values()))
    assert convolutions(formats["openvino"]) == sum(map(len, kept.values()))


def convolutions(form):
    """The convolutions of a form that are not in INT8."""
    return sum(n for kind, n in form["operators"]["others"].items() if "Conv" in kind)


def test_a_form_whose_answers_are_lost_makes_no_bundle(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(quantizing, "LEAST_SNR_DB", 200.0)
    with pytest.raises(ParityError, match=r"a signal-to-noise ratio of .* No bundle was written"):
        quantize(
            SHIPPED,
            tmp_path / "lost",
            **{"data": photographs, "num_images": 3, "to": ["native"], "method": "minmax"},
        )
    assert not (tmp_path / "lost").exists()


@pytest.mark.slow
def test_a_users_measure_chooses_the_method_and_its_failure_is_told(photographs, tmp_path):
    file = tmp_path / "own.py"
    file.write_text("def evaluate(logits, names):\n    return -abs(logits).sum()\n")
    options = {"data": photographs, "num_images": 4, "num_held_out": 3, "to": ["onnx"]}
    bundle = quantize(SHIPPED, tmp_path / "own", functions=file, **options)
    form = bundle.manifest.quantization["formats"]["onnx"]
    measures = {name: score["own"] for name, score in form["tried"].items()}
    assert measures[form["method"]] == max(measures.values()) < 0
    file.write_text("def evaluate(logits, names):\n    return names[len(names)]\n")
    with pytest.raises(UsageError, match="its function evaluate fails: IndexError"):
        quantize(SHIPPED, tmp_path / "failed", functions=file, method="minmax", **options)
    assert not (tmp_path / "failed").exists()


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"to": ["coreml"]}, UnknownNameError, "INT8 format"),
        ({"purpose": "cloud"}, UnknownNameError, "edge, npu, server"),
        ({"method": "median"}, UsageError, "native has no method 'median'; it has auto"),
        ({"keep_float": ["conv"]}, UnknownNameError, "layer"),
        ({"num_images": 0}, UsageError, "num_images is 0; it must be at least 1"),
    ],
)
def test_impossible_requests_are_refused_before_anything_takes_its_time(
    photographs, tmp_path, wrong, error, message
):
    with pytest.raises(error, match=message):
        quantize(SHIPPED, tmp_path / "b", **{"data": photographs, **wrong})
    assert not (tmp_path / "b").exists()


def test_an_output_that_is_something_else_is_left_alone(photographs, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("dear to me")
    with pytest.raises(OutputError, match="a folder with other files in it"):
        quantize(SHIPPED, tmp_path / "b", data=photographs)
    assert (tmp_path / "b" / "thesis.txt").read_text() == "dear to me"


def test_one_image_calibrates_and_is_judged_by_itself(photographs, tmp_path):
    image = next(iter(sorted(photographs.glob("*.png"))))
    bundle = quantize(
        SHIPPED, tmp_path / "one", data=image, to=["native"], method="minmax", num_held_out=5
    )
    said = bundle.manifest.quantization
    assert said["judged_on"]["held_out"] is False
    assert said["calibration"]["num_images"] == 1


def test_a_calibration_is_plain_arrays():
    images = np.zeros((2, 32, 32, 3), np.uint8)
    made = Calibration(images, ["a", "b"], SMALL, "two black images")
    assert len(made) == 2
    assert len(made.digest()) == 64
