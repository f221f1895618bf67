"""Sound files of unusual kinds: HEIC and AVIF are read, what is no 8-bit image is called that."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import features

from densepath.errors import ImageError
from densepath.images.decode import open_image

needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
RED, BLUE = (255, 0, 0), (0, 0, 255)
LOSSY = 6


def halves(mode="RGB"):
    """Red on the left and blue on the right: 64 wide, 48 high."""
    picture = Pillow.new("RGB", (64, 48), RED)
    picture.paste(BLUE, (32, 0, 64, 48))
    return picture.convert(mode)


def tiff(bits, numbers, planes, data, *, compression=1, photometric=1, extra=()):
    """A little-endian TIFF of 2 × 2 pixels with one uncompressed strip."""
    entries = [
        (256, 4, 1, 2), (257, 4, 1, 2), (258, 3, 1, bits), (259, 3, 1, compression),
        (262, 3, 1, photometric), (273, 4, 1, 512), (277, 3, 1, planes), (278, 4, 1, 2),
        (279, 4, 1, len(data)), (339, 3, 1, numbers), *extra,
    ]  # fmt: skip
    rows = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + rows + bytes(4)
    return head.ljust(512, b"\0") + data


def floats(*values):
    array = np.array(values, np.float32).reshape(2, 2)
    return tiff(32, 3, 1, array.tobytes())


def reason(data):
    with pytest.raises(ImageError) as caught:
        open_image(data)
    assert "\n" not in caught.value.reason
    return caught.value.reason


def encoded(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def assert_red_then_blue(image, first, last):
    for pixel, color in ((image[first], RED), (image[last], BLUE)):
        assert np.abs(pixel.astype(int) - color).max() <= LOSSY


@pytest.fixture
def heif():
    pillow_heif = pytest.importorskip(
        "pillow_heif", reason="pillow-heif is not installed: the extra `heic` brings it"
    )
    pillow_heif.register_heif_opener()
    return pillow_heif


@needs_avif
def test_an_avif_image_is_read_turned_and_laid_over_white():
    assert_red_then_blue(open_image(encoded(halves(), "AVIF")), (5, 5), (40, 60))
    exif = Pillow.Exif()
    exif[0x112] = 6
    turned = open_image(encoded(halves(), "AVIF", exif=exif))
    assert turned.shape == (64, 48, 3)
    assert_red_then_blue(turned, (5, 5), (60, 40))
    clear = halves("RGBA")
    clear.putalpha(0)
    assert (open_image(encoded(clear, "AVIF")) > 255 - LOSSY).all()


@needs_avif
def test_of_an_animated_avif_the_first_frame_is_read_and_a_damaged_one_refused():
    data = encoded(halves(), "AVIF", save_all=True, append_images=[Pillow.new("RGB", (64, 48))])
    assert_red_then_blue(open_image(data), (5, 5), (40, 60))
    assert "damaged AVIF" in reason(data[: len(data) // 2])


def test_the_pixels_of_a_large_avif_or_heic_are_counted_before_it_is_decoded(heif):
    for kind in ("AVIF", "HEIF"):
        data = encoded(halves(), kind)
        with pytest.raises(ImageError, match=r"64 × 48 is more than the 3,071 pixels"):
            open_image(data, max_pixels=64 * 48 - 1)


def test_a_heic_photo_is_read_as_its_own_rotation_says(heif):
    assert_red_then_blue(open_image(encoded(halves(), "HEIF")), (5, 5), (40, 60))
    exif = Pillow.Exif()
    exif[0x112] = 6
    turned = open_image(encoded(halves(), "HEIF", exif=exif.tobytes()))
    assert turned.shape == (64, 48, 3)
    assert_red_then_blue(turned, (5, 5), (60, 40))


def test_a_heic_photo_with_alpha_in_gray_or_of_ten_bits_is_read(heif):
    clear = halves("RGBA")
    clear.putalpha(0)
    assert (open_image(encoded(clear, "HEIF")) > 255 - LOSSY).all()
    gray = open_image(encoded(Pillow.new("L", (16, 16), 90), "HEIF"))
    assert np.abs(gray.astype(int) - 90).max() <= LOSSY
    assert gray.shape == (16, 16, 3)
    deep = np.zeros((48, 64, 3), np.uint16)
    deep[..., 1] = 1023 << 6
    file = io.BytesIO()
    heif.from_bytes("RGB;16", (64, 48), deep.tobytes()).save(file, quality=-1)
    assert np.abs(open_image(file.getvalue()).astype(int) - (0, 255, 0)).max() <= LOSSY


def test_of_several_pictures_in_a_heic_file_the_main_one_is_read(heif):
    others = [Pillow.new("RGB", (64, 48), (0, 255, 0))]
    data = encoded(halves(), "HEIF", save_all=True, append_images=others, primary_index=1)
    assert np.abs(open_image(data).astype(int) - (0, 255, 0)).max() <= LOSSY


def test_a_damaged_heic_photo_is_refused(heif):
    data = encoded(halves(), "HEIF")
    assert "damaged HEIF" in reason(data[: len(data) // 2])
    assert "damaged" in reason(data.replace(b"iloc", b"ilox"))
    assert "damaged" in reason(data[:-40])  # a reason that libheif ends with a line


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1", b"hevc"])
def test_without_its_package_a_heic_photo_is_refused_with_the_cure(brand, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    said = reason(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(60))
    assert said.startswith("a HEIC photo: ")
    assert "pillow-heif" in said


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (floats(-3, 1, 2, 8000), "floats with values from -3 to 8,000: not an 8-bit image"),
        (floats(0, 1, 1.5, 2), "floats with values from 0 to 2: not an 8-bit image"),
        (floats(-90, 0, 9, 255), "floats with values from -90 to 255"),
        (tiff(32, 3, 3, bytes(48), photometric=2), "3 channels of 32-bit floats"),
        (tiff(16, 3, 1, bytes(8)), "1 channel of 16-bit floats"),
        (tiff(64, 3, 1, bytes(32)), "1 channel of 64-bit floats"),
        (tiff(64, 6, 1, bytes(32)), "1 channel of 64-bit complex"),
        (tiff(8, 1, 5, bytes(20)), "5 channels of 8-bit unsigned integers"),
        (tiff(8, 2, 1, bytes(4)), "1 channel of 8-bit signed integers"),
        (tiff(12, 1, 1, bytes(6)), "1 channel of 12-bit unsigned integers"),
        (tiff(16, 2, 1, struct.pack("<4h", -1, 0, 1, 2)), "integers with values from -1 to 2"),
        (tiff(32, 1, 1, struct.pack("<4I", 0, 1, 2, 70_000)), "integers with values from 0 to 70"),
        (tiff(32, 1, 1, struct.pack("<4I", 0, 1, 2, 255)), "integers with values from 0 to 255"),
        (tiff(8, 1, 1, bytes(4), compression=34887), "compressed as LERC"),
        (tiff(8, 1, 1, bytes(4), compression=50002), "compressed as JPEG XL"),
        (tiff(16, 1, 1, bytes(8), photometric=32803), "a sensor's raw data"),
        (tiff(8, 1, 1, bytes(4), extra=[(254, 4, 1, 1)]), "a raw photo"),
        (tiff(8, 1, 1, bytes(4), extra=[(50706, 1, 4, 0x00000401)]), "a raw photo"),
        (b"\xff\x4f\xff\x51" + bytes(60), "a JPEG 2000 image"),
        (b"\xff\x0a" + bytes(60), "a JPEG XL image"),
        (b"\xff\xd8\xff\xf7\0\x0b\x08\0\x01\0\x01\x01\x01\x11\0" + bytes(60), "a JPEG-LS image"),
        (b"PF\n2 1\n-1.0\n" + bytes(24), "three floating-point channels"),
        (b"P7\nWIDTH 1\n" + bytes(60), "a PAM image"),
        (b"qoif" + bytes(60), "a QOI image"),
        (b"8BPS\0\x01" + bytes(60), "a Photoshop file"),
        (bytes(128) + b"DICM" + bytes(60), "a DICOM file"),
        (b"\x93NUMPY\x01\0" + bytes(60), "a NumPy array"),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "a raw photo"),
        (b"v/1\x01" + bytes(60), "an OpenEXR image"),
    ],
)
def test_a_sound_file_that_is_no_8_bit_image_is_called_what_it_is_and_not_damaged(data, said):
    found = reason(data)
    assert said in found
    assert "damaged" not in found
    assert len(found) < 200


def test_floats_a_little_beyond_0_to_1_and_0_to_255_are_cut():
    np.testing.assert_array_equal(
        open_image(floats(-0.05, 0, 0.5, 1.05))[:, :, 0], [[0, 0], [128, 255]]
    )
    np.testing.assert_array_equal(
        open_image(floats(-3, 0, 99.6, 259))[:, :, 0], [[0, 0], [100, 255]]
    )


@pytest.mark.parametrize(
    ("tag", "data", "said"),
    [
        ((277, 1), tiff(16, 3, 1, bytes(8)), "1 channel of 16-bit floats"),
        ((339, 1), tiff(12, 1, 1, bytes(6)), "1 channel of 12-bit unsigned integers"),
    ],
)
def test_a_tag_that_a_tiff_leaves_out_has_the_value_of_its_standard(tag, data, said):
    """TIFF 6.0: one channel, and unsigned integers."""
    entry = struct.pack("<HHII", tag[0], 3, 1, tag[1])
    assert data.count(entry) == 1
    left_out = data.replace(entry, struct.pack("<HHII", 65_000, 3, 1, 9))
    assert said in reason(left_out)
