"""What is handed on is whole: the wheel, the source distribution, and the ways to install."""

from __future__ import annotations

import email
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from densepath.extras import packages_of

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# What building, testing and trying leave in a checkout, and what its owner keeps beside it.
NOT_OURS = shutil.ignore_patterns(
    ".git",
    ".venv",
    "build",
    "dist",
    "runs",
    "demo-output",
    "demo-npu-output",
    "node_modules",
    "vendor",
    "*.egg-info",
    "__pycache__",
    "*.pyc",
    ".*_cache",
    ".hypothesis",
    ".whl",
)
FOLDERS = ("benchmarks", "deploy", "docs", "examples", "recipes", "src", "tests")
BUILD = "from setuptools import build_meta; print(build_meta.build_{}({!r}))"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the checkout, for building writes into it."""
    folder = tmp_path_factory.mktemp("source") / "densepath"
    shutil.copytree(ROOT, folder, symlinks=True, ignore=NOT_OURS)
    return folder


def build(kind: str, source: Path, folder: Path) -> Path:
    run = subprocess.run(
        [sys.executable, "-c", BUILD.format(kind, str(folder))],
        cwd=source,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return folder / run.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(source, tmp_path_factory) -> Path:
    return build("sdist", source, tmp_path_factory.mktemp("sdist"))


def files_below(folder: Path) -> set[str]:
    """Every file, links followed, as a path from `folder`."""
    walk = os.walk(folder, followlinks=True)
    found = (Path(place) / name for place, _, names in walk for name in names)
    return {
        path.relative_to(folder).as_posix()
        for path in found
        if "egg-info" not in str(path) and "build" not in path.relative_to(folder).parts
    }


def names_in(archive: tarfile.TarFile) -> set[str]:
    """Its files without the leading folder."""
    return {member.name.partition("/")[2] for member in archive if member.isfile()}


def test_the_wheel_has_every_file_of_the_package(source, wheel):
    package = {f"densepath/{name}" for name in files_below(source / "src" / "densepath")}
    with zipfile.ZipFile(wheel) as archive:
        assert package - set(archive.namelist()) == set()


def test_the_wheel_has_every_recipe_and_reads_them_without_the_repository(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "from densepath.training import recipe_names as r; print(r.__file__);"
        "[print(n, r.find_recipe(f'recipe:{n}').stat().st_size) for n in r.recipe_names()]"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    place, *rows = run.stdout.splitlines()
    assert place.startswith(str(tmp_path))
    recipes = ROOT / "recipes"
    assert sorted(rows) == sorted(
        f"{path.relative_to(recipes).with_suffix('').as_posix()} {path.stat().st_size}"
        for path in recipes.rglob("*.yaml")
    )


def test_the_source_distribution_has_what_its_own_tests_and_pages_need(source, sdist):
    with tarfile.open(sdist) as archive:
        held = names_in(archive)
        assert not any(member.issym() or member.islnk() for member in archive)
    wanted = {f"{top}/{name}" for top in FOLDERS for name in files_below(source / top)}
    wanted |= {path.name for path in source.iterdir() if path.is_file() and path.name != ".git"}
    assert wanted - held == set()
    assert ".ci/run" in held


def test_nothing_that_a_checkout_gathers_is_handed_on(tmp_path, source):
    """A peer's environment, the page's packages, caches."""
    tree = tmp_path / "densepath"
    shutil.copytree(source, tree, symlinks=True, ignore=NOT_OURS)
    litter = ["benchmarks/peers/timm/.venv/x.py", "deploy/web/node_modules/x.js",
              "deploy/web/vendor/x.js", "tests/data/__pycache__/x.pyc"]  # fmt: skip
    for name in litter:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("")
    with tarfile.open(build("sdist", tree, tmp_path)) as archive:
        assert names_in(archive).isdisjoint(litter)


def test_the_image_is_given_what_the_wheel_is_made_of(source, wheel, tmp_path):
    """What the first stage of the Containerfile copies is enough for a whole wheel."""
    stage = (ROOT / "deploy" / "Containerfile").read_text(encoding="utf-8").split("\nFROM ")[1]
    tree = tmp_path / "densepath"
    tree.mkdir()
    for line in re.findall(r"^COPY (?!--)(.+)$", stage, re.MULTILINE):
        *names, target = line.split()
        for name in names:
            if (source / name).is_dir():
                shutil.copytree(source / name, tree / target, symlinks=True)
            else:
                shutil.copy(source / name, tree / target)
    with zipfile.ZipFile(build("wheel", tree, tmp_path)) as made, zipfile.ZipFile(wheel) as whole:
        assert set(made.namelist()) == set(whole.namelist())


def test_the_licence_and_the_notices_are_everywhere(wheel, sdist):
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert "Apache License\n                           Version 2.0, January 2004" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    with zipfile.ZipFile(wheel) as archive:
        folder = f"densepath-{PROJECT['version']}.dist-info/licenses/"
        assert archive.read(f"{folder}LICENSE").decode() == licence
        assert archive.read(f"{folder}NOTICE").decode() == notice
    with tarfile.open(sdist) as archive:
        assert {"LICENSE", "NOTICE"} <= names_in(archive)


def test_the_notices_name_what_others_made():
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    for name in (
        "src/densepath/weights/imagenet_classes.txt",
        "src/densepath/serving/v2/open_inference.proto",
        "src/densepath/weights/shipped/cifar10/",
        "tests/parity/logits",
        "docs/images",
        "tests/parity/files",
        "tests/npu/board",
        "deploy/web/licences.txt",
    ):
        assert name in notice
        assert (ROOT / name).exists()
    for owner in ("Ross Wightman", "The KServe Authors", "WordNet 3.0 Copyright 2006", "NVIDIA"):
        assert owner in notice


def test_the_metadata_says_what_an_index_shows(wheel):
    with zipfile.ZipFile(wheel) as archive:
        path = f"densepath-{PROJECT['version']}.dist-info/METADATA"
        about = email.message_from_bytes(archive.read(path))
    assert about["License-Expression"] == "Apache-2.0"
    assert set(about.get_all("License-File")) == {"LICENSE", "NOTICE"}
    assert about["Author"]
    assert about["Keywords"]
    assert about["Description-Content-Type"] == "text/markdown"
    tags = about.get_all("Classifier")
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)} <= {*tags}
    assert all("https://" in url for url in about.get_all("Project-URL"))


def pip_installs(text: str) -> Iterable[list[str]]:
    """The arguments of every `pip install` in a page."""
    for match in re.finditer(r"pip install ([^`\n|)]+)", text.replace("\\\n", " ")):
        yield shlex.split(match[1])


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_no_page_installs_densepath_from_an_index_that_lacks_it(page):
    for words in pip_installs(page.read_text(encoding="utf-8")):
        named = [word for word in words if re.fullmatch(r"densepath(\[.*\])?", word)]
        assert named == [], f"pip install {shlex.join(words)}"


@pytest.mark.parametrize("extra", ["onnx", "openvino", "serve"])
def test_the_pages_name_the_packages_that_an_extra_stands_for(extra):
    """The command is the one that the error of a missing package gives."""
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
    assert packages_of(extra) in list(pip_installs(pages))


def test_pip_and_npm_ask_nobody_for_news_of_themselves():
    for file in ("Makefile", "deploy/Containerfile", "benchmarks/peers/install.sh"):
        text = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(r"PIP_DISABLE_PIP_VERSION_CHECK ?:?= ?1", text), file
    settings = (ROOT / "deploy" / "web" / ".npmrc").read_text(encoding="utf-8").splitlines()
    assert {"audit=false", "fund=false", "update-notifier=false"} <= {*settings}


def make_install(*words: str) -> list[str]:
    """The words of pip's command that `make install` would run."""
    run = subprocess.run(
        ["make", "--dry-run", "--always-make", "install", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return shlex.split(next(line for line in run.stdout.splitlines() if "pip install" in line))


def test_install_takes_the_builds_for_cpus_where_one_asks_for_them():
    assert "constraints-cpu.txt" not in make_install()
    assert "--extra-index-url" not in make_install()
    asked = make_install("CPU=1")
    assert asked[asked.index("--extra-index-url") + 1] == "https://download.pytorch.org/whl/cpu"
    assert "constraints-cpu.txt" in asked
    elsewhere = make_install("INDEX=https://mirror.example/cpu")
    assert elsewhere[elsewhere.index("--extra-index-url") + 1] == "https://mirror.example/cpu"
    assert "constraints-cpu.txt" in elsewhere


def write_index(folder: Path, version: str) -> str:
    """The address of an index on disk that has one torch, of one file."""
    wheel = folder / "torch" / f"torch-{version}-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        info = f"torch-{version}.dist-info"
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any")
        archive.writestr(f"{info}/RECORD", "")
    link = f'<a href="{wheel.name.replace("+", "%2B")}">{wheel.name}</a>'
    (folder / "torch" / "index.html").write_text(f"<!DOCTYPE html><html><body>{link}</body></html>")
    return folder.as_uri()


def chosen_torch(*words: str) -> subprocess.CompletedProcess[str]:
    """pip's answer when it is asked for torch with nothing of this machine's settings."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    return subprocess.run(
        [*command, "--constraint", ROOT / "constraints.txt", *words, "torch"],
        env=clean | {"PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the public index has CPU builds")
def test_the_constraints_for_cpus_take_that_build_or_none(tmp_path):
    public = write_index(tmp_path / "public", "2.13.0")
    for_cpus = write_index(tmp_path / "cpu", "2.13.0+cpu")
    constraint = ["--constraint", str(ROOT / "constraints-cpu.txt")]
    assert "Would install torch-2.13.0\n" in chosen_torch("--index-url", public).stdout
    both = chosen_torch("--index-url", public, "--extra-index-url", for_cpus, *constraint)
    assert "Would install torch-2.13.0+cpu\n" in both.stdout, both.stderr
    alone = chosen_torch("--index-url", public, *constraint)
    assert alone.returncode != 0
    assert "Would install" not in alone.stdout
    assert "Cannot install torch" in alone.stderr
