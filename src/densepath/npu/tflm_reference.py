"""TensorFlow Lite Micro's interpreter on a PC: what a microcontroller runs, without an NPU.

It has no Ethos-U: it runs the INT8 network that was compiled, not the compiled program.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.bundle.tflite import TfliteNetwork, kind_of, pack, unpack
from densepath.errors import EngineError, MissingPackageError

# What the interpreter needs in the arena beside the tensors; on a PC there is no need to be exact.
RUNTIME_BYTES = 4 << 20
# What its CONCATENATION takes at most; an NPU takes any number.
# Source: TensorFlow Lite Micro, `kernels/concatenation.cc`, kMaxInputNum.
MOST_INPUTS = 10


class TFLMReference:
    """Runs one network on one image after the other.

    Raises:
        MissingPackageError: `tflite-micro` is not installed.
        EngineError: TensorFlow Lite Micro refuses the file.
    """

    def __init__(self, network: TfliteNetwork) -> None:
        try:
            from tflite_micro.python.tflite_micro import runtime
        except ImportError as error:
            raise MissingPackageError("tflite-micro", "npu") from error
        self.network = network
        flowing = sum(tensor.nbytes for tensor in network.tensors if tensor.data is None)
        try:
            self._interpreter: Any = runtime.Interpreter.from_bytes(
                split_concatenations(network.path), arena_size=2 * flowing + RUNTIME_BYTES
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


def split_concatenations(path: Path) -> bytes:
    """The file, no CONCATENATION of which has more than `MOST_INPUTS` inputs.

    A longer one, such as a DPN's of a stage's blocks, joins its first inputs in a step before: its
    inputs have one scale, so that this copies the same bytes.
    """
    model = unpack(path.read_bytes(), path)
    graph, steps = model.subgraphs[0], []
    kinds = [kind_of(code) for code in model.operatorCodes]
    for step in graph.operators:
        while kinds[step.opcodeIndex] == "CONCATENATION" and len(step.inputs) > MOST_INPUTS:
            before = copy.copy(step)
            before.inputs, rest = step.inputs[:MOST_INPUTS], step.inputs[MOST_INPUTS:]
            before.outputs = [len(graph.tensors)]
            joined = copy.copy(graph.tensors[step.outputs[0]])
            parts = [graph.tensors[index].shape for index in before.inputs]
            joined.shape, axis = np.array(joined.shape, np.int32), step.builtinOptions.axis
            joined.shape[axis] = sum(shape[axis] for shape in parts)
            joined.name = joined.name + b"_first"
            graph.tensors.append(joined)
            steps.append(before)
            step.inputs = [*before.outputs, *rest]
        steps.append(step)
    graph.operators = steps
    return pack(model)
