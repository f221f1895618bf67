"""The program's start: rubbish is looked for late, and then as Python does by itself."""

from __future__ import annotations

import gc

import pytest

from densepath.__main__ import OBJECTS_OF_A_START, _collect_late


@pytest.fixture
def thresholds():
    """Python's own, which stand again after the test."""
    usual, callbacks = gc.get_threshold(), list(gc.callbacks)
    yield usual
    gc.set_threshold(*usual)
    gc.callbacks[:] = callbacks


def test_collections_begin_late_and_then_come_as_usual(thresholds):
    _collect_late()
    assert gc.get_threshold() == (OBJECTS_OF_A_START, *thresholds[1:])
    gc.collect()
    assert gc.get_threshold() == thresholds


def test_a_long_run_reaches_the_usual_by_itself(thresholds):
    _collect_late()
    kept = [[] for _ in range(2 * OBJECTS_OF_A_START)]
    assert gc.get_threshold() == thresholds
    assert len(kept) == 2 * OBJECTS_OF_A_START


def test_two_starts_in_one_process_end_as_usual(thresholds):
    before = list(gc.callbacks)
    _collect_late()
    _collect_late()
    gc.collect()
    assert gc.callbacks == before
    assert gc.get_threshold() == thresholds
