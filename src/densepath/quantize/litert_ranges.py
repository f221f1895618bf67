"""The ranges of a LiteRT network's activations, measured on images, as the quantizer takes them.

Two things here decide how good the INT8 network is. The quantizer's own calibration averages the
extremes over the images, which clips; and it gives every concatenation a scale of its own, so
that a dense block's features are rounded anew at every layer. Here the extremes are those of all
images, and tensors that only pass values on, concatenations above all, share one range.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from densepath.bundle.tflite import parse_network
from densepath.engines.native_output import quiet_native_output
from densepath.quantize.calibration import Calibration
from densepath.quantize.observer import LITERT, Observer, RangeMethod
from densepath.quantize.sharing import Range, share_ranges

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

METHODS: tuple[RangeMethod, ...] = ("minmax", "percentile")
# What passes values on as they are: in integers, inputs and output have one scale.
PASSING = ("CONCATENATION", "MAX_POOL_2D", "AVERAGE_POOL_2D", "PAD", "TRANSPOSE", "RESHAPE")
PIXELS: Range = (0.0, 255.0)


def measure_ranges(
    network: bytes, calibration: Calibration, method: RangeMethod
) -> dict[str, Range]:
    """Of each activation of the float network the range that INT8 has to hold, by its name.

    Args:
        network: the `.tflite`; its input is float32 [1, H, W, C], pixels 0 to 255.
        calibration: the images.
        method: of `METHODS`.
    """
    interpreter, graph = _open(network), parse_network(network)
    steps, image = graph.operators, graph.input.index
    measured = sorted({tensor.index for step in steps for tensor in step.outputs})
    observers = {tensor: Observer(LITERT) for tensor in measured}
    for _ in _run(interpreter, image, calibration.images):
        for tensor, observer in observers.items():
            observer.see(interpreter.get_tensor(tensor))
    if method != "minmax":
        for _ in _run(interpreter, image, calibration.images):
            for tensor, observer in observers.items():
                observer.count(interpreter.get_tensor(tensor))
    ranges = {tensor: observer.range(method) for tensor, observer in observers.items()}
    # Bytes, and so normalised bytes, have a range that no image need show.
    ranges[image] = PIXELS
    normalised, bytes_seen = steps[0].outputs[0].index, Observer(LITERT)
    ends = np.stack([np.full_like(calibration.images[0], end) for end in (0, 255)])
    for _ in _run(interpreter, image, ends):
        bytes_seen.see(interpreter.get_tensor(normalised))
    ranges[normalised] = bytes_seen.range("minmax")
    passing = [(*step.outputs, *step.inputs) for step in steps if step.kind in PASSING]
    joined = [[one.index for one in ends if one is not None] for ends in passing]
    shared = share_ranges(ranges, joined)
    return {graph.tensors[tensor].name: ends for tensor, ends in shared.items()}


def _open(network: bytes) -> Interpreter:
    """An interpreter that keeps every tensor."""
    from ai_edge_litert.interpreter import Interpreter

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    with warnings.catch_warnings(), quiet_native_output():
        warnings.filterwarnings("ignore", "Warning: Enabling `experimental_preserve_all_tensors`")
        interpreter = Interpreter(
            model_content=network, num_threads=threads, experimental_preserve_all_tensors=True
        )
        interpreter.allocate_tensors()
    return interpreter


def _run(interpreter: Interpreter, image: int, images: NDArray[np.uint8]) -> Iterator[None]:
    """Yields when all tensors hold the values of an image, of one after the other."""
    for pixels in images:
        interpreter.set_tensor(image, pixels[None].astype(np.float32))
        interpreter.invoke()
        yield
