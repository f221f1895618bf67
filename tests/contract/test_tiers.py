"""No test is lost between the tiers: each is in one of them, and CI runs both."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def recipe_of(target: str) -> str:
    """What the Makefile runs for a target."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return re.search(rf"^{target}: .*\n((?:\t.*\n)+)", text, re.MULTILINE)[1]


def test_a_test_is_in_the_fast_tier_or_in_the_slow_one():
    assert recipe_of("test").strip() == '$(PYTEST) -n $(JOBS) --dist loadfile -m "not slow"'
    assert recipe_of("test-slow").strip() == "$(PYTEST) -m slow"


def test_ci_lints_and_runs_both_tiers():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("make ")] == [
        "make install",
        "make lint",
        "make test",
        "make test-slow",
    ]
