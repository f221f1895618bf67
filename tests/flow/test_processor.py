"""A processor that is older than the one that kernels are compiled for is told so, not killed."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from densepath.kernels import compile as compiling

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CPP = ROOT / "deploy" / "cpp"
DENSEPATH = Path(sys.executable).with_name("densepath")
PHOTO = ROOT / "docs" / "images" / "curves.png"
X86 = platform.machine() in ("x86_64", "AMD64")
KERNELS_ALONE = ("-DDENSEPATH_OPENVINO=OFF", "-DDENSEPATH_ONNXRUNTIME=OFF")
# Emulates processors that nobody has any more; without it the other tests say most of this.
QEMU = shutil.which("qemu-x86_64")
OLD = (QEMU or "", "-cpu", "Nehalem")
with_qemu = pytest.mark.skipif(not (QEMU and X86), reason="needs qemu-user: apt-get install it")


def run(*words, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(os.fspath, words)), capture_output=True, text=True, **more)


def configure(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed; docs/cpp.md says what the C++ program needs")
    done = run("cmake", "-S", CPP, "-B", folder, *KERNELS_ALONE, *options)
    if "Missing libraries" in done.stderr:
        pytest.skip(" ".join(done.stderr.split()))
    return done


def lacking_of_a_program_for(march: str, folder: Path) -> str:
    """What this processor lacks, as kernels that are compiled for `march` say it."""
    (folder / "needs.cpp").write_text('#include "needs.hpp"\n')
    (folder / "main.cpp").write_text(
        '#include "processor.hpp"\n#include <iostream>\n'
        "int main() { std::cout << densepath::lacking(); }\n"
    )
    include = ("-std=c++17", "-I", compiling.SOURCES)
    needs = folder / "needs.o"
    done = run("g++", *include, f"-march={march}", "-c", folder / "needs.cpp", "-o", needs)
    assert done.returncode == 0, done.stderr
    program = folder / "program"
    done = run("g++", *include, folder / "main.cpp", compiling.CHECK, needs, "-o", program)
    assert done.returncode == 0, done.stderr
    return run(program).stdout


@pytest.mark.skipif(not (X86 and shutil.which("g++")), reason="needs GCC on x86-64")
def test_what_a_processor_lacks_is_named(tmp_path):
    """No processor has both AMD's old FMA4 and Intel's new half floats."""
    assert lacking_of_a_program_for("x86-64", tmp_path) == ""
    assert lacking_of_a_program_for("native", tmp_path) == ""
    bulldozer = lacking_of_a_program_for("bdver4", tmp_path).split(", ")
    rapids = lacking_of_a_program_for("sapphirerapids", tmp_path).split(", ")
    assert {"fma4", "xop", "tbm"} <= set(bulldozer) or "avx512_fp16" in rapids


@pytest.mark.skipif(not X86, reason="names of x86-64")
def test_every_instruction_set_that_is_needed_can_be_asked_for():
    needs = re.findall(
        r'#ifdef __\w+__\n    "(\w+)"', (compiling.SOURCES / "needs.hpp").read_text()
    )
    asked = re.findall(r'\{"(\w+)", ', compiling.CHECK.read_text())
    assert len(needs) > 30
    assert set(needs) <= set(asked)


def test_no_function_of_the_kernels_can_stand_in_for_another_file_s(cpp):
    """A linker keeps one copy of each inline function: it must not be one for new processors."""
    kernels = cpp.predict.parent / "densepath-kernels.o"
    if not kernels.exists():
        pytest.skip("names are kept apart where object files are ELF's")
    listed = run("nm", kernels).stdout
    shared = [line.split()[-1] for line in listed.splitlines() if re.search(r" [WVu] ", line)]
    groups = re.findall(r"COMDAT group .*\[(\S+)\] contains", run("readelf", "-gW", kernels).stdout)
    assert min(len(shared), len(groups)) > 100
    common = {name for name in shared + groups if not name.endswith(".densepath_kernels")}
    assert {name for name in common if not name.startswith(("_ZTI", "_ZTS", "DW.ref."))} == set()
    sections = run("readelf", "-S", "-W", kernels).stdout
    assert "init_array" not in sections  # nothing of it runs before it is called


@with_qemu
def test_the_program_says_what_an_older_processor_lacks(cpp, tmp_path):
    bundle = tmp_path / "bundle"
    words = ("export", "cifar10/densenet_bc_22_12", "-o", bundle, "--to", "torch,openvino")
    assert run(DENSEPATH, *words).returncode == 0
    old = run(*OLD, cpp.predict, bundle, PHOTO, "--backend", "native")
    assert (old.returncode, old.stdout) == (2, "")
    assert "error: the back end native was compiled for newer processors" in old.stderr
    assert "Nehalem" in old.stderr
    assert "avx2" in old.stderr
    assert old.stderr.strip().endswith("cmake -DDENSEPATH_MARCH=x86-64-v2")
    assert run(*OLD, cpp.predict, "--version").returncode == 0
    if "openvino" in cpp.backends:
        other = run(*OLD, cpp.predict, bundle, PHOTO)
        assert other.returncode == 0
        here = run(cpp.predict, bundle, PHOTO, "--backend", "openvino")
        assert json.loads(other.stdout)["labels"] == json.loads(here.stdout)["labels"]
        assert other.stderr.startswith("the back end openvino answers: the back end native was")


@with_qemu
def test_the_engine_of_python_says_so_too():
    script = "from densepath.engines.native import load_library; load_library()"
    # OpenBLAS, NumPy's, asks the emulator in a way of its own, and is wrong.
    settings = {**os.environ, "OPENBLAS_CORETYPE": "Nehalem"}
    asked = [sys.executable, "-W", "ignore", "-c", script]
    assert run(*asked, env=settings).returncode == 0  # the cache now has this processor's
    old = run(*OLD, *asked, env=settings)
    assert "Error: the C++ compiler makes the kernels for another processor" in old.stderr
    compiler = {"CXX": f"{' '.join(OLD)} {shutil.which('g++')}"}  # which knows where it runs
    assert run(*OLD, *asked, env={**settings, **compiler}).returncode == 0


def test_a_build_for_another_machine_chooses_a_processor_and_says_which(tmp_path):
    if not X86:
        pytest.skip("the machine it stands for is x86-64")
    other = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=x86_64")
    done = configure(tmp_path / "other", *other)
    assert done.returncode == 0, done.stderr
    assert "compiled for x86-64-v3 (chosen, for a cross build names none" in done.stdout
    named = configure(tmp_path / "named", *other, "-DDENSEPATH_MARCH=x86-64-v2")
    assert "compiled for x86-64-v2 (as DENSEPATH_MARCH says)" in named.stdout
    own = configure(tmp_path / "own")
    assert "compiled for native (this machine's processor" in own.stdout


@pytest.mark.skipif(not shutil.which("aarch64-linux-gnu-g++"), reason="needs a cross compiler")
def test_a_build_for_aarch64_chooses_its_own(tmp_path):
    found = [f"-D{name}={tmp_path}" for name in ("JPEG_INCLUDE_DIR", "ZLIB_INCLUDE_DIR")]
    found += [f"-D{name}={tmp_path}/lib.a" for name in ("JPEG_LIBRARY", "ZLIB_LIBRARY")]
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={CPP / 'cmake' / 'aarch64-linux-gnu.cmake'}"
    done = configure(tmp_path / "build", toolchain, *found)
    assert "compiled for armv8-a (chosen, for a cross build names none" in done.stdout, done.stderr
    refused = configure(tmp_path / "refused", toolchain, *found, "-DDENSEPATH_MARCH=native")
    assert refused.returncode != 0


@pytest.mark.parametrize("march", ["x86-64-v9", "pentium pro", "armv99-a"])
def test_a_processor_that_the_compiler_does_not_know_is_refused(tmp_path, march):
    done = configure(tmp_path, f"-DDENSEPATH_MARCH={march}")
    assert done.returncode != 0
    said = " ".join(done.stderr.split())
    assert f"DENSEPATH_MARCH is '{march}'" in said
    assert "Leave it out, and one is chosen" in said
