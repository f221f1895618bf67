"""`densepath train` as a user meets it: options in, a run folder out, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

SMALL = [
    "--data",
    "digits",
    "--batch-size",
    "256",
    "--device",
    "cpu",
    "--set",
    "data.channels=1",
    "--set",
    "preprocess.size=8",
    "--set",
    "augment.padding=1",
]


def test_the_json_answer_is_alone_on_standard_output(run, tmp_path):
    status, out, err = run(
        "train", "densenet_bc_22_12", *SMALL, "--epochs", 1, "--output", tmp_path / "run", "--json"
    )
    assert status == 0, err
    result = json.loads(out)
    assert result["finished"] is True
    assert result["folder"] == str(tmp_path / "run")
    assert 0 <= result["best_top1"] <= 1
    assert "epoch 1/1 train loss" in err


def test_without_json_standard_output_is_empty(run, tmp_path):
    status, out, err = run(
        "train", "densenet_bc_22_12", *SMALL, "--epochs", 1, "--output", tmp_path / "run"
    )
    assert (status, out) == (0, "")
    assert "best top-1" in err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["densnet121"], "Did you mean densenet121"),
        (["densenet121", "--set", "optimizer.learning_rat=1"], "unknown recipe field"),
        (["densenet121", "--lr", "-1"], "optimizer.lr is -1"),
        (["densenet121", "--lr", "1", "--set", "optimizer.lr=2"], "given twice"),
        (["densenet121", "--device", "tpu"], "cpu"),
        (["densenet121", "--workers", "-1"], "workers is -1"),
        ([], "no model"),
        (["nothing.yaml"], "Recipes that come with densepath"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_valid(run, tmp_path, arguments, part):
    status, out, err = run("train", *arguments, "--output", tmp_path / "run")
    assert (status, out) == (2, "")
    assert part in err
    assert not (tmp_path / "run").exists()


def test_data_that_is_not_there_ends_with_1(run, tmp_path):
    status, _, err = run(
        "train", "densenet_bc_22_12", "--data", tmp_path / "none", "--output", tmp_path / "run"
    )
    assert status == 1
    assert "none" in err


def test_the_help_shows_an_example(run):
    status, out, _ = run("train", "--help")
    assert status == 0
    assert "Example: densepath train" in " ".join(out.split())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_between_steps_and_the_training_goes_on_later(number, code, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "densepath", "train", "densenet_bc_22_12", *SMALL]
    command += ["--epochs", "500", "--output", str(folder), "--progress", "none"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    deadline = time.monotonic() + 120
    while not (folder / "metrics.csv").exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert f"Go on with: densepath train {folder}" in " ".join(err.split())
    assert (folder / "state" / "state.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--qat", "densenet_bc_22_12"], "is a model without weights"),
        (["--qat", "cifar10/densenet_bc_22"], "Did you mean cifar10/densenet_bc_22_12"),
        (["--qat", "a", "--weights", "b"], "model.weights is given twice: 'b' and 'a'"),
        (["densenet121", "--qat", "cifar10/densenet_bc_22_12"], "are of densenet_bc_22_12"),
        (["--qat", "a", "--set", "quantization.observ=1"], "Did you mean quantization.observe"),
        (["--qat", "a", "--compile"], "compute.compile=false"),
        (["densenet121", "--set", "quantization.target=int8"], "--qat SUBJECT"),
    ],
)
def test_wrong_ways_to_train_for_int8_end_with_2(run, tmp_path, arguments, part):
    status, out, err = run("train", *arguments, "--output", tmp_path / "run")
    assert (status, out) == (2, "")
    assert part in err
    assert not (tmp_path / "run").exists()


def test_training_for_int8_on_other_classes_is_refused(run, tmp_path):
    subject = "cifar10/densenet_bc_22_12"
    status, out, err = run(
        "train", "--qat", subject, "--data", "digits", "--output", tmp_path / "run"
    )
    assert (status, out) == (1, "")
    assert f"digits has other classes than {subject}" in err
    assert f"densepath train --weights {subject} --data digits" in err
    assert not (tmp_path / "run").exists()


def test_a_run_under_way_is_not_turned_into_one_for_int8(run, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("epochs: 1\n")
    status, _, err = run("train", folder, "--qat", "cifar10/densenet_bc_22_12")
    assert status == 2
    assert "recipe options cannot be changed on the way" in err
