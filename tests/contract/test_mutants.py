"""`make mutants` changes one place at a time, in a copy, and knows which tests run it."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "benchmarks" / "mutants.py"
SOURCE = '''\
"""A module with 3 < 4 in its docstring."""

LIMIT = 10


def clip(value: int | None, most: int = LIMIT, *, step=2) -> int | None:
    """At most `most` + 1."""
    if value is None:
        raise ValueError(f"no value, {1 + 1}, at most {LIMIT}")
    if value > most and not value == 7:
        return min(value, most)
    return value


def unused(values):
    values.sort(reverse=True)
    return values[1:len(values)]
'''
TESTS = """\
from toy.inner.clip import clip


def test_a_large_value_is_clipped():
    assert clip(12) == 10


def test_a_small_value_is_kept():
    assert clip(3) == 3


def test_that_fails_by_itself():
    assert clip(1) == 2
"""


ONCE = """\
import os
from pathlib import Path

from toy.inner.clip import clip


def test_that_passes_the_first_time():
    assert clip(3) == 3
    seen = Path(os.environ["TOY_CACHE"]) / "seen"
    assert not seen.exists()
    seen.parent.mkdir(exist_ok=True)
    seen.touch()
"""


@pytest.fixture
def changes(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOL.parent))
    import mutant_changes

    return mutant_changes


@pytest.fixture
def draws(changes):
    import mutant_draw

    return mutant_draw


@pytest.fixture
def toy(tmp_path):
    """A checkout of a package `toy` with one module and its tests."""
    for name, text in {
        "src/toy/__init__.py": "",
        "src/toy/inner/__init__.py": "",
        "src/toy/inner/clip.py": SOURCE,
        "tests/inner/test_clip.py": TESTS,
        ".gitignore": "/build\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    return tmp_path


def run(toy: Path, names: list[str]) -> dict[str, dict[str, str]]:
    """The results of the tool for some mutants, by change."""
    pytest.importorskip("coverage")
    command = [sys.executable, TOOL, "--root", toy, "--package", "toy", "--folders", "inner"]
    done = subprocess.run(
        [*command, "--only", *names],
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((toy / "build/mutants/seed-1.json").read_text("utf-8"))
    return {row["change"]: row for row in rows}


def changed(changes, source: str) -> dict[str, str]:
    """Each change in words, and the file after it."""
    found = changes.mutants_of("src/toy/inner/clip.py", source.encode())
    return {
        f"{one.kind}: {one.before} → {one.after}": one.applied(source.encode()).decode()
        for one in found
        if changes.changes_the_program(one, source.encode())
    }


def test_each_kind_of_change_is_made_where_it_stands(changes):
    found = changed(changes, SOURCE)
    for change, line in {
        "comparison: value > most → value >= most": "    if (value >= most) and not value == 7:",
        "and, or: value > most and (not value == 7) → value > most or not value == 7": (
            "    if (value > most or not value == 7):"
        ),
        "sign or not dropped: not value == 7 → value == 7": (
            "    if value > most and (value == 7):"
        ),
        "constant: 10 → 11": "LIMIT = (11)",
        "default: constant: 2 → 3": (
            "def clip(value: int | None, most: int = LIMIT, *, step=(3)) -> int | None:"
        ),
        "always taken: value is None → True": "    if (True):",
        "never taken: value is None → False": "    if (False):",
        "another function: min → max": "        return (max)(value, most)",
        "returns None: value → None": "    return (None)",
        "argument dropped: sort(…, reverse=True) → without it": "    (values.sort())",
        "statement deleted: values.sort(reverse=True) → pass": "    pass",
        "bound of a slice: 1:len(values) → 1:len(values) - 1": (
            "    return values[1:len(values) - 1]"
        ),
    }.items():
        assert line in found[change].splitlines(), change


def test_texts_annotations_and_what_an_error_says_are_left_alone(changes):
    for change, after in changed(changes, SOURCE).items():
        assert "3 < 4 in its docstring" in after, change
        assert "at most {LIMIT}" in after or change.startswith("statement deleted: raise"), change
        assert "value: int | None, most: int = " in after, change


@pytest.mark.parametrize(
    "source",
    [
        "x = 'é日本' if a < b else 1\n",
        "def f():\n\ty = (\n\t\ta\n\t\t+ b\n\t)\n\treturn y[a + 1 : -b]\n",
        "@cache\ndef f(a, *b, c=-1.5, **d):\n    return a ** -b\n",
        "class A:\n    size: int = 3\n    def f(self): self.x += 1; return not self.x\n",
        "async def f():\n    async with a(b=1) as c:\n        await c.d(e=2)\n",
        "match a:\n    case 1 if b > 2:\n        c.d = 3\n",
    ],
)
def test_code_of_any_form_is_changed_in_one_place(changes, source):
    found = changes.mutants_of("src/toy/x.py", source.encode())
    real = [one for one in found if changes.changes_the_program(one, source.encode())]
    assert real
    assert len({one.name for one in found}) == len(found)
    for one in real:
        start, end = one.span
        after = one.applied(source.encode()).decode()
        ast.parse(after)
        assert after.startswith(source.encode()[:start].decode())
        assert after.endswith(source.encode()[end:].decode())


def test_a_change_keeps_its_name_when_the_file_changes_elsewhere(changes):
    names = {one.name for one in changes.mutants_of("a.py", SOURCE.encode())}
    later = SOURCE.replace("LIMIT = 10", "# why\n\nOTHER = 4\nLIMIT = 10")
    assert names < {one.name for one in changes.mutants_of("a.py", later.encode())}


def test_folders_are_drawn_from_in_proportion_and_a_larger_count_adds(draws, tmp_path):
    for name, times in {"large": 6, "small": 2}.items():
        (tmp_path / name).mkdir()
        text = "".join(f"def f{at}(a):\n    return a + {at}\n" for at in range(times))
        (tmp_path / name / "a.py").write_text(text, encoding="utf-8")
    four = draws.draw(tmp_path, ["large", "small"], 4, seed=1)
    assert sorted(one.path for one in four) == ["large/a.py"] * 3 + ["small/a.py"]
    eight = draws.draw(tmp_path, ["large", "small"], 8, seed=1)
    assert {one.name for one in four} < {one.name for one in eight}
    assert four == draws.draw(tmp_path, ["large", "small"], 4, seed=1)
    assert four != draws.draw(tmp_path, ["large", "small"], 4, seed=2)


def test_a_run_tells_what_is_noticed_goes_on_and_tries_survivors_again(changes, toy):
    before = {path: path.read_bytes() for path in toy.rglob("*.py")}
    edge, taken, seven, sort = (
        "comparison: `value > most` → `value >= most`",
        "another function: `min` → `max`",
        "constant: `7` → `8`",
        "statement deleted: `values.sort(reverse=True)` → `pass`",
    )
    found = changes.mutants_of("src/toy/inner/clip.py", SOURCE.encode())
    named = {f"{one.kind}: `{one.before}` → `{one.after}`": one.name for one in found}
    names = [named[change] for change in (edge, taken, seven, sort)]
    first = run(toy, names)
    assert before == {path: path.read_bytes() for path in toy.rglob("*.py")}
    assert (first[taken]["outcome"], first[taken]["tests"]) == ("failed", 1)
    assert first[taken]["by"] == "tests/inner/test_clip.py::test_a_large_value_is_clipped"
    assert {first[change]["outcome"] for change in (edge, seven, sort)} == {"survived"}

    page = (toy / "build/mutants/seed-1.md").read_text("utf-8")
    assert "Tests that pass without a change: 2; that fail or are skipped: 1." in page
    assert f"| {first[edge]['name']} | inner/clip.py:10 | {edge} | 2 | survived |" in page

    tests = toy / "tests/inner/test_clip.py"
    more = "\n\ndef test_seven_is_kept():\n    assert clip(7, most=3) == 7\n"
    tests.write_text(TESTS + more, encoding="utf-8")
    reason = f"- name: {first[edge]['name']}\n  why: both give the most\n"
    (toy / "benchmarks").mkdir()
    (toy / "benchmarks/mutants_equivalent.yaml").write_text(reason, encoding="utf-8")
    second = run(toy, names[:3])
    assert (second[edge]["outcome"], second[edge]["by"]) == ("equivalent", "both give the most")
    assert second[taken] == first[taken]
    assert second[seven]["by"] == "tests/inner/test_clip.py::test_seven_is_kept"


def test_a_test_that_fails_without_the_change_too_notices_nothing(changes, toy):
    (toy / "tests/inner/test_once.py").write_text(ONCE, encoding="utf-8")
    found = changes.mutants_of("src/toy/inner/clip.py", SOURCE.encode())
    [edge] = [one.name for one in found if one.before == "value > most" and ">=" in one.after]
    [row] = run(toy, [edge]).values()
    assert (row["outcome"], row["tests"]) == ("survived", 3)


def test_all_changes_to_a_place_can_be_asked_for(draws, toy):
    place = "src/toy/inner/clip.py"
    kinds = {one.kind for one in draws.at_places(toy, [f"{place}:11"])}
    assert kinds == {"another function", "returns None"}
    assert len(draws.at_places(toy, [place])) > 15
    with pytest.raises(SystemExit, match=r"nothing is changed at src/toy/inner/clip\.py:2"):
        draws.at_places(toy, [f"{place}:2"])


def test_what_is_drawn_stays_when_a_line_is_added_elsewhere(draws, tmp_path):
    lines = [f"def f{at}(a):\n    return a + {at} < {at} * a\n" for at in range(40)]
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.py").write_text("".join(lines), encoding="utf-8")
    before = {one.name for one in draws.draw(tmp_path, ["a"], 20, seed=1)}
    lines.insert(3, "def more(a):\n    return a + 77 < 78 * a\n")
    (tmp_path / "a/x.py").write_text("".join(lines), encoding="utf-8")
    after = {one.name for one in draws.draw(tmp_path, ["a"], 20, seed=1)}
    assert len(before & after) >= 19
