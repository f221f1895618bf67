"""The views of test-time augmentation are the crops and mirrors that they say."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from densepath.errors import UnknownNameError, UsageError
from densepath.images.preprocess import Preprocess
from densepath.images.views import average_views, make_views

CROPPED = Preprocess((24, 24), 32)
NOISE = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)


def test_a_mirror_is_the_fitted_image_backwards():
    views = make_views("flip", CROPPED)(NOISE)
    assert views.shape == (2, 24, 24, 3)
    assert (views[0] == CROPPED.fit(NOISE)).all()
    assert (views[1] == views[0][:, ::-1]).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "cv2_bilinear"])
def test_five_crops_are_the_corners_and_the_centre_of_the_resized_image(interpolation):
    preprocess = Preprocess((24, 24), 32, interpolation)
    views = make_views("five-crop", preprocess)(NOISE)
    whole = Preprocess((32, 51), None, interpolation).fit(NOISE)  # 80 · 32 / 50, truncated
    assert (views[0] == whole[:24, :24]).all()
    assert (views[1] == whole[:24, -24:]).all()
    assert (views[2] == whole[-24:, :24]).all()
    assert (views[3] == whole[-24:, -24:]).all()
    assert (views[4] == preprocess.fit(NOISE)).all()


def test_both_are_ten_and_a_pillow_image_gives_the_same():
    views = make_views("flip+five-crop", CROPPED)
    found = views(NOISE)
    assert (found.shape, views.count) == ((10, 24, 24, 3), 10)
    assert (found[5:] == found[:5, :, ::-1]).all()
    assert (views(Image.fromarray(NOISE)) == found).all()


def test_the_logits_are_averaged_over_the_views_of_each_image():
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 2, 2, 1)

    def run(one):
        assert one.flags.c_contiguous
        return one.reshape(len(one), -1)[:, :2].astype(np.float32)

    assert average_views(run, images).tolist() == [[4, 5], [16, 17]]
    assert average_views(run, images).dtype == np.float32


def test_what_makes_no_sense_is_refused_with_the_cure():
    with pytest.raises(UsageError, match=r"--crop-pct 0\.875"):
        make_views("five-crop", Preprocess((32, 32)))
    with pytest.raises(UnknownNameError, match="Did you mean flip"):
        make_views("flips", CROPPED)
    assert make_views("none", CROPPED) is None
    with pytest.raises(UsageError, match="takes uint8"):
        make_views("five-crop", CROPPED)(NOISE[:, :, :1])
