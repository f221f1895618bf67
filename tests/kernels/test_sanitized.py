"""The training kernels' own checks, in C++: plainly, and under the compiler's sanitizers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from densepath.kernels import compile as compiling

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
CHECKS = sorted(path.name for path in HERE.glob("*_check.cpp"))
# Of how the kernels are compiled, all but what makes a library of them.
OPTIONS = tuple(option for option in compiling.OPTIONS if option not in ("-fPIC", "-shared"))
# With the sanitizers' own code, -O3 compiles five times as long and runs no quicker.
WATCHED = ("-O1", "-g")
FORMS = {
    "plainly": (),
    "under the address and undefined sanitizers": (
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        *WATCHED,
    ),
    "under the thread sanitizer": ("-fsanitize=thread", *WATCHED),
}


def run(*words) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}
    return subprocess.run(
        [os.fspath(word) for word in words],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def test_there_are_checks():
    assert "convolution_check.cpp" in CHECKS


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("check", CHECKS)
def test_the_kernels_agree_with_plain_loops(check, form, tmp_path):
    compiler = compiling.find_compiler()
    if compiler is None:
        pytest.skip("needs a C++ compiler: apt-get install g++")
    program = tmp_path / "check"
    done = run(*compiler, *OPTIONS, *FORMS[form], HERE / check, "-o", program)
    if done.returncode and "cannot find" in done.stderr and FORMS[form]:
        pytest.skip("this compiler has no sanitizers: apt-get install libasan8 libtsan2")
    assert done.returncode == 0, done.stderr
    done = run(program)
    assert done.returncode == 0, done.stdout + done.stderr
