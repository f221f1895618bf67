"""OpenVINO as an engine: a bundle's `model.xml` on the CPU, in float32 or bfloat16."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from densepath.bundle.formats import Precision, Runtime
from densepath.engines import forks
from densepath.engines.engine import EngineInfo, Incoming, Logits
from densepath.engines.hiding import hide_package
from densepath.engines.modes import Mode, RunPart, Spread, SpreadEngine, count_streams
from densepath.engines.opening import Opening
from densepath.engines.pixels import as_tensor, spoil
from densepath.errors import BundleError, EngineError, MissingPackageError, UnknownNameError
from densepath.images.preprocess import Preprocess

if TYPE_CHECKING:
    from openvino import CompiledModel, Core, InferRequest

DEVICE = "CPU"
# What OpenVINO calls the types. Named always: by itself it computes a float32 network in bfloat16
# on processors that are quicker so. What of an INT8 network is not quantised stays float32.
TYPES: dict[Precision, str] = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
# Images of one call: few keep the maps of one core in its caches.
STREAM_PART, LATENCY_PART = 2, 8
CONVERTER = "openvino.tools.ovc"

# The forked process whose networks share an executor.
_shares_executor: int | None = None


class OpenVinoEngine(SpreadEngine):
    """An OpenVINO network on the CPU."""

    def __init__(
        self,
        model: str | Path,
        preprocess: Preprocess,
        *,
        precision: Precision = "float32",
        mode: Mode = "auto",
        threads: int | None = None,
    ) -> None:
        """
        Args:
            model: the `.xml` file, with its `.bin` beside it; an `.onnx` file is taken too.
            preprocess: what normalises.
            precision: the type of the arithmetic.
            mode: how cores are used; see `modes.py`.
            threads: CPU threads; by default one a usable core.

        Raises:
            MissingPackageError: openvino is not installed.
            UnknownNameError: no such precision or mode.
            UsageError: an impossible number of threads.
            EngineError: bfloat16 on a processor without.
            BundleError: the file is no network that OpenVINO reads.
        """
        if precision not in TYPES:
            raise UnknownNameError("precision", precision, TYPES)
        streams, count = count_streams(mode, threads)
        core = shared_core()
        if precision == "bfloat16" and "BF16" not in _capabilities(core):
            raise EngineError("this processor has no bfloat16 arithmetic; use --precision float32.")
        network = _read(core, model)
        self.preprocess = preprocess

        def build(streams: int) -> RunPart:
            return _Requests(
                core.compile_model(
                    network,
                    DEVICE,
                    {
                        "INFERENCE_PRECISION_HINT": TYPES[precision],
                        "NUM_STREAMS": streams,
                        "INFERENCE_NUM_THREADS": count,
                        **executor_options(),
                    },
                ),
                preprocess,
            )

        _, channels, *size = network.inputs[0].partial_shape
        self.info = EngineInfo(
            "openvino",
            "cpu",
            precision,
            channels.get_length(),
            network.outputs[0].partial_shape[1].get_length(),
            STREAM_PART if streams > 1 else LATENCY_PART,
            streams,
            tuple(side.get_length() for side in size) if _are_fixed(size) else None,
        )
        alone = (lambda: build(1)) if mode == "auto" else None
        self._spread = Spread(build(streams), self.info, build_alone=alone)


def open_engine(row: Runtime, opening: Opening) -> OpenVinoEngine:
    """The engine of a bundle's row."""
    return OpenVinoEngine(
        opening.file,
        opening.preprocess,
        precision=opening.precision,
        mode=opening.mode,
        threads=opening.threads,
    )


class _Requests:
    """A compiled network as a function; each call takes an idle request, or makes one."""

    def __init__(self, compiled: CompiledModel, preprocess: Preprocess) -> None:
        self._compiled, self._preprocess = compiled, preprocess
        self._idle: list[InferRequest] = []

    def __call__(self, batch: Incoming) -> Logits:
        """The logits, in memory of their own."""
        tensor = np.ascontiguousarray(as_tensor(batch, self._preprocess))
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        request.infer([tensor], share_inputs=True)
        logits = request.get_output_tensor(0).data.copy()
        self._idle.append(request)
        return spoil(logits, batch)


@cache
def shared_core() -> Core:
    """The Core of this process, made once and never freed.

    The CPU plugin of a Core gives the thread that loads it a signal stack, and puts the one before
    it back when it is freed (`SigAltStackSetup` in OpenVINO's src/plugins/intel_cpu). Of two Cores
    that are not freed in turn, the second puts back what the first has unmapped; the next signal
    that Python handles, such as that of a data loader's worker that ends, then crashes the process
    or writes over whatever is mapped there by then.

    Raises:
        MissingPackageError: openvino is not installed.
    """
    openvino = import_openvino()
    _fill_tables_of_types(openvino)
    return openvino.Core()


def executor_options() -> dict[str, bool]:
    """What a network must be compiled with in this process.

    OpenVINO keeps the threads of networks that are freed for those to come (`ExecutorManager` in
    src/inference); in a forked child they are gone, and it would wait for them. With this option
    all networks share one executor, which does not come from there.

    Raises:
        EngineError: this process was forked from one that had been forked and needed it.
    """
    global _shares_executor
    if not forks.is_inherited("openvino"):
        return {}
    if _shares_executor not in (None, os.getpid()):
        raise forks.lost_engine("openvino")
    _shares_executor = os.getpid()
    return {"EXCLUSIVE_ASYNC_REQUESTS": True}


def _fill_tables_of_types(openvino: ModuleType) -> None:
    """OpenVINO's tables between its types and NumPy's are filled, by this thread.

    They are static variables of functions in its Python binding (`Common::type_helpers` in
    src/bindings/python), and lose the interpreter's lock while they are filled: a second thread
    that comes then waits for the variable with the lock, and the first one for the lock.
    """
    _ = openvino.Tensor(np.zeros(1, np.float32), shared_memory=True).data


def import_openvino() -> ModuleType:
    """The package `openvino`, without its converter of other systems' models.

    The converter is half of the time that the import takes; it is imported when somebody asks
    for `openvino.convert_model`.

    Raises:
        MissingPackageError: openvino is not installed.
    """
    if "openvino" in sys.modules or CONVERTER in sys.modules:
        return sys.modules["openvino"]
    try:
        with hide_package(CONVERTER):
            import openvino
    except ImportError:
        raise MissingPackageError("openvino", "openvino") from None
    if not hasattr(openvino, "convert_model"):
        openvino.__getattr__ = _import_converter
    return openvino


def _import_converter(name: str) -> Any:
    """`openvino.convert_model`, for those who ask for it later."""
    if name != "convert_model":
        raise AttributeError(f"module 'openvino' has no attribute {name!r}")
    from openvino.tools.ovc import convert_model

    return convert_model


def _capabilities(core: Any) -> list[str]:
    """What the processor can compute in."""
    return list(core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES"))


def _read(core: Any, model: str | Path) -> Any:
    """The network of a file.

    Raises:
        BundleError: OpenVINO cannot read it.
    """
    try:
        return core.read_model(str(model))
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise BundleError(f"OpenVINO cannot open {model}: {lines[-1]}") from error


def _are_fixed(size: list[Any]) -> bool:
    """Whether height and width are numbers."""
    return all(side.is_static for side in size)
