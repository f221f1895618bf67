"""TensorFlow Lite Micro's interpreter on a PC: what a microcontroller runs, without an NPU.

It has no Ethos-U: it runs the INT8 network that was compiled, not the compiled program.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.errors import EngineError, MissingPackageError
from densepath.npu.tflite import Network

# What the interpreter needs in the arena beside the tensors; on a PC there is no need to be exact.
RUNTIME_BYTES = 4 << 20


class TFLMReference:
    """Runs one network on one image after the other.

    Raises:
        MissingPackageError: `tflite-micro` is not installed.
        EngineError: TensorFlow Lite Micro refuses the file.
    """

    def __init__(self, network: Network) -> None:
        try:
            from tflite_micro.python.tflite_micro import runtime
        except ImportError as error:
            raise MissingPackageError("tflite-micro", "npu") from error
        self.network = network
        flowing = sum(tensor.nbytes for tensor in network.tensors if tensor.data is None)
        try:
            self._interpreter: Any = runtime.Interpreter.from_file(
                str(network.path), arena_size=flowing + RUNTIME_BYTES
            )
        except (ValueError, RuntimeError) as error:
            raise EngineError(
                f"TensorFlow Lite Micro refuses {network.path.name}: {error}"
            ) from error

    def run(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """The logits [1, classes] of an image, uint8 [H, W, C] or [1, H, W, C].

        Raises:
            EngineError: TensorFlow Lite Micro fails.
        """
        try:
            self._interpreter.set_input(pixels.reshape(self.network.input.shape), 0)
            self._interpreter.invoke()
            return np.array(self._interpreter.get_output(0))
        except (ValueError, RuntimeError) as error:
            raise EngineError(
                f"TensorFlow Lite Micro failed on {self.network.path.name}: {error}"
            ) from error
