"""README and docs tell the truth: generated parts are fresh and every command is executed.

A block of commands or Python is run in a folder that holds what docs/start.md makes, by that page's
own commands, and nothing else: `photos` (images without labels), `flowers` (class folders) and the
run folder `runs/digits`. Our kernels are compiled once for all blocks.
A block under `<!-- not run: REASON -->` needs what a test machine lacks; its verbs and options
are still checked.
"""

from __future__ import annotations

import json
import os
import pkgutil
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from fixtures.commands import PROGRAM
from fixtures.networks import new_network

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+?) -->\n)?```(?P<kind>bash|python)\n(?P<text>.*?)```",
    re.DOTALL,
)
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


START = "docs/start.md"
# The folder's network need not be a good one.
SHORTER = ("train recipe:digits", "train recipe:digits --epochs 1 --set schedule.name=cosine")


@pytest.fixture(scope="session")
def stage(tmp_path_factory, environment) -> Path:
    """An empty folder once docs/start.md was followed there."""
    folder = tmp_path_factory.mktemp("stage")
    for block in blocks():
        if block.page == START:
            run_block(block.text.replace(*SHORTER), block.kind, folder, environment)
    return folder


def run_block(
    text: str, kind: str, folder: Path, settings: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """What the block said, once it has gone well."""
    start = ["bash", "-euo", "pipefail"] if kind == "bash" else [sys.executable, "-W", "error"]
    run = subprocess.run(
        [*start, "-c", text],
        cwd=folder,
        env=settings,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
    )
    assert run.returncode == 0, f"{text}\n{run.stdout}\n{run.stderr}"
    return run


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
    links = [
        (page, target)
        for page in PAGES
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    ]
    assert len(links) > 100
    assert [(p.name, target) for p, target in links if not (p.parent / target).exists()] == []


def cases() -> list[Any]:
    """The blocks that run, but for those that `stage` runs; README.md's in the fast tier, too."""
    run = [block for block in blocks() if not block.not_run and block.page != START]
    slow = {block: () if block.page == "README.md" else (pytest.mark.slow,) for block in run}
    return [pytest.param(block, marks=marks, id=str(block)) for block, marks in slow.items()]


@pytest.mark.parametrize("block", cases())
def test_the_block_runs_as_written(block, stage, environment, tmp_path):
    folder = Path(shutil.copytree(stage, tmp_path / "stage"))
    run_block(block.text, block.kind, folder, environment)


# What the pages' commands read and write, by the names that they use.
NAMES = re.compile(
    r"(?:(?<![\w/:])|(?<=\.\./))"
    r"(?:(?:runs|bundles)/[\w-]+|(?:photos|flowers)(?=[ /'\"\n])|[\w-]+-bundle)"
)
MADE = re.compile(r"(?:-o|--output)[ =]'?([\w/-]+)|(?:export\([^,]*, |output=)\"([\w/-]+)\"")


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "start.md"], ids=lambda page: page.name
)
def test_a_page_makes_what_it_starts_from_or_says_where_it_is_made(page):
    """Whoever begins at any page in an empty folder comes to its end."""
    text = page.read_text(encoding="utf-8")
    told = text.find("](docs/start.md)" if page.parent == ROOT else "](start.md)")
    made: set[str] = set()
    for match in BLOCK.finditer(text):
        if 0 <= told < match.start():
            made |= {"runs/digits", "photos", "flowers"}
        made |= {name for pair in MADE.findall(match["text"]) for name in pair if name}
        assert set(NAMES.findall(match["text"])) - made == set(), match["text"]


def test_the_page_that_the_others_start_from_makes_what_they_name(stage):
    assert {path.name for path in stage.iterdir()} == {"runs", "photos", "flowers"}
    photos = [path for path in (stage / "photos").rglob("*") if path.is_file()]
    assert {str(path.relative_to(stage / "photos")) for path in photos} == {
        *("cat.jpg", "dog.png", "more/bird.jpg")
    }
    assert (stage / "runs" / "digits" / "best.safetensors").is_file()
    labelled = list((stage / "flowers").glob("*/*/*.png"))
    assert len(labelled) == len({path.read_bytes() for path in labelled}) == 32


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


def the_block(page: str, words: str) -> Block:
    """The block of the page that has these words."""
    (found,) = [b for b in blocks() if b.page == f"docs/{page}" and words in b.text]
    return found


@pytest.fixture
def at_work(stage, environment, tmp_path):
    """A copy of the folder, and what runs a block's text there."""
    folder = Path(shutil.copytree(stage, tmp_path / "stage"))
    settings = {**environment, "DENSEPATH_CACHE": str(tmp_path / "cache")}

    def run(text: str, kind: str = "bash", **more: str) -> subprocess.CompletedProcess[str]:
        return run_block(text, kind, folder, {**settings, **more})

    return folder, run


@pytest.mark.slow
def test_the_functions_that_a_user_may_write_are_called_as_the_page_has_them(at_work):
    """The block defines them alone: run as written it would not show what is in them."""
    folder, run = at_work
    (folder / "functions.py").write_text(the_block("quantization.md", "def evaluate").text)
    run(
        "densepath quantize cifar10/densenet_bc_22_12 --data photos --functions functions.py "
        "--to native --method minmax --images 2 --held-out 1 -o functions-int8",
        PYTHONWARNINGS="error::DeprecationWarning:__main__",
    )
    report = json.loads((folder / "functions-int8" / "quantization.json").read_text())
    assert report["formats"]["native"]["tried"]["minmax"]["own"] > 0


@pytest.mark.npu
@pytest.mark.slow
def test_the_commands_for_an_npu_run_where_their_packages_are(at_work):
    folder, run = at_work
    *commands, demo, code = (block for block in blocks() if block.page == "docs/npu.md")
    assert [block.kind for block in (*commands, code)] == ["bash", "bash", "python"]
    assert demo.text.startswith("make demo-npu")  # `tests/npu/test_demo_npu.py` runs its script
    for block in commands:
        run(block.text)
    for name in ("layers.csv", "profile.png", "small-u65/main.cc", "vectors/vectors.json"):
        assert (folder / name).is_file(), name
    # What reads JAX's and LiteRT's packages warns of its own code.
    done = subprocess.run(
        [sys.executable, "-c", code.text], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_an_export_with_photographs_of_ones_own_runs(at_work):
    folder, run = at_work
    shutil.copy(folder / "runs" / "digits" / "best.safetensors", folder / "x.safetensors")
    shutil.make_archive(str(folder / "photos"), "zip", folder, "photos")
    run(the_block("export.md", "photos.zip").text)


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Path:
    """A cache that has weights of timm's form by the name that the pages use."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("published")
    file = folder / "published" / "timm" / "densenet121.ra_in1k" / "model.safetensors"
    file.parent.mkdir(parents=True)
    save_file(dict(new_network("densenet121", num_classes=1000).state_dict()), file)
    return folder


def test_other_channels_and_classes_than_those_of_published_weights_run(at_work, published):
    _, run = at_work
    block = the_block("weights.md", "in_channels=1")
    shape = "\nassert model.classifier.out_features == 5 and model.in_channels == 1"
    run(block.text + shape, "python", DENSEPATH_CACHE=str(published))


@pytest.mark.slow
def test_fine_tuning_of_published_weights_runs(at_work, published):
    _, run = at_work
    text = the_block("training.md", "--freeze stem").text.replace("--epochs 10", "--epochs 1")
    run(text, DENSEPATH_CACHE=str(published))


@pytest.mark.slow
def test_the_server_of_the_page_answers_the_request_of_the_page(at_work, environment):
    folder, run = at_work
    export, serve = the_block("serving.md", "\ndensepath serve bundles/digits\n").text.splitlines()
    run(export)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    server = subprocess.Popen(
        [*shlex.split(serve), "--port", port, "--grpc-port", "0"],
        cwd=folder,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert any("serving digits 1: REST" in line for line in server.stderr)
        text = the_block("serving.md", "classify?top_k=3").text.replace("8080", port)
        answer = json.loads(run(f"{text.strip()} -sS --retry 60 --retry-all-errors").stdout)
        assert list(answer) == ["model", "version", "predictions", "timing_ms", "request_id"]
        assert len(answer["predictions"][0]["labels"]) == 3
    finally:
        server.terminate()
        server.communicate(timeout=60)


# What a page's script in the browser is called, in place of the package.
IN_THE_BROWSER = ("web.md",)


def test_what_the_pages_call_by_its_module_is_there():
    """`densepath.a.b` in any page leads to a module, or to what is in one."""
    called = set()
    for page in PAGES:
        if page.name in IN_THE_BROWSER:
            continue
        text = page.read_text(encoding="utf-8")
        for name in set(re.findall(r"\bdensepath(?:\.[A-Za-z]\w*)+(?![\w./-]*\.\w)", text)):
            called.add(name)
            try:
                pkgutil.resolve_name(name)
            except (ImportError, AttributeError):
                pytest.fail(f"{page.name}: there is no {name}")
    assert {"densepath.load", "densepath.train"} <= called


def test_what_the_pages_and_examples_import_is_there():
    """`from densepath.a import b` in any page or example gives what stands there."""
    found = [
        (path.name, f"{module}:{name.split()[0]}")
        for path in (*PAGES, *(ROOT / "examples").glob("*.py"))
        for module, names in re.findall(
            r"^ *from (densepath[\w.]*) import ([\w ,]+)$",
            path.read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        for name in names.split(",")
    ]
    assert len(found) >= 2
    for page, name in found:
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            pytest.fail(f"{page}: there is no {name}")
