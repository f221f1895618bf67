"""What answers is what is measured: engines, INT8 bundles and the ladder agree with each other."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

import densepath
from densepath.errors import BundleError, UsageError, WeightsError
from densepath.evaluation.forms import open_forms
from densepath.images.preprocess import Preprocess
from densepath.npu.program import DESCRIPTION
from densepath.weights.checkpoint import Checkpoint
from fixtures.networks import TINY, new_network
from fixtures.pictures import write_classes

LABELS = [f"class {number}" for number in range(7)]


def checkpoint_of(spread: float) -> Checkpoint:
    """A network whose answers spread so far; 0 answers alike to every image and class."""
    model = new_network(TINY, num_classes=len(LABELS))
    torch.nn.init.normal_(model.classifier.weight, 0, spread) if spread else None
    if not spread:
        torch.nn.init.zeros_(model.classifier.weight)
        torch.nn.init.zeros_(model.classifier.bias)
    return Checkpoint.of(model, preprocess=Preprocess((32, 32), 36), labels=LABELS)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with `tiny.safetensors`, `bundle`, `int8` and three photos a class."""
    folder = tmp_path_factory.mktemp("forms")
    write_classes(folder / "photos", LABELS, shape=(40, 40, 3))
    checkpoint_of(3.0).save(folder / "tiny.safetensors")
    source, photos = folder / "tiny.safetensors", folder / "photos"
    densepath.export(source, folder / "bundle", to=["onnx", "torch"], num_images=2)
    densepath.quantize(
        source, folder / "int8", data=photos, to=["native"], num_images=8, num_held_out=4
    )
    return folder


def test_every_engine_gives_the_figures_of_pytorch_and_the_report_names_it(here):
    expected = densepath.evaluate(here / "tiny.safetensors", here / "photos", engine="eager")
    assert expected.answered_by() == "eager in float32"
    for subject, engine in [
        ("tiny.safetensors", "native"),
        ("bundle", "native"),
        ("bundle", "onnxruntime"),
        ("bundle", "eager"),
    ]:
        report = densepath.evaluate(here / subject, here / "photos", engine=engine)
        assert (report.engine, report.precision) == (engine, "float32")
        assert report.figures["top1"] == expected.figures["top1"]
        assert report.figures["loss"] == pytest.approx(expected.figures["loss"], rel=1e-4)
        assert (report.confusion == expected.confusion).all()


def test_an_int8_bundle_is_measured_in_int8(here):
    report = densepath.evaluate(here / "int8", here / "photos")
    assert report.answered_by() == "native in int8"
    exact = densepath.evaluate(here / "tiny.safetensors", here / "photos")
    assert report.figures["loss"] != exact.figures["loss"]
    assert report.figures["loss"] == pytest.approx(exact.figures["loss"], rel=0.2)
    assert report.overlap is not None
    assert report.overlap.trained_on is None
    assert "a bundle does not keep" in str(report.overlap)


def test_the_report_s_files_say_what_answered(here, tmp_path):
    densepath.evaluate(here / "int8", here / "photos").save(tmp_path)
    told = json.loads((tmp_path / "report.json").read_text())
    assert (told["engine"], told["precision"]) == ("native", "int8")
    assert "Answered by native in int8." in (tmp_path / "README.md").read_text()


def test_a_bundle_s_size_and_pooling_are_the_engines_business(here):
    larger = densepath.evaluate(here / "bundle", here / "photos", size=40, test_pooling="mean_max")
    assert larger.engine == "eager"
    assert larger.settings["size"] == [40, 40]
    with pytest.raises(UsageError, match="pools by the mean; 'eager' can"):
        densepath.evaluate(
            here / "bundle", here / "photos", engine="native", test_pooling="mean_max"
        )


def test_a_program_for_an_npu_takes_no_engine(here, tmp_path):
    (tmp_path / DESCRIPTION).write_text("{}")
    with pytest.raises(UsageError, match=r"its simulator runs it.*Leave --engine"):
        densepath.evaluate(tmp_path, here / "photos", engine="native")
    with pytest.raises(BundleError, match=DESCRIPTION):
        densepath.evaluate(tmp_path, here / "photos")


def test_a_ladder_s_rows_are_the_reports_of_evaluate(here):
    ladder = densepath.measure_ladder(
        [here / "tiny.safetensors", here / "bundle", here / "int8"], here / "photos", timed=False
    )
    assert [row.report.answered_by() for row in ladder.rows] == [
        "eager in float32",
        "onnxruntime in float32",
        "native in float32",
        "native in int8",
    ]
    for row, subject in ((ladder.rows[0], "tiny.safetensors"), (ladder.rows[3], "int8")):
        alone = densepath.evaluate(here / subject, here / "photos", engine=row.report.engine)
        assert row.report.figures == pytest.approx(alone.figures)
    assert ladder.rows[1].agreement == 1.0


@pytest.mark.parametrize("verb", ["evaluate", "ladder"])
def test_a_constant_answer_is_right_for_one_class_and_among_five_for_five(verb, here, tmp_path):
    checkpoint_of(0.0).save(tmp_path / "constant.safetensors")
    if verb == "evaluate":
        figures = densepath.evaluate(tmp_path / "constant.safetensors", here / "photos").figures
    else:
        ladder = densepath.measure_ladder(
            [tmp_path / "constant.safetensors"], here / "photos", timed=False
        )
        figures = ladder.rows[0].report.figures
    assert figures["top1"] == pytest.approx(1 / 7)
    assert figures["top5"] == pytest.approx(5 / 7)


def test_a_form_whose_weights_are_no_numbers_ends_a_ladder_with_a_reason(here, tmp_path):
    broken = checkpoint_of(3.0)
    broken.tensors["classifier.bias"][2] = float("nan")
    broken.save(tmp_path / "broken.safetensors")
    with pytest.raises(WeightsError, match="NaN"):
        densepath.measure_ladder(
            [here / "tiny.safetensors", tmp_path / "broken.safetensors"],
            here / "photos",
            timed=False,
        )


def test_forms_are_closed_and_know_their_sizes(here):
    forms = list(open_forms(here / "bundle", name="bundle"))
    assert len(forms) == 2
    for form in forms:
        with form:
            assert form.size_bytes > 10_000
            assert form.run(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, len(LABELS))
        with pytest.raises(UsageError, match="closed"):
            form.run(np.zeros((1, 32, 32, 3), np.uint8))


def test_forms_of_one_name_are_told_apart_in_a_ladder(here, tmp_path, monkeypatch):
    checkpoint = checkpoint_of(3.0)
    for run in ("first", "second"):
        checkpoint.save(tmp_path / run / "best.safetensors")
    shutil.copytree(here / "bundle", tmp_path / "first" / "bundle")
    monkeypatch.chdir(tmp_path / "first")
    subjects = ["best.safetensors", "../second/best.safetensors", "bundle/", "../first"]
    ladder = densepath.measure_ladder(subjects, here / "photos", timed=False)
    assert [row.name for row in ladder.rows] == [
        "best.safetensors",
        "../second/best.safetensors",
        "bundle, onnx",
        "bundle, torch",
        "first",
    ]
    alone = densepath.measure_ladder(["."], here / "photos", timed=False)
    assert alone.rows[0].name == "first"


def test_a_bundle_without_images_named_says_where_they_are_known(here):
    with pytest.raises(UsageError, match="--data SOURCE, for a bundle does not keep what"):
        densepath.evaluate(here / "bundle")
    with pytest.raises(UsageError, match="--data SOURCE, for its weights do not say what"):
        densepath.evaluate(here / "tiny.safetensors")
