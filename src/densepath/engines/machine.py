"""What a runtime may lack on this machine: a GPU, a compiler, machine code of its own kind.

Looking imports neither torch nor any runtime, but where there is an NVIDIA GPU. A row of
`bundle/formats.py` names the function that looks for it.
"""

from __future__ import annotations

import platform
import shutil
import sys
from pathlib import Path
from typing import cast

from densepath.bundle.bundle import Bundle
from densepath.bundle.formats import Runtime
from densepath.engines.request import AUTO, MANY_IMAGES, EngineRequest
from densepath.errors import EngineError

NO_BFLOAT16 = "this processor has no instructions for bfloat16"


def has_gpu() -> bool:
    """Whether the machine has an NVIDIA GPU with its driver."""
    return Path("/proc/driver/nvidia/version").exists() or bool(shutil.which("nvidia-smi"))


def missing_gpu(row: Runtime, request: EngineRequest, bundle: Bundle | None) -> EngineError | None:
    """Whether ONNX Runtime can use a GPU here."""
    if not has_gpu():
        return EngineError(f"the engine {row.name!r} needs an NVIDIA GPU; this machine has none.")
    from densepath.engines.onnxruntime import Provider, missing_provider

    return missing_provider(cast(Provider, row.name))


def torch_has_gpu() -> bool:
    """Whether PyTorch can use a GPU here; it is asked only where there is one."""
    if not has_gpu():
        return False
    import torch

    return torch.cuda.is_available()


def missing_kernels(
    row: Runtime, request: EngineRequest, bundle: Bundle | None
) -> EngineError | None:
    """Whether our kernels can be compiled, or, for `auto`, are compiled or worth it."""
    from densepath.kernels.compile import find_compiler, library_path

    compiler = find_compiler()
    if compiler is None:
        return EngineError(
            "the engine 'native' needs a C++ compiler. Install g++, or name one in $CXX."
        )
    many = request.num_images is not None and request.num_images >= MANY_IMAGES
    if request.engine == AUTO and not many and not library_path(compiler).is_file():
        return EngineError("its kernels are not compiled yet. --engine native compiles them, once.")
    return None


def missing_bfloat16() -> str:
    """Why our kernels are not quick, or not right, in bfloat16 here; empty if they are both.

    Where the system does not say, they are compiled for this, if they are not yet.
    """
    from densepath.engines import native
    from densepath.kernels.compile import describe_cpu

    if sys.platform == "linux" and "avx512_bf16" not in describe_cpu():
        return NO_BFLOAT16
    try:
        if not native.has_bfloat16():
            return NO_BFLOAT16
        if not native.bfloat16_is_right():
            return "this processor's bfloat16 does not give the product of the numbers"
    except EngineError as error:
        return str(error).split(". ")[0].rstrip(".")
    return ""


def foreign_code(row: Runtime, request: EngineRequest, bundle: Bundle | None) -> EngineError | None:
    """Whether the bundle's machine code is for another machine."""
    if bundle is None:
        return None
    made = bundle.manifest.formats["aoti"]
    for field, here in (("machine", platform.machine()), ("system", platform.system())):
        if made.get(field, here) != here:
            return EngineError(
                f"the bundle's AOTInductor package is for {made[field]}; this is {here}. "
                "Export it here: densepath export SUBJECT --to aoti -o DIR"
            )
    return None
