"""The setting `intensity`: its forms, its place in Preprocess, what is refused."""

from __future__ import annotations

import pytest

from densepath.errors import UnknownNameError, UsageError
from densepath.images.intensity import Intensity
from densepath.images.preprocess import Preprocess
from densepath.images.read_as import ReadAs

FORMS = ["file", "range:0,4095", "range:-1024,3071.5", "window:40,400", "percentiles:0.5,99.5"]


@pytest.mark.parametrize("text", FORMS)
def test_a_setting_is_read_back_from_its_text_and_from_its_fields(text):
    setting = Intensity.parse(text)
    assert setting.to_text() == text
    assert Intensity.parse(setting.to_text()) == setting
    assert Intensity.from_dict(setting.to_dict()) == setting


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("windw:40,400", "windw.*Did you mean window"),
        ("window:40", "two numbers"),
        ("window:40,x", "forms: file, range:LOW,HIGH"),
        ("window:40,0.5", "at least 1"),
        ("range:9,9", "first number must be less"),
        ("range:nan,9", "two numbers"),
        ("range:0,inf", "two numbers"),
        ("percentiles:5,101", "of 0 to 100"),
        ("file:1,2", "takes none"),
        ("", "unknown kind"),
    ],
)
def test_what_no_image_could_be_read_by_is_refused_with_the_choices(text, says):
    with pytest.raises(UsageError, match=says):
        Intensity.parse(text)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "file", "values": [], "unit": "HU"},
        {"kind": 3, "values": []},
        {"kind": "range", "values": "0,1"},
        {"kind": "range", "values": [False, True]},
        "file",
        None,
    ],
)
def test_fields_that_are_no_setting_are_refused(fields):
    with pytest.raises((UsageError, UnknownNameError)):
        Intensity.from_dict(fields)


def test_a_window_is_dicom_s_linear_one():
    # DICOM PS3.3, C.11.2.1.2.1: 0 up to c - 0.5 - (w - 1) / 2, 255 from c - 0.5 + (w - 1) / 2.
    assert Intensity.parse("window:2048,4096").span == (0.0, 4095.0)
    assert Intensity.parse("range:-5,7").span == (-5.0, 7.0)
    assert Intensity.parse("percentiles:1,99").span is None


def test_preprocessing_without_a_setting_is_written_as_it_always_was():
    assert "intensity" not in Preprocess((32, 32)).to_dict()
    assert list(Preprocess((32, 32)).to_dict()) == [
        *("size", "resize_short", "interpolation", "side_rounding", "crop_rounding", "mean", "std")
    ]


def test_a_setting_travels_with_preprocessing():
    made = Preprocess((32, 32), mean=(0.5,), std=(0.5,), intensity=Intensity.parse("window:40,400"))
    assert made.to_dict()["intensity"] == {"kind": "window", "values": [40.0, 400.0]}
    assert Preprocess.from_dict(made.to_dict()) == made
    assert made.at_size(64).intensity == made.intensity
    assert made.to_text().endswith("intensity window:40,400")
    assert made.read_as == ReadAs(1, made.intensity)


@pytest.mark.parametrize(
    ("channels", "text", "by_value"),
    [(3, None, False), (1, None, False), (1, "file", True), (5, None, True)],
)
def test_files_are_read_by_value_for_a_setting_and_for_other_channels(channels, text, by_value):
    setting = None if text is None else Intensity.parse(text)
    assert ReadAs(channels, setting).by_value is by_value
