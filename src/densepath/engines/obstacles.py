"""What each engine can do, and what is in the way of one on this machine.

Looking imports neither torch nor any runtime, but where there is an NVIDIA GPU.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from densepath.bundle.bundle import Bundle
from densepath.bundle.other_formats import how_to_get
from densepath.engines import forks
from densepath.engines.engine import Precision
from densepath.engines.modes import Mode
from densepath.errors import (
    BundleError,
    DensepathError,
    EngineError,
    MissingPackageError,
    UnknownNameError,
    UsageError,
)

AUTO = "auto"
# So many are worth compiling our kernels for.
MANY_IMAGES = 256
# Engines whose code asks OpenMP for a fixed number of threads.
OPENMP = ("aoti", "compiled")


@dataclass(frozen=True)
class Row:
    """An engine, and what it can do.

    Attributes:
        name: as it is asked for.
        format: what it reads of a bundle.
        int8_format: what it reads of an INT8 bundle.
        why: why `auto` took it.
        package: the package it needs beyond densepath's own, and the extra that brings it.
        precisions: the types it computes in.
        gpu: it computes on an NVIDIA GPU: always, never, or where one is asked for (None).
        free_size: it takes images of any size, whatever the bundle's graphs were made for, and
            can pool otherwise than they do.
        by_itself: `auto` may take it.
        opens: its place among all by the time until the first answer.
        large: its place among all for a large network.
    """

    name: str
    format: str
    why: str
    package: tuple[str, str] | None = None
    precisions: tuple[Precision, ...] = ("float32",)
    gpu: bool | None = False
    free_size: bool = False
    by_itself: bool = True
    opens: int = 9
    large: int = 2
    int8_format: str | None = None

    def format_in(self, bundle: Bundle | None) -> str:
        """What it reads of this bundle, or of a checkpoint."""
        int8 = bundle is not None and bundle.manifest.precision == "int8"
        return self.int8_format or self.format if int8 else self.format


BOTH: tuple[Precision, ...] = ("float32", "bfloat16")
FULL_OR_INT8: tuple[Precision, ...] = ("float32", "int8")
ALL: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
ORT, OPENVINO = ("onnxruntime", "onnx"), ("openvino", "openvino")
EXECUTORCH, LITERT = ("executorch", "edge"), ("ai_edge_litert", "edge")
TABLE = (
    Row("cuda", "onnx", "there is a GPU", ORT, gpu=True, large=0),
    Row(
        *("native", "torch", "the fastest on a CPU"),
        precisions=FULL_OR_INT8,
        free_size=True,
        opens=0,
        int8_format="native",
    ),
    Row("openvino", "openvino", "the fastest there is for this", OPENVINO, ALL, opens=2, large=1),
    Row("executorch", "executorch", "the fastest there is for this", EXECUTORCH, FULL_OR_INT8),
    Row("onnxruntime", "onnx", "the fastest there is for this", ORT, FULL_OR_INT8, opens=1),
    Row("litert", "litert", "the only format there is", LITERT, FULL_OR_INT8),
    Row("eager", "torch", "PyTorch is always there", None, BOTH, None, free_size=True),
    Row("aoti", "aoti", "the only format there is"),
    Row("compiled", "torch", "", None, BOTH, None, free_size=True, by_itself=False),
    Row("tensorrt", "onnx", "", ORT, gpu=True, by_itself=False),
)


@dataclass(frozen=True)
class Wish:
    """What is asked of an engine.

    Attributes:
        engine: a name of the table, or `auto`.
        mode: see `modes.py`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: the type of the arithmetic.
        size: height and width of the images, where they are not the subject's own.
        threads: CPU threads; by default one a usable core.
        mean_max: pooling by `mean_max`.
        explains: it must say where it looked.
        num_images: how many there are, where that is known.
    """

    engine: str = AUTO
    mode: Mode = "auto"
    device: str = "auto"
    precision: Precision = "float32"
    size: tuple[int, int] | None = None
    threads: int | None = None
    mean_max: bool = False
    explains: bool = False
    num_images: int | None = None


def find_row(name: str) -> Row:
    """The engine's row.

    Raises:
        UnknownNameError: there is no such engine.
    """
    for row in TABLE:
        if row.name == name:
            return row
    raise UnknownNameError("engine", name, (AUTO, *(row.name for row in TABLE)))


def obstacle(row: Row, wish: Wish, bundle: Bundle | None) -> DensepathError | None:
    """What is in the way of an engine; nothing if it can answer."""
    for error in _obstacles(row, wish, bundle):
        if error is not None:
            return error
    return None


def way_out(errors: Sequence[DensepathError], bundle: Bundle | None) -> str:
    """What lets some engine answer where all of them are kept from it; empty where nothing does.

    A package for a format that is there, else a bundle with a format that needs none.
    """
    lacking = [error for error in errors if isinstance(error, MissingPackageError)]
    if lacking:
        return f"For {lacking[0].package}: {lacking[0]}"
    if bundle is None:
        return ""
    there, precision = bundle.manifest.formats, bundle.manifest.precision
    if precision == "float32":
        return how_to_get("torch", there=there) if "torch" not in there else ""
    if "native" not in there:
        return how_to_get("native", there=there, precision=precision)
    return ""


def explain_obstacle(bundle: Bundle | None) -> DensepathError | None:
    """What is in the way of explanations, which PyTorch makes from float weights; nothing if none.

    Whatever engine answers, and whatever has been compiled, does not change it.
    """
    if find_spec("torch") is None:
        return EngineError("explaining takes PyTorch, which is not installed. pip install torch")
    if bundle is None:
        return None
    if bundle.manifest.precision != "float32":
        return UsageError(
            f"{bundle.folder} is quantised to {bundle.manifest.precision}: it has no float weights "
            "to take gradients of. Explain with the checkpoint or float bundle that it was made "
            f"of ({bundle.manifest.source['subject']})."
        )
    if "torch" not in bundle.manifest.formats:
        there = sorted(bundle.manifest.formats)
        return UsageError(
            f"{bundle.folder} has no torch format, from which explanations are made; it has "
            f"{', '.join(there)}. {how_to_get('torch', there=there)}"
        )
    return None


def has_gpu() -> bool:
    """Whether the machine has an NVIDIA GPU with its driver."""
    return Path("/proc/driver/nvidia/version").exists() or bool(shutil.which("nvidia-smi"))


def _obstacles(row: Row, wish: Wish, bundle: Bundle | None) -> Iterator[DensepathError | None]:
    """The checks, the cheap ones first."""
    yield _wrong_use(row, wish)
    yield _missing_format(row, bundle)
    yield _fixed_graph(row, wish, bundle)
    if row.package is not None and find_spec(row.package[0]) is None:
        yield MissingPackageError(*row.package)
    yield _missing_machine(row, wish, bundle)


def _wrong_use(row: Row, wish: Wish) -> UsageError | None:
    """What the engine never does."""
    if wish.precision not in row.precisions:
        others = ", ".join(other.name for other in TABLE if wish.precision in other.precisions)
        return UsageError(
            f"the engine {row.name!r} computes in {' and '.join(row.precisions)}, not in "
            f"{wish.precision}. Engines that do: {others}."
        )
    if wish.explains and row.name != "eager":
        return UsageError(f"the engine {row.name!r} cannot explain its answers; 'eager' can.")
    if wish.mean_max and (not row.free_size or row.name == "native"):
        return UsageError(f"the engine {row.name!r} pools by the mean; 'eager' can mean-max.")
    if row.gpu is not None and row.gpu != wish.device.startswith("cuda") and wish.device != AUTO:
        kind = "an NVIDIA GPU" if row.gpu else "the CPU"
        return UsageError(
            f"the engine {row.name!r} computes on {kind}, not on {wish.device!r}. "
            "Name another device, or --engine eager."
        )
    return None


def _missing_format(row: Row, bundle: Bundle | None) -> DensepathError | None:
    """What the subject lacks."""
    if bundle is None:
        if row.format == "torch":
            return None
        return UsageError(
            f"the engine {row.name!r} reads the format {row.format} of bundles, and the subject is "
            f"none. {how_to_get(row.format)}"
        )
    try:
        bundle.path_of(row.format_in(bundle))
    except BundleError as error:
        return error
    return None


def _fixed_graph(row: Row, wish: Wish, bundle: Bundle | None) -> UsageError | None:
    """Whether the images would not fit the bundle's graph."""
    if bundle is None or row.free_size or wish.size is None:
        return None
    height, width = bundle.manifest.input.shape[2:]
    if all(made in (None, side) for made, side in zip((height, width), wish.size, strict=True)):
        return None
    other = " Or take one that fits any size: --engine eager."
    return UsageError(
        f"the graphs of this bundle are for images of {height} × {width} pixels, not of "
        f"{wish.size[0]} × {wish.size[1]}. {_graph_of_size(bundle, wish.size)}"
        f"{other if 'torch' in bundle.manifest.formats else ''}"
    )


def _graph_of_size(bundle: Bundle, size: tuple[int, int]) -> str:
    """The commands that make the bundle anew for images of that size."""
    height, width = size
    formats = ",".join(sorted(bundle.manifest.formats))
    if bundle.manifest.precision != "float32":
        if height != width:
            return "A checkpoint of that size, quantised, makes one for them."
        return (
            f"Make one for them: densepath export SUBJECT --to torch --size {height} -o FLOAT, "
            "and of that: densepath quantize FLOAT --data DATA -o DIR."
        )
    if height != width:
        return f"Export any size: densepath export SUBJECT --to {formats} --dynamic-size -o DIR."
    return f"Export it for them: densepath export SUBJECT --to {formats} --size {height} -o DIR."


def _missing_machine(row: Row, wish: Wish, bundle: Bundle | None) -> DensepathError | None:
    """What this machine lacks."""
    error = _lost_to_fork(row, wish)
    if error is not None:
        return error
    if row.gpu:
        return _missing_gpu(row)
    if row.gpu is False and wish.engine == AUTO and wish.device == AUTO and _torch_has_gpu():
        return EngineError("it leaves the GPU idle")
    if row.name == "native":
        return _missing_kernels(wish)
    if row.name == "aoti" and bundle is not None:
        return _foreign_code(bundle)
    return None


def _lost_to_fork(row: Row, wish: Wish) -> EngineError | None:
    """Whether the engine would wait for what only a process has that this one was forked from."""
    on_gpu = row.gpu or (row.gpu is None and wish.device.startswith("cuda"))
    if on_gpu and forks.has_inherited_gpu():
        return EngineError(
            f"the engine {row.name!r} cannot use the GPU here: this process was forked from one "
            f"that did. {forks.CURE}"
        )
    if row.name in OPENMP and forks.is_inherited("torch"):
        return EngineError(
            f"the engine {row.name!r} cannot compute here: this process was forked from one that "
            f"had imported PyTorch, and would wait for the threads there. {forks.CURE} Or name "
            "another engine: native or eager where there is the format torch."
        )
    return None


def _missing_gpu(row: Row) -> EngineError | None:
    """Whether ONNX Runtime can use a GPU here."""
    if not has_gpu():
        return EngineError(f"the engine {row.name!r} needs an NVIDIA GPU; this machine has none.")
    from densepath.engines.onnxruntime import missing_provider

    return missing_provider(row.name)  # type: ignore[arg-type]


def _torch_has_gpu() -> bool:
    """Whether PyTorch can use a GPU here; it is asked only where there is one."""
    if not has_gpu():
        return False
    import torch

    return torch.cuda.is_available()


def _missing_kernels(wish: Wish) -> EngineError | None:
    """Whether our kernels can be compiled, or, for `auto`, are compiled or worth it."""
    from densepath.kernels.compile import find_compiler, library_path

    compiler = find_compiler()
    if compiler is None:
        return EngineError(
            "the engine 'native' needs a C++ compiler. Install g++, or name one in $CXX."
        )
    many = wish.num_images is not None and wish.num_images >= MANY_IMAGES
    if wish.engine == AUTO and not many and not library_path(compiler).is_file():
        return EngineError("its kernels are not compiled yet. --engine native compiles them, once.")
    return None


def _foreign_code(bundle: Bundle) -> EngineError | None:
    """Whether the bundle's machine code is for another machine."""
    made = bundle.manifest.formats["aoti"]
    for field, here in (("machine", platform.machine()), ("system", platform.system())):
        if made.get(field, here) != here:
            return EngineError(
                f"the bundle's AOTInductor package is for {made[field]}; this is {here}. "
                "Export it here: densepath export SUBJECT --to aoti -o DIR"
            )
    return None
