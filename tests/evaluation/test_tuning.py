"""Thresholds and a temperature from the images to the checkpoint, and on to answers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from densepath import evaluate, load
from densepath.errors import UsageError
from densepath.weights.checkpoint import Checkpoint
from fixtures.networks import TINY, checkpoint_of, used_network
from fixtures.runs import train_quietly

NAMES = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Noise whose channels are bright or dark; some labels are blank, of two images a patient."""
    root = tmp_path_factory.mktemp("several")
    random = np.random.default_rng(0)
    rows = ["path,split,patient,red,green,blue"]
    for number in range(48):
        there = random.random(3) < 0.4
        pixels = random.integers(0, 120, (32, 32, 3)) + 90 * there
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{number}.png")
        cells = ["" if random.random() < 0.3 else str(int(yes)) for yes in there]
        split = ("train", "train", "val", "test")[number % 4]
        rows.append(f"{number}.png,{split},{number // 8},{','.join(cells)}")
    (root / "t.csv").write_text("\n".join(rows) + "\n")
    return root / "t.csv"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "x.safetensors"
    made = checkpoint_of(used_network(TINY, num_classes=3), labels=NAMES, multi_label=True)
    made.save(path)
    return path


def test_what_is_chosen_is_in_the_file_its_answers_and_the_report(weights, table, tmp_path):
    said, target = [], tmp_path / "tuned.safetensors"
    report = evaluate(
        weights,
        table,
        choose_thresholds="f1",
        calibrate=True,
        save_checkpoint=target,
        reading={"group_column": "patient"},
        say=said.append,
    )
    tuned = Checkpoint.load(target)
    assert said[-1].startswith("thresholds and temperature ")
    assert tuned.thresholds == tuple(row["threshold"] for row in report.per_class)
    about = report.settings["calibration"]
    assert tuned.temperature == about["temperature"]
    assert about["loss_after"] <= about["loss_before"]
    assert report.figures["loss"] == pytest.approx(about["loss_after"])
    assert tuned.provenance["thresholds"]["rule"] == "f1"
    chosen_on = tuned.provenance["calibration"]
    assert (chosen_on["split"], chosen_on["images"]) == ("validation", 12)
    assert Checkpoint.load(weights).thresholds is None
    assert report.settings["intervals"] == "1,000 resamples of groups, seed 0, 95 %"
    again = evaluate(target, table, split="validation")
    assert again.figures["loss"] == pytest.approx(report.figures["loss"], rel=1e-5)
    assert again.figures["macro_f1"] == report.figures["macro_f1"]
    with load(target) as predictor:
        (answer,) = predictor.predict(table.with_name("3.png"))
        values = answer.to_dict()
        scores = dict(zip(values["labels"], values["scores"], strict=True))
        over = [n for n, t in zip(NAMES, tuned.thresholds, strict=True) if scores[n] > t]
        assert set(values["positive_labels"]) == set(over)


def test_the_report_has_curves_intervals_and_what_calibration_changed(weights, table, tmp_path):
    report = evaluate(weights, table, calibrate=True, save_checkpoint=tmp_path / "x.safetensors")
    report.save(tmp_path / "report")
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert {"roc.png", "precision_recall.png", "calibration.png", "reliability.png"} <= names
    held = json.loads((tmp_path / "report" / "report.json").read_text())
    assert held["macro_auroc_low"] <= held["macro_auroc"] <= held["macro_auroc_high"]
    header = (tmp_path / "report" / "per_class.csv").read_text().splitlines()[0]
    assert "auroc,average_precision" in header
    assert "known" in header
    assert " to " in report.shown_figures()["macro_auroc"]


def test_one_class_an_image_is_calibrated_and_ranked_too(tmp_path):
    path = tmp_path / "x.safetensors"
    checkpoint_of(used_network(TINY, num_classes=2, spread=4.0), labels=["a", "b"]).save(path)
    for name, shade in (("a", 40), ("b", 200)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(5):
            Image.new("RGB", (32, 32), (shade + number, number, 90)).save(
                tmp_path / "data" / name / f"{number}.png"
            )
    report = evaluate(path, tmp_path / "data", calibrate=True)
    assert Checkpoint.load(path).temperature == report.settings["calibration"]["temperature"]
    assert report.per_class[0]["auroc"] == pytest.approx(report.per_class[1]["auroc"])
    with pytest.raises(UsageError, match="thresholds are chosen for multi-label networks"):
        evaluate(path, tmp_path / "data", choose_thresholds="f1")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"choose_thresholds": "f2"}, "choices: youden"),
        ({"choose_thresholds": "f1", "threshold": 0.3}, "give one option"),
        ({"save_checkpoint": "y.safetensors"}, "give one"),
    ],
)
def test_options_that_do_not_go_together_are_refused(weights, table, options, reason):
    with pytest.raises(UsageError, match=reason):
        evaluate(weights, table, **options)


def test_a_published_name_needs_a_file_to_write_to(table):
    with pytest.raises(UsageError, match="cifar10/densenet_bc_22_12 is no file or run folder"):
        evaluate("cifar10/densenet_bc_22_12", table, calibrate=True)


SETTINGS = {
    "preprocess.size": 8,
    "augment.crop": "none",
    "optimizer.lr": 0.05,
    "data.batch_size": 12,
    "model.freeze": "features",
    "augment.mixup": 0.2,
    "loss.pos_weight": "balanced",
    "loss.kind": "focal",
}


def rows_of(folder):
    lines = (folder / "metrics.csv").read_text().splitlines()
    return [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]


def test_masked_labels_weigh_alike_however_the_batch_is_divided(table, tmp_path):
    """The mean is over the labels that are known, not over parts of as many images."""
    for parts in (1, 3):
        train_quietly(
            table, tmp_path / str(parts), SETTINGS, epochs=2, distributed__accumulate=parts
        )
    one, three = rows_of(tmp_path / "1"), rows_of(tmp_path / "3")
    for name in ("train_loss", "loss", "macro_auroc", "mean_average_precision"):
        assert [float(row[name]) for row in one] == pytest.approx(
            [float(row[name]) for row in three], rel=1e-4
        )


def test_a_training_that_gets_no_better_ends_early_and_stays_ended(table, tmp_path):
    settings = SETTINGS | {
        "optimizer.lr": 1e-12,
        "optimizer.weight_decay": 0.0,
        "schedule.name": "constant",
        "checkpoint.monitor": "macro_auroc",
        "checkpoint.patience": 1,
        "data.sampler": "balanced",
    }
    result = train_quietly(table, tmp_path / "run", settings, epochs=5)
    assert (result.finished, result.ended_early, result.epochs) == (True, True, 2)
    assert result.best_epoch == 1
    log = (tmp_path / "run" / "train.log").read_text()
    assert "ended early after epoch 2 of 5: macro_auroc has not become better" in log
    assert "ended early" in (tmp_path / "run" / "README.md").read_text()
    again = train_quietly(table, tmp_path / "run", settings, epochs=5, resume=True)
    assert again.already_finished
