"""What a runtime may lack on this machine: a GPU, a compiler, machine code of its own kind.

Looking imports neither torch nor any runtime, but where there is an NVIDIA GPU; our kernels are
opened. A row of `bundle/formats.py` names the function that looks for it.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
from pathlib import Path
from typing import cast

from densepath.bundle.bundle import Bundle
from densepath.bundle.formats import Runtime
from densepath.engines.cores import usable_cores
from densepath.engines.request import AUTO, MANY_IMAGES, EngineRequest
from densepath.errors import EngineError, OutputError
from densepath.wording import counted

NO_BFLOAT16 = "this processor has no instructions for bfloat16"


def describe_kind() -> str:
    """What kind of machine this is: one of the same kind computes as fast, other work aside.

    The processor's name, a digest of the instructions that it has, and the cores that may be used.
    """
    from densepath.kernels.compile import describe_cpu

    lines = describe_cpu().split("|")
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    digest = hashlib.sha256("|".join(lines).encode()).hexdigest()[:8]
    name = named[0] if named else platform.machine()
    return f"{name} ({digest}), {counted(usable_cores(), 'core')}"


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
    """Whether our kernels can be compiled; for `auto`, whether they can be opened here.

    They are compiled for that only where there are many images.
    """
    from densepath.kernels.compile import find_compiler, library_path

    compiler = find_compiler()
    if compiler is None:
        return EngineError(
            "the engine 'native' needs a C++ compiler. Install g++, or name one in $CXX."
        )
    if request.engine != AUTO:
        return None  # opening says what fails
    many = request.num_images is not None and request.num_images >= MANY_IMAGES
    if not many and not library_path(compiler).is_file():
        return EngineError("its kernels are not compiled yet. --engine native compiles them, once.")
    return failing_kernels()


def failing_kernels() -> EngineError | None:
    """Why our kernels cannot be compiled and opened here; nothing if they are."""
    from densepath.kernels.compile import INFERENCE
    from densepath.kernels.load import open_library

    try:
        open_library(INFERENCE)
    except (EngineError, OutputError) as error:
        return EngineError(str(error))
    return None


def lacks_bfloat16() -> bool:
    """Whether the system says that this processor has no instructions for bfloat16."""
    from densepath.kernels.compile import multiplies_bfloat16

    return sys.platform == "linux" and not multiplies_bfloat16()


def is_slow_in_bfloat16(device: str) -> bool:
    """Whether the system says that nothing multiplies bfloat16: no processor, nor a GPU."""
    return lacks_bfloat16() and (device == "cpu" or not torch_has_gpu())


def missing_bfloat16() -> str:
    """Why our kernels are not quick, or not right, in bfloat16 here; empty if they are both.

    Where the system does not say, they are compiled for this, if they are not yet.
    """
    from densepath.engines import native

    if lacks_bfloat16():
        return NO_BFLOAT16
    try:
        if not native.has_bfloat16():
            return NO_BFLOAT16
        if not native.bfloat16_is_right():
            return "this processor's bfloat16 does not give the product of the numbers"
    except (EngineError, OutputError) as error:
        return str(error).split(". ")[0].rstrip(".")
    return ""


def has_amx() -> bool:
    """Whether our kernels' bfloat16 goes through AMX here, with which they round more.

    Where they cannot be compiled, it does not.
    """
    from densepath.engines import native

    try:
        return native.has_amx()
    except (EngineError, OutputError):
        return False


def has_vnni() -> bool:
    """Whether an x86 processor multiplies bytes with exact sums; False where it is not known.

    Without VNNI the quick kernels of other runtimes add two products of bytes in 16 bits, which
    saturate: `docs/quantization.md`, "Processors without VNNI".
    """
    from densepath.kernels.compile import describe_cpu

    return "vnni" in describe_cpu()


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
