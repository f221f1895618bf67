"""LiteRT's interpreter with its reference kernels: the independent executor of the same file.

LiteRT's optimised kernels differ from these, and among themselves, by some units of the last
place; the reference kernels are what a compiler for microcontrollers is held against.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.bundle.tflite import TfliteNetwork
from densepath.errors import EngineError, MissingPackageError, UsageError


class LiteRTReference:
    """Runs one network on one image after the other.

    Raises:
        MissingPackageError: `ai-edge-litert` is not installed.
        EngineError: LiteRT refuses the file.
    """

    def __init__(self, network: TfliteNetwork, *, keep_all: bool = False) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter, OpResolverType
        except ImportError as error:
            raise MissingPackageError("ai-edge-litert", "npu") from error
        self.network, self.keep_all = network, keep_all
        try:
            self._interpreter = Interpreter(
                model_path=str(network.path),
                num_threads=1,
                experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
                experimental_preserve_all_tensors=keep_all,
            )
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise EngineError(f"LiteRT refuses {network.path}: {error}") from error

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[np.int8]:
        """The int8 logits of an image, uint8 [H, W, C] or [1, H, W, C].

        Raises:
            UsageError: the image has another shape.
            EngineError: LiteRT fails.
        """
        source = self.network.input
        if pixels.size != int(np.prod(source.shape)):
            raise UsageError(
                f"the image is {list(pixels.shape)}; the network takes {list(source.shape)}."
            )
        try:
            self._interpreter.set_tensor(source.index, pixels.reshape(source.shape))
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise EngineError(f"LiteRT failed on {self.network.path}: {error}") from error
        return self._interpreter.get_tensor(self.network.output.index)

    def tensor(self, index: int) -> NDArray[Any]:
        """A tensor of the last run; only with `keep_all`."""
        return self._interpreter.get_tensor(index)
