"""The kernels' sources → a shared library for this very CPU, compiled once and kept in the cache.

Compiling on the machine that runs it lets the compiler use every instruction the CPU has, and
keeps the package free of binaries. The library's name in the cache is a digest of the sources, the
compiler, its options and the CPU: a change of any of them compiles anew.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from densepath.errors import EngineError
from densepath.files import find_cached, write_atomically

SOURCES = Path(__file__).parent


class Library(NamedTuple):
    """A library that is made of the sources: its main file, who needs it, what to do without."""

    main: str
    needed_by: str
    instead: str


INFERENCE = Library("library.cpp", "the engine 'native'", "choose another engine")
TRAINING = Library("training/library.cpp", "compute.block 'fused'", "choose compute.block 'plain'")
# Asks the processor what it has: for every processor of its kind, and so without -march.
CHECK = SOURCES / "processor.cpp"
CHECK_OPTIONS = ("-std=c++17", "-O2", "-fPIC")
OPTIONS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fPIC",
    "-shared",
    "-pthread",
    # a · b + c in one instruction; no traps and no errno, so that selections become vectors. NaN
    # and infinity keep their meaning.
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    # The products' loops are a few instructions: where they begin in a line of the cache decided
    # over a sixth of a network's time (AMD, Zen 3).
    "-falign-loops=64",
    "-Wno-psabi",
)
COMPILERS = ("g++", "clang++", "c++")
SECONDS = 600


def compile_library(library: Library = INFERENCE, lacking: str = "") -> Path:
    """The path of the compiled library; it is made when the cache has none.

    `lacking`: what the library that would be found by this CPU's name needs and the CPU has not.

    Raises:
        EngineError: no C++ compiler, or it failed.
        OutputError: the cache cannot be written.
    """
    compiler = find_compiler()
    if compiler is None:
        raise EngineError(
            f"{library.needed_by} needs a C++ compiler, and none of "
            f"{', '.join(COMPILERS)} is on the PATH. Install g++ (Debian: apt-get install g++), "
            f"name one in $CXX, or {library.instead}."
        )
    path = library_path(compiler, library, lacking)
    if not path.is_file():
        with tempfile.TemporaryDirectory() as folder, write_atomically(path) as temporary:
            check = str(Path(folder) / "processor.o")
            _run([*compiler, *CHECK_OPTIONS, "-c", str(CHECK), "-o", check])
            # The check first: of functions that both have, the linker keeps the first one's.
            main = str(SOURCES / library.main)
            _run([*compiler, check, *OPTIONS, main, "-o", str(temporary)])
    return path


def find_compiler() -> list[str] | None:
    """The command of `$CXX`, else the first compiler on the PATH; None where there is none."""
    named = shlex.split(os.environ.get("CXX", ""))
    for command in [named] if named else [[name] for name in COMPILERS]:
        found = shutil.which(command[0])
        if found:
            return [found, *command[1:]]
    return None


def library_path(compiler: list[str], library: Library = INFERENCE, lacking: str = "") -> Path:
    """Where the cache keeps the library for these sources, this compiler and this CPU."""
    digest = hashlib.sha256(library.main.encode())
    for source in _sources(library):
        digest.update(source.name.encode() + source.read_bytes())
    binary = Path(compiler[0]).resolve().stat()
    known = (
        *compiler,
        *CHECK_OPTIONS,
        *OPTIONS,
        binary.st_size,
        binary.st_mtime_ns,
        platform.machine(),
        describe_cpu(),
    )
    known += (lacking,) if lacking else ()
    digest.update(repr(known).encode())
    return find_cached("kernels", f"{digest.hexdigest()[:32]}.so")


def _sources(library: Library) -> list[Path]:
    """What the library may be made of: the files beside its main file, and all above them."""
    folders = {SOURCES, (SOURCES / library.main).parent}
    return [file for folder in sorted(folders) for file in sorted(folder.glob("*.[ch]pp"))]


def describe_cpu() -> str:
    """The instructions of the CPU, as the system names them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    wanted = ("flags", "Features", "model name", "CPU part")
    return "|".join(dict.fromkeys(line for line in lines if line.startswith(wanted)))


def multiplies_bfloat16() -> bool:
    """Whether the system says that kernels compiled here multiply bfloat16; Linux alone does."""
    return "avx512_bf16" in describe_cpu()


def _run(command: list[str]) -> None:
    """The compiler has succeeded.

    Raises:
        EngineError: it has not.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"the C++ compiler {command[0]} could not be run: {error}.") from error
    if done.returncode:
        said = "\n".join(done.stderr.splitlines()[:8])
        raise EngineError(f"the C++ compiler {command[0]} failed on the kernels:\n{said}")
