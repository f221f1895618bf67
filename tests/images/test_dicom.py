"""DICOM files: windows and look-up tables by arithmetic and pydicom; nothing of a patient."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import pytest

from densepath.errors import ImageError
from densepath.images.decode import open_image, readable_suffixes
from densepath.images.intensity import Intensity
from fixtures.deep_files import dicom, needs_pydicom, seeds

pytestmark = needs_pydicom
RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)
FILES = {name: data for name, data in seeds.value_seeds().items() if name.endswith(".dcm")}
SECRETS = ("SECRET", "Doe", "Jane")


def opened(data, text="file", channels=1):
    return open_image(data, channels=channels, intensity=Intensity.parse(text))


def reason(data, text="file"):
    with pytest.raises(ImageError) as caught:
        opened(data, text)
    return caught.value.reason


def on_a_line(values, low, high):
    return np.rint(np.clip((values - low) * (255.0 / (high - low)), 0, 255))


@pytest.mark.parametrize("syntax", [seeds.EXPLICIT, seeds.IMPLICIT, seeds.BIG_ENDIAN, seeds.RLE])
def test_a_ct_has_its_first_window_after_its_rescale(syntax):
    data = dicom(
        RAMP, syntax, stored=12, slope="1", intercept="-1024", centre="40\\300", width="400\\9"
    )
    expected = on_a_line(RAMP - 1024.0, 40 - 0.5 - 199.5, 40 - 0.5 + 199.5)
    np.testing.assert_array_equal(opened(data)[:, :, 0], expected)


@pytest.mark.parametrize("text", ["window:40,400", "range:-160,239"])
def test_the_setting_is_of_rescaled_values(text):
    data = dicom(RAMP, stored=12, slope="1", intercept="-1024")
    np.testing.assert_array_equal(opened(data, text)[:, :, 0], on_a_line(RAMP - 1024.0, -160, 239))


def test_monochrome1_is_shown_inverted():
    plain, inverted = (dicom(RAMP, stored=12, photometric=f"MONOCHROME{i}") for i in (2, 1))
    np.testing.assert_array_equal(opened(inverted), 255 - opened(plain))


def test_without_a_window_the_stored_bits_are_the_range():
    np.testing.assert_array_equal(
        opened(dicom(RAMP, stored=12))[:, :, 0], on_a_line(RAMP.astype(float), 0, 4095)
    )
    signed = RAMP.astype(np.int16) - 2048
    np.testing.assert_array_equal(
        opened(dicom(signed, stored=12))[:, :, 0], on_a_line(signed.astype(float), -2048, 2047)
    )


def test_bits_beyond_those_stored_are_not_values():
    overlay = RAMP | np.uint16(0xA000)
    np.testing.assert_array_equal(opened(dicom(overlay, stored=12)), opened(dicom(RAMP, stored=12)))


def test_the_functions_of_a_window_are_those_of_the_standard():
    values = RAMP.astype(float)
    exact = opened(dicom(RAMP, centre="2000", width="1000", function="LINEAR_EXACT"))
    np.testing.assert_array_equal(exact[:, :, 0], on_a_line(values, 1500, 2500))
    curve = opened(dicom(RAMP, centre="2000", width="1000", function="SIGMOID"))
    expected = 255 / (1 + np.exp(-4 * (values - 2000) / 1000))
    np.testing.assert_array_equal(curve[:, :, 0], np.rint(expected))


@pytest.mark.parametrize("open_ended", [False, True])
def test_a_look_up_table_goes_before_a_window(open_ended):
    table = {"lut": [4096, 0, 10], "lut_data": np.arange(4096) // 4}
    data = dicom(RAMP, open_ended=open_ended, voi=table, centre="1", width="2")
    expected = np.rint((RAMP // 4) * (255.0 / 1023))
    np.testing.assert_array_equal(opened(data)[:, :, 0], expected)


def test_palettes_become_colours():
    numbers = np.arange(256, dtype=np.uint8).reshape(16, 16)
    entries = {name: [256, 0, 16] for name in ("red", "green", "blue")}
    data = {
        "red_data": np.arange(256) * 257,
        "green_data": np.zeros(256),
        "blue_data": [65535] * 256,
    }
    image = opened(dicom(numbers, photometric="PALETTE COLOR", **entries, **data), channels=3)
    np.testing.assert_array_equal(image[:, :, 0], numbers)
    assert (image[0, 0, 1], image[0, 0, 2]) == (0, 255)


def test_the_samples_of_pydicom_s_wheel_are_what_pydicom_shows():
    import pydicom
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    compared = 0
    for name in (
        "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm",
        "MR_small_expb.dcm", "MR_small_padded.dcm", "examples_overlay.dcm",
    ):  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file = pydicom.dcmread(folder / name)
            shown = apply_voi_lut(apply_modality_lut(file.pixel_array, file).astype(float), file)
        bits, signed = int(file.BitsStored), int(file.PixelRepresentation)
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        slope, intercept = (
            float(file.get("RescaleSlope", 1)),
            float(file.get("RescaleIntercept", 0)),
        )
        expected = on_a_line(shown, low * slope + intercept, high * slope + intercept)
        np.testing.assert_array_equal(opened(folder / name)[:, :, 0], expected)
        compared += 1
    assert compared == 7


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("frames.dcm", "a DICOM file of 12 frames, a film; save the frame"),
        ("cut off.dcm", "ends within its pixels"),
        ("no pixels.dcm", "without an image"),
        ("no image.dcm", "without an image"),
        ("large.dcm", "65535 × 65535 is more than"),
        ("jpeg.dcm", "compressed as lossless JPEG, which is not read; unpack it first: `gdcmconv"),
        ("private syntax.dcm", "in a transfer syntax that is not read"),
        ("no width.dcm", "whose window has no width; set intensity to a range"),
        ("no number.dcm", "its window or rescale is no number"),
    ],
)
def test_what_is_not_read_says_why_and_what_to_do(name, says):
    assert says in reason(FILES[name])


def test_a_file_without_a_suffix_is_known_by_its_first_bytes(tmp_path):
    path = tmp_path / "IM0001"  # as archives of hospitals name them
    path.write_bytes(dicom(RAMP))
    assert opened(path).shape == (16, 16, 1)
    assert not readable_suffixes() & {".dcm", ".npy"}
    assert {".dcm", ".dicom", ".npy"} <= readable_suffixes(values=True)


@pytest.mark.parametrize("name", FILES)
def test_nothing_of_a_patient_is_printed_logged_or_said(name, caplog, capfd):
    data = FILES[name]
    assert b"SECRET" in data
    caplog.set_level(logging.DEBUG)
    said = []
    # Whole, cut off anywhere, and with a damaged header.
    for damaged in (data, *(data[:end] for end in range(132, 700, 37)), data.replace(b"US", b"??")):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                opened(damaged)
            except ImageError as error:
                said.append(f"{error}{error.__cause__}")
        said += [str(one.message) for one in caught]
    said += [caplog.text, *capfd.readouterr()]
    assert not [text for text in said if any(secret in text for secret in SECRETS)]


def test_without_the_package_the_cure_is_said(monkeypatch):
    monkeypatch.setattr("densepath.images.dicom.find_spec", lambda name: None)
    assert "a DICOM file: " in reason(dicom(RAMP))
    assert "pydicom" in reason(dicom(RAMP))
