"""Counts and shares are formed alike, and nowhere by hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import densepath
from densepath.wording import are, counted, first_of, have, percent

SOURCE = Path(densepath.__file__).parent


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, "image"), "0 images"),
        ((1, "image"), "1 image"),
        ((12345, "image"), "12,345 images"),
        ((1, "class", "classes"), "1 class"),
        ((1000, "class", "classes"), "1,000 classes"),
        ((3, "class"), "3 classes"),
        ((2, "entry", "entries"), "2 entries"),
    ],
)
def test_a_count_has_its_plural_and_thousands(arguments, text):
    assert counted(*arguments) == text


def test_a_verb_goes_with_its_count():
    assert [are(1, "class"), are(1000, "class")] == ["1 class is", "1,000 classes are"]
    assert [have(1, "image"), have(0, "image")] == ["1 image has", "0 images have"]


def test_of_many_names_the_first_are_said_and_how_many_more_there_are():
    assert first_of(["a", "b"]) == "a, b"
    assert first_of([str(i) for i in range(2003)]) == "0, 1, 2 and 2,000 more"
    assert first_of(["caf\udce9", "b"], 1) == "caf\\xe9 and 1 more"


def test_a_share_has_a_blank_before_its_sign():
    assert [percent(0.1234), percent(1.0, 2), percent(0.005, 0)] == ["12.3 %", "100.00 %", "0 %"]
    assert [percent(0.1, None), percent(0.025, None)] == ["10 %", "2.5 %"]


def test_no_other_place_forms_a_share_or_a_plural():
    by_hand = re.compile(
        r":[.\d,]*%\}|image\(s\)|file\(s\)|100[^{}]*:\d?\.\df\} ?%"
        r"|== 1 else ['\"]s['\"]|['\"]s['\"] if [^}]*[!=]= 1"
    )
    found = [
        f"{path.relative_to(SOURCE)}: {line.strip()}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path.name not in ("wording.py",)
        for line in path.read_text(encoding="utf-8").splitlines()
        if by_hand.search(line)
    ]
    assert found == []
