"""The program as an AOTInductor package: compiled for this kind of machine, run without Python."""

from __future__ import annotations

import platform
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from densepath.caches import share_cache
from densepath.errors import EngineError
from densepath.exporting.job import Job
from densepath.exporting.program import quiet_exporters

if TYPE_CHECKING:
    from torch.export import ExportedProgram

# Precompiled headers pay from the second network on, and take hundreds of megabytes in a folder
# below /tmp that nothing moves.
CONFIG = {"cpp_cache_precompile_headers": False, "aot_inductor.precompile_headers": False}


def write(job: Job) -> dict[str, str]:
    """Write the package into the folder; gives the parts and the machine that it is for."""
    write_aoti(job.program, job.folder / "model.pt2")
    return {"model": "model.pt2", "machine": platform.machine(), "system": platform.system()}


def write_aoti(program: ExportedProgram, path: Path) -> None:
    """Write the package to `path`; compiling takes a minute or more.

    Raises:
        EngineError: the compiler failed.
    """
    share_cache()
    import torch._inductor

    # Its writer aborts the whole process when the disk is full: a copy can fail as it should.
    with tempfile.TemporaryDirectory(prefix="densepath-") as scratch:
        made = Path(scratch) / path.name
        try:
            with quiet_exporters():
                torch._inductor.aoti_compile_and_package(
                    program, package_path=str(made), inductor_configs=CONFIG
                )
        except Exception as error:  # Inductor raises many kinds, most of them private.
            lines = [line for line in str(error).splitlines() if line.strip()]
            raise EngineError(
                f"AOTInductor cannot compile the network: {lines[0] if lines else repr(error)}. "
                "Leave the format aoti out, or report this with the whole command."
            ) from error
        shutil.copyfile(made, path)


def check_compiler() -> None:
    """Raise unless there is a C++ compiler.

    Raises:
        EngineError: there is none.
    """
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        with quiet_exporters():
            get_cpp_compiler()
    except InvalidCxxCompiler:
        raise EngineError(
            "the format 'aoti' needs a C++ compiler, and PyTorch finds none. Install g++ "
            "(Debian: apt-get install g++), name one in $CXX, or leave the format out."
        ) from None
