"""Our own kernels as an engine: the fastest in float32 on a CPU, and the quickest to open.

It reads the checkpoint's tensors itself and never imports torch. Three things make it fast: no
features are ever concatenated or normalised in a pass of their own (`kernels/layers.hpp`), large
3×3 convolutions go Winograd's way (`kernels/winograd.hpp`), and a batch is shared out by images, so
that threads need not wait for each other.
"""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.engines.engine import EngineInfo, Images, Logits, check_batch
from densepath.engines.kernels.compile import compile_library
from densepath.engines.kernels.plan import Tensors, plan_network
from densepath.engines.kernels.resize import Fit, fast_fit
from densepath.engines.modes import Mode, count_streams
from densepath.errors import CheckpointError, EngineError, UsageError
from densepath.models.spec import ModelSpec
from densepath.preprocess import Preprocess

# Images of one call that share the reading of the weights; more would only delay their answers.
IMAGES_A_CALL = 4
# Threads meet after each layer of an image: below so many pixels a thread the meeting costs more.
PIXELS_A_THREAD = 2048


class NativeEngine:
    """A network on our own kernels, on the CPU, in float32."""

    def __init__(
        self,
        spec: ModelSpec,
        tensors: Tensors,
        *,
        num_classes: int,
        in_channels: int,
        size: tuple[int, int] | None = None,
        threads: int | None = None,
        mode: Mode = "auto",
    ) -> None:
        """`tensors` by the names of `build_model`'s network; `size` of the images to come.

        Raises:
            EngineError: no C++ compiler.
            UsageError: less than one thread.
            UnknownNameError: no such mode.
        """
        streams, self._threads = count_streams(mode, threads)
        size = size or (spec.input_size, spec.input_size)
        self._library = load_library()
        integers, numbers = plan_network(spec, tensors, in_channels=in_channels, size=size)
        self._network = self._library.densepath_open(
            integers.ctypes.data, len(integers), numbers.ctypes.data, len(numbers)
        )
        if not self._network:
            raise EngineError(f"the kernels refused the network: {self._failure()}.")
        self._least_side = spec.least_side
        self.info = EngineInfo(
            "native", "cpu", "float32", in_channels, num_classes, IMAGES_A_CALL, streams
        )

    def run(self, images: Images) -> Logits:
        """float32 [N, in_channels, H, W] → float32 logits [N, num_classes].

        Raises:
            UsageError: images of another shape or type, or too small; or the engine is closed.
        """
        return self._run(images, self._threads)

    def run_share(self, images: Images) -> Logits:
        """As `run`, on one stream's share of the cores."""
        return self._run(images, self._threads // self.info.streams)

    def _run(self, images: Images, threads: int) -> Logits:
        """The logits, by so many threads at most."""
        check_batch(images, self.info)
        if not self._network:
            raise UsageError("the engine is closed; open it again to run images.")
        count, _, height, width = images.shape
        logits = np.empty((count, self.info.num_classes), np.float32)
        if not count:
            return logits
        if min(height, width) < self._least_side:
            least = f"{self._least_side} × {self._least_side}"
            raise UsageError(
                f"the images are {height} × {width} pixels; this network needs at least {least}."
            )
        images = np.ascontiguousarray(images)
        threads = min(threads, max(1, count * height * width // PIXELS_A_THREAD))
        if self._library.densepath_run(
            *(self._network, images.ctypes.data, count, height, width),
            *(logits.ctypes.data, threads),
        ):
            raise EngineError(f"the kernels failed: {self._failure()}.")
        return logits

    def fitter(self, preprocess: Preprocess) -> Fit:
        """`preprocess.fit`, or what gives the same bytes sooner."""
        if self._library.densepath_resizes_quickly():
            return fast_fit(preprocess, self._library)
        return preprocess.fit

    def close(self) -> None:
        """The network's memory is free."""
        network, self._network = self._network, None
        if network:
            self._library.densepath_close(network)

    def _failure(self) -> str:
        """What the library says of its last failure."""
        said: bytes = self._library.densepath_failure()
        return said.decode()


def read_tensors(path: Path) -> tuple[ModelSpec, int, dict[str, NDArray[Any]]]:
    """The spec, the channels of the images and the tensors of a checkpoint file, without torch.

    Raises:
        CheckpointError: the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            description = json.loads((file.metadata() or {})["densepath"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        spec = ModelSpec.from_dict(description["spec"])
        return spec, int(description["in_channels"]), tensors
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path.name} is not a whole checkpoint: {error!r}") from error


_loaded: dict[Path, ctypes.CDLL] = {}


def load_library() -> ctypes.CDLL:
    """The library, with the types of its functions."""
    path = compile_library()
    if path not in _loaded:
        library = ctypes.CDLL(str(path))
        pointer, integer, wide = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
        library.densepath_failure.restype = ctypes.c_char_p
        library.densepath_open.restype = pointer
        library.densepath_open.argtypes = (pointer, wide, pointer, wide)
        library.densepath_run.argtypes = (pointer, pointer, *[integer] * 3, pointer, integer)
        library.densepath_close.argtypes = (pointer,)
        taps = (pointer, pointer, integer, integer)
        library.densepath_resize.argtypes = (
            *(pointer, integer, integer, *taps, *taps, integer, pointer),
        )
        library.densepath_resize.restype = None
        _loaded[path] = library
    return _loaded[path]
