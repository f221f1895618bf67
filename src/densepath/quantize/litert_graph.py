"""A `.tflite` file's graph, where the converter and the quantizer leave something to mend."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.bundle.tflite import kind_of, pack, schema, unpack

QUANTIZED_ZERO = -128
IMAGES, LOGITS = "images", "logits"


class LiteRtGraph:
    """The graph of a `.tflite` file with one input and one output, to be changed."""

    def __init__(self, network: bytes) -> None:
        self._schema, self._model = schema(), unpack(network)
        (self._graph,) = self._model.subgraphs

    def to_bytes(self) -> bytes:
        """The file."""
        return pack(self._model)

    def name_ends(self, image: str, logits: str) -> None:
        """Input and output, and those of the signature, have these names."""
        (signature,) = self._model.signatureDefs
        ends = ((self._graph.inputs, signature.inputs, image),)
        for tensors, named, name in (*ends, (self._graph.outputs, signature.outputs, logits)):
            self._graph.tensors[tensors[0]].name = name.encode()
            named[0].name = name.encode()

    def take_bytes(self, inside_name: str) -> None:
        """The input is uint8 with scale 1 and zero point 0, in place of int8 with −128.

        An integer QUANTIZE, which subtracts 128, is the first step of the graph; its result has
        the name `inside_name`.
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
        tensor.name = inside_name.encode()
        self._graph.tensors.append(outside)
        added = len(self._graph.tensors) - 1
        step = self._schema.OperatorT()
        step.opcodeIndex = self._operator("QUANTIZE")
        step.inputs, step.outputs = [added], [inside]
        step.builtinOptionsType = self._schema.BuiltinOptions.QuantizeOptions
        step.builtinOptions = self._schema.QuantizeOptionsT()
        self._graph.operators.insert(0, step)
        self._graph.inputs = [added]
        (signature,) = self._model.signatureDefs
        signature.inputs[0].tensorIndex = added

    def name_steps(
        self, weights: Sequence[tuple[str, NDArray[np.float32]]]
    ) -> dict[str, list[str]]:
        """Every step's result but the last is named `LAYER/KIND`; the results of each layer's own.

        What is computed from one layer's output on is that layer's, up to the BatchNorm or pad that
        the next one reads through; what stands before the first layer is the first one's.

        Args:
            weights: the layers with their weights, [O, …, I] of any rank, in the order they run.

        Raises:
            LookupError: no step has such weights.
        """
        outputs: dict[str, list[str]] = {name: [] for name, _ in weights}
        kinds = [kind_of(code) for code in self._model.operatorCodes]
        taken: Counter[str] = Counter()
        left, owner = list(weights), weights[0][0]
        for step, after in zip_longest(self._graph.operators, self._graph.operators[1:]):
            kind = kinds[step.opcodeIndex]
            own = bool(left) and self._has_weights(step, left[0][1])
            norm = kind == "DEPTHWISE_CONV_2D"
            pad = kind == "PAD" and bool(left) and self._has_weights(after, left[0][1])
            if left and (own or norm or pad):
                owner = left[0][0]
            tensor = self._graph.tensors[step.outputs[0]]
            if step.outputs[0] not in self._graph.outputs:
                name = f"{owner}/{kind.lower()}"
                taken[name] += 1
                tensor.name = (name + f"_{taken[name]}" * (taken[name] > 1)).encode()
            if own:
                outputs[owner].append(tensor.name.decode())
                left.pop(0)
        if left:
            raise LookupError(f"no step of the network has the weights of {left[0][0]}")
        return outputs

    def _has_weights(self, step: Any, weight: NDArray[np.float32]) -> bool:
        """Whether the step is the layer with these weights.

        A convolution whose outputs see one channel each (all of a gray image's are such) is a
        depthwise one, whose weights have the outputs last.
        """
        orders = [weight, np.moveaxis(weight, 0, -1)] if weight.shape[-1] == 1 else [weight]
        wanted = {order.tobytes() for order in orders}
        buffers = [self._graph.tensors[tensor].buffer for tensor in step.inputs[1:2]]
        found = [self._model.buffers[buffer].data for buffer in buffers]
        return any(data is not None and bytes(data) in wanted for data in found)

    def _operator(self, kind: str) -> int:
        """The index of an operator, which is added if it is not there."""
        codes = self._model.operatorCodes
        for index, found in enumerate(codes):
            if kind_of(found) == kind:
                return index
        made, code = self._schema.OperatorCodeT(), getattr(self._schema.BuiltinOperator, kind)
        made.builtinCode = made.deprecatedBuiltinCode = code
        made.version = 1
        codes.append(made)
        return len(codes) - 1
