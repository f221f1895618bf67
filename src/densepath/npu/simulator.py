"""The child process of `simulate.py`: images through the integers of a network.

Run as `python -m densepath.npu.simulator KERNELS MODEL INPUT.npy OUTPUT.npz`; whatever happens here
is an error message there. Of one image every tensor is kept, of several the logits.

KERNELS are `densepath`, our own executor (`integer.py`); `litert`, LiteRT's reference kernels: the
definition of the arithmetic, and an independent executor of the same program; or `tflm`, TensorFlow
Lite Micro's interpreter, which keeps no tensors but the logits.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from densepath.bundle.tflite import TfliteNetwork, read_network
from densepath.errors import DensepathError
from densepath.npu.integer import IntegerExecutor
from densepath.npu.litert_reference import LiteRTReference
from densepath.npu.tflm_reference import TFLMReference

# An image → the logits and, by their numbers, the tensors that were kept.
Run: TypeAlias = Callable[[NDArray[np.uint8]], tuple[NDArray[np.int8], dict[int, NDArray[Any]]]]


def main(kernels: str, model: str, source: str, target: str) -> None:
    """`target` has the tensors that were kept, by their numbers, with names and scales."""
    images = np.load(source)
    network = read_network(model)
    run = _choose(kernels, network, keep_all=len(images) == 1)
    answers = [run(image) for image in images]
    kept = answers[0][1] if len(images) == 1 else {}
    output = network.output.index
    made: dict[str, Any] = {"output": np.array(output)}
    made["order"] = np.array([index for index in kept if index != output] + [output])
    known = {one.index: one for operator in network.operators for one in operator.outputs}
    for index in made["order"]:
        tensor = known[int(index)]
        made[f"tensor_{index}"] = kept.get(int(index))
        made[f"name_{index}"] = np.array(tensor.name)
        made[f"scale_{index}"] = np.array([float(tensor.scale), float(tensor.zero_point)])
    made[f"tensor_{output}"] = np.concatenate([logits for logits, _ in answers])
    with Path(target).open("wb") as file:
        np.savez(file, **made)


def _choose(kernels: str, network: TfliteNetwork, *, keep_all: bool) -> Run:
    """What runs an image."""
    if kernels == "tflm":
        micro = TFLMReference(network)
        return lambda image: (micro.run(image), {})
    return _reference(network, keep_all) if kernels == "litert" else _own(network)


def _own(network: TfliteNetwork) -> Run:
    """Our executor."""
    executor = IntegerExecutor(network)

    def run(image: NDArray[np.uint8]) -> tuple[NDArray[np.int8], dict[int, NDArray[Any]]]:
        kept: dict[int, NDArray[Any]] = {}
        logits = executor.run(
            image, see=lambda one, values: kept.__setitem__(one.outputs[0].index, values)
        )
        return logits, kept

    return run


def _reference(network: TfliteNetwork, keep_all: bool) -> Run:
    """LiteRT's reference kernels."""
    reference = LiteRTReference(network, keep_all=keep_all)

    def run(image: NDArray[np.uint8]) -> tuple[NDArray[np.int8], dict[int, NDArray[Any]]]:
        logits = reference.run(image)
        indices = [one.outputs[0].index for one in network.operators] if keep_all else []
        return logits, {index: reference.tensor(index) for index in indices}

    return run


if __name__ == "__main__":
    try:
        main(*sys.argv[1:5])
    except DensepathError as error:
        sys.exit(str(error))
