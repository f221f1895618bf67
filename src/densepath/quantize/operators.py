"""Which operators of a written form run in INT8, as its runtime sees them."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from densepath.bundle.formats import FORMATS, named
from densepath.bundle.tflite import read_network
from densepath.engines.native import is_quantised, read_tensors
from densepath.engines.onnxruntime import UNWANTED, session_options
from densepath.engines.openvino import DEVICE, executor_options, shared_core

# What only moves or relabels values, and what feeds constants.
PASSIVE = {"Const", "Input", "Output", "Reshape", "Reorder", "Convert", "FakeQuantize"}
BOUNDARY = {"QuantizeLinear", "DequantizeLinear", "Transpose", "Reshape"}
LITERT_BOUNDARY = {"QUANTIZE", "DEQUANTIZE", "TRANSPOSE", "RESHAPE"}


@dataclass(frozen=True)
class Operators:
    """How many operators compute in INT8, and which do not.

    Attributes:
        int8: their number.
        others: of the rest, the number of each kind.
    """

    int8: int
    others: dict[str, int]

    @property
    def share(self) -> float:
        """The share of the operators that run in INT8."""
        total = self.int8 + sum(self.others.values())
        return self.int8 / total if total else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"int8": self.int8, "others": self.others, "share": self.share}


def count_operators(format: str, model: Path) -> Operators | None:
    """The operators of a form's file; None where its runtime does not tell."""
    int8 = FORMATS[format].int8
    if int8 is None or int8.count_operators is None:
        return None
    found: Operators = named(int8.count_operators)(model)
    return found


def count_native(model: Path) -> Operators:
    """The operators of our kernels: convolutions, with all else within them, and pooling."""
    _, _, tensors = read_tensors(model)
    weights = [tensor for name, tensor in tensors.items() if name.endswith(".weight")]
    convolutions = [is_quantised(weight) for weight in weights if weight.ndim > 1]
    int8 = sum(convolutions)
    kept = len(convolutions) - int8
    return Operators(int8, {"Convolution": kept} if kept else {})


def count_openvino(model: Path) -> Operators:
    """The operators of the network as it was compiled for this CPU."""
    core = shared_core()
    hints = {"INFERENCE_PRECISION_HINT": "f32", **executor_options()}
    compiled = core.compile_model(core.read_model(str(model)), DEVICE, hints)
    kinds: Counter[str] = Counter()
    int8 = 0
    for operation in compiled.get_runtime_model().get_ops():
        info = operation.get_rt_info()
        kind, precision = (info[key].astype(str) for key in ("layerType", "runtimePrecision"))
        if kind in PASSIVE:
            continue
        if precision in ("u8", "i8"):
            int8 += 1
        else:
            kinds[kind] += 1
    return Operators(int8, dict(kinds))


def count_onnx(model: Path) -> Operators:
    """The operators of the graph as ONNX Runtime rewrites it for this CPU."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="densepath-") as folder:
        written = Path(folder) / "optimised.onnx"
        options = session_options()
        options.optimized_model_filepath = str(written)
        onnxruntime.InferenceSession(
            str(model),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=UNWANTED,
        )
        graph = onnx.load(str(written)).graph
    bytes_of = _byte_tensors(graph)
    kinds: Counter[str] = Counter()
    int8 = 0
    for node in graph.node:
        if node.op_type in BOUNDARY:
            continue
        if (
            node.op_type.startswith("QLinear")
            or node.op_type == "QGemm"
            or (node.output[0] in bytes_of)
        ):
            int8 += 1
        else:
            kinds[node.op_type] += 1
    return Operators(int8, dict(kinds))


def count_litert(model: Path) -> Operators:
    """The operators of the file, before a delegate takes them over."""
    kinds: Counter[str] = Counter()
    int8 = 0
    for operator in read_network(model).operators:
        if operator.kind in LITERT_BOUNDARY:
            continue
        if operator.outputs[0].dtype == np.int8:
            int8 += 1
        else:
            kinds[operator.kind] += 1
    return Operators(int8, dict(kinds))


def _byte_tensors(graph: Any) -> set[str]:
    """The tensors that integer operators make, and what passes them on."""
    found: set[str] = set()
    for node in graph.node:
        makes = node.op_type.startswith("Q")
        if makes or (node.op_type in ("NhwcMaxPool", "MaxPool") and node.input[0] in found):
            found.update(node.output)
    return found
