"""The preprocessing graphs of ONNX and OpenVINO against `Preprocess`: Pillow and OpenCV."""

import builtins
import io
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_sample_image

from densepath.engines.openvino import shared_core
from densepath.errors import MissingPackageError
from densepath.exporting.preprocess_onnx import build_preprocess_onnx
from densepath.exporting.preprocess_openvino import build_preprocess_openvino, half_rule
from densepath.images.decode import open_image
from densepath.images.preprocess import MOST_PIXELS, Preprocess

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "imagenet-photos-250.zip"
TORCHVISION = Preprocess(size=(224, 224), resize_short=256)
TIMM = Preprocess(size=(224, 224), resize_short=235, interpolation="bicubic")
PADDLECLAS = Preprocess(
    size=(224, 224),
    resize_short=256,
    interpolation="cv2_bilinear",
    side_rounding="round",
    crop_rounding="floor",
)
# What docs/export.md states: of a photo's values at most this share differs, all but a few by 1.
MOST_DIFFERING = {"bilinear": 0.05, "bicubic": 0.005, "cv2_bilinear": 0.0}
MOST_BY_TWO = 1e-4


def run_onnx(preprocess):
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        build_preprocess_onnx(preprocess).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    return lambda image: session.run(["images", "pixels"], {"image": image})


def run_openvino(preprocess):
    pytest.importorskip("openvino")
    compiled = shared_core().compile_model(
        build_preprocess_openvino(preprocess),
        "CPU",
        {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"},
    )

    def run(image):
        found = compiled({"image": image})
        return found["images"], found["pixels"]

    return run


@pytest.fixture(params=["onnx", "openvino"], scope="module")
def build(request):
    pytest.importorskip(request.param)
    return {"onnx": run_onnx, "openvino": run_openvino}[request.param]


def noise(height, width, channels=3, seed=0):
    shape = (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def check(preprocess, run, image, share=None):
    """The graph's outputs are those of `preprocess`, but for a `share` of the values."""
    images, pixels = run(image)
    expected = preprocess.fit(image)
    assert pixels.dtype == np.uint8
    assert pixels.shape == expected.shape
    apart = np.abs(pixels.astype(int) - expected)
    assert apart.max() <= 2
    assert np.count_nonzero(apart > 1) <= MOST_BY_TWO * apart.size
    if share is not None:
        assert np.mean(apart > 0) <= share
    assert images.dtype == np.float32
    np.testing.assert_allclose(images[0], preprocess.normalise(pixels), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "preprocess", [TORCHVISION, TIMM, PADDLECLAS], ids=lambda p: p.interpolation
)
@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
def test_photos_become_what_preprocess_makes_of_them(build, preprocess, name):
    run, photo = build(preprocess), load_sample_image(name)
    tall = np.ascontiguousarray(photo.transpose(1, 0, 2)[:, :200])
    large = np.ascontiguousarray(np.tile(photo, (3, 4, 1)))
    for image in (photo, tall, large, photo[:100, :100]):
        check(preprocess, run, image, MOST_DIFFERING[preprocess.interpolation])


@pytest.mark.skipif(not PHOTOS.exists(), reason="needs ../shared/data/imagenet-photos-250.zip")
@pytest.mark.parametrize(
    "preprocess", [TORCHVISION, TIMM, PADDLECLAS], ids=lambda p: p.interpolation
)
def test_photos_of_imagenet_become_what_preprocess_makes_of_them(build, preprocess):
    run = build(preprocess)
    with zipfile.ZipFile(PHOTOS) as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith(".jpeg"))
        for name in random.Random(0).sample(names, 12):
            photo = open_image(io.BytesIO(archive.read(name)).getvalue())
            check(preprocess, run, photo, MOST_DIFFERING[preprocess.interpolation])


ANY = {
    "bilinear": Preprocess(size=(20, 33), resize_short=41, mean=(0.5,), std=(0.2,)),
    "bicubic": Preprocess(
        size=(31, 24), resize_short=31, interpolation="bicubic", side_rounding="round"
    ),
    "cv2_bilinear": Preprocess(
        size=(12, 30), resize_short=35, interpolation="cv2_bilinear", side_rounding="round"
    ),
    "bilinear, stretched": Preprocess(size=(24, 40)),
    "bicubic, stretched": Preprocess(size=(40, 24), interpolation="bicubic", crop_rounding="floor"),
    "cv2_bilinear, stretched": Preprocess(
        size=(27, 27), interpolation="cv2_bilinear", mean=(0.5,), std=(0.2,)
    ),
}
BUILT = {}


@pytest.mark.parametrize("name", ANY)
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(height=st.integers(1, 250), width=st.integers(1, 250), seed=st.integers(0, 99))
def test_images_of_any_size_become_what_preprocess_makes_of_them(build, name, height, width, seed):
    preprocess = ANY[name]
    if (build, name) not in BUILT:
        BUILT[build, name] = build(preprocess)
    share = 0 if preprocess.interpolation == "cv2_bilinear" else None
    image = noise(height, width, preprocess.channels, seed)
    check(preprocess, BUILT[build, name], image, share)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "cv2_bilinear"])
def test_extreme_shapes_become_what_preprocess_makes_of_them(build, interpolation):
    """1 × 3,000 would be 224 × 672,000 if it were resized whole; 64 × 80 needs no resizing."""
    assert 64 * 64 * 3000 < MOST_PIXELS < 224 * 224 * 3000
    for side in (64, 224):
        preprocess = Preprocess(size=(side, side), resize_short=side, interpolation=interpolation)
        run = build(preprocess)
        for shape in ((1, 1), (1, 3000), (3000, 1), (2, 700), (700, 5), (64, 80)):
            check(preprocess, run, noise(*shape))


# 645 × 320 to a short side of 224 is 451.5, and 0.7 as a float64 lies below 0.7. Python's answers.
@pytest.mark.parametrize("interpolation", ["bilinear", "cv2_bilinear"])
def test_halves_of_the_long_side_are_rounded_as_python_rounds_them(build, interpolation):
    preprocess = Preprocess(
        size=(8, 224), resize_short=224, interpolation=interpolation, side_rounding="round"
    )
    run, sides = build(preprocess), []
    for short, long in ((320, 645), (320, 655), (448, 449), (64, 65), (192, 195), (448, 1347)):
        sides.append(round(long * (224 / short)) - int(224 * long / short))
        check(preprocess, run, noise(short, long))
    assert {0, 1} == set(sides)


@pytest.mark.parametrize("resize_short", [224, 256, 235, 97])
def test_the_rule_of_halves_is_pythons_rounding(resize_short):
    """The rule in Python's own arithmetic, at every short side that can give a half."""
    step, limits = half_rule(resize_short)
    assert len(limits) > 1
    chance = random.Random(0)
    for index in range(1, len(limits)):
        short = step * index
        half = short // np.gcd(resize_short, short)  # long · resize_short / short is a half at
        long = int(half) // 2 * (2 * chance.randrange(short) + 1)  # odd multiples of half / 2.
        below = long * resize_short // short
        mantissa = (below + 0.5) / 2.0 ** np.floor(np.log2(below + 0.5))
        if mantissa > abs(limits[index]):
            expected = below + (limits[index] > 0)
        else:
            expected = below + below % 2
        assert round(long * (resize_short / short)) == expected


def test_images_of_other_channels_are_refused(build):
    run = build(TORCHVISION)
    with pytest.raises(Exception, match=r"(?i)image|shape"):
        run(noise(30, 30, 1))


def test_the_graph_needs_nothing_newer_than_onnx_opset_18():
    onnx = pytest.importorskip("onnx")
    model = build_preprocess_onnx(TORCHVISION)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize(
    ("builder", "package"),
    [(build_preprocess_onnx, "onnx"), (build_preprocess_openvino, "openvino")],
)
def test_a_missing_package_names_the_extra(monkeypatch, builder, package):
    real = builtins.__import__

    def absent(name, *rest, **keywords):
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real(name, *rest, **keywords)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingPackageError, match=package):
        builder(TORCHVISION)
