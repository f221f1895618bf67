"""No test is lost between the tiers: each is in one of them, and something runs each of them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from fixtures.marks import NPU

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
# What a mark skips by itself, so that no test is skipped for it without the mark.
NEEDED = {*NPU, "executorch", "executorch.exir", "ai_edge_litert", "ai_edge_quantizer"}


def recipe_of(target: str) -> tuple[str, str]:
    """What the Makefile needs for a target, and what it runs."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    needed, lines = re.search(rf"^{target}: (.*)\n((?:\t.*\n)+)", text, re.MULTILINE).groups()
    return needed, lines.strip()


def test_a_test_is_in_the_fast_tier_or_in_the_slow_one():
    assert recipe_of("test") == ("install", '$(PYTEST) -n $(JOBS) --dist loadfile -m "not slow"')
    assert recipe_of("test-slow") == ("install", "$(PYTEST) -n $(JOBS) --dist loadfile -m slow")


def test_what_is_skipped_without_the_extra_npu_has_a_tier_that_installs_it():
    assert recipe_of("test-npu") == ("install-npu", "$(PYTEST) -m npu")


def test_ci_lints_and_runs_both_tiers():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("make ")] == [
        "make install",
        "make lint",
        "make test",
        "make test-slow",
    ]


def test_a_test_has_one_tier_and_every_mark_is_described(pytestconfig, request):
    described = {line.partition(":")[0] for line in pytestconfig.getini("markers")}
    assert {"fast", "slow", "npu(*packages)", "web", "gpu"} <= described
    assert {"fast", "slow"} & {mark.name for mark in request.node.iter_markers()} == {"fast"}


def skipped_for(tree: ast.AST) -> set[str]:
    """The packages without which a file skips tests itself."""
    return {
        call.args[0].value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and ast.unparse(call.func).split(".")[-1] in ("importorskip", "find_spec")
        and isinstance(call.args[0], ast.Constant)
    }


@pytest.mark.parametrize("file", sorted(TESTS.rglob("test_*.py")), ids=lambda file: file.stem)
def test_what_the_npu_tests_need_is_said_by_their_mark_alone(file):
    """`make test-npu` would not come by a test that skips itself."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert skipped_for(tree) & NEEDED == set()


def test_a_file_that_opens_a_browser_is_marked_and_slow():
    marked, opening = set(), set()
    for file in TESTS.rglob("test_*.py"):
        text = file.read_text(encoding="utf-8")
        if re.search(r"^pytestmark = \[pytest.mark.slow, pytest.mark.web\]$", text, re.MULTILINE):
            marked.add(file.name)
        if re.search(r"^def test_\w+\([^)]*\b(browser|tab)\b", text, re.MULTILINE):
            opening.add(file.name)
    assert marked >= opening >= {"test_web.py", "test_web_offline.py", "test_answers.py"}
