"""The C++ program, built once, for the tests of what it does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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
def cpp() -> CppPrograms:
    """The programs. Skips where a tool or library to build them is missing."""
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed; docs/cpp.md says what the C++ program needs")
    options = ["-DDENSEPATH_FUZZ=ON", f"-DDENSEPATH_PYTHON={sys.executable}"]
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
    version = subprocess.run(
        [BUILD / "densepath-predict", "--version"], capture_output=True, text=True, check=True
    ).stdout
    backends = tuple(version[version.index("(") + 1 : version.index(")")].split(", "))
    return CppPrograms(
        BUILD / "densepath-predict", BUILD / "densepath-decode", BUILD / "example", backends
    )
