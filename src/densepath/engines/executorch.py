"""ExecuTorch as an engine: a bundle's `.pte` on the CPU by XNNPACK, in INT8 or float32."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch

from densepath.bundle.formats import Precision, Runtime
from densepath.engines.engine import EngineInfo, Incoming, Logits
from densepath.engines.modes import Mode, Spread, SpreadEngine, check_one_stream, count_streams
from densepath.engines.native_output import quiet_native_output
from densepath.engines.opening import Opening
from densepath.engines.pixels import as_tensor, spoil
from densepath.errors import BundleError, MissingPackageError, UnknownNameError, UsageError
from densepath.images.preprocess import Preprocess

PRECISIONS: tuple[Precision, ...] = ("int8", "float32")
METHOD = "forward"
PART = 1
# The runtime has one pool of threads in a process, which all its programs share.
_POOL = threading.RLock()


class ExecutorchEngine(SpreadEngine):
    """An ExecuTorch program of `densepath.quantize.executorch` on the CPU.

    The runtime holds Python's lock while it computes: all threads share each layer, and there is
    one stream.
    """

    def __init__(
        self,
        model: str | Path,
        preprocess: Preprocess,
        *,
        in_channels: int,
        num_classes: int,
        size: tuple[int, int],
        precision: Precision = "int8",
        mode: Mode = "auto",
        threads: int | None = None,
    ) -> None:
        """
        Args:
            model: the `.pte` file.
            preprocess: what normalises.
            in_channels: the channels of the images.
            num_classes: the logits.
            size: height and width of the images.
            precision: the file's; the file itself does not say.
            mode: `auto` or `latency`.
            threads: CPU threads of every ExecuTorch engine in this process, the last one asked
                for; by default one a usable core.

        Raises:
            MissingPackageError: executorch is not installed.
            UnknownNameError: no such precision or mode.
            UsageError: the mode `throughput`, or an impossible number of threads.
            BundleError: the file is no such program.
        """
        if precision not in PRECISIONS:
            raise UnknownNameError("precision", precision, PRECISIONS)
        check_one_stream("executorch", mode)
        _, count = count_streams("latency", threads)
        self.preprocess = preprocess
        runtime = _import_runtime()
        with _POOL, quiet_native_output():
            if runtime._threadpool_get_thread_count() != count:
                runtime._unsafe_reset_threadpool(count)
            self._program, self._method = _load(runtime, model)
        self.info = EngineInfo(
            "executorch", "cpu", precision, in_channels, num_classes, PART, streams=1, size=size
        )
        _check(self._method, model, self.info)
        self._spread = Spread(self._run_part, self.info)

    def close(self) -> None:
        """The program is free."""
        super().close()
        with _POOL:
            self._method = self._program = _closed

    def _run_part(self, batch: Incoming) -> Logits:
        """The logits of each image, one after another."""
        tensor = np.require(as_tensor(batch, self.preprocess), requirements=["C", "W"])
        with _POOL:
            logits = [self._method([image[None]])[0] for image in torch.from_numpy(tensor)]
        return spoil(torch.cat(logits).numpy(), batch)


def open_engine(row: Runtime, opening: Opening) -> ExecutorchEngine:
    """The engine of a bundle's row."""
    return ExecutorchEngine(
        opening.file,
        opening.preprocess,
        in_channels=opening.in_channels,
        num_classes=opening.num_classes,
        size=opening.one_size,
        precision=opening.precision,
        mode=opening.mode,
        threads=opening.threads,
    )


def _import_runtime() -> Any:
    """The runtime's C++ module.

    Its documented front, `executorch.runtime`, imports the whole exporter, which takes seconds.

    Raises:
        MissingPackageError: executorch is not installed.
    """
    try:
        from executorch.extension.pybindings import _C
    except ImportError:
        raise MissingPackageError("executorch", "edge") from None
    return _C


def _load(runtime: Any, model: str | Path) -> tuple[Any, Any]:
    """The file's program and its method.

    Raises:
        BundleError: ExecuTorch cannot read it.
    """
    if not Path(model).is_file():
        raise BundleError(f"{model}: no such file.")
    try:
        program = runtime._load_program(
            str(model), program_verification=runtime.Verification.InternalConsistency
        )
        return program, program.load_method(METHOD)
    except RuntimeError as error:
        raise BundleError(
            f"ExecuTorch cannot open {model}: {error}. It is damaged, or no program for this "
            "version of the runtime; export it again."
        ) from error


def _check(method: Any, model: str | Path, info: EngineInfo) -> None:
    """Returns when the program is what the engine was told.

    Raises:
        BundleError: it is not.
    """
    assert info.size is not None
    meta = method.method_meta()
    ends = [
        tuple(end(index).sizes())
        for end, number in (
            (meta.input_tensor_meta, meta.num_inputs()),
            (meta.output_tensor_meta, meta.num_outputs()),
        )
        for index in range(number)
    ]
    wanted = [(1, info.in_channels, *info.size), (1, info.num_classes)]
    if ends != wanted:
        raise BundleError(
            f"{model} takes and gives {ends} where the engine needs {wanted}: it is not the "
            "network that this bundle is of. Export it again."
        )


def _closed(*_: Any) -> Any:
    """What stands where the program was."""
    raise UsageError("the engine is closed; open it again to run images.")
