"""Our own resizing gives Pillow's bytes, whatever the image's size, shape and kernel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_images

from densepath.engines.native import load_library
from densepath.images.preprocess import Preprocess
from densepath.images.resize import fast_fit

SIDES = st.integers(1, 400)


@pytest.fixture(scope="module")
def library():
    return load_library()


def preprocess_of(size, resize_short, interpolation, channels):
    return Preprocess(
        size, resize_short, interpolation, mean=(0.5,) * channels, std=(1,) * channels
    )


@settings(max_examples=150, deadline=None)
@given(
    old=st.tuples(SIDES, SIDES),
    size=st.tuples(st.integers(1, 130), st.integers(1, 130)),
    more=st.none() | st.integers(0, 60),
    interpolation=st.sampled_from(["bilinear", "bicubic"]),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_every_size_gives_pillows_bytes(library, old, size, more, interpolation, channels, seed):
    short = None if more is None else max(size) + more
    preprocess = preprocess_of(size, short, interpolation, channels)
    pixels = np.random.default_rng(seed).integers(0, 256, (*old, channels), np.uint8)
    assert np.array_equal(fast_fit(preprocess, library)(pixels), preprocess.fit(pixels))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_photographs_give_pillows_bytes(library, interpolation):
    preprocess = Preprocess((224, 224), 256, interpolation)
    fit = fast_fit(preprocess, library)
    for pixels in load_sample_images().images:
        for image in (pixels, pixels.transpose(1, 0, 2), pixels[::7, ::7], pixels[:, :31]):
            picture = Image.fromarray(np.ascontiguousarray(image))
            assert np.array_equal(fit(picture), preprocess.fit(picture))


def test_extreme_values_are_clipped_as_pillow_clips_them(library):
    # Bicubic weights are negative at the sides: next to a step values leave 0…255.
    pixels = np.zeros((90, 90, 3), np.uint8)
    pixels[30:60, 30:60] = 255
    preprocess = Preprocess((64, 64), None, "bicubic")
    assert np.array_equal(fast_fit(preprocess, library)(pixels), preprocess.fit(pixels))


def test_what_pillow_does_not_do_stays_with_preprocess(library):
    for preprocess in (
        Preprocess((32, 32), 40, "cv2_bilinear"),
        Preprocess((32, 32), mean=(0.5,) * 4, std=(1.0,) * 4),
    ):
        assert fast_fit(preprocess, library) == preprocess.fit


def test_images_of_another_kind_are_fitted_or_refused_as_preprocess_does(library):
    preprocess = Preprocess((8, 8), mean=(0.5,) * 3, std=(1.0,) * 3)
    fit = fast_fit(preprocess, library)
    for image in (
        np.zeros((20, 30, 4), np.uint8),
        np.zeros((20, 30, 3), np.float32),
        np.zeros((0, 30, 3), np.uint8),
        Image.new("L", (20, 30)),
    ):
        with pytest.raises(Exception) as expected:  # noqa: PT011  whatever it is
            preprocess.fit(image)
        with pytest.raises(type(expected.value)) as found:
            fit(image)
        assert str(found.value) == str(expected.value)
