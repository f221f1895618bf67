"""Our bit-exact executor: an INT8 `.tflite` in NumPy, byte for byte what TFLite's kernels give.

Layers that `--keep-float` left in float32 are among them, see `floating.py`.

On the line: `simulate.py` runs a compiled program's network here, on any machine, without a board
or an interpreter. The oracle is LiteRT with BUILTIN_REF kernels (`litert_reference.py`); tests
compare every tensor with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.bundle.tflite import Operator, TfliteNetwork
from densepath.errors import EngineError, UsageError
from densepath.npu import convolution, floating, layers
from densepath.npu.convolution import Computation

# Operators whose constants are operands like any other.
TAKE_CONSTANTS = frozenset({"ADD", "SUB", "MUL", "CONCATENATION"})

PREPARERS: Mapping[str, Callable[[Operator], Computation]] = {
    "ADD": layers.prepare_sum,
    "SUB": layers.prepare_sum,
    "MUL": layers.prepare_product,
    "AVERAGE_POOL_2D": layers.prepare_average_pool,
    "MAX_POOL_2D": layers.prepare_max_pool,
    "MEAN": layers.prepare_mean,
    "CONCATENATION": layers.prepare_concatenation,
    "CONV_2D": convolution.prepare_convolution,
    "DEPTHWISE_CONV_2D": convolution.prepare_depthwise,
    "FULLY_CONNECTED": convolution.prepare_fully_connected,
    "QUANTIZE": layers.prepare_requantisation,
    "RELU": layers.prepare_requantisation,
    "RELU6": layers.prepare_requantisation,
    "PAD": layers.prepare_pad,
    "PADV2": layers.prepare_pad,
    "RESHAPE": layers.prepare_reshape,
    "SQUEEZE": layers.prepare_reshape,
    "EXPAND_DIMS": layers.prepare_reshape,
    "SLICE": layers.prepare_slice,
    "STRIDED_SLICE": layers.prepare_slice,
    "TRANSPOSE": layers.prepare_transpose,
}

# The same of operators with a float32 tensor: what `--keep-float` makes.
FLOAT_PREPARERS: Mapping[str, Callable[[Operator], Computation]] = {
    "CONV_2D": floating.prepare_float_convolution,
    "DEPTHWISE_CONV_2D": floating.prepare_float_depthwise,
    "FULLY_CONNECTED": floating.prepare_float_fully_connected,
    "DEQUANTIZE": floating.prepare_dequantisation,
    "QUANTIZE": floating.prepare_quantisation,
    "RESHAPE": layers.prepare_reshape,
    "TRANSPOSE": layers.prepare_transpose,
}


class IntegerExecutor:
    """Runs one network on one image after the other.

    Args:
        network: of `read_network`.

    Raises:
        EngineError: an operator that is not supported, or in a form that is not.
    """

    def __init__(self, network: TfliteNetwork) -> None:
        self.network = network
        self._layers = [(one, _prepare(one)) for one in network.operators]
        self._last_use = {
            tensor.index: one.index
            for one in network.operators
            for tensor in one.inputs
            if tensor is not None and tensor is not network.output
        }

    def run(
        self,
        pixels: NDArray[np.uint8],
        *,
        see: Callable[[Operator, NDArray[Any]], None] | None = None,
    ) -> NDArray[np.int8]:
        """The int8 logits of an image, uint8 [H, W, C] or [1, H, W, C].

        `see` is given each operator and its output, in the order of execution.

        Raises:
            UsageError: the image has another shape or type.
        """
        source = self.network.input
        if pixels.dtype != source.dtype or pixels.size != int(np.prod(source.shape)):
            raise UsageError(
                f"the image is {pixels.dtype} {list(pixels.shape)}; the network takes "
                f"{source.dtype} {list(source.shape)}."
            )
        values: dict[int, NDArray[Any]] = {source.index: pixels.reshape(source.shape)}
        for operator, layer in self._layers:
            made = layer(*_arguments(operator, values))
            values[operator.outputs[0].index] = made
            if see is not None:
                see(operator, made)
            self._forget(operator, values)
        return values[self.network.output.index]

    def _forget(self, operator: Operator, values: dict[int, NDArray[Any]]) -> None:
        """Drops the inputs that nothing reads after `operator`."""
        for tensor in operator.inputs:
            if tensor is not None and self._last_use.get(tensor.index) == operator.index:
                values.pop(tensor.index, None)


def _arguments(operator: Operator, values: dict[int, NDArray[Any]]) -> list[NDArray[Any]]:
    """What an operator works on; weights, axes and the like it has taken when it was prepared."""
    given = []
    for tensor in operator.inputs:
        if tensor is None:
            continue
        if tensor.data is None:
            given.append(values[tensor.index])
        elif operator.kind in TAKE_CONSTANTS:
            given.append(tensor.data)
    return given


def _prepare(operator: Operator) -> Computation:
    """The function of one operator.

    Raises:
        EngineError: it is not supported.
    """
    ends = [one for one in (*operator.inputs, *operator.outputs) if one is not None]
    in_float = any(one.dtype == np.float32 for one in ends)
    preparers = FLOAT_PREPARERS if in_float else PREPARERS
    if operator.kind not in preparers:
        known = ", ".join(sorted(preparers))
        where = " in float32" if in_float else ""
        raise EngineError(
            f"operator {operator.index} is {operator.kind}{where}; supported{where} are {known}."
        )
    try:
        return preparers[operator.kind](operator)
    except (ValueError, KeyError, IndexError) as error:
        raise EngineError(
            f"operator {operator.index}, {operator.kind}, cannot be executed: {error}."
        ) from error
