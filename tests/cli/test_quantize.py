"""`densepath quantize` and `densepath ladder` as a user meets them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from densepath.data.open import open_dataset
from densepath.images.preprocess import Preprocess
from densepath.weights.checkpoint import Checkpoint
from fixtures.networks import SHIPPED, new_network

QUICK = ("--images", "6", "--held-out", "4", "--to", "onnx", "--method", "minmax")
DENSEPATH = Path(sys.executable).with_name("densepath")

pytest.importorskip("onnxruntime")
pytest.importorskip("nncf")


def test_a_bundle_is_written_shown_and_answers(run, photographs, tmp_path):
    code, out, err = run("quantize", SHIPPED, "--data", photographs, "-o", tmp_path / "b", *QUICK)
    assert code == 0
    assert "onnx    minmax" in out
    assert "densenet_bc_22_12 in INT8 as onnx" in err
    photo = sorted(photographs.iterdir())[0]
    code, out, err = run("predict", tmp_path / "b", photo, "--json")
    assert code == 0
    assert json.loads(out)["labels"][0]
    assert "engine onnxruntime" in err


def test_json_says_which_method_was_taken_and_how_it_did(run, photographs, tmp_path):
    options = (*QUICK, "--to", "native", "--json")
    code, out, _ = run("quantize", SHIPPED, "--data", photographs, "-o", tmp_path / "b", *options)
    assert code == 0
    said = json.loads(out)
    assert said["formats"]["native"]["method"] == "minmax"
    assert said["formats"]["native"]["tried"]["minmax"]["snr_db"] > 20


@pytest.mark.slow
def test_nothing_is_said_by_the_quantisers_themselves(photographs, tmp_path):
    """In a process of its own, whose warnings nobody filters."""
    done = subprocess.run(
        [
            DENSEPATH,
            "quantize",
            SHIPPED,
            "--data",
            photographs,
            "-o",
            tmp_path / "b",
            "--images",
            "4",
            "--held-out",
            "2",
            "--method",
            "minmax",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stderr.splitlines()) == 1
    assert len(done.stdout.splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "none"), "no such file or folder"),
        (("--data", ".", "--to", "coreml"), "unknown INT8 format 'coreml'"),
        (("--data", ".", "--method", "median"), "has no method 'median'"),
        (("--data", ".", "--keep-float", "stem"), "unknown layer 'stem'"),
        (("--data", ".", "--functions", "none.py"), "none.py: no such Python file"),
    ],
)
def test_a_wrong_option_is_one_line_and_writes_nothing(
    run, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    code, out, err = run("quantize", SHIPPED, "-o", "b", *arguments)
    assert code in (1, 2)
    assert message.lower() in err.lower()
    assert out == ""
    assert not (tmp_path / "b").exists()


def test_a_run_that_is_stopped_midway_leaves_nothing(photographs, tmp_path):
    started = subprocess.Popen(
        [DENSEPATH, "quantize", SHIPPED, "--data", photographs, "-o", tmp_path / "b"],
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and time.monotonic() < until:
        time.sleep(0.05)
    assert list(tmp_path.iterdir())
    started.send_signal(signal.SIGTERM)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 143
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def labelled(photographs, tmp_path):
    """A folder of two classes with four images each."""
    files = sorted(photographs.glob("*.png"))[:8]
    for number, file in enumerate(files):
        folder = tmp_path / "data" / ("cat", "dog")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file.name).write_bytes(file.read_bytes())
    return tmp_path / "data"


def test_a_ladder_compares_forms_on_the_same_images(run, tmp_path):
    """On the digits, whose images come with scikit-learn."""
    model = new_network(num_classes=10, in_channels=1)
    labels = open_dataset("digits").class_names
    preprocess = Preprocess((8, 8), mean=(0.5,), std=(0.5,))
    Checkpoint.of(model, preprocess=preprocess, labels=labels).save(tmp_path / "x.safetensors")
    code, _, _ = run(
        "quantize", tmp_path / "x.safetensors", "--data", "digits", "-o", tmp_path / "b", *QUICK
    )
    assert code == 0
    code, out, _ = run(
        "ladder",
        tmp_path / "x.safetensors",
        tmp_path / "b",
        "--data",
        "digits",
        "--images",
        64,
        "-o",
        tmp_path / "l",
        "--json",
    )
    assert code == 0
    first, second = json.loads(out)["rows"]
    assert first["snr_db"] is None
    assert first["agreement"] == 1
    assert first["num_images"] == second["num_images"] == 64
    assert second["precision"] == "int8"
    assert second["snr_db"] > 15
    assert (tmp_path / "l" / "ladder.png").read_bytes().startswith(b"\x89PNG")
    assert "| b, onnx | onnxruntime |" in (tmp_path / "l" / "ladder.md").read_text(encoding="utf-8")


def test_a_ladder_of_different_networks_is_refused(run, tmp_path, labelled):
    code, _, err = run("ladder", SHIPPED, "--data", tmp_path / "none")
    assert code in (1, 2)
    assert "there is no data set" in err
    code, _, err = run("ladder", SHIPPED, "--data", labelled)
    assert code in (1, 2)
    assert "classes" in err
