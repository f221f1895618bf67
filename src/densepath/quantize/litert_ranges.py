"""The ranges of a LiteRT network's activations, measured on images, as the quantizer takes them.

Two things here decide how good the INT8 network is. The quantizer's own calibration averages the
extremes over the images, which clips; and it gives every concatenation a scale of its own, so
that a dense block's features are rounded anew at every layer. Here the extremes are those of all
images, and tensors that only pass values on, concatenations above all, share one range.
"""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from densepath.engines.native_output import quiet_native_output
from densepath.quantize.calibration import Calibration

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

Method = Literal["minmax", "percentile"]
Range = tuple[float, float]
# What passes values on as they are: in integers, inputs and output have one scale.
PASSING = ("CONCATENATION", "MAX_POOL_2D", "AVERAGE_POOL_2D", "PAD", "TRANSPOSE", "RESHAPE")
# The share of a tensor's values that its range holds, for the method `percentile`.
SHARE, BINS = 0.999999, 4096
# So that a tensor of one value has a width to divide by.
LEAST_WIDTH = 1e-30
PIXELS: Range = (0.0, 255.0)


def measure_ranges(network: bytes, calibration: Calibration, method: Method) -> dict[str, Range]:
    """Of each activation of the float network the range that INT8 has to hold, by its name.

    Args:
        network: the `.tflite`; its input is float32 [1, H, W, C], pixels 0 to 255.
        calibration: the images.
        method: `minmax` holds every value; `percentile` all but one in a million on either side.
    """
    interpreter = _open(network)
    image = int(interpreter.get_input_details()[0]["index"])
    steps = interpreter._get_ops_details()
    names = {
        int(tensor["index"]): str(tensor["name"]) for tensor in interpreter.get_tensor_details()
    }
    steps = [step for step in steps if step["op_name"] != "DELEGATE"]
    measured = sorted({int(tensor) for step in steps for tensor in step["outputs"]})
    ranges = _extremes(interpreter, image, measured, calibration.images)
    if method == "percentile":
        ranges = _percentiles(interpreter, image, ranges, calibration)
    # Bytes, and so normalised bytes, have a range that no image need show.
    ranges[image] = PIXELS
    normalised = int(steps[0]["outputs"][0])
    ends = np.stack([np.full_like(calibration.images[0], end) for end in (0, 255)])
    ranges |= _extremes(interpreter, image, [normalised], ends)
    tied = _tie(ranges, steps)
    return {names[tensor]: tied[tensor] for tensor in tied}


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


def _run(interpreter: Interpreter, image: int, pixels: NDArray[np.uint8]) -> None:
    """All tensors hold the values of one image."""
    interpreter.set_tensor(image, pixels[None].astype(np.float32))
    interpreter.invoke()


def _extremes(
    interpreter: Interpreter, image: int, tensors: list[int], images: NDArray[np.uint8]
) -> dict[int, Range]:
    """The least and the greatest value of each tensor."""
    found = dict.fromkeys(tensors, (np.inf, -np.inf))
    for pixels in images:
        _run(interpreter, image, pixels)
        for tensor, (low, high) in found.items():
            values = interpreter.get_tensor(tensor)
            found[tensor] = (min(low, float(values.min())), max(high, float(values.max())))
    return found


def _percentiles(
    interpreter: Interpreter, image: int, extremes: dict[int, Range], calibration: Calibration
) -> dict[int, Range]:
    """The range of each tensor without the outermost values, from a histogram."""
    counts = {tensor: np.zeros(BINS, np.int64) for tensor in extremes}
    for pixels in calibration.images:
        _run(interpreter, image, pixels)
        for tensor, (low, high) in extremes.items():
            width = max(high - low, LEAST_WIDTH)
            bins = (interpreter.get_tensor(tensor).ravel() - low) * np.float32((BINS - 1) / width)
            counts[tensor] += np.bincount(bins.astype(np.int64), minlength=BINS)[:BINS]
    return {tensor: _hold(extremes[tensor], counts[tensor]) for tensor in extremes}


def _hold(extremes: Range, counts: NDArray[np.int64]) -> Range:
    """The narrowest range of whole bins outside of which, on either side, few values lie."""
    low, high = extremes
    outside = int(counts.sum() * (1 - SHARE))
    first = int(np.searchsorted(np.cumsum(counts), outside, side="right"))
    last = BINS - int(np.searchsorted(np.cumsum(counts[::-1]), outside, side="right"))
    width = (high - low) / BINS
    return low + first * width, low + last * width


def _tie(ranges: dict[int, Range], steps: list[dict[str, Any]]) -> dict[int, Range]:
    """The ranges, one for all tensors that pass values on to one another."""
    parent = {tensor: tensor for tensor in ranges}

    def root(tensor: int) -> int:
        while parent[tensor] != tensor:
            tensor = parent[tensor]
        return tensor

    for step in steps:
        if step["op_name"] in PASSING:
            first, *others = (
                int(tensor) for tensor in (*step["outputs"], *step["inputs"]) if tensor in parent
            )
            for other in others:
                parent[root(other)] = root(first)
    groups: dict[int, list[int]] = defaultdict(list)
    for tensor in ranges:
        groups[root(tensor)].append(tensor)
    return {
        tensor: (min(ranges[one][0] for one in group), max(ranges[one][1] for one in group))
        for group in groups.values()
        for tensor in group
    }
