"""Strange and broken images, one row each: the file, and the pixels or the reason it must give.

Every file is made here. Pixels are the first (top left) and the last (bottom right) of the image;
they follow from the colours that the maker puts in.
"""

import io
import os
import resource
import struct
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import TiffImagePlugin

from densepath.errors import ImageError, UsageError
from densepath.images.decode import from_pillow, open_image

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255,) * 3, (0,) * 3
LOSSY = 4
"""The largest difference that a lossy file format makes to a picture of one colour."""


def encode(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def flat(color=RED, size=(8, 6), mode="RGB"):
    return Pillow.new(mode, size, color)


def two(first, last, mode="RGB"):
    """A picture of 2 × 1 pixels."""
    picture = Pillow.new(mode, (2, 1), first)
    picture.putpixel((1, 0), last)
    return picture


def palette(**options):
    picture = Pillow.new("P", (2, 1), 0)
    picture.putpalette([*RED, *GREEN])
    picture.putpixel((1, 0), 1)
    return encode(picture, options.pop("kind", "PNG"), **options)


def gray16(kind, values=(0x1234, 0xFF00), **options):
    return encode(Pillow.fromarray(np.array([values], np.uint16)), kind, **options)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, depth, color, rows, *, checksum=b""):
    """A PNG written by hand; `color` 0 gray, 2 RGB, 4 gray and alpha, 6 RGBA."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    packed = zlib.compress(rows)
    data = chunk(b"IDAT", packed[: len(packed) - len(checksum)] + checksum)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def animated(kind, **options):
    frames = [flat(RED), flat(BLUE)]
    return encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def turned(orientation, kind="PNG"):
    """Red at the top left once shown as it should be, the rest black: 3 wide and 2 high."""
    shown = Pillow.new("RGB", (3, 2))
    shown.putpixel((0, 0), RED)
    undo = {
        2: Pillow.Transpose.FLIP_LEFT_RIGHT,
        3: Pillow.Transpose.ROTATE_180,
        4: Pillow.Transpose.FLIP_TOP_BOTTOM,
        5: Pillow.Transpose.TRANSPOSE,
        6: Pillow.Transpose.ROTATE_90,
        7: Pillow.Transpose.TRANSVERSE,
        8: Pillow.Transpose.ROTATE_270,
    }
    stored = shown.transpose(undo[orientation]) if orientation in undo else shown
    exif = Pillow.Exif()
    exif[0x112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    return encode(stored, kind, exif=exif, **options)


def noise(kind, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    return encode(Pillow.fromarray(pixels), kind, **options)


def half(data):
    return data[: len(data) // 2]


def transparent(mode, *colors):
    return encode(two(*colors, mode=mode), "PNG")


def many_entries_tiff():
    """A TIFF whose directory says that it has 65,535 entries and stops."""
    return b"II*\0\x08\0\0\0\xff\xff" + b"\0" * 30


# name → (bytes, (shape, first pixel, last pixel)); lossy kinds are compared within LOSSY.
READ = {
    "baseline.jpg": (encode(flat(), "JPEG"), ((6, 8, 3), RED, RED)),
    "progressive.jpg": (encode(flat(), "JPEG", progressive=True), ((6, 8, 3), RED, RED)),
    "gray.jpg": (encode(flat(90, mode="L"), "JPEG"), ((6, 8, 3), (90,) * 3, (90,) * 3)),
    "cmyk.jpg": (
        encode(flat((0, 255, 255, 0), mode="CMYK"), "JPEG"),
        ((6, 8, 3), RED, RED),
    ),
    "cmyk.tif": (
        encode(flat((0, 255, 255, 0), mode="CMYK"), "TIFF"),
        ((6, 8, 3), RED, RED),
    ),
    "ycbcr.tif": (
        encode(flat((128, 128, 128), mode="YCbCr"), "TIFF"),
        ((6, 8, 3), (128,) * 3, (128,) * 3),
    ),
    "two pictures.mpo": (animated("MPO"), ((6, 8, 3), RED, RED)),
    "jpeg named.png": (encode(flat(), "JPEG"), ((6, 8, 3), RED, RED)),
    "png named.jpg": (encode(flat(), "PNG"), ((6, 8, 3), RED, RED)),
    "windows.bmp": (encode(flat(), "BMP"), ((6, 8, 3), RED, RED)),
    "portable.ppm": (encode(flat(), "PPM"), ((6, 8, 3), RED, RED)),
    "lzw.tif": (
        encode(flat(), "TIFF", compression="tiff_lzw"),
        ((6, 8, 3), RED, RED),
    ),
    "gray.png": (encode(two(7, 9, "L"), "PNG"), ((1, 2, 3), (7,) * 3, (9,) * 3)),
    "one bit.png": (encode(two(0, 255, "1"), "PNG"), ((1, 2, 3), BLACK, WHITE)),
    "one bit.tif": (encode(two(0, 255, "1"), "TIFF"), ((1, 2, 3), BLACK, WHITE)),
    "palette.png": (palette(), ((1, 2, 3), RED, GREEN)),
    "palette.gif": (palette(kind="GIF"), ((1, 2, 3), RED, GREEN)),
    "palette.bmp": (palette(kind="BMP"), ((1, 2, 3), RED, GREEN)),
    "transparent palette.png": (palette(transparency=0), ((1, 2, 3), WHITE, GREEN)),
    "half transparent palette.png": (
        palette(transparency=bytes([128, 255])),
        ((1, 2, 3), (255, 127, 127), GREEN),
    ),
    "transparent palette.gif": (
        palette(kind="GIF", transparency=0),
        ((1, 2, 3), WHITE, GREEN),
    ),
    "rgba.png": (
        transparent("RGBA", (*RED, 0), (*BLUE, 255)),
        ((1, 2, 3), WHITE, BLUE),
    ),
    "gray and alpha.png": (
        transparent("LA", (100, 0), (100, 255)),
        ((1, 2, 3), WHITE, (100,) * 3),
    ),
    "transparent colour.png": (
        encode(two(RED, BLUE), "PNG", transparency=RED),
        ((1, 2, 3), WHITE, BLUE),
    ),
    "transparent gray.png": (
        encode(two(0, 200, "L"), "PNG", transparency=0),
        ((1, 2, 3), WHITE, (200,) * 3),
    ),
    "gray of 16 bits.png": (gray16("PNG"), ((1, 2, 3), (0x12,) * 3, (0xFF,) * 3)),
    "gray of 16 bits.tif": (gray16("TIFF"), ((1, 2, 3), (0x12,) * 3, (0xFF,) * 3)),
    "transparent gray of 16 bits.png": (
        gray16("PNG", transparency=0x1234),
        ((1, 2, 3), WHITE, (0xFF,) * 3),
    ),
    "rgb of 16 bits.png": (
        png(1, 1, 16, 2, b"\0" + struct.pack(">HHH", 0x12FF, 0xFF00, 0x8001)),
        ((1, 1, 3), (0x12, 0xFF, 0x80), (0x12, 0xFF, 0x80)),
    ),
    "rgba of 16 bits.png": (
        png(1, 1, 16, 6, b"\0" + struct.pack(">HHHH", 0x8000, 0, 0, 0)),
        ((1, 1, 3), WHITE, WHITE),
    ),
    "integers of 32 bits.tif": (
        encode(Pillow.fromarray(np.array([[0, 65_535]], np.int32)), "TIFF"),
        ((1, 2, 3), BLACK, WHITE),
    ),
    "floats from 0 to 1.tif": (
        encode(Pillow.fromarray(np.array([[0.0, 1.0]], np.float32)), "TIFF"),
        ((1, 2, 3), BLACK, WHITE),
    ),
    "floats from 0 to 255.tif": (
        encode(Pillow.fromarray(np.array([[7.4, 260.0]], np.float32)), "TIFF"),
        ((1, 2, 3), (7,) * 3, WHITE),
    ),
    "animated.gif": (animated("GIF"), ((6, 8, 3), RED, RED)),
    "animated.webp": (animated("WEBP", lossless=True), ((6, 8, 3), RED, RED)),
    "animated.png": (animated("PNG"), ((6, 8, 3), RED, RED)),
    "lossless.webp": (encode(flat(), "WEBP", lossless=True), ((6, 8, 3), RED, RED)),
    "one pixel.png": (encode(flat(GREEN, (1, 1)), "PNG"), ((1, 1, 3), GREEN, GREEN)),
    "a line.png": (encode(flat(BLUE, (1, 10_000)), "PNG"), ((10_000, 1, 3), BLUE, BLUE)),
    "ünïcödé 图像.png": (encode(flat(), "PNG"), ((6, 8, 3), RED, RED)),
    "new\nline.png": (encode(flat(), "PNG"), ((6, 8, 3), RED, RED)),
    "no suffix": (encode(flat(), "PNG"), ((6, 8, 3), RED, RED)),
    "damaged exif.jpg": (
        encode(flat(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"),
        ((6, 8, 3), RED, RED),
    ),
    "impossible orientation.png": (turned(99), ((2, 3, 3), RED, BLACK)),
    **{f"orientation {i}.png": (turned(i), ((2, 3, 3), RED, BLACK)) for i in range(1, 9)},
    "orientation 6.tif": (turned(6, "TIFF"), ((2, 3, 3), RED, BLACK)),
    "orientation 5.webp": (turned(5, "WEBP"), ((2, 3, 3), RED, BLACK)),
    "text behind the image.png": (
        encode(flat(), "PNG") + b"<script>",
        ((6, 8, 3), RED, RED),
    ),
}

# name → (bytes, a part of the reason)
REFUSED = {
    "empty.jpg": (b"", "the file is empty"),
    "zeros.jpg": (b"\0" * 4096, "nothing but zero bytes"),
    "web page.jpg": (b"\xef\xbb\xbf <!DOCTYPE html><html>404</html>", "a web page"),
    "lower case page.png": (b"\n<html><body>Sign in</body></html>", "a web page"),
    "drawing.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
    "listing.jpg": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "XML text"),
    "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "words.jpg": (b"this is no image at all", "not an image of a known kind (JPEG, PNG"),
    "archive.jpg": (b"PK\x03\x04" + b"\0" * 60, "a zip archive"),
    "document.jpg": (encode(flat(), "PDF"), "a PDF"),
    "phone.jpg": (b"\0\0\0\x18ftypheic" + b"\0" * 60, "HEI"),
    "film.jpg": (b"\0\0\0\x18ftypisom" + b"\0" * 60, "a video"),
    "new kind.jpg": (b"\0\0\0\x1cftypavif" + b"\0" * 60, "AVIF"),
    "jpeg 2000.jpg": (encode(flat(), "JPEG2000"), "a JPEG 2000 image"),
    "icon.ico": (encode(flat(), "ICO"), "not an image of a known kind"),
    "half.jpg": (half(noise("JPEG")), "truncated"),
    "half progressive.jpg": (half(noise("JPEG", progressive=True)), "truncated"),
    "without its end.jpg": (noise("JPEG")[:-2], "truncated"),
    "only the start.jpg": (noise("JPEG")[:30], "damaged"),
    "three bytes.jpg": (noise("JPEG")[:3], "a damaged JPEG file"),
    "half.png": (half(noise("PNG")), "truncated"),
    "only the start.png": (noise("PNG")[:30], "a damaged PNG file"),
    "half.gif": (half(noise("GIF")), "truncated"),
    "half.webp": (half(noise("WEBP")), "damaged"),
    "half.bmp": (half(noise("BMP")), "truncated"),
    "half.tif": (half(noise("TIFF")), "truncated"),
    "half compressed.tif": (half(noise("TIFF", compression="tiff_lzw")), "a damaged TIFF file"),
    "half.ppm": (half(noise("PPM")), "truncated"),
    "broken directory.tif": (many_entries_tiff(), "a damaged TIFF file"),
    "wrong checksum.png": (png(2, 2, 8, 0, b"\0\1\2\0\3\4", checksum=b"oops"), "damaged"),
    "no pixels.png": (png(0, 5, 8, 0, b""), "a damaged PNG file"),
    "too few pixels.png": (png(20, 20, 8, 2, b"\0\1\2"), "damaged"),
    "bomb.png": (png(30_000, 30_000, 8, 2, b""), "30000 × 30000 is more than the 89,478,485"),
    "full bomb.png": (
        encode(Pillow.new("1", (12_000, 12_000)), "PNG"),
        "12000 × 12000 is more than",
    ),
    "largest bomb.png": (png(2**31 - 1, 2**31 - 1, 1, 0, b""), "pixels allowed"),
    "bomb.gif": (
        noise("GIF")[:6] + struct.pack("<HH", 65_535, 65_535) + noise("GIF")[10:],
        "65535 × 65535 is more than",
    ),
    "not finite.tif": (
        encode(Pillow.fromarray(np.array([[np.nan, 1.0]], np.float32)), "TIFF"),
        "not finite",
    ),
}


@pytest.mark.parametrize("name", READ)
def test_a_strange_image_has_the_documented_pixels(name, tmp_path):
    data, (shape, first, last) = READ[name]
    path = tmp_path / name
    path.write_bytes(data)
    image = open_image(path)
    assert image.dtype == np.uint8
    assert image.shape == shape
    lossy = name.endswith((".jpg", ".mpo")) or name.startswith("jpeg")
    for found, expected in ((image[0, 0], first), (image[-1, -1], last)):
        assert np.abs(found.astype(int) - expected).max() <= (LOSSY if lossy else 0)
    np.testing.assert_array_equal(open_image(data), image)


@pytest.mark.parametrize("name", READ)
def test_a_strange_image_read_as_gray_has_one_channel(name):
    data, (shape, _, _) = READ[name]
    assert open_image(data, channels=1).shape == (*shape[:2], 1)


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_image_is_refused_with_its_name_and_a_reason(name, tmp_path):
    data, reason = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ImageError) as caught:
        open_image(path)
    assert caught.value.path == str(path)
    assert reason in caught.value.reason
    assert "\n" not in caught.value.reason
    assert len(caught.value.reason) < 200


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
def test_damage_anywhere_gives_an_image_or_an_image_error(kind):
    whole = noise(kind)
    rng = np.random.default_rng(0)
    reasons = []
    for _ in range(100):
        data = bytearray(whole)
        places = rng.integers(0, len(data) if rng.random() < 0.5 else 100, 5)
        for place in places:
            data[place] = rng.integers(256)
        try:
            image = open_image(bytes(data), max_pixels=100_000)
            assert image.dtype == np.uint8
            assert image.shape[2] == 3
        except ImageError as error:
            reasons.append(error.reason)
    assert reasons
    assert not any("\n" in reason for reason in reasons)


def test_there_are_at_least_forty_strange_and_broken_images():
    assert len(READ) + len(REFUSED) >= 40


def test_a_folder_named_like_an_image_is_refused(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(ImageError, match="a folder, not a file"):
        open_image(tmp_path / "folder.jpg")


def test_a_link_to_nothing_is_refused(tmp_path):
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match="no such file"):
        open_image(tmp_path / "link.jpg")


def test_a_link_that_points_at_itself_is_refused(tmp_path):
    (tmp_path / "link.jpg").symlink_to(tmp_path / "link.jpg")
    with pytest.raises(ImageError, match="too many levels of symbolic links"):
        open_image(tmp_path / "link.jpg")


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="not a regular file"):
        open_image(tmp_path / "pipe.jpg")


def test_a_name_that_is_too_long_is_refused():
    with pytest.raises(ImageError, match="file name too long"):
        open_image("x" * 5000 + ".jpg")


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "private.jpg"
    path.write_bytes(encode(flat(), "JPEG"))
    path.chmod(0)
    if os.access(path, os.R_OK):  # The super-user may read everything: refuse in its place.

        def refuse(self, *_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match="permission denied"):
        open_image(path)


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_a_decompression_bomb_is_refused_without_taking_its_memory(tmp_path):
    data = REFUSED["full bomb.png"][0]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError):
        open_image(data)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib * 1024 < 12_000 * 12_000 // 3


def test_the_largest_number_of_pixels_is_the_callers_choice():
    data = encode(flat(size=(8, 6)), "PNG")
    assert open_image(data, max_pixels=48).shape == (6, 8, 3)
    with pytest.raises(ImageError, match="8 × 6 is more than the 47 pixels"):
        open_image(data, max_pixels=47)


@pytest.mark.parametrize("channels", [0, 17])
def test_files_are_read_with_1_to_16_channels(channels):
    with pytest.raises(UsageError, match="files are read with 1 to 16"):
        open_image(encode(flat(), "PNG"), channels=channels)


def test_gray_is_the_luma_of_rgb():
    # ITU-R 601-2: 0.299 R + 0.587 G + 0.114 B.
    luma = [
        open_image(encode(flat(color), "PNG"), channels=1)[0, 0, 0] for color in (RED, GREEN, BLUE)
    ]
    np.testing.assert_allclose(luma, [0.299 * 255, 0.587 * 255, 0.114 * 255], atol=0.51)


def test_a_pillow_image_follows_the_rules_of_files():
    picture = two((*RED, 0), (*BLUE, 255), "RGBA")
    np.testing.assert_array_equal(from_pillow(picture), [[WHITE, BLUE]])
    lazy = Pillow.open(io.BytesIO(half(noise("PNG"))))
    with pytest.raises(ImageError, match="truncated"):
        from_pillow(lazy)


def test_pillows_warnings_stay_unsaid_and_the_filters_stay_as_they_were():
    filters = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inner = list(warnings.filters)
        threads = [threading.Thread(target=_read_damaged) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert warnings.filters == inner
    assert caught == []
    assert warnings.filters == filters


def _read_damaged():
    for _ in range(20):
        open_image(READ["damaged exif.jpg"][0])
        with pytest.raises(ImageError):
            open_image(REFUSED["half compressed.tif"][0])


def test_the_pages_of_a_tiff_after_the_first_are_left_out(tmp_path):
    path = tmp_path / "pages.tif"
    with TiffImagePlugin.AppendingTiffWriter(path, new=True) as writer:
        for color in (RED, BLUE):
            flat(color).save(writer, "TIFF")
            writer.newFrame()
    image = open_image(path)
    np.testing.assert_array_equal(image, np.broadcast_to(RED, (6, 8, 3)))
