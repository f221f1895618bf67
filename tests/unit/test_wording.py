"""Counts and shares are formed alike, and nowhere by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import densepath
from densepath.wording import counted, percent

SOURCE = Path(densepath.__file__).parent


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, "image"), "0 images"),
        ((1, "image"), "1 image"),
        ((12345, "image"), "12,345 images"),
        ((1, "class", "classes"), "1 class"),
        ((1000, "class", "classes"), "1,000 classes"),
    ],
)
def test_a_count_has_its_plural_and_thousands(arguments, text):
    assert counted(*arguments) == text


def test_a_share_has_a_blank_before_its_sign():
    assert [percent(0.1234), percent(1.0, 2), percent(0.005, 0)] == ["12.3 %", "100.00 %", "0 %"]
    assert [percent(0.1, None), percent(0.025, None)] == ["10 %", "2.5 %"]


def test_no_other_place_forms_a_share_or_a_plural():
    by_hand = re.compile(r":[.\d,]*%\}|image\(s\)|file\(s\)|100[^{}]*:\d?\.\df\} ?%")
    found = [
        f"{path.relative_to(SOURCE)}: {line.strip()}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path.name not in ("wording.py",)
        for line in path.read_text(encoding="utf-8").splitlines()
        if by_hand.search(line)
    ]
    assert found == []
