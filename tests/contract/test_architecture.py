"""docs/architecture.md speaks of what there is: each file, folder, function and number it names.

Code on that page is written in one of five ways, and looked up: a folder as `models/`, a file as
`models/plan.py`, what is in it as `models/plan.py:plan`, a name of the source as `ModelSpec`; words
for a shell begin with a command or with `--`. Paths start at the repository, at src/densepath or at
src. Blocks between fences are not looked up.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "densepath"
DOCS = ROOT / "docs"
PAGE = DOCS / "architecture.md"
INDEX = DOCS / "README.md"
STARTS = (ROOT, SOURCE, ROOT / "src")
WORDS = re.compile(r"(densepath|make|git|pytest) |--")
PLACE = re.compile(r"(?P<path>[\w./-]*(?:/|\.\w+))(?::(?P<name>[\w.]+))?")
NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


# Files of other projects that our sources give as theirs.
UPSTREAM = {
    *("auto_augment.py", "data/constants.py", "imgproc/src/resize.cpp", "models/_manipulate.py"),
    *("mindcv/models/densenet.py", "model_zoo/densenet.py", "export_model.py"),
    "ppcls/arch/backbone/model_zoo/densenet.py",
    "ppcls/data/preprocess/ops/operators.py",
    *("settings/symbol_dpn.py", "symbol_dpn_b.py", "symbol_dpn-*.py"),
    "python/mxnet/gluon/model_zoo/vision/densenet.py",
    *("keras/src/applications/densenet.py", "applications/densenet.py", "saving/saving_lib.py"),
    "legacy/saving/legacy_h5_format.py",
    "scripts/classification/imagenet/verify_pretrained.py",
}
CODE_FILE = re.compile(r"`{1,2}([\w./-]+\.(?:py|hpp|cpp))`{1,2}")


def page() -> str:
    """The page without its blocks."""
    return re.sub(r"```.*?```", "", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def written() -> list[str]:
    """What stands between backquotes, each once."""
    return list(dict.fromkeys(re.findall(r"`([^`\n]+)`", page())))


def find(path: str) -> Path | None:
    """The file or folder of that name."""
    return next((start / path for start in STARTS if (start / path).exists()), None)


def names_in(body: list[ast.stmt], within: str = "") -> Iterator[str]:
    """What is defined in a module: functions, classes, what is in them, and assigned names."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield within + node.name
            yield from names_in(node.body, f"{within}{node.name}.")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            named = [one for target in targets for one in ast.walk(target)]
            yield from (within + one.id for one in named if isinstance(one, ast.Name))


@lru_cache
def defined(path: Path) -> frozenset[str]:
    """The names that a file defines; of C++ and others every word in it."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return frozenset(re.findall(r"\w+", text))
    return frozenset(names_in(ast.parse(text).body))


@lru_cache
def all_names() -> frozenset[str]:
    """Every name and short text of the source: what rows, fields and arguments are called."""
    names: set[str] = set()
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name):
                names.add(node.id)
            elif isinstance(node, ast.arg):
                names.add(node.arg)
            elif isinstance(node, ast.Attribute):
                names.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value)
    return frozenset(names)


def wrong_with(code: str) -> str | None:
    """Why there is nothing of that name; None where there is."""
    if WORDS.match(code):
        return None  # the commands of all pages are checked by test_cures.py
    place = PLACE.fullmatch(code)
    if place and ("/" in code or place["name"] or find(code)):
        path = find(place["path"])
        if path is None or path.is_dir() != code.endswith("/"):
            return "there is no such file or folder"
        if place["name"] and place["name"] not in defined(path):
            return f"{place['path']} does not define it"
        return None
    known = all_names()
    if code in known:
        return None
    if not NAME.fullmatch(code):
        return "it is written in none of the five ways"
    return None if all(part in known for part in code.split(".")) else "the source has no such name"


def test_whatever_the_page_names_exists():
    found = written()
    assert len(found) > 200
    assert {code: why for code in found if (why := wrong_with(code))} == {}


@pytest.mark.parametrize(
    "code",
    [
        "preprocess.py:Preprocess",
        "engines/load.py",
        "models/plans/",
        "models/plan.py/",
        "models/plan.py:draw",
        "predict/predictor.py:Predictor.sing",
        "PlanOfAll",
        "a b",
        "kernels/library.cpp:densepath_sing",
        "npu/c_source",
        "models/spec",
    ],
)
def test_what_does_not_exist_would_be_noticed(code):
    assert wrong_with(code)


def test_every_folder_of_the_package_has_its_line():
    folders = [path.parent for path in SOURCE.glob("*/__init__.py")]
    folders += [path.parent for path in (SOURCE / "serving").glob("*/__init__.py")]
    names = [f"{folder.relative_to(SOURCE)}/" for folder in folders]
    assert len(names) > 15
    assert [name for name in names if f"| `{name}` |" not in page()] == []


def test_the_folders_stand_in_the_order_of_their_imports():
    layers = re.findall(r'"\(?densepath\.(\w+)\)?",', (ROOT / "pyproject.toml").read_text("utf-8"))
    packages = [name for name in layers if (SOURCE / name / "__init__.py").is_file()]
    rows = re.findall(r"^\| `(\w+)/` \|", page(), re.MULTILINE)
    assert [row for row in rows if row in packages] == packages


def test_the_versions_of_the_page_are_those_of_the_code():
    rows = re.findall(r"`([\w/.]+):([A-Z_]+)` = (\S+) \|", page())
    assert len(rows) >= 6
    for path, name, said in rows:
        module = ast.parse(find(path).read_text(encoding="utf-8"))
        values = {
            target.id: value.value
            for node in module.body
            if isinstance(node, ast.Assign)
            for target, value in assigned(node)
            if isinstance(value, ast.Constant)
        }
        assert said == str(values[name]), f"{path}: {name}"


def assigned(node: ast.Assign) -> list[tuple[ast.Name, ast.expr]]:
    """Each name of an assignment with its value."""
    target, value = node.targets[0], node.value
    pairs = (
        zip(target.elts, value.elts, strict=True)
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
        else [(target, value)]
    )
    return [(one, it) for one, it in pairs if isinstance(one, ast.Name)]


def test_the_index_names_every_page_once_and_begins_where_a_reader_does():
    row = r"^\| \[[^\]]+\]\(([\w.-]+\.md)\) \|"
    linked = re.findall(row, INDEX.read_text(encoding="utf-8"), re.MULTILINE)
    assert linked[0] == "start.md"
    assert sorted(linked) == sorted(page.name for page in DOCS.glob("*.md") if page != INDEX)


def test_a_source_or_page_names_no_file_that_was_moved_or_deleted():
    """By its path or the end of one; a page of docs may begin it with a link's `../`."""
    kinds = {".py", ".hpp", ".cpp", ".cc", ".js", ".md"}
    not_ours = {".venv", "node_modules", "vendor", "results"}
    files = [
        path
        for folder in ("src", "deploy", "docs", "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in kinds and not not_ours & set(path.parts)
    ]
    texts = [*files, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    ends = {
        "/".join(parts[start:])
        for parts in (path.relative_to(ROOT).parts for path in files)
        for start in range(len(parts))
    }
    named = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in texts
        if path != Path(__file__)
        for name in CODE_FILE.findall(path.read_text(encoding="utf-8"))
        if name not in ends | UPSTREAM
    }
    assert named == set()
