"""ONNX Runtime as an engine: a bundle's `model.onnx` on the CPU, or on a GPU by its providers.

Quick to open: from import to the first answer in a third of a second for DenseNet-121.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from densepath.bundle.formats import Precision, Runtime
from densepath.engines.engine import EngineInfo, Incoming, Logits
from densepath.engines.machine import has_vnni
from densepath.engines.modes import Mode, RunPart, Spread, SpreadEngine, count_streams
from densepath.engines.opening import Opening
from densepath.engines.pixels import as_tensor
from densepath.errors import BundleError, EngineError, MissingPackageError, UsageError
from densepath.images.preprocess import Preprocess

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions

Provider = Literal["onnxruntime", "cuda", "tensorrt"]

# The engine's name → what ONNX Runtime calls it. TensorRT leaves what it cannot do to CUDA.
PROVIDERS: dict[Provider, list[str]] = {
    "onnxruntime": ["CPUExecutionProvider"],
    "cuda": ["CUDAExecutionProvider"],
    "tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider"],
}
# Images of one call: on one core one alone stays in its caches; a GPU wants more at once.
STREAM_PART, LATENCY_PART, GPU_PART = 1, 8, 64
ERRORS_ONLY = 3
# Source: onnxruntime_session_options_config_keys.h, kOrtSessionOptionsAvx2PrecisionMode.
EXACT_INT8 = "session.x64quantprecision"
# It would quantise those layers of an INT8 network, too, that were to stay in float32.
UNWANTED = ["WeightBiasQuantization"]


class OnnxRuntimeEngine(SpreadEngine):
    """An ONNX graph on ONNX Runtime, in float32."""

    def __init__(
        self,
        model: str | Path,
        preprocess: Preprocess,
        *,
        provider: Provider = "onnxruntime",
        precision: Precision = "float32",
        mode: Mode = "auto",
        threads: int | None = None,
    ) -> None:
        """
        Args:
            model: the `.onnx` file.
            preprocess: what normalises.
            provider: `onnxruntime` for the CPU, or `cuda` or `tensorrt`.
            precision: the graph's: `float32`, or `int8` where it is quantised.
            mode: how cores are used, see `modes.py`; a GPU has one stream in every mode.
            threads: CPU threads; by default one a usable core.

        Raises:
            MissingPackageError: onnxruntime is not installed.
            UsageError: another precision, or an impossible mode or number of threads.
            EngineError: this build of ONNX Runtime or this machine does not have the provider.
            BundleError: the file is no ONNX graph.
        """
        if precision == "bfloat16":
            raise UsageError(
                f"ONNX Runtime computes a float32 graph in float32, not in {precision}; the "
                "engines 'openvino' and 'eager' can."
            )
        self.preprocess = preprocess
        on_cpu = provider == "onnxruntime"
        streams, count = count_streams(mode if on_cpu else "latency", threads)
        part = GPU_PART if not on_cpu else STREAM_PART if streams > 1 else LATENCY_PART
        session = _open(model, provider, count // streams)
        _, channels, *size = session.get_inputs()[0].shape
        self.info = EngineInfo(
            provider,
            "cpu" if on_cpu else "cuda:0",
            precision,
            channels,
            session.get_outputs()[0].shape[1],
            part,
            streams,
            tuple(size) if all(isinstance(side, int) for side in size) else None,
        )

        def build_alone() -> RunPart:
            return _runner(_open(model, provider, count), preprocess)

        self._spread = Spread(
            _runner(session, preprocess),
            self.info,
            build_alone=build_alone if mode == "auto" else None,
        )


def open_engine(row: Runtime, opening: Opening) -> OnnxRuntimeEngine:
    """The engine of a bundle's row; the row's name is the provider's."""
    return OnnxRuntimeEngine(
        opening.file,
        opening.preprocess,
        provider=cast(Provider, row.name),
        precision=opening.precision,
        mode=opening.mode,
        threads=opening.threads,
    )


def _open(model: str | Path, provider: Provider, threads: int) -> InferenceSession:
    """A session that computes with so many threads.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        EngineError: the provider is not there.
        BundleError: the file is no ONNX graph.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingPackageError("onnxruntime", "onnx") from None
    error = missing_provider(provider)
    if error is not None:
        raise error
    wanted = PROVIDERS[provider]
    options = session_options()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # A thread that waits for others would otherwise keep its core from those who read images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            str(model), options, providers=wanted, disabled_optimizers=UNWANTED
        )
    except Exception as error:  # Its errors have no common base but this.
        raise BundleError(f"ONNX Runtime cannot open {model}: {error}") from error
    if wanted[0] not in session.get_providers():
        raise _no_provider(provider, "its libraries or the GPU are missing on this machine")
    return session


def session_options() -> SessionOptions:
    """What every session of a bundle's network begins with: errors only, and right sums in INT8.

    Without VNNI the kernels for weights with a sign saturate. Told to, ONNX Runtime makes the
    weights bytes without one, whose kernels are exact; with VNNI that would only be slower.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    if not has_vnni():
        options.add_session_config_entry(EXACT_INT8, "1")
    return options


def _runner(session: InferenceSession, preprocess: Preprocess) -> RunPart:
    """The network as a function; ONNX Runtime lets several threads call it."""
    image_name = session.get_inputs()[0].name

    def run_part(batch: Incoming) -> Logits:
        tensor = np.ascontiguousarray(as_tensor(batch, preprocess))
        outputs: list[Any] = session.run(None, {image_name: tensor})
        return outputs[0]

    return run_part


def missing_provider(provider: Provider) -> EngineError | None:
    """What is wrong where this build of ONNX Runtime does not have the provider."""
    import onnxruntime

    there = onnxruntime.get_available_providers()
    if PROVIDERS[provider][0] in there:
        return None
    return _no_provider(provider, f"this build of ONNX Runtime has only {', '.join(there)}")


def _no_provider(provider: Provider, reason: str) -> EngineError:
    """Why an engine for a GPU cannot be had, and what to do."""
    return EngineError(
        f"the engine {provider!r} needs {PROVIDERS[provider][0]}: {reason}. Install an NVIDIA "
        "driver and onnxruntime-gpu in place of onnxruntime; or use --engine onnxruntime."
    )
