"""A `.tflite` file's graph, where the converter and the quantizer leave something to mend."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUANTIZED_ZERO = -128


class LiteRtGraph:
    """The graph of a `.tflite` file with one input and one output, to be changed."""

    def __init__(self, network: bytes) -> None:
        from ai_edge_litert import schema_py_generated as schema
        from ai_edge_litert.tools import flatbuffer_utils

        self._schema, self._files = schema, flatbuffer_utils
        self._model: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(network))
        (self._graph,) = self._model.subgraphs

    def to_bytes(self) -> bytes:
        """The file."""
        return bytes(self._files.convert_object_to_bytearray(self._model))

    def name_ends(self, image: str, logits: str) -> None:
        """Input and output, and those of the signature, have these names."""
        (signature,) = self._model.signatureDefs
        ends = ((self._graph.inputs, signature.inputs, image),)
        for tensors, named, name in (*ends, (self._graph.outputs, signature.outputs, logits)):
            self._graph.tensors[tensors[0]].name = name.encode()
            named[0].name = name.encode()

    def take_bytes(self) -> None:
        """The input is uint8 with scale 1 and zero point 0, in place of int8 with −128.

        An integer QUANTIZE, which subtracts 128, is the first step of the graph.
        """
        inside = int(self._graph.inputs[0])
        tensor = self._graph.tensors[inside]
        assert tensor.type == self._schema.TensorType.INT8
        assert list(tensor.quantization.scale) == [1.0]
        assert list(tensor.quantization.zeroPoint) == [QUANTIZED_ZERO]
        outside = copy.copy(tensor)
        outside.quantization = copy.copy(tensor.quantization)
        outside.type = self._schema.TensorType.UINT8
        outside.quantization.zeroPoint = np.zeros(1, np.int64)
        tensor.name += b"_int8"
        self._graph.tensors.append(outside)
        added = len(self._graph.tensors) - 1
        step = self._schema.OperatorT()
        step.opcodeIndex = self._operator(self._schema.BuiltinOperator.QUANTIZE)
        step.inputs, step.outputs = [added], [inside]
        step.builtinOptionsType = self._schema.BuiltinOptions.QuantizeOptions
        step.builtinOptions = self._schema.QuantizeOptionsT()
        self._graph.operators.insert(0, step)
        self._graph.inputs = [added]
        (signature,) = self._model.signatureDefs
        signature.inputs[0].tensorIndex = added

    def outputs_of(self, weights: Collection[NDArray[np.float32]]) -> list[str]:
        """The names of what the steps with these weights, [O, …, I] of any rank, give.

        Raises:
            LookupError: no step has such weights.
        """
        return [self._output_of(weight) for weight in weights]

    def _output_of(self, weight: NDArray[np.float32]) -> str:
        """The name of what the step with these weights gives.

        A convolution whose outputs see one channel each (all of a gray image's are such) is a
        depthwise one, whose weights have the outputs last.
        """
        orders = [weight, np.moveaxis(weight, 0, -1)] if weight.shape[-1] == 1 else [weight]
        wanted = {order.tobytes() for order in orders}
        for step in self._graph.operators:
            for tensor in step.inputs[1:2]:
                data = self._model.buffers[self._graph.tensors[tensor].buffer].data
                if data is not None and bytes(data) in wanted:
                    return str(self._graph.tensors[step.outputs[0]].name.decode())
        raise LookupError("no step of the network has these weights")

    def _operator(self, code: int) -> int:
        """The index of an operator, which is added if it is not there."""
        codes = self._model.operatorCodes
        for index, found in enumerate(codes):
            if max(found.builtinCode, found.deprecatedBuiltinCode) == code:
                return index
        made = self._schema.OperatorCodeT()
        made.builtinCode = made.deprecatedBuiltinCode = code
        made.version = 1
        codes.append(made)
        return len(codes) - 1
