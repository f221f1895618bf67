"""Our own kernels as an engine: the fastest on a CPU, and the quickest to open.

It reads the checkpoint's tensors itself and never imports torch. Three things make it fast: no
features are ever concatenated or normalised in a pass of their own (`kernels/layers.hpp`), large
3×3 convolutions go Winograd's way (`kernels/winograd.hpp`), and a batch is shared out by images, so
that threads need not wait for each other.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray

from densepath.bundle.formats import Precision, Runtime
from densepath.engines import forks
from densepath.engines.engine import (
    EngineInfo,
    Images,
    Incoming,
    Logits,
    Normalised,
    check_images,
    check_tensor,
)
from densepath.engines.modes import Mode, count_streams
from densepath.engines.opening import Opening
from densepath.engines.pixels import as_tensor
from densepath.errors import EngineError, UnknownNameError, UsageError
from densepath.images.preprocess import Preprocess
from densepath.images.resize import Fit, fast_fit
from densepath.kernels.compile import INFERENCE
from densepath.kernels.load import open_library
from densepath.models.plan import plan, serialise
from densepath.models.spec import ModelSpec
from densepath.weights.checkpoint_file import FORMAT, INT8_FORMAT, read_checkpoint

Tensors: TypeAlias = Mapping[str, NDArray[Any]]

# Images of one call that share the reading of the weights; more would only delay their answers.
IMAGES_A_CALL = 4
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8")
WRONG_BFLOAT16 = (
    "this processor's bfloat16 instructions do not give the product of the numbers; use "
    "--precision float32."
)


class NativeEngine:
    """A network on our own kernels, on the CPU, in float32, bfloat16 or INT8."""

    lost = False

    def __init__(
        self,
        spec: ModelSpec,
        tensors: Tensors,
        preprocess: Preprocess,
        *,
        num_classes: int,
        in_channels: int,
        precision: Precision = "float32",
        threads: int | None = None,
        mode: Mode = "auto",
    ) -> None:
        """`tensors` by the names of `build_model`'s network; `preprocess` of the images to come.

        In `bfloat16` plain products are of rounded numbers, with sums and features in float32; a
        processor without the instructions computes the same, slower than in float32. The precision
        of INT8 tensors is theirs.

        Raises:
            EngineError: no C++ compiler; or this processor's bfloat16 is wrong.
            UsageError: less than one thread; or bfloat16 of INT8 tensors.
            UnknownNameError: no such mode or precision.
        """
        if precision not in PRECISIONS:
            raise UnknownNameError("precision", precision, PRECISIONS)
        quantised = any(map(is_quantised, tensors.values()))
        if quantised and precision == "bfloat16":
            raise UsageError("the network is quantised to int8; leave the precision out.")
        if precision != "bfloat16":
            precision = "int8" if quantised else "float32"
        streams, self._threads = count_streams(mode, threads)
        self._library, self.preprocess = load_library(), preprocess
        self._network: _Network | None = _Network(
            self._library,
            spec,
            tensors,
            in_channels=in_channels,
            size=preprocess.size,
            precision=precision,
        )
        self._least_side = spec.least_side
        self.info = EngineInfo(
            "native", "cpu", precision, in_channels, num_classes, IMAGES_A_CALL, streams
        )
        self.fit: Fit = preprocess.fit
        if self._library.densepath_resizes_quickly():
            self.fit = fast_fit(preprocess, self._library)

    def run(self, images: Images) -> Logits:
        """uint8 [N, H, W, in_channels] → float32 logits [N, num_classes].

        Raises:
            UsageError: images of another shape or type, or too small; or the engine is closed.
        """
        check_images(images, self.info)
        return self._run(images, self._threads)

    def run_share(self, images: Images) -> Logits:
        """As `run`, on one stream's share of the cores."""
        check_images(images, self.info)
        return self._run(images, self._threads // self.info.streams)

    def run_tensor(self, tensor: Normalised) -> Logits:
        """As `run`, of float32 [N, in_channels, H, W], normalised."""
        check_tensor(tensor, self.info)
        return self._run(tensor, self._threads)

    def run_tensor_share(self, tensor: Normalised) -> Logits:
        """As `run_tensor`, on one stream's share of the cores."""
        check_tensor(tensor, self.info)
        return self._run(tensor, self._threads // self.info.streams)

    def _run(self, batch: Incoming, threads: int) -> Logits:
        """The logits, by so many threads at most."""
        network = self._network  # held until this call ends, whatever `close` does meanwhile
        if network is None:
            raise UsageError("the engine is closed; open it again to run images.")
        tensor = np.ascontiguousarray(as_tensor(batch, self.preprocess))
        count, _, height, width = tensor.shape
        logits = np.empty((count, self.info.num_classes), np.float32)
        if not count:
            return logits
        if min(height, width) < self._least_side:
            least = f"{self._least_side} × {self._least_side}"
            raise UsageError(
                f"the images are {height} × {width} pixels; this network needs at least {least}."
            )
        if self._library.densepath_run(
            network.address,
            tensor.ctypes.data,
            count,
            height,
            width,
            logits.ctypes.data,
            threads,
        ):
            raise EngineError(f"the kernels failed: {_failure(self._library)}.")
        return logits

    def __reduce__(self) -> NoReturn:
        forks.refuse_to_pickle(self.info.name)

    def close(self) -> None:
        """The network's memory is free, once the calls that are still running have ended."""
        self._network = None


def open_engine(row: Runtime, opening: Opening) -> NativeEngine:
    """The engine of a bundle's row, or of a checkpoint; a file is read without PyTorch."""
    if opening.checkpoint is None:
        spec, in_channels, tensors = read_tensors(opening.file)
    else:
        spec, in_channels = opening.checkpoint.spec, opening.checkpoint.in_channels
        held = opening.checkpoint.in_float32().tensors
        tensors = {name: tensor.numpy() for name, tensor in held.items()}
    spec.check_size(opening.preprocess.size)
    return NativeEngine(
        spec,
        tensors,
        opening.preprocess,
        num_classes=len(tensors["classifier.bias"]),
        in_channels=in_channels,
        precision=opening.precision,
        threads=opening.threads,
        mode=opening.mode,
    )


class _Network:
    """The library's network; its memory is free when nobody holds this any more."""

    def __init__(
        self,
        library: ctypes.CDLL,
        spec: ModelSpec,
        tensors: Tensors,
        *,
        in_channels: int,
        size: tuple[int, int],
        precision: Precision,
    ) -> None:
        """The plan's layers, made of the tensors.

        Raises:
            EngineError: the library refused the plan, the tensors or the precision.
        """
        self._close = library.densepath_close
        held = {
            name: np.ascontiguousarray(tensor, np.int8 if is_quantised(tensor) else np.float32)
            for name, tensor in tensors.items()
            if not name.endswith("num_batches_tracked")
        }
        plan_names, plan_numbers = serialise(spec)
        layer_names = (ctypes.c_char_p * len(plan_names))(*map(str.encode, plan_names))
        layer_numbers = (ctypes.c_int32 * len(plan_numbers))(*plan_numbers)
        num_layers = len(plan(spec))
        count = len(held)
        names = (ctypes.c_char_p * count)(*(name.encode() for name in held))
        places = (ctypes.c_void_p * count)(*(tensor.ctypes.data for tensor in held.values()))
        sizes = (ctypes.c_int64 * count)(*(tensor.size for tensor in held.values()))
        quantised = (ctypes.c_int32 * count)(*map(is_quantised, held.values()))
        self.address: int | None = library.densepath_open(
            layer_names,
            layer_numbers,
            num_layers,
            spec.arch.bn_eps,
            in_channels,
            *size,
            names,
            places,
            sizes,
            quantised,
            count,
            precision == "bfloat16",
        )
        if self.address is None and precision == "bfloat16" and not bfloat16_is_right():
            raise EngineError(WRONG_BFLOAT16)
        if self.address is None:
            raise EngineError(f"the kernels refused the network: {_failure(library)}.")

    def __del__(self) -> None:
        if getattr(self, "address", None) is not None:
            self._close(self.address)


def is_quantised(tensor: NDArray[Any]) -> bool:
    """Whether the tensor is the weights of an INT8 layer."""
    return tensor.dtype == np.int8


def _failure(library: ctypes.CDLL) -> str:
    """What the library says of its last failure."""
    said: bytes = library.densepath_failure()
    return said.decode()


def read_tensors(path: Path) -> tuple[ModelSpec, int, dict[str, NDArray[Any]]]:
    """The spec, the channels of the images and the tensors of a checkpoint file, without torch.

    Raises:
        CheckpointError: the file cannot be read, or is of a format that is not.
    """
    file = read_checkpoint(path, (FORMAT, INT8_FORMAT))
    return file.spec, file.in_channels, file.tensors


def has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16, for which the library was compiled.

    Raises:
        EngineError, OutputError: as `load_library`.
    """
    return bool(load_library().densepath_has_bfloat16())


def has_amx() -> bool:
    """Whether products in bfloat16 go through AMX here, as 3×3 convolutions then do, too.

    Raises:
        EngineError, OutputError: as `load_library`.
    """
    return bool(load_library().densepath_has_amx())


def bfloat16_is_right() -> bool:
    """Whether a small product in bfloat16 is that of the same numbers, computed plainly.

    Raises:
        EngineError, OutputError: as `load_library`.
    """
    return bool(load_library().densepath_bfloat16_is_right())


def load_library() -> ctypes.CDLL:
    """The library, with the types of its functions.

    Raises:
        EngineError: no C++ compiler, or it makes nothing that this processor can run.
        OutputError: the cache cannot be written.
    """
    library = open_library(INFERENCE)
    pointer, integer = ctypes.c_void_p, ctypes.c_int32
    library.densepath_failure.restype = ctypes.c_char_p
    library.densepath_open.restype = pointer
    layers = (pointer, pointer, integer, ctypes.c_double)
    tensors = (pointer, pointer, pointer, pointer, integer, integer)
    library.densepath_open.argtypes = (*layers, *[integer] * 3, *tensors)
    library.densepath_run.argtypes = (pointer, pointer, *[integer] * 3, pointer, integer)
    library.densepath_close.argtypes = (pointer,)
    taps = (pointer, pointer, integer, integer)
    library.densepath_resize.argtypes = (pointer, integer, integer, *taps, *taps, integer, pointer)
    library.densepath_resize.restype = None
    return library
