"""The one table of formats and runtimes: what a Bundle may hold, who writes it, and what runs it.

On the line: between Checkpoint and Engine. Exporting, quantising, choosing, opening, comparing, the
ladder, the command line's choices, the manifest's checks and the docs' tables go through these
rows. A new one is a file and a row (docs/architecture.md, "Adding one"). Nothing here imports torch
or a runtime: functions stand as `"module:name"`, and are imported by who calls them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, TypeAlias, get_args

from densepath.choices import FloatPrecision

Precision = Literal[FloatPrecision, "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Purpose = Literal["server", "edge", "npu"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
Packages: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Int8:
    """How a format is quantised.

    Attributes:
        write: makes the form by each of some methods; see `quantize/forms.py`.
        methods: names of the ways to choose ranges, the one to begin with first.
        purposes: what the form is for.
        packages: what it needs, each with the extra that brings it.
        count_operators: how many operators of the written file run in INT8; None where its
            runtime does not tell.
        open_as_npu: in place of its runtime's `open`, an engine with an NPU's integers; None where
            no NPU runs the form.
        place: among the forms of a bundle.
    """

    write: str
    methods: str
    purposes: tuple[Purpose, ...]
    packages: Packages = ()
    count_operators: str | None = None
    open_as_npu: str | None = None
    place: int = 9


@dataclass(frozen=True)
class Format:
    """A form that a Bundle holds its network in.

    Attributes:
        name: as the manifest calls it.
        about: what it is, for people.
        parts: what the manifest says of it besides its `model`.
        write: makes the float32 form, see `exporting/job.py`; None where there is none.
        packages: what that needs, each with the extra that brings it.
        check: raises where this machine cannot write it.
        open_preprocess: a function of the file of its preprocess graph, where it has one.
        by_default: `export` writes it where nothing is named.
        int8: how it is quantised; None where it is not.
    """

    name: str
    about: str
    parts: frozenset[str] = frozenset()
    write: str | None = None
    packages: Packages = ()
    check: str | None = None
    open_preprocess: str | None = None
    by_default: bool = False
    int8: Int8 | None = None

    @property
    def all_packages(self) -> Packages:
        """What it is written with, in float32 and INT8."""
        return (*self.packages, *(self.int8.packages if self.int8 else ()))

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Of the bundles that may hold it."""
        both: tuple[tuple[Precision, object], ...] = (("float32", self.write), ("int8", self.int8))
        return tuple(precision for precision, way in both if way is not None)


@dataclass(frozen=True)
class Runtime:
    """What runs a format: an engine, and what it can do.

    Attributes:
        name: as it is asked for.
        open: makes the engine of an `Opening`; see `engines/opening.py`.
        format: what it reads of a float32 bundle, or `torch` where it takes checkpoints.
        int8_format: what it reads of an INT8 bundle; None where it runs none.
        why: why `auto` took it.
        needs: what it takes besides its package, for people.
        packages: those beyond densepath's own, each with the extra that brings it.
        precisions: the types of arithmetic that a float32 form is run in.
        gpu: it computes on an NVIDIA GPU: always, never, or where one is asked for (None).
        check: the EngineError of what this machine lacks, or None, of an `EngineRequest` and the
            bundle.
        free_size: it takes images of any size, whatever the bundle's graphs were made for.
        pools: it can pool by mean and maximum.
        explains: it says where it looked.
        openmp: its threads are OpenMP's, which a process that was forked has not.
        by_itself: `auto` may take it.
        opens: its place among all by the time until the first answer.
    """

    name: str
    open: str
    format: str
    int8_format: str | None = None
    why: str = ""
    needs: str = ""
    packages: Packages = ()
    precisions: tuple[Precision, ...] = ("float32",)
    gpu: bool | None = False
    check: str | None = None
    free_size: bool = False
    pools: bool = False
    explains: bool = False
    openmp: bool = False
    by_itself: bool = True
    opens: int = 9

    @property
    def arithmetic(self) -> tuple[Precision, ...]:
        """The types that it computes in, of float32 and INT8 bundles."""
        return (*self.precisions, "int8") if self.int8_format else self.precisions

    @property
    def is_raced(self) -> bool:
        """Whether `auto` may take it on a CPU for its speed."""
        return self.by_itself and self.gpu is False

    def is_raced_in(self, precision: str) -> bool:
        """Whether that is so in a precision of float bundles."""
        return self.is_raced and precision in self.precisions

    def format_in(self, precision: str) -> str | None:
        """What it reads of a bundle of this precision; None where it cannot."""
        return self.int8_format if precision == "int8" else self.format


_ONNX = (("onnx", "onnx"), ("onnxscript", "onnx"), ("onnxruntime", "onnx"))
_ORT = (("onnxruntime", "onnx"),)
_OPENVINO = (("openvino", "openvino"),)
_BOTH: tuple[Precision, ...] = ("float32", "bfloat16")
_FASTEST, _ONLY = "the fastest there is for this", "the only format there is"

FORMATS: dict[str, Format] = {
    row.name: row
    for row in (
        Format(
            "onnx",
            "an ONNX graph",
            parts=frozenset({"preprocess"}),
            write="densepath.exporting.onnx:write",
            packages=_ONNX,
            open_preprocess="densepath.exporting.preprocess_run:on_onnxruntime",
            by_default=True,
            int8=Int8(
                write="densepath.quantize.onnxruntime:write",
                methods="densepath.quantize.onnxruntime:METHODS",
                purposes=("server",),
                packages=_ONNX,
                count_operators="densepath.quantize.operators:count_onnx",
                place=2,
            ),
        ),
        Format(
            "openvino",
            "OpenVINO's IR",
            parts=frozenset({"preprocess"}),
            write="densepath.exporting.openvino:write",
            packages=_OPENVINO,
            open_preprocess="densepath.exporting.preprocess_run:on_openvino",
            by_default=True,
            int8=Int8(
                write="densepath.quantize.openvino:write",
                methods="densepath.quantize.openvino:METHODS",
                purposes=("server",),
                packages=(*_OPENVINO, ("nncf", "openvino")),
                count_operators="densepath.quantize.operators:count_openvino",
                place=1,
            ),
        ),
        Format(
            "torch",
            "the checkpoint itself, in safetensors",
            write="densepath.exporting.weights:write",
            by_default=True,
        ),
        Format(
            "aoti",
            "a package that PyTorch's AOTInductor compiled for this kind of machine",
            parts=frozenset({"machine", "system"}),
            write="densepath.exporting.aoti:write",
            check="densepath.exporting.aoti:check_compiler",
        ),
        Format(
            "native",
            "the INT8 weights of our own kernels, in safetensors",
            int8=Int8(
                write="densepath.quantize.native:write",
                methods="densepath.quantize.native:METHODS",
                purposes=("server",),
                count_operators="densepath.quantize.operators:count_native",
                place=0,
            ),
        ),
        Format(
            "executorch",
            "an ExecuTorch program for XNNPACK",
            int8=Int8(
                write="densepath.quantize.executorch:write",
                methods="densepath.quantize.executorch:METHODS",
                purposes=("edge",),
                packages=(("executorch", "edge"), ("torchao", "edge")),
                place=3,
            ),
        ),
        Format(
            "litert",
            "a LiteRT network (.tflite) that takes pixels, for phones and NPUs",
            int8=Int8(
                write="densepath.quantize.litert:write",
                methods="densepath.quantize.litert:METHODS",
                purposes=("edge", "npu"),
                packages=(
                    ("litert_torch", "edge"),
                    ("ai_edge_quantizer", "edge"),
                    ("ai_edge_litert", "edge"),
                ),
                count_operators="densepath.quantize.operators:count_litert",
                open_as_npu="densepath.engines.litert:open_as_npu",
                place=4,
            ),
        ),
    )
}

# In the order in which `auto` tries them.
RUNTIMES: dict[str, Runtime] = {
    row.name: row
    for row in (
        Runtime(
            "cuda",
            "densepath.engines.onnxruntime:open_engine",
            "onnx",
            why="there is a GPU",
            needs="onnxruntime-gpu and an NVIDIA GPU",
            packages=_ORT,
            gpu=True,
            check="densepath.engines.machine:missing_gpu",
        ),
        Runtime(
            "native",
            "densepath.engines.native:open_engine",
            "torch",
            "native",
            why="the fastest on a CPU",
            needs="a C++ compiler, once",
            precisions=_BOTH,
            check="densepath.engines.machine:missing_kernels",
            free_size=True,
            opens=0,
        ),
        Runtime(
            "openvino",
            "densepath.engines.openvino:open_engine",
            "openvino",
            "openvino",
            why=_FASTEST,
            packages=_OPENVINO,
            precisions=_BOTH,
            opens=2,
        ),
        Runtime(
            "executorch",
            "densepath.engines.executorch:open_engine",
            "executorch",
            "executorch",
            why=_FASTEST,
            packages=(("executorch", "edge"),),
        ),
        Runtime(
            "onnxruntime",
            "densepath.engines.onnxruntime:open_engine",
            "onnx",
            "onnx",
            why=_FASTEST,
            packages=_ORT,
            opens=1,
        ),
        Runtime(
            "litert",
            "densepath.engines.litert:open_engine",
            "litert",
            "litert",
            why=_ONLY,
            packages=(("ai_edge_litert", "edge"),),
        ),
        Runtime(
            "eager",
            "densepath.engines.eager:open_engine",
            "torch",
            why="PyTorch is always there",
            precisions=_BOTH,
            gpu=None,
            free_size=True,
            pools=True,
            explains=True,
        ),
        Runtime(
            "aoti",
            "densepath.engines.aoti:open_engine",
            "aoti",
            why=_ONLY,
            check="densepath.engines.machine:foreign_code",
            openmp=True,
        ),
        Runtime(
            "compiled",
            "densepath.engines.compiled:open_engine",
            "torch",
            needs="a C++ compiler; a minute or more for each batch size",
            precisions=_BOTH,
            gpu=None,
            free_size=True,
            pools=True,
            openmp=True,
            by_itself=False,
        ),
        Runtime(
            "tensorrt",
            "densepath.engines.onnxruntime:open_engine",
            "onnx",
            needs="onnxruntime-gpu and an NVIDIA GPU",
            packages=_ORT,
            gpu=True,
            check="densepath.engines.machine:missing_gpu",
            by_itself=False,
        ),
    )
}


def named(path: str) -> Any:
    """What stands at `"module:name"`, imported now."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def exported() -> list[str]:
    """The formats that `export` writes, in the table's order."""
    return [row.name for row in FORMATS.values() if row.write is not None]


def exported_by_default() -> list[str]:
    """Of those the ones that it writes where none is named."""
    return [row.name for row in FORMATS.values() if row.write is not None and row.by_default]


def quantised() -> dict[str, Int8]:
    """The formats that `quantize` writes, and how; those to begin with first."""
    forms = {row.name: row.int8 for row in FORMATS.values() if row.int8 is not None}
    return dict(sorted(forms.items(), key=lambda form: form[1].place))


def runtimes_of(format: str, precision: str) -> Iterator[Runtime]:
    """The runtimes that read a format without a GPU, in the order in which `auto` tries them.

    Those that `auto` never takes are left out.
    """
    for row in RUNTIMES.values():
        if row.by_itself and row.gpu is not True and row.format_in(precision) == format:
            yield row
