"""evaluation/labels.py: classes are matched by name or refused with the difference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densepath.errors import LabelMismatchError
from densepath.evaluation.labels import match_labels
from densepath.weights.labels import imagenet_labels, imagenet_wnids

LABELS = ["ant", "bee", "cat", "dog"]


@given(st.permutations(LABELS))
def test_the_same_names_in_any_order_are_matched_by_name(found):
    assert [LABELS[i] for i in match_labels(found, LABELS)] == list(found)


def test_a_missing_class_folder_is_refused_and_named_and_shifts_nothing():
    with pytest.raises(LabelMismatchError, match=r"lacks 'bee'\..*--missing-classes allow"):
        match_labels(["ant", "cat", "dog"], LABELS)


def test_a_missing_class_that_is_allowed_leaves_the_others_in_their_places():
    assert match_labels(["ant", "cat", "dog"], LABELS, missing="allow") == [0, 2, 3]


@pytest.mark.parametrize("missing", ["refuse", "allow"])
def test_a_class_that_the_checkpoint_does_not_know_is_always_refused(missing):
    with pytest.raises(LabelMismatchError, match="does not know 'elk'"):
        match_labels([*LABELS, "elk"], LABELS, missing=missing)


def test_the_message_names_five_classes_and_counts_the_rest():
    with pytest.raises(LabelMismatchError, match=r"'e0', 'e1', 'e2', 'e3', 'e4' and 3 more"):
        match_labels([*LABELS, *(f"e{i}" for i in range(8))], LABELS)


def test_imagenet_folder_names_stand_for_imagenet_classes():
    wnids = imagenet_wnids()[::-1]
    assert match_labels(wnids, imagenet_labels()) == list(range(999, -1, -1))
    some = match_labels(["n01443537", "n01440764"], imagenet_labels(), missing="allow")
    assert some == [1, 0]


def test_an_unknown_wordnet_id_is_refused():
    found = ["n01440764", "n99999999"]
    with pytest.raises(LabelMismatchError, match="does not know 'n99999999'"):
        match_labels(found, imagenet_labels(), missing="allow")


def test_numbers_of_a_list_file_stand_for_positions():
    assert match_labels(["0", "1", "2", "3"], LABELS, named=False) == [0, 1, 2, 3]
    assert match_labels(["1", "3"], LABELS, missing="allow", named=False) == [1, 3]


def test_folders_called_by_numbers_do_not_stand_for_positions():
    with pytest.raises(LabelMismatchError, match="does not know '0', '1', '2', '3'"):
        match_labels(["0", "1", "2", "3"], LABELS)


def test_numbers_that_are_no_positions_are_refused():
    with pytest.raises(LabelMismatchError, match="does not know"):
        match_labels(["1", "2", "3", "4"], LABELS, missing="allow", named=False)
