"""`densepath export` and `densepath convert`: what they write, what they print, how they fail."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from densepath.bundle.bundle import Bundle
from densepath.engines.machine import missing_bfloat16
from densepath.weights import paddle
from densepath.weights.checkpoint import Checkpoint
from fixtures.networks import SMALL, new_network

QUICK = ("--to", "torch", "--num-images", "2", "--batch-sizes", "1")
DENSEPATH = Path(sys.executable).with_name("densepath")

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


@pytest.mark.slow
def test_all_formats_are_written_without_a_word_from_the_exporters(weights, tmp_path):
    """In a process of its own, whose warnings nobody filters, and with an empty home."""
    home = tmp_path / "home"
    home.mkdir()
    program = [sys.executable, "-W", "always", "-m", "densepath"]
    made = subprocess.run(
        [*program, "export", weights, "-o", tmp_path / "b", "--num-images", "3"],
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(home), "COLUMNS": "150"},
    )
    assert made.returncode == 0, made.stderr
    *of_bfloat16, of_bundle = made.stderr.splitlines()
    engines = ["our kernels"] if missing_bfloat16() else ["our kernels", "openvino"]
    for line, engine in zip(of_bfloat16, engines, strict=True):
        assert line.startswith(f"bfloat16 on {engine}: the best class is the same on all of 3")
    assert of_bundle.startswith(f"{tmp_path / 'b'}: {SMALL} as onnx, openvino, torch, ")
    lines = made.stdout.splitlines()
    assert lines[0].startswith("parity on 3 of 18 images: scikit-learn's china.jpg and flower.jpg")
    assert [line.split()[:2] for line in lines if "100.0 %" in line] == [
        ["onnx", "Pillow"],
        ["onnx", "graph"],
        ["openvino", "Pillow"],
        ["openvino", "graph"],
        ["torch", "Pillow"],
    ]
    Bundle.open(tmp_path / "b", verify="all")
    # OpenVINO's converter would have left its telemetry's files in the home.
    assert {path.name for path in home.iterdir()} <= {".cache"}


def test_json_is_one_object_on_standard_output(run, weights, tmp_path):
    code, out, err = run("export", weights, "-o", tmp_path / "b", *QUICK, "--json")
    assert (code, err) == (0, "")
    summary = json.loads(out)
    assert (summary["model"], summary["formats"]) == (SMALL, ["torch"])
    assert summary["output"] == str(tmp_path / "b")
    assert summary["parity"]["num_images"] == 2
    assert summary["parity"]["formats"]["torch"]["Pillow"]["top1"] == 1.0


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (("--to", "onnx,onx"), 2, "unknown format 'onx'. Did you mean onnx?"),
        (("--to", ""), 2, "no format was named; choices: onnx, openvino, torch, aoti"),
        (("--batch-sizes", "1;4"), 2, "batch sizes '1;4': name whole numbers, as in 1,4,8"),
        (("--batch-sizes", "0"), 2, "each of the batch sizes is 0; it must be at least 1"),
        (("--images", "nowhere"), 1, "nowhere: no such file or folder of images"),
        (("--size", "0"), 2, "--size"),
    ],
)
def test_a_mistake_is_told_and_leaves_no_folder(run, weights, tmp_path, options, code, reason):
    found, out, err = run("export", weights, "-o", tmp_path / "b", *QUICK, *options)
    assert (found, out) == (code, "")
    assert reason in err
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_replaced_only_when_asked(run, weights, tmp_path):
    assert run("export", weights, "-o", tmp_path / "b", *QUICK)[0] == 0
    code, _, err = run("export", weights, "-o", tmp_path / "b", *QUICK)
    assert (code, err) == (
        1,
        f"error: {tmp_path / 'b'} is a bundle already; --overwrite replaces it.",
    )
    assert run("export", weights, "-o", tmp_path / "b", *QUICK, "--overwrite")[0] == 0


def test_a_broken_bound_is_the_end_and_its_report_is_kept(run, weights, tmp_path, monkeypatch):
    right = Checkpoint.save

    def wrong(checkpoint, path):
        checkpoint.tensors["classifier.bias"][1] += 5.0
        right(checkpoint, path)
        checkpoint.tensors["classifier.bias"][1] -= 5.0

    monkeypatch.setattr(Checkpoint, "save", wrong)
    where = tmp_path / "why"
    code, _, err = run("export", weights, "-o", tmp_path / "b", *QUICK, "--keep-failed", where)
    assert code == 1
    assert "does not answer as its checkpoint: torch on native, 32 × 32 pixels, batch 1: max" in err
    assert "the bound is 1e-03" in err
    assert "No bundle was written" in err
    assert [path.name for path in tmp_path.iterdir()] == ["why"]
    assert "BROKEN" in (where / "parity.md").read_text(encoding="utf-8")


def write_pdparams(path: Path) -> torch.nn.Module:
    """A file as PaddleClas's `paddle.save` writes it, of the network that is returned."""
    from densepath.models.catalogue import find_spec

    spec = find_spec("densenet121")
    model = new_network(spec, num_classes=4)
    state = model.state_dict()
    held = {
        theirs: (state[ours].T if ours in paddle.TRANSPOSED else state[ours]).numpy().copy()
        for ours, (theirs,) in paddle.key_map(spec).items()
    }
    path.write_bytes(pickle.dumps(held, protocol=4))
    return model


@pytest.mark.slow
def test_a_pdparams_file_becomes_onnx_in_one_step(run, tmp_path):
    import onnxruntime

    file = tmp_path / "DenseNet121_pretrained.pdparams"
    model = write_pdparams(file)
    target = tmp_path / "b"
    options = ("--to", "onnx", "--size", "64", "--num-images", "2", "--batch-sizes", "2")
    code, _, err = run("convert", file, "-o", target, *options)
    assert (code, err[: len(str(target)) + 22]) == (0, f"{target}: densenet121 as onnx,")
    bundle = Bundle.open(target, verify="all")
    assert bundle.manifest.preprocess.interpolation == "cv2_bilinear"  # PaddleClas's habit
    assert bundle.manifest.source["subject"] == file.name
    images = np.random.default_rng(0).standard_normal((3, 3, 64, 64), dtype=np.float32)
    session = onnxruntime.InferenceSession(bundle.path_of("onnx"))
    with torch.inference_mode():
        expected = model(torch.from_numpy(images)).numpy()
    found = session.run(None, {"images": images})[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_a_file_s_tensors_say_the_model_whatever_its_name(run, tmp_path):
    file = tmp_path / "DPN92.pth"
    torch.save(new_network(num_classes=2).state_dict(), file)
    assert run("convert", file, "-o", tmp_path / "b", *QUICK)[0] == 0
    manifest = Bundle.open(tmp_path / "b").manifest
    assert manifest.model["name"] == SMALL
    assert manifest.source["provenance"]["kind"] == "PyTorch weights"


def test_labels_and_model_can_be_named(run, tmp_path):
    file, labels = tmp_path / "weights.pth", tmp_path / "labels.txt"
    torch.save(new_network(num_classes=2).state_dict(), file)
    labels.write_text("cat\ndog\n")
    named = ("--model", SMALL, "--labels", labels, "--multi-label")
    assert run("convert", file, "-o", tmp_path / "b", *QUICK, *named)[0] == 0
    manifest = Bundle.open(tmp_path / "b").manifest
    assert (manifest.labels, manifest.multi_label) == (["cat", "dog"], True)


def test_what_convert_does_not_take_is_said(run, weights, tmp_path):
    for given, reason in (
        (tmp_path / "none.pth", "no such file"),
        (weights, "densepath's own checkpoint: `densepath export` takes it"),
        (tmp_path, "is a folder; name a file of timm"),
    ):
        code, _, err = run("convert", given, "-o", tmp_path / "b", *QUICK)
        assert code in (1, 2)
        assert reason in err
