"""LiteRT as an engine: a bundle's `.tflite` on the CPU, in INT8 or float32.

The network takes pixels and normalises them itself, so that a device needs no floating point;
a tensor that is normalised already is turned back into pixels.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from densepath.bundle.formats import Precision, Runtime
from densepath.engines.engine import EngineInfo, Incoming, Logits
from densepath.engines.modes import Mode, Spread, SpreadEngine, count_streams
from densepath.engines.native_output import quiet_native_output
from densepath.engines.opening import Opening
from densepath.engines.pixels import are_pixels, as_pixels, spoil
from densepath.errors import BundleError, MissingPackageError, UnknownNameError
from densepath.images.preprocess import Preprocess

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

# The types of the file's input and output in each precision.
TYPES: dict[Precision, tuple[type, type]] = {
    "int8": (np.uint8, np.int8),
    "float32": (np.float32, np.float32),
}
# LiteRT's own kernels for this processor, or those that define what an operator gives: they differ
# by some units of the last place, and an NPU's integers are those of the reference.
Kernels = Literal["optimised", "reference"]
RESOLVERS: dict[Kernels, str] = {"optimised": "AUTO", "reference": "BUILTIN_REF"}
# The network takes one image at a time; a stream gets this many in one go.
PART = 1


class LiteRtEngine(SpreadEngine):
    """A `.tflite` network of `densepath.quantize.litert` on the CPU."""

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
        kernels: Kernels = "optimised",
    ) -> None:
        """
        Args:
            model: the `.tflite` file.
            preprocess: how a tensor was normalised. In INT8 one that does not come of bytes is
                rounded to them.
            in_channels: the channels of the images.
            num_classes: the logits.
            size: height and width of the images.
            precision: the file's.
            mode: how cores are used; see `modes.py`.
            threads: CPU threads; by default one a usable core.
            kernels: `reference` gives an NPU's integers, on one thread a stream and slowly.

        Raises:
            MissingPackageError: ai-edge-litert is not installed.
            UnknownNameError: no such precision, mode or kernels.
            UsageError: an impossible number of threads.
            BundleError: the file is no such network.
        """
        if precision not in TYPES:
            raise UnknownNameError("precision", precision, TYPES)
        if kernels not in get_args(Kernels):
            raise UnknownNameError("kernels", kernels, get_args(Kernels))
        streams, count = count_streams(mode, threads)
        self.preprocess = preprocess
        self.info = EngineInfo(
            "litert", "cpu", precision, in_channels, num_classes, PART, streams, size
        )
        alone = (
            (lambda: _Interpreters(model, preprocess, self.info, count, kernels))
            if streams > 1
            else None
        )
        build_alone = alone if mode == "auto" else None
        part = _Interpreters(model, preprocess, self.info, count // streams, kernels)
        self._spread = Spread(part, self.info, build_alone=build_alone)


def open_engine(row: Runtime, opening: Opening, kernels: Kernels = "optimised") -> LiteRtEngine:
    """The engine of a bundle's row."""
    return LiteRtEngine(
        opening.file,
        opening.preprocess,
        in_channels=opening.in_channels,
        num_classes=opening.num_classes,
        size=opening.one_size,
        precision=opening.precision,
        mode=opening.mode,
        threads=opening.threads,
        kernels=kernels,
    )


def open_as_npu(row: Runtime, opening: Opening) -> LiteRtEngine:
    """An INT8 form with an NPU's integers: by the reference kernels, a thread an image."""
    return open_engine(row, replace(opening, mode="throughput"), "reference")


class _Interpreters:
    """A network as a function; each call takes an idle interpreter, or makes one."""

    def __init__(
        self,
        model: str | Path,
        preprocess: Preprocess,
        info: EngineInfo,
        threads: int,
        kernels: Kernels,
    ) -> None:
        self._info, self._preprocess = info, preprocess
        self._open = partial(_open, model, info, threads, kernels)
        self._idle = [self._open()]

    def __call__(self, batch: Incoming) -> Logits:
        """The logits of each image, one after another."""
        try:
            interpreter = self._idle.pop()
        except IndexError:
            interpreter = self._open()
        logits = [self._run_one(interpreter, pixels) for pixels in self._to_pixels(batch)]
        self._idle.append(interpreter)
        return spoil(np.concatenate(logits), batch)

    def _to_pixels(self, batch: Incoming) -> NDArray[np.float32] | NDArray[np.uint8]:
        """Pixels [N, H, W, C], bytes in INT8 and otherwise float32."""
        pixels = as_pixels(batch, self._preprocess)
        if self._info.precision == "float32":
            return pixels.astype(np.float32, copy=False)
        if are_pixels(pixels):
            return pixels
        return np.nan_to_num(pixels).round().clip(0, 255).astype(np.uint8)

    def _run_one(
        self, interpreter: Interpreter, pixels: NDArray[np.float32] | NDArray[np.uint8]
    ) -> Logits:
        """[H, W, C] → float32 [1, num_classes], in memory of its own."""
        image, logits = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        interpreter.set_tensor(image["index"], pixels[None])
        interpreter.invoke()
        values = interpreter.get_tensor(logits["index"]).astype(np.float32)
        if self._info.precision == "float32":
            return values
        scale, zero = logits["quantization"]
        return (values - np.float32(zero)) * np.float32(scale)


def _open(model: str | Path, info: EngineInfo, threads: int, kernels: Kernels) -> Interpreter:
    """An interpreter of the file.

    Raises:
        MissingPackageError: ai-edge-litert is not installed.
        BundleError: LiteRT cannot read the file, or its network takes or gives something else.
    """
    # The first interpreter of a process announces its delegate on standard error.
    first = "ai_edge_litert.interpreter" not in sys.modules
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:
        raise MissingPackageError("ai-edge-litert", "edge") from None
    try:
        with quiet_native_output() if first else nullcontext():
            interpreter = Interpreter(
                str(model),
                num_threads=threads,
                experimental_op_resolver_type=getattr(OpResolverType, RESOLVERS[kernels]),
            )
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise BundleError(f"LiteRT cannot open {model}: {_first_line(error)}") from error
    _check(interpreter, model, info)
    return interpreter


def _check(interpreter: Interpreter, model: str | Path, info: EngineInfo) -> None:
    """Returns when the network is what the engine was told.

    Raises:
        BundleError: it is not.
    """
    assert info.size is not None
    kinds = TYPES[cast(Precision, info.precision)]
    wanted = ((1, *info.size, info.in_channels), (1, info.num_classes))
    ends = (interpreter.get_input_details(), interpreter.get_output_details())
    for end, shape, kind in zip(ends, wanted, kinds, strict=True):
        found = [(tuple(int(side) for side in one["shape"]), one["dtype"]) for one in end]
        if found != [(shape, kind)]:
            said = ", ".join(f"{dtype.__name__} {sides}" for sides, dtype in found)
            raise BundleError(
                f"{model} has {said} where the engine needs {kind.__name__} {shape}: it is not "
                f"the network in {info.precision} that this bundle is of. Export it again."
            )


def _first_line(error: Exception) -> str:
    """What an error says first."""
    return next((line for line in str(error).splitlines() if line.strip()), repr(error))
