"""Preprocess against Pillow, OpenCV and arithmetic."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from densepath.errors import UnknownNameError, UsageError
from densepath.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess, resize

OPENCV = json.loads(Path(__file__).with_name("opencv_resize.json").read_text())


def noise(height, width, channels=3):
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def picture(height, width):
    """The image of `benchmarks/peers/opencv/resize.py`."""
    y, x, c = np.ogrid[:height, :width, :3]
    return ((31 * y + 17 * x**2 + 101 * c + 7 * x * y) % 256).astype(np.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(300, 400), (401, 299), (64, 50)])
def test_resize_and_crop_are_pillows(interpolation, height, width):
    image = noise(height, width)
    preprocess = Preprocess(size=(48, 48), resize_short=56, interpolation=interpolation)
    long = int(56 * max(height, width) / min(height, width))
    target = (56, long) if width < height else (long, 56)
    method = Pillow.Resampling[interpolation.upper()]
    resized = np.asarray(Pillow.fromarray(image).resize(target, method))
    top, left = (round((n - 48) / 2) for n in resized.shape[:2])
    expected = resized[top : top + 48, left : left + 48]
    np.testing.assert_array_equal(preprocess.fit(image), expected)


@pytest.mark.parametrize("case", OPENCV["cases"], ids=lambda c: f"{c['old']}→{c['new']}")
def test_cv2_bilinear_is_opencvs_bit_by_bit(case):
    expected = np.array(case["pixels"], np.uint8).reshape(*case["new"], 3)
    found = resize(picture(*case["old"]), tuple(case["new"]), "cv2_bilinear")
    np.testing.assert_array_equal(found, expected)


def test_a_crop_of_opencvs_resize_is_the_crop_of_the_whole():
    image = noise(37, 61)
    whole = resize(image, (50, 33), "cv2_bilinear")
    part = resize(image, (50, 33), "cv2_bilinear", part=((7, 3), (20, 25)))
    np.testing.assert_array_equal(part, whole[7:27, 3:28])


# 375 × 500 → short side 256: the long one is 341.33; 300 × 401 gives 342.19, 300 × 397 338.77.
@pytest.mark.parametrize(
    ("rounding", "width", "long"),
    [
        ("truncate", 500, 341),
        ("round", 500, 341),
        ("truncate", 496, 338),  # 338.60
        ("round", 496, 339),
    ],
)
def test_the_long_side_is_truncated_or_rounded(rounding, width, long):
    # A horizontal ramp and a crop of one pixel's width show where the centre lies; the size does
    # not, so the resized side is seen through the crop of all of it.
    preprocess = Preprocess(size=(256, 256), resize_short=256, side_rounding=rounding)
    image = noise(375, width)
    resized = np.asarray(Pillow.fromarray(image).resize((long, 256), Pillow.Resampling.BILINEAR))
    left = round((long - 256) / 2)
    np.testing.assert_array_equal(preprocess.fit(image), resized[:, left : left + 256])


@pytest.mark.parametrize(("rounding", "corner"), [("round", 2), ("floor", 1)])
def test_the_crops_corner_is_rounded_or_floored(rounding, corner):
    # (11 − 8) / 2 = 1.5, which Python rounds to the even 2, as torchvision does.
    image = noise(11, 11)
    preprocess = Preprocess(size=(8, 8), resize_short=11, crop_rounding=rounding)
    expected = image[corner : corner + 8, corner : corner + 8]
    np.testing.assert_array_equal(preprocess.fit(image), expected)


def test_an_image_that_has_the_size_keeps_its_pixels():
    image = noise(32, 32)
    for interpolation in ("bilinear", "bicubic", "cv2_bilinear"):
        np.testing.assert_array_equal(
            Preprocess(size=(32, 32), interpolation=interpolation).fit(image), image
        )


def test_without_a_short_side_the_image_is_stretched_to_the_size():
    image = noise(20, 30)
    expected = np.asarray(Pillow.fromarray(image).resize((8, 16), Pillow.Resampling.BILINEAR))
    np.testing.assert_array_equal(Preprocess(size=(16, 8)).fit(image), expected)


def test_normalising_is_mean_and_std_of_values_from_0_to_1():
    image = np.array([[[0, 128, 255]]], np.uint8)
    found = Preprocess(size=(1, 1))(image)
    expected = [
        (v / 255 - m) / s
        for v, m, s in zip((0, 128, 255), IMAGENET_MEAN, IMAGENET_STD, strict=True)
    ]
    assert found.shape == (3, 1, 1)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-6)


def test_normalising_a_batch_is_normalising_each_of_its_images():
    preprocess = Preprocess(size=(4, 5))
    batch = noise(3 * 4, 5).reshape(3, 4, 5, 3)
    each = np.stack([preprocess.normalise(image) for image in batch])
    np.testing.assert_array_equal(preprocess.normalise(batch), each)


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
@pytest.mark.parametrize("interpolation", ["bilinear", "cv2_bilinear"])
def test_arrays_may_have_any_number_of_channels(channels, interpolation):
    statistics = {"mean": (0.5,) * channels, "std": (0.25,) * channels}
    preprocess = Preprocess(size=(9, 7), interpolation=interpolation, **statistics)
    image = noise(20, 30, channels)
    assert preprocess(image).shape == (channels, 9, 7)
    for channel in range(channels):
        alone = resize(image[:, :, channel : channel + 1], (9, 7), interpolation)
        np.testing.assert_array_equal(preprocess.fit(image)[:, :, channel : channel + 1], alone)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "cv2_bilinear"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 100_000), (100_000, 1)])
def test_no_shape_is_too_long_for_memory(interpolation, shape):
    # Resized whole, a line of 100,000 pixels would be 256 × 25,600,000.
    image = np.broadcast_to(np.array([10, 20, 30], np.uint8), (*shape, 3))
    preprocess = Preprocess(size=(24, 24), resize_short=256, interpolation=interpolation)
    np.testing.assert_array_equal(
        preprocess.fit(image), np.broadcast_to(np.array([10, 20, 30], np.uint8), (24, 24, 3))
    )


def test_another_size_keeps_the_share_of_the_crop():
    preprocess = Preprocess(size=(224, 224), resize_short=256)  # 0.875
    assert preprocess.at_size(288).resize_short == 329  # floor(288 / 0.875 = 329.14)
    assert preprocess.at_size(288, 1.0).resize_short == 288
    assert preprocess.at_size((96, 128), 0.5).resize_short == 192
    assert Preprocess(size=(32, 32)).at_size(40) == Preprocess(size=(40, 40))


def test_a_dictionary_gives_the_same_preprocessing_back():
    preprocess = Preprocess(size=(224, 192), resize_short=256, crop_rounding="floor")
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": (0, 5)}, "size is"),
        ({"size": (32, 32), "resize_short": 31}, "resize_short is 31"),
        ({"size": (32, 32), "mean": (0.5,)}, "one value a channel"),
        ({"size": (32, 32), "std": (0.0, 1.0, 1.0)}, "std above 0"),
        ({"size": (32, 32), "interpolation": "bilinaer"}, "Did you mean bilinear"),
        ({"size": (32, 32), "crop_rounding": "up"}, "unknown crop rounding"),
        ({"size": (32, 32), "resize": 3}, "field of preprocessing 'resize'"),
        ({"size": 32}, "not a description"),
    ],
)
def test_impossible_descriptions_are_refused(fields, message):
    with pytest.raises(UsageError, match=message):
        Preprocess.from_dict(Preprocess(size=(32, 32)).to_dict() | fields)


def test_a_description_that_lacks_a_field_is_refused():
    with pytest.raises(UsageError, match="lacks interpolation, side_rounding"):
        Preprocess.from_dict({"size": [1, 1], "resize_short": None, "mean": [0], "std": [1]})


def test_unknown_names_list_the_choices():
    with pytest.raises(UnknownNameError, match=r"bicubic, bilinear, cv2_bilinear"):
        Preprocess(size=(1, 1), interpolation="lanczos")


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        "image.png",
    ],
)
def test_other_arrays_are_refused(image):
    with pytest.raises(UsageError, match="takes uint8"):
        Preprocess(size=(4, 4))(image)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "cv2_bilinear"])
@pytest.mark.parametrize(("size", "short"), [((48, 48), 56), ((40, 48), None), ((64, 50), None)])
def test_a_pillow_image_gives_what_its_pixels_give(channels, interpolation, size, short):
    image = noise(64, 50, channels)
    values = (0.5,) * channels
    preprocess = Preprocess(size, short, interpolation, mean=values, std=values)
    drawn = Pillow.fromarray(image if channels == 3 else image[:, :, 0])
    np.testing.assert_array_equal(preprocess.fit(drawn), preprocess.fit(image))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "F"])
def test_a_pillow_image_of_another_mode_is_refused(mode):
    with pytest.raises(UsageError, match=f"the image is Image of mode {mode}; "):
        Preprocess((8, 8)).fit(Pillow.new(mode, (9, 9)))


def test_normalising_into_given_memory_is_normalising():
    image, preprocess = noise(9, 7), Preprocess((9, 7))
    out = np.empty((3, 9, 7), np.float32)
    assert preprocess.normalise(image, out=out) is out
    np.testing.assert_array_equal(out, preprocess.normalise(image))
