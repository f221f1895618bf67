"""README and docs tell the truth: generated parts are fresh and every command is executed.

A block of commands or Python is run in a folder that holds what the pages talk about: `photos`
(images without labels), `flowers` (class folders), `recipes` and the run folder `runs/digits`. Our
kernels are compiled once for all blocks.
A block under `<!-- not run: REASON -->` needs what a test machine lacks; its verbs and options
are still checked.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+?) -->\n)?```(?P<kind>bash|python)\n(?P<text>.*?)```",
    re.DOTALL,
)
PROGRAM = Path(sys.executable).with_name("densepath")
TIME_LIMIT_S = 240


@dataclass(frozen=True)
class Block:
    page: str
    number: int
    kind: str
    text: str
    not_run: str | None

    def __str__(self) -> str:
        return f"{self.page}-{self.number}"

    @property
    def commands(self) -> list[list[str]]:
        """The lines of a bash block as words, without comments; `\\` joins lines."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        for number, match in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8")), 1):
            name = str(page.relative_to(ROOT))
            found.append(Block(name, number, match["kind"], match["text"], match["reason"]))
    return found


@pytest.fixture(scope="session")
def stage(tmp_path_factory) -> Path:
    """The folder that the pages talk about."""
    folder = tmp_path_factory.mktemp("stage")
    rng = np.random.default_rng(0)
    for name in ("photos/cat.jpg", "photos/dog.png", "photos/more/bird.jpg"):
        _save_noise(folder / name, rng, (60, 80, 3))
    for split, count in (("train", 12), ("validation", 4)):
        for label in ("daisy", "tulip"):
            for i in range(count):
                _save_noise(folder / "flowers" / split / label / f"{i}.jpg", rng, (40, 40, 3))
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    run_densepath(
        "train recipe:digits --epochs 1 --set schedule.name=cosine --output runs/digits",
        folder,
    )
    return folder


def _save_noise(path: Path, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)


def run_densepath(arguments: str, folder: Path) -> None:
    run = subprocess.run(
        [PROGRAM, *shlex.split(arguments)], cwd=folder, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    """Commands find `densepath` and `python`, and no network."""
    path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
    cache = str(tmp_path_factory.mktemp("cache"))
    return {**os.environ, "PATH": path, "DENSEPATH_CACHE": cache, "COLUMNS": "100"}


def test_generated_parts_of_the_pages_are_up_to_date():
    run = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def verbs() -> dict[tuple[str, ...], Callable[..., Any]]:
    """Words of the command line, such as ("npu", "compile") → the function that does it."""
    from densepath.cli.app import app

    found = {(command.name,): command.callback for command in app.registered_commands}
    for group in app.registered_groups:
        for command in group.typer_instance.registered_commands:
            words = (group.name, command.name or command.callback.__name__)
            found[words] = command.callback
    return found


def test_every_verb_has_a_page_with_its_options():
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    marks = [f"<!-- options: {'_'.join(words)} -->" for words in verbs()]
    assert [mark for mark in marks if mark not in pages] == []


def test_every_verb_has_help_with_an_example():
    for words, function in verbs().items():
        assert "Example: densepath" in (function.__doc__ or ""), words


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def cases() -> list[Any]:
    """The blocks that run; those of README.md in the fast tier, too."""
    run = [block for block in blocks() if not block.not_run]
    slow = {block: () if block.page == "README.md" else (pytest.mark.slow,) for block in run}
    return [pytest.param(block, marks=marks, id=str(block)) for block, marks in slow.items()]


@pytest.mark.parametrize("block", cases())
def test_the_block_runs_as_written(block, stage, environment, tmp_path):
    folder = tmp_path / "stage"
    shutil.copytree(stage, folder)
    if block.kind == "python":
        commands = [[sys.executable, "-W", "error", "-c", block.text]]
    else:
        commands = [["bash", "-euo", "pipefail", "-c", block.text]]
    for command in commands:
        run = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_S,
        )
        assert run.returncode == 0, f"{block.text}\n{run.stdout}\n{run.stderr}"


@lru_cache
def help_of(verb: tuple[str, ...]) -> str:
    """What `densepath VERB --help` prints."""
    wide = {**os.environ, "COLUMNS": "200"}
    words = [PROGRAM, *verb, "--help"]
    return subprocess.run(words, capture_output=True, text=True, env=wide).stdout


@pytest.mark.parametrize("block", [b for b in blocks() if b.not_run and b.kind == "bash"], ids=str)
def test_the_block_that_is_not_run_names_real_verbs_and_options(block):
    for words in block.commands:
        if "densepath" in words:
            rest = words[words.index("densepath") + 1 :]
            verb = next((verb for verb in verbs() if tuple(rest[: len(verb)]) == verb), None)
            assert verb, words
            known = help_of(verb)
            options = [word.split("=")[0] for word in rest if word.startswith("--")]
            assert [o for o in options if o not in known] == [], words
        elif words[0] == "make":
            targets = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert all(f"\n{t}:" in targets for t in words[1:] if "=" not in t), words
