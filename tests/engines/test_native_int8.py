"""The INT8 kernels compute what the file says, and the file holds what the network does."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from sklearn.datasets import load_sample_image

from densepath.engines.native import NativeEngine, read_tensors
from densepath.errors import CheckpointError, EngineError, UnknownNameError
from densepath.images.preprocess import Preprocess
from densepath.models.build import build_model
from densepath.models.plan import plan
from densepath.models.spec import DenseNetArch, DPNArch, ModelSpec
from densepath.quantize.calibration import Calibration
from densepath.quantize.emulate import Emulation
from densepath.quantize.native import METHODS, measure_ranges, write_native
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.subject import open_checkpoint

# As in test_native.py; and the widths of groups of DPN-92 (3, 6, 12, 24) and of DPN-68, 98, 107
# and 131 (4, 8, 16, 32), one a stage.
SPECS = {
    "dense, ImageNet stem": DenseNetArch(32, (2, 2, 2), 64),
    "dense, pooled as MindSpore does": DenseNetArch(12, (2, 1), 24, stem_pool="same"),
    "dense, wide": DenseNetArch(48, (2, 1), 96, bottleneck=4),
    "dense, small stem": DenseNetArch(12, (3, 2), 24, stem="small"),
    "dense, plain layers": DenseNetArch(12, (2, 3), 16, bottleneck=0, compression=1, stem="small"),
    "dense, odd widths": DenseNetArch(7, (2, 1), 9, bottleneck=3),
    "dual, 3 to 24 channels a group": DPNArch(64, 7, 96, 32, (2, 1, 1, 1), (16, 32, 24, 8), 1),
    "dual, 4 to 32 channels a group": DPNArch(10, 3, 20, 5, (1, 2, 1, 1), (20, 24, 8, 8), 1),
    "dual, 64 channels a group": DPNArch(16, 3, 64, 1, (1, 1), (16, 16), 1, stem_pool="same"),
    "dual, a group a channel": DPNArch(16, 3, 16, 16, (2, 2, 1), (8, 8, 8), 1, stem="small"),
    "dual, 5 channels a group": DPNArch(16, 3, 35, 7, (1, 2), (9, 8), 1, stem="small"),
}
SIZES = [(40, 40), (37, 50), (33, 130)]


def checkpoint_of(arch, in_channels=3):
    """A network with statistics as training leaves them."""
    torch.manual_seed(5)
    spec = ModelSpec("tested", arch, 64, "none")
    model = build_model(spec, num_classes=21, in_channels=in_channels)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, -0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    torch.nn.init.normal_(model.classifier.weight, 0, 0.5)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    mean, std = ((one * in_channels)[:in_channels] for one in (mean, std))
    return Checkpoint.of(model, preprocess=Preprocess((64, 64), mean=mean, std=std))


def calibration_of(checkpoint, count=3, size=(64, 64)):
    """Images of noise on slopes."""
    random = np.random.default_rng(6)
    channels = checkpoint.in_channels
    images = random.integers(0, 256, (count, *size, channels))
    images = images // 2 + np.linspace(0, 127, size[0])[:, None, None]
    names = [f"image {i}" for i in range(count)]
    return Calibration(images.astype(np.uint8), names, checkpoint.preprocess, "noise")


def images_of(checkpoint, count, size):
    return np.concatenate(list(calibration_of(checkpoint, count, size).batches()))


def open_file(path, **options):
    spec, in_channels, tensors = read_tensors(path)
    classes = len(tensors["classifier.bias"])
    options = {"num_classes": classes, "in_channels": in_channels, **options}
    return NativeEngine(spec, tensors, Preprocess((64, 64)), **options)


def quantised(checkpoint, path, **options):
    """The engine, and the emulation of its arithmetic."""
    threads = options.pop("threads", 2)
    write_native(checkpoint, path, calibration=calibration_of(checkpoint), **options)
    spec, _, tensors = read_tensors(path)
    return open_file(path, threads=threads), Emulation(spec, tensors)


def check(engine, expected, images, tolerance=5e-5):
    logits = expected(images)
    np.testing.assert_allclose(
        engine.run_tensor(images), logits, atol=tolerance * np.abs(logits).max()
    )


def snr_db(floats, others):
    return 10 * np.log10(np.square(floats).sum() / np.square(floats - others).sum())


@pytest.mark.parametrize("arch", SPECS.values(), ids=SPECS)
def test_every_kind_of_network_is_computed_as_its_file_says(tmp_path, arch):
    checkpoint = checkpoint_of(arch)
    engine, emulation = quantised(checkpoint, tmp_path / "x.safetensors")
    for size in SIZES:
        check(engine, emulation, images_of(checkpoint, 1, size))
    for count in (2, 5):  # one each; two rounds and one left over
        check(engine, emulation, images_of(checkpoint, count, SIZES[0]))


@pytest.mark.parametrize("kept", ["conv0", "conv1", "conv2", "denselayer2", "transition", "classi"])
def test_layers_of_a_densenet_may_stay_float(tmp_path, kept):
    checkpoint = checkpoint_of(SPECS["dense, ImageNet stem"])
    keep = [layer.name for layer in plan(checkpoint.spec) if kept in layer.name]
    engine, emulation = quantised(checkpoint, tmp_path / "x.safetensors", keep_float=keep)
    check(engine, emulation, images_of(checkpoint, 1, (44, 40)), 5e-3)


@pytest.mark.parametrize("kept", ["c1x1_w", "c1x1_a", "c3x3_b", "c1x1_c", "conv1_1", "conv2_1"])
@pytest.mark.parametrize("name", [name for name in SPECS if "channels a group" in name])
def test_layers_of_a_dpn_may_stay_float(tmp_path, name, kept):
    checkpoint = checkpoint_of(SPECS[name])
    keep = [layer.name for layer in plan(checkpoint.spec) if kept in layer.name]
    engine, emulation = quantised(checkpoint, tmp_path / "x.safetensors", keep_float=keep)
    check(engine, emulation, images_of(checkpoint, 1, (44, 40)), 5e-3)


def test_a_layer_without_a_bottleneck_may_stay_float(tmp_path):
    checkpoint = checkpoint_of(SPECS["dense, plain layers"])
    keep = ["features.denseblock1.denselayer2.conv1"]
    engine, emulation = quantised(checkpoint, tmp_path / "x.safetensors", keep_float=keep)
    check(engine, emulation, images_of(checkpoint, 2, (30, 31)), 5e-3)


def test_a_file_whose_layers_all_stay_float_gives_the_float_engines_bits(tmp_path):
    checkpoint = checkpoint_of(SPECS["dense, ImageNet stem"])
    every = [layer.name for layer in plan(checkpoint.spec)]
    engine, _ = quantised(checkpoint, tmp_path / "x.safetensors", keep_float=every)
    checkpoint.save(tmp_path / "float.safetensors")
    images = images_of(checkpoint, 3, (64, 80))
    floats = open_file(tmp_path / "float.safetensors", threads=2)
    assert np.array_equal(engine.run_tensor(images), floats.run_tensor(images))
    assert (engine.info.precision, floats.info.precision) == ("float32", "float32")


@pytest.mark.parametrize("in_channels", [1, 4, 9])
def test_images_may_have_other_channels(tmp_path, in_channels):
    checkpoint = checkpoint_of(SPECS["dense, ImageNet stem"], in_channels)
    engine, emulation = quantised(checkpoint, tmp_path / "x.safetensors", threads=1)
    check(engine, emulation, images_of(checkpoint, 2, (40, 41)))


@pytest.mark.parametrize("name", ["dense, ImageNet stem", "dual, 3 to 24 channels a group"])
def test_any_number_of_threads_gives_the_same_bits(tmp_path, name):
    checkpoint = checkpoint_of(SPECS[name])
    quantised(checkpoint, tmp_path / "x.safetensors")
    images = images_of(checkpoint, 3, (80, 80))
    answers = [
        open_file(tmp_path / "x.safetensors", threads=n).run_tensor(images) for n in (1, 2, 3, 7)
    ]
    assert all(np.array_equal(answers[0], other) for other in answers[1:])


def test_values_that_no_pixel_has_count_as_the_nearest_and_not_a_number_as_black(tmp_path):
    checkpoint = checkpoint_of(SPECS["dense, ImageNet stem"])
    engine, _ = quantised(checkpoint, tmp_path / "x.safetensors")
    strange = images_of(checkpoint, 1, (64, 64))
    mean, std = np.array(checkpoint.preprocess.mean), np.array(checkpoint.preprocess.std)
    usual = strange.copy()
    for x, value, nearest in ((3, np.nan, 0), (4, np.inf, 1), (5, -np.inf, 0), (6, 99, 1)):
        strange[0, :, 9, x], usual[0, :, 9, x] = value, (nearest - mean) / std
    assert np.array_equal(engine.run_tensor(strange), engine.run_tensor(usual))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("arch", SPECS.values(), ids=SPECS)
def test_the_logits_are_near_the_networks(tmp_path, arch, method):
    checkpoint = checkpoint_of(arch)
    engine, _ = quantised(checkpoint, tmp_path / "x.safetensors", method=method)
    images = images_of(checkpoint, 4, (64, 64))
    with torch.inference_mode():
        floats = checkpoint.to_model()(torch.from_numpy(images)).numpy()
    assert snr_db(floats, engine.run_tensor(images)) > 25


def test_the_limits_are_those_of_what_each_convolution_reads():
    checkpoint = checkpoint_of(SPECS["dense, small stem"])
    calibration = calibration_of(checkpoint)
    model, read = checkpoint.to_model(), []
    name = "features.denseblock2.denselayer1.conv2"
    dict(model.named_modules())[name].register_forward_pre_hook(lambda _, x: read.append(x[0]))
    with torch.inference_mode():
        for images in calibration.batches():
            model(torch.from_numpy(images))
    values = torch.cat(read).transpose(0, 1).flatten(1).numpy()
    limits = {method: measure_ranges(checkpoint, calibration, method=method) for method in METHODS}
    np.testing.assert_allclose(limits["minmax"][name], values.max(1), rtol=1e-6)
    # A bin is at most a 128th of the largest value.
    limit, most = limits["percentile"][name], values.max(1)
    above = np.quantile(values, 0.9999, axis=1, method="higher")
    assert ((values > limit[:, None]).mean(1) <= 1e-4 * 1.001).all()
    assert (limit <= above + most / 64).all()
    assert (limits["mse"][name] <= limits["minmax"][name] * 1.0001).all()


def test_the_file_is_small_and_opens_without_torch(tmp_path):
    checkpoint = checkpoint_of(SPECS["dense, ImageNet stem"])
    engine, _ = quantised(checkpoint, tmp_path / "x.safetensors")
    checkpoint.save(tmp_path / "float.safetensors")
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("x", "float")]
    assert sizes[0] < 0.4 * sizes[1]  # of a network this small the scales count
    assert engine.info.precision == "int8"
    path = str(tmp_path / "x.safetensors")
    program = (
        "import sys; from pathlib import Path; from densepath.engines.native import read_tensors;"
        f"read_tensors(Path({path!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_file_says_how_it_was_made(tmp_path):
    checkpoint = checkpoint_of(SPECS["dense, small stem"])
    quantised(checkpoint, tmp_path / "x.safetensors", keep_float=["classifier"])
    with safe_open(str(tmp_path / "x.safetensors"), framework="numpy") as file:
        description = json.loads(file.metadata()["densepath"])
    said = description["quantization"]
    assert said["method"] == "mse"
    assert said["float32"] == ["classifier"]
    assert said["calibration_sha256"] == calibration_of(checkpoint).digest()
    with pytest.raises(CheckpointError, match="format 'int8-1'"):
        Checkpoint.load(tmp_path / "x.safetensors")


def test_a_method_or_layer_that_does_not_exist_is_refused_with_the_choices(tmp_path):
    checkpoint = checkpoint_of(SPECS["dense, small stem"])
    calibration = calibration_of(checkpoint)
    with pytest.raises(UnknownNameError, match=r"entropy.*minmax, mse, percentile"):
        measure_ranges(checkpoint, calibration, method="entropy")
    with pytest.raises(UnknownNameError, match=r"features\.conv9"):
        write_native(
            checkpoint, tmp_path / "x", calibration=calibration, keep_float=["features.conv9"]
        )
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def photographs():
    """A trained network, images to calibrate it with and others to try it on."""
    checkpoint = open_checkpoint("cifar10/densenet_bc_22_12")
    random, cut = np.random.default_rng(7), []
    for name in ("china.jpg", "flower.jpg"):
        photo = load_sample_image(name)
        for side in random.integers(48, 300, 24):
            y, x = (int(random.integers(0, n - side)) for n in photo.shape[:2])
            cut.append(checkpoint.preprocess.fit(photo[y : y + side, x : x + side]))
    order = random.permutation(len(cut))
    parts = [np.stack([cut[i] for i in some]) for some in (order[:24], order[24:])]
    made = [
        Calibration(part, [str(i) for i in range(len(part))], checkpoint.preprocess, "photographs")
        for part in parts
    ]
    return checkpoint, *made


@pytest.mark.parametrize("method", METHODS)
def test_a_trained_network_answers_the_same_on_photographs(tmp_path, photographs, method):
    checkpoint, calibration, others = photographs
    write_native(checkpoint, tmp_path / "x.safetensors", calibration=calibration, method=method)
    images = np.concatenate(list(others.batches()))
    with torch.inference_mode():
        floats = checkpoint.to_model()(torch.from_numpy(images)).numpy()
    logits = open_file(tmp_path / "x.safetensors").run_tensor(images)
    assert snr_db(floats, logits) > 20
    top = np.sort(floats, 1)
    sure = top[:, -1] - top[:, -2] > 1
    assert np.array_equal(logits.argmax(1)[sure], floats.argmax(1)[sure])


CONV = "features.denseblock1.denselayer1.conv2"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda t: t.pop(f"{CONV}.input_scale"), f"it has no tensor {CONV}.input_scale"),
        (lambda t: t.update({f"{CONV}.bias": np.zeros(5)}), "bias has 5 numbers, and .* needs 12"),
        (lambda t: t.update({f"{CONV}.scale": np.zeros(12, np.int8)}), "scale is bytes, and the"),
        (lambda t: t.update({f"{CONV}.weight": np.zeros(12, np.int8)}), "weight has 12 numbers"),
        (lambda t: t.update({"features.norm5.bias": np.zeros(48, np.int8)}), "norm5.bias"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path, damage, reason):
    checkpoint = checkpoint_of(SPECS["dense, small stem"])
    quantised(checkpoint, tmp_path / "x.safetensors")
    spec, _, tensors = read_tensors(tmp_path / "x.safetensors")
    damage(tensors)
    with pytest.raises(EngineError, match=reason):
        NativeEngine(spec, tensors, Preprocess((64, 64)), num_classes=21, in_channels=3)
