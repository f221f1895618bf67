"""From a checkpoint to a bundle that answers as it does, or to nothing at all."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import densepath
from densepath import extras
from densepath.bundle.bfloat16 import BFloat16Report
from densepath.bundle.bundle import Bundle
from densepath.engines.openvino import shared_core
from densepath.errors import (
    BundleError,
    DataError,
    EngineError,
    MissingPackageError,
    OutputError,
    ParityError,
    UnknownNameError,
    UsageError,
    WeightsError,
)
from densepath.exporting import export as exporting
from densepath.exporting.rewrite import Step, rewrite
from densepath.extras import packages_of
from densepath.images.decode import open_image
from densepath.images.preprocess import Preprocess
from densepath.models.spec import DenseNetArch, DPNArch, ModelSpec
from densepath.weights.checkpoint import Checkpoint
from fixtures.networks import TINY, used_network

# With the stem for large images: strides, and a pooling that pads.
LARGE = ModelSpec("tiny-large", DenseNetArch(6, (2, 2), 8), 64, "none")
DUAL = ModelSpec("tiny-dpn", DPNArch(8, 3, 16, 4, (2, 1), (4, 8), 1, stem_pool="same"), 64, "none")
DENSEPATH = Path(sys.executable).with_name("densepath")

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")
pytest.importorskip("onnxscript")


def checkpoint_of(
    spec: ModelSpec = TINY, channels: int = 3, classes: int = 7, **preprocess
) -> Checkpoint:
    """A small network that looks trained."""
    model = used_network(spec, num_classes=classes, in_channels=channels, seed=5)
    values = {"mean": (0.5,) * channels, "std": (0.25,) * channels, "size": (32, 32)}
    return Checkpoint.of(model, preprocess=Preprocess(**{**values, **preprocess}))


@pytest.fixture(scope="module")
def few(photographs, tmp_path_factory) -> Path:
    """A folder of eight of the photographs."""
    folder = tmp_path_factory.mktemp("few")
    for path in sorted(photographs.iterdir())[:8]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return checkpoint_of(resize_short=40, interpolation="bicubic", size=(32, 28))


@pytest.fixture(scope="module")
def bundle(checkpoint, few, tmp_path_factory) -> Bundle:
    """The network in every format that needs no compiler."""
    target = tmp_path_factory.mktemp("bundles") / "tiny"
    return densepath.export(checkpoint, target, images=[few], batch_sizes=(1, 3))


def eager_logits(checkpoint: Checkpoint, images: np.ndarray) -> np.ndarray:
    """PyTorch's own answer."""
    with torch.inference_mode():
        return checkpoint.to_model()(torch.from_numpy(images)).numpy()


def run_onnx(path: Path, **inputs) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)


def run_openvino(path: Path, **inputs) -> list[np.ndarray]:
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    found = shared_core().compile_model(path, "CPU", settings)(inputs)
    return [found[port] for port in found]


RUN = {"onnx": run_onnx, "openvino": run_openvino}


def test_the_bundle_is_verified_and_complete(bundle, checkpoint):
    bundle.verify()
    manifest = bundle.manifest
    assert {path.name for path in bundle.folder.iterdir()} == {
        *("manifest.json", "manifest.json.sha256", "parity.md", "parity.json"),
        *("model.onnx", "preprocess.onnx", "model.safetensors"),
        *("model.xml", "model.bin", "preprocess.xml", "preprocess.bin"),
    }
    assert manifest.model == {
        "name": "tiny",
        "family": "densenet",
        "num_parameters": sum(p.numel() for p in checkpoint.to_model().parameters()),
    }
    assert manifest.labels == checkpoint.labels
    assert manifest.preprocess == checkpoint.preprocess
    assert manifest.input.shape == (None, 3, 32, 28)
    assert manifest.output.shape == (None, 7)
    assert manifest.tools["torch"] == torch.__version__


@pytest.mark.parametrize("format", RUN)
def test_any_number_of_images_is_answered_as_pytorch_answers(bundle, checkpoint, format):
    rng = np.random.default_rng(0)
    for count in (1, 2, 5):
        images = rng.standard_normal((count, 3, 32, 28), dtype=np.float32)
        (logits,) = RUN[format](bundle.path_of(format), images=images)
        np.testing.assert_allclose(logits, eager_logits(checkpoint, images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("format", RUN)
def test_a_file_is_answered_by_what_the_bundle_holds(bundle, checkpoint, few, format):
    for path in sorted(few.iterdir())[:3]:
        pixels = open_image(path)
        images, fitted = RUN[format](bundle.path_of(format, "preprocess"), image=pixels)
        assert np.abs(fitted.astype(int) - checkpoint.preprocess.fit(pixels)).max() <= 1
        (logits,) = RUN[format](bundle.path_of(format), images=images)
        expected = eager_logits(checkpoint, checkpoint.preprocess(pixels)[None])
        assert np.abs(logits - expected).max() <= 0.02 * np.abs(expected).max()


def test_the_checkpoint_in_the_bundle_is_the_one_that_was_exported(bundle, checkpoint):
    saved = Checkpoint.load(bundle.path_of("torch"))
    assert saved.spec == checkpoint.spec
    assert all(torch.equal(saved.tensors[name], t) for name, t in checkpoint.tensors.items())


def test_the_report_has_every_engine_preprocessing_and_batch_size(bundle, few):
    report = json.loads((bundle.folder / "parity.json").read_text(encoding="utf-8"))
    rows = {(r["format"], r["preprocess"], r["batch_size"]) for r in report["rows"]}
    with_graph = {(f, p, b) for f in RUN for p in ("Pillow", "graph") for b in (1, 3)}
    assert rows == with_graph | {("torch", "Pillow", 1), ("torch", "Pillow", 3)}
    assert {"eager", "onnxruntime", "openvino"} <= {r["engine"] for r in report["rows"]}
    assert report["names"] == sorted(path.name for path in few.iterdir())
    assert report["broken"] == []
    assert report["num_best"] > 1
    assert all(r["relative"] < 1e-5 for r in report["rows"] if r["preprocess"] == "Pillow")
    assert set(bundle.manifest.parity["formats"]) == {"onnx", "openvino", "torch"}
    text = (bundle.folder / "parity.md").read_text(encoding="utf-8")
    assert "All bounds hold." in text
    assert "8 images: " in text


def test_the_report_has_bfloat16_beside_them(bundle):
    report = json.loads((bundle.folder / "parity.json").read_text(encoding="utf-8"))["bfloat16"]
    kept = BFloat16Report.of(bundle.manifest.parity)
    assert kept.to_dict() == report
    assert kept.num_images == 8
    assert 1e-5 < kept.relative < 2e-2  # it was rounded, and is near
    text = " ".join((bundle.folder / "parity.md").read_text(encoding="utf-8").split())
    assert f"In bfloat16, on our kernels: {kept}" in text


def test_nothing_in_the_bundle_says_where_it_was_made(bundle):
    for path in bundle.folder.iterdir():
        found = re.findall(rb"site-packages|densepath/export|rewrite\.py", path.read_bytes())
        assert (path.name, found) == (path.name, [])


NETWORKS = {
    "gray, multi-label": (LARGE, 1, {"size": (65, 64)}, True),
    "five channels": (TINY, 5, {"size": (32, 32), "interpolation": "cv2_bilinear"}, False),
    "dual path, odd sides": (DUAL, 3, {"size": (67, 73), "resize_short": 75}, False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_all_kinds_are_exported_for_images_of_any_size(name, few, tmp_path):
    spec, channels, preprocess, multi_label = NETWORKS[name]
    checkpoint = checkpoint_of(spec, channels, classes=2, **preprocess)
    checkpoint = dataclasses.replace(checkpoint, multi_label=multi_label)
    made = densepath.export(
        checkpoint,
        tmp_path / "b",
        to=("onnx", "openvino"),
        dynamic_size=True,
        images=[few],
        num_images=3,
        batch_sizes=(2,),
    )
    assert made.manifest.input.shape == (None, channels, None, None)
    assert made.manifest.multi_label is multi_label
    report = json.loads((made.folder / "parity.json").read_text(encoding="utf-8"))
    height, width = preprocess["size"]
    sizes = {f"{height} × {width}", f"{height + 5} × {width + 30}"}
    assert {row["size"] for row in report["rows"]} == sizes
    images = np.random.default_rng(0).standard_normal((3, channels, 70, 91), dtype=np.float32)
    for format, run in RUN.items():
        (logits,) = run(made.path_of(format), images=images)
        np.testing.assert_allclose(logits, eager_logits(checkpoint, images), atol=1e-5, rtol=1e-5)


def to_torch(checkpoint, target, **options) -> Bundle:
    """The quickest export: the checkpoint itself, on one image."""
    options = {"to": ("torch",), "num_images": 1, "batch_sizes": (1,), **options}
    return densepath.export(checkpoint, target, **options)


def test_another_size_is_that_of_graph_and_preprocessing(checkpoint, tmp_path):
    made = to_torch(checkpoint, tmp_path / "b", size=48)
    assert made.manifest.input.shape == (None, 3, 48, 48)
    assert made.manifest.preprocess.size == (48, 48)


def test_a_bundle_is_a_subject_too(bundle, few, tmp_path):
    made = to_torch(bundle.folder, tmp_path / "b", images=[few])
    assert made.manifest.source["subject"] == "tiny"
    assert made.manifest.source["sha256"] == bundle.manifest.files["model.safetensors"].sha256


def test_the_source_is_named_without_its_folder(checkpoint, tmp_path):
    file = tmp_path / "deep" / "x.safetensors"
    checkpoint.save(file)
    made = to_torch(file, tmp_path / "b")
    assert made.manifest.source["subject"] == "x.safetensors"
    assert made.manifest.source["sha256"] == made.manifest.files["model.safetensors"].sha256


def test_an_image_that_cannot_be_read_is_named_and_passed_over(checkpoint, few, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    Image.new("RGB", (50, 40)).save(tmp_path / "photos" / "sound.png")
    made = to_torch(checkpoint, tmp_path / "b", images=[tmp_path / "photos"], num_images=9)
    report = json.loads((made.folder / "parity.json").read_text(encoding="utf-8"))
    assert report["names"] == ["sound.png"]
    assert [name.partition(":")[0] for name in report["unreadable"]] == ["broken.jpg"]
    (tmp_path / "photos" / "sound.png").unlink()
    with pytest.raises(
        DataError, match=r"none of 1 image: photos can be read; the first is broken\.jpg: "
    ):
        to_torch(checkpoint, tmp_path / "c", images=[tmp_path / "photos"])


def broken_rewrite(model: nn.Module, steps: Collection[Step]) -> nn.Module:
    """A rewriting that gets one class wrong."""
    made = rewrite(model, steps)
    with torch.no_grad():
        made.classifier.bias[2] += 1.0
    return made


def test_a_network_that_answers_otherwise_is_not_exported(checkpoint, few, tmp_path, monkeypatch):
    monkeypatch.setattr("densepath.exporting.program.rewrite", broken_rewrite)
    with pytest.raises(
        ParityError, match=r"onnx on onnxruntime, 32 × 28 pixels, batch 1: max \|Δlogit\| is \d"
    ):
        densepath.export(
            checkpoint,
            tmp_path / "b",
            to=("onnx", "torch"),
            images=[few],
            failed=tmp_path / "why",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["why"]
    assert "BROKEN: onnx on" in (tmp_path / "why" / "parity.md").read_text(encoding="utf-8")
    report = json.loads((tmp_path / "why" / "parity.json").read_text(encoding="utf-8"))
    assert {line.split()[0] for line in report["broken"]} == {"onnx"}


def test_a_preprocess_graph_of_another_arithmetic_is_not_exported(
    checkpoint, few, tmp_path, monkeypatch
):
    from densepath.exporting import preprocess_onnx

    right = preprocess_onnx.build_preprocess_onnx

    def wrong(preprocess):
        return right(dataclasses.replace(preprocess, interpolation="bilinear"))

    monkeypatch.setattr(preprocess_onnx, "build_preprocess_onnx", wrong)
    with pytest.raises(ParityError, match="preprocess graph"):
        densepath.export(checkpoint, tmp_path / "b", to=("onnx",), images=[few])
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_damaged_weights_is_not_exported(checkpoint, tmp_path):
    for value, error, said in (
        (math.nan, WeightsError, r"classifier\.bias holds NaN"),
        (math.inf, WeightsError, r"classifier\.bias holds NaN or infinite"),
        (3e38, ParityError, r"own answer to china\.jpg is not a number"),
    ):
        names = ("classifier.bias", "features.norm5.bias", "classifier.weight")
        tensors = dict(checkpoint.tensors)
        for name in names[: 1 if error is WeightsError else 3]:
            tensors[name] = torch.full_like(tensors[name], value)
        damaged = dataclasses.replace(checkpoint, tensors=tensors)
        with pytest.raises(error, match=said):
            to_torch(damaged, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_is_interrupted_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "measure_parity", interrupt)
    with pytest.raises(KeyboardInterrupt):
        to_torch(checkpoint, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_a_killed_export_leaves_nothing_at_the_target(tmp_path, number):
    """Ended while the formats are being written: the folder for them stands beside the target."""
    command = [DENSEPATH, "export", "cifar10/densenet_bc_22_12", "-o", tmp_path / "b"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        until = time.monotonic() + 60
        while not list(tmp_path.iterdir()) and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(number)
        process.wait(60)
    assert process.returncode != 0
    left = [path.name for path in tmp_path.iterdir()]
    assert "b" not in left
    assert number == signal.SIGKILL or left == []


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"to": ("onnx", "tflite")}, UnknownNameError, "unknown format 'tflite'. Choices: aoti"),
        ({"to": ()}, UsageError, "no format was named"),
        ({"num_images": 0}, UsageError, "num_images is 0"),
        ({"batch_sizes": (4, 0)}, UsageError, "batch sizes"),
        ({"batch_sizes": ()}, UsageError, "batch sizes"),
        ({"size": 0}, UsageError, "size is 0"),
        ({"images": ["nowhere"]}, DataError, "nowhere: no such file or folder"),
    ],
)
def test_a_wrong_argument_is_told_before_anything_is_written(
    checkpoint, tmp_path, options, error, reason
):
    with pytest.raises(error, match=reason):
        to_torch(checkpoint, tmp_path / "b", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_holds_something_else_is_refused_before_the_work(
    checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setattr(exporting, "write_formats", None)
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(OutputError, match="a folder with other files in it"):
        to_torch(checkpoint, tmp_path, overwrite=True)
    with pytest.raises(OutputError, match="is a file"):
        to_torch(checkpoint, tmp_path / "photo.jpg")


@pytest.mark.parametrize(
    ("format", "package"), [("onnx", "onnxruntime"), ("onnx", "onnxscript"), ("openvino",) * 2]
)
def test_a_missing_package_is_named_with_those_of_its_extra(
    checkpoint, tmp_path, monkeypatch, format, package
):
    find = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda n: None if n == package else find(n))
    with pytest.raises(MissingPackageError, match=rf"'{package}'.*pip install ") as caught:
        to_torch(checkpoint, tmp_path / "b", to=(format,))
    assert str(caught.value).endswith(" ".join(packages_of(format)))


def test_a_missing_compiler_is_named(checkpoint, tmp_path, monkeypatch):
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def none():
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(EngineError, match=r"needs a C\+\+ compiler.*Install g\+\+"):
        to_torch(checkpoint, tmp_path / "b", to=("aoti",))


def test_a_bundle_without_weights_cannot_be_exported_again(bundle, tmp_path):
    made = to_torch(bundle.folder, tmp_path / "b", to=("onnx",))
    with pytest.raises(BundleError, match="has no torch format; it has onnx"):
        to_torch(made.folder, tmp_path / "c")
