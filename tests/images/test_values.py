"""Values of deep files → bytes, by arithmetic; 16-bit PNG, TIFF and `.npy` files."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as Pillow

from densepath.errors import ImageError
from densepath.images.decode import open_image
from densepath.images.intensity import Intensity
from fixtures.deep_files import npy, seeds, tiff

RAMP = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)


def opened(data, text, channels=1):
    setting = None if text is None else Intensity.parse(text)
    return open_image(data, channels=channels, intensity=setting)


def reason(data, text, channels=1):
    with pytest.raises(ImageError) as caught:
        opened(data, text, channels)
    assert "\n" not in caught.value.reason
    return caught.value.reason


def deep_png(array=RAMP):
    file = io.BytesIO()
    Pillow.fromarray(array).save(file, "PNG")
    return file.getvalue()


KINDS = {"png": deep_png, "tiff": lambda a=RAMP: tiff([a]), "npy": lambda a=RAMP: npy(a)}


def by_hand(values, low, high):
    """The line in Python's own numbers, rounded half to even, as IEEE 754 rounds."""
    scale = 255.0 / (high - low)
    return np.array([round(min(max((float(v) - low) * scale, 0.0), 255.0)) for v in values.flat])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("range:1000,30000", 1000, 30000), ("window:2048,4096", 0, 4095), ("file", 0, 65535)],
)
def test_values_become_bytes_on_a_line_between_black_and_white(kind, text, low, high):
    image = opened(KINDS[kind](), text)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image.ravel(), by_hand(RAMP, low, high))


@pytest.mark.parametrize("kind", KINDS)
def test_percentiles_are_of_each_image_s_own_values_by_nearest_rank(kind):
    array = np.array([[5, 5, 5, 10], [20, 30, 40, 60000]], np.uint16)
    # Ranks of 0 to 7: 80 % of 7 is 5.6, so the 6th of the sorted values, 40.
    np.testing.assert_array_equal(
        opened(KINDS[kind](array), "percentiles:0,80").ravel(), by_hand(array, 5, 40)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_image_is_black_by_percentiles(kind):
    assert not opened(KINDS[kind](np.full((4, 5), 700, np.uint16)), "percentiles:1,99").any()


def test_a_16_bit_png_without_the_setting_keeps_its_upper_8_bits_as_ever():
    np.testing.assert_array_equal(open_image(deep_png(), channels=1)[:, :, 0], RAMP >> 8)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_bytes_are_the_same_in_gray_and_in_rgb(channels):
    image = opened(deep_png(), "file", channels)
    assert image.shape == (16, 16, channels)
    assert (image == image[:, :, :1]).all()


def test_a_transparent_value_is_white():
    chunk = seeds.chunk(b"tRNS", int(RAMP[1, 1]).to_bytes(2, "big"))
    image = opened(seeds.png(RAMP[:, :, None], 16, 0, before=chunk), "file")
    assert image[1, 1, 0] == 255
    assert image[1, 2, 0] == by_hand(RAMP[1, 2:3], 0, 65535)[0]


def test_a_photo_is_what_it_is_by_file_and_stretched_by_percentiles():
    photo = io.BytesIO()
    array = np.arange(60, 120, dtype=np.uint8).reshape(6, 10)
    Pillow.fromarray(array).save(photo, "PNG")
    np.testing.assert_array_equal(opened(photo.getvalue(), "file")[:, :, 0], array)
    stretched = opened(photo.getvalue(), "percentiles:0,100")
    assert (stretched.min(), stretched.max()) == (0, 255)


def test_a_photo_under_a_range_of_measured_values_is_refused_not_darkened():
    photo = io.BytesIO()
    Pillow.new("RGB", (8, 8), (9, 99, 200)).save(photo, "JPEG")
    assert "for files of measured values" in reason(photo.getvalue(), "range:0,4095", 3)
    assert opened(photo.getvalue(), "range:0,200", 3).max() == 255


@pytest.mark.parametrize("color", [2, 4, 6])
def test_colour_of_16_bits_is_refused_where_half_of_it_would_be_lost(color):
    channels = {2: 3, 4: 2, 6: 4}[color]
    data = seeds.png(np.full((4, 4, channels), 777), 16, color)
    assert "only the upper 8 would be read" in reason(data, "file")
    assert open_image(data).shape == (4, 4, 3)  # as ever


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "i4", "f4"])
def test_tiffs_of_every_type_and_byte_order_have_their_values(kind, order):
    array = (np.arange(48).reshape(6, 8) - (20 if kind[0] != "u" else 0)).astype(kind)
    image = opened(tiff([array], order), "range:0,40" if kind == "u1" else "range:-10,25")
    low, high = (0, 40) if kind == "u1" else (-10, 25)
    np.testing.assert_array_equal(image.ravel(), by_hand(array, low, high))


def test_a_tiff_whose_zero_is_white_is_inverted():
    image = opened(tiff([RAMP], white_is_zero=True), "file")
    np.testing.assert_array_equal(image.ravel(), 255 - by_hand(RAMP, 0, 65535))


@pytest.mark.parametrize("channels", [2, 3, 5, 16])
def test_the_pages_of_a_tiff_are_the_channels(channels):
    pages = [np.full((6, 8), 1000 * i, np.uint16) for i in range(channels)]
    image = opened(tiff(pages), "range:0,15000", channels)
    expected = by_hand(np.arange(channels) * 1000, 0, 15000)
    np.testing.assert_array_equal(image[2, 3], expected)


def test_pages_of_bytes_need_no_setting():
    pages = [np.full((6, 8), 10 * i, np.uint8) for i in range(5)]
    np.testing.assert_array_equal(opened(tiff(pages), None, 5)[0, 0], [0, 10, 20, 30, 40])


def test_a_thumbnail_is_no_page():
    data = tiff([RAMP, RAMP[:4, :4]], reduced=1)
    assert opened(data, "file").shape == (16, 16, 1)


@pytest.mark.parametrize(
    ("data", "channels", "says"),
    [
        (tiff([RAMP] * 2), 1, "a TIFF of more pages, and the network takes 1 channel"),
        (tiff([RAMP] * 2), 5, "a TIFF of 2 pages, and the network takes 5 channels"),
        (tiff([RAMP, RAMP[:4], RAMP]), 3, "pages are of different sizes"),
        (tiff([RAMP, RAMP.astype("i2"), RAMP]), 3, "pages are of different kinds"),
        (tiff([np.full((4, 4), np.nan, "f4")]), 1, "not finite"),
        (tiff([RAMP])[:-20], 1, "damaged"),
        (deep_png(), 5, "with 1 channel, and the network takes 5; give it a TIFF with a page"),
    ],
)
def test_what_is_no_one_image_for_the_network_is_refused(data, channels, says):
    assert says in reason(data, "percentiles:1,99", channels)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_an_array_s_channels_are_the_side_that_has_as_many(order, version):
    planes = np.arange(5 * 6 * 8, dtype=np.uint16).reshape(5, 6, 8)
    first = opened(npy(np.asarray(planes, order=order), version), "range:0,239", 5)
    last = opened(
        npy(np.asarray(planes.transpose(1, 2, 0), order=order), version), "range:0,239", 5
    )
    np.testing.assert_array_equal(first, last)
    np.testing.assert_array_equal(first.ravel(), by_hand(planes.transpose(1, 2, 0), 0, 239))


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((3, 8, 3), "u2"), "3 × 8 × 3: either end may be the 3 of the network"),
        (np.zeros((4, 8, 8), "u2"), "no end can be the 3"),
        (np.zeros((), "u2"), "the sides none"),
        (np.zeros((2, 4, 8, 3), "u2"), "an image has 2 or 3"),
        (np.zeros((0, 8), "u2"), "an image has 2 or 3"),
        (np.zeros((8, 8)), "another type than is read; save x.astype(np.float32)"),
        (np.zeros((8, 8), bool), "another type"),
        (np.zeros((8, 8), [("a", "u2")]), "records, not of numbers"),
        (np.array([[{}]], object), "Python objects, which are never read"),
        (np.full((8, 8), np.inf, "f4"), "not finite"),
    ],
)
def test_arrays_that_are_no_image_are_refused_with_the_cure(array, says):
    assert says in reason(npy(array), "percentiles:1,99", 3)


def test_an_array_of_objects_is_not_unpickled():
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    reason(npy(np.array([[Bomb()]], object)), "file")


def test_a_claim_of_many_values_takes_no_memory():
    small = npy(np.zeros((8, 8), np.uint16))
    huge = small.replace(b"(8, 8), }  ", b"(9000, 9000), }")[: len(small)]
    assert "ends within its values" in reason(huge, "file")
    assert "pixels allowed" in reason(small.replace(b"(8, 8), }    ", b"(99999, 9999), }"), "file")


def test_floats_have_no_range_of_their_own():
    assert "set intensity to a range" in reason(npy(np.zeros((8, 8), "f4")), "file")


def test_deep_values_without_a_setting_are_refused_and_bytes_are_not():
    planes = np.zeros((6, 8, 5), np.uint16)
    assert "says nothing of intensity" in reason(npy(planes), None, 5)
    assert opened(npy(planes.astype(np.uint8)), None, 5).shape == (6, 8, 5)


@pytest.mark.parametrize("data", [npy(RAMP), seeds.dicom(RAMP)])
def test_networks_without_the_setting_read_neither_arrays_nor_dicom(data):
    assert "networks that have the setting intensity" in reason(data, None)
