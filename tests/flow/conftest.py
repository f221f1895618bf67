"""The C++ program, built once, for the tests of what it does; and a user on an empty machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NO_NETWORK = Path(__file__).with_name("no_network.c")
# By these a continuous integration switches some telemetry off by itself; tests of what a user
# has must not have them.
CI_VARIABLES = (
    "CI",
    "TF_BUILD",
    "GITHUB_ACTIONS",
    "GITLAB_CI",
    "CIRCLECI",
    "TRAVIS",
    "JENKINS_URL",
    "CODEBUILD_BUILD_ID",
    "BUILDKITE",
    "TEAMCITY_VERSION",
    "APPVEYOR",
    "BITBUCKET_BUILD_NUMBER",
    "SYSTEM_TEAMFOUNDATIONCOLLECTIONURI",
    "ORT_RUNNING_UNIT_TESTS",
    "DO_NOT_TRACK",
)
# What would be found set in this process, by its own `import densepath` and by pytest.
OURS = (
    "ORT_DISABLE_TELEMETRY",
    "HF_HUB_DISABLE_TELEMETRY",
    "NNCF_CI",
    "PYTEST_CURRENT_TEST",
    "MPLCONFIGDIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "DENSEPATH_CACHE",
)
# Kept from run to run: only what changed is built again. Another folder may be one that was
# configured with -DDENSEPATH_SANITIZE=ON.
BUILD = ROOT / os.environ.get("DENSEPATH_CPP_BUILD", "build/cpp")
NOT_FOUND = ("Missing libraries", "No back end can be built", "No CMAKE_CXX_COMPILER")


@dataclass(frozen=True)
class CppPrograms:
    predict: Path
    decoder: Path
    example: Path
    backends: tuple[str, ...]


@pytest.fixture(scope="session")
def cpp(once) -> CppPrograms:
    """The programs. Skips where a tool or library to build them is missing."""
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed; docs/cpp.md says what the C++ program needs")
    once("cpp", build_programs)
    version = subprocess.run(
        [BUILD / "densepath-predict", "--version"], capture_output=True, text=True, check=True
    ).stdout
    backends = tuple(version[version.index("(") + 1 : version.index(")")].split(", "))
    return CppPrograms(
        BUILD / "densepath-predict",
        BUILD / "densepath-decode",
        BUILD / "densepath-example",
        backends,
    )


def build_programs(_: Path) -> None:
    """Build them in `BUILD`, which outlasts the run of the tests."""
    options = [
        "-DDENSEPATH_FUZZ=ON",
        "-DDENSEPATH_WERROR=ON",
        f"-DDENSEPATH_PYTHON={sys.executable}",
    ]
    configured = subprocess.run(
        ["cmake", "-S", ROOT / "deploy" / "cpp", "-B", BUILD, *options],
        capture_output=True,
        text=True,
    )
    if configured.returncode != 0:
        if any(text in configured.stderr for text in NOT_FOUND):
            pytest.skip(" ".join(configured.stderr.split()))
        pytest.fail(configured.stderr)
    build = ["cmake", "--build", BUILD, "--parallel", "2"]
    built = subprocess.run(build, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr


@dataclass(frozen=True)
class NewUser:
    """A user who has just come: an empty home, no network, no continuous integration."""

    folder: Path  # with `home`, `scratch` for temporary files, and `work`, where commands run
    settings: dict[str, str]

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def run(self, *words: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
        """What the command said, once it has gone well."""
        run = subprocess.run(
            list(map(os.fspath, words)),
            cwd=self.work,
            env={**self.settings, **changes},
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        return run

    def calls(self) -> list[str]:
        """The names that were looked up, and the addresses that were called, each once."""
        log = self.folder / "calls"
        lines = log.read_text().splitlines() if log.exists() else []
        return sorted({line.partition("\t")[2].replace("\t", " ") for line in lines})

    def strays(self) -> list[str]:
        """Files and folders in the home and below the temporary folder, but for our cache."""
        home, scratch = self.folder / "home", self.folder / "scratch"
        ours = home / ".cache" / "densepath"
        found = [path for folder in (home, scratch) for path in folder.rglob("*")]
        return sorted(
            str(path.relative_to(self.folder))
            for path in found
            if not path.is_relative_to(ours) and not ours.is_relative_to(path)
        )


@pytest.fixture(scope="session")
def no_network(tmp_path_factory) -> Path:
    """A library that refuses look-ups of names and calls of others, and writes them down."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("watching calls into the network takes Linux and a C compiler")
    made = tmp_path_factory.mktemp("shim") / "no_network.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", NO_NETWORK, "-o", made, "-ldl"]
    built = subprocess.run(command, capture_output=True, text=True)
    assert (built.returncode, built.stderr) == (0, "")
    return made


@pytest.fixture
def new_user(tmp_path, no_network) -> NewUser:
    """A user without network, whose calls and files are seen."""
    for name in ("home", "scratch", "work"):
        (tmp_path / name).mkdir()
    left_out = {*CI_VARIABLES, *OURS}
    settings = {
        **{name: value for name, value in os.environ.items() if name not in left_out},
        **{"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "scratch")},
        **{"LD_PRELOAD": str(no_network), "NO_NETWORK_LOG": str(tmp_path / "calls")},
    }
    for kind in ("CACHE", "CONFIG", "DATA", "STATE"):
        settings.pop(f"XDG_{kind}_HOME", None)
    return NewUser(tmp_path, settings)
