"""The program as an AOTInductor package: compiled for this kind of machine, run without Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from densepath.errors import EngineError
from densepath.export.program import quiet_exporters

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def write_aoti(program: ExportedProgram, path: Path) -> None:
    """The package is at `path`; compiling takes a minute or more.

    Raises:
        EngineError: there is no C++ compiler, or it failed.
    """
    import torch._inductor

    try:
        with quiet_exporters():
            torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    except Exception as error:  # inductor raises many kinds, most of them private
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise EngineError(
            f"AOTInductor could not compile the network: {reason} The format 'aoti' needs a C++ "
            "compiler (Debian: apt-get install g++)."
        ) from error
