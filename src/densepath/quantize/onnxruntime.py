"""The ONNX graph in INT8, by ONNX Runtime's quantiser: for servers, as QDQ nodes.

The quantiser's own calibrators hold every activation of every image (32 images of DenseNet-121 take
6.6 GB), so the ranges are measured here, by histograms. BatchNorm has no INT8 form in ONNX Runtime:
the graph comes with it as a depthwise convolution.

Weights have 8 bits, but for the layer that reads the images, which has 7. Kernels for x86
processors without VNNI add the products of two bytes in 16 bits: pixels fill their bytes, and the
sums would saturate. What ReLU left is small, and next to none of its sums do; densepath's own
sessions compute them all exactly (`engines/onnxruntime.py`).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from densepath.errors import EngineError, MissingPackageError
from densepath.exporting.onnx import save_onnx
from densepath.exporting.program import export_program
from densepath.exporting.rewrite import STEPS, rewrite
from densepath.quantize.calibration import Calibration
from densepath.quantize.layers import choose_layers, rewritten_paths
from densepath.quantize.observer import ONNX, RANGE_METHODS, Observer, RangeMethod, check_method
from densepath.quantize.sharing import share_ranges
from densepath.quantize.task import Task, Written

if TYPE_CHECKING:
    from onnx import ModelProto

METHODS = RANGE_METHODS
# What is quantised; the last average and the classifier, too.
OPERATORS = (
    "Conv",
    "Gemm",
    "MatMul",
    "Relu",
    "Concat",
    "Add",
    "AveragePool",
    "MaxPool",
    "ReduceMean",
)


def write(task: Task, methods: Sequence[str]) -> Iterator[Written]:
    """Write the form by each of the methods, into folders of the task's."""
    from densepath.exporting.onnx import write_onnx

    checkpoint, size = task.checkpoint, task.checkpoint.preprocess.size
    plain, steps = task.folder("onnx"), (*STEPS, "depthwise")
    program = export_program(checkpoint, size, steps=steps)
    parts = write_onnx(program, checkpoint.preprocess, plain, task.opset)
    became = rewritten_paths(checkpoint.spec, rewrite(checkpoint.to_model(), steps))
    chosen = choose_layers(checkpoint.spec, task.keep_float)
    kept = [path for layer in chosen for path in became[layer.name]]
    for method, path in quantize_onnx(
        plain / parts["model"], plain, task.calibration, methods=methods, keep_float=kept
    ):
        folder = task.folder(f"onnx-{method}")
        path.rename(folder / parts["model"])
        shutil.copy(plain / parts["preprocess"], folder)
        yield method, folder, parts


def quantize_onnx(
    graph: Path,
    output: Path,
    calibration: Calibration,
    *,
    methods: Sequence[str],
    keep_float: Collection[str] = (),
) -> Iterator[tuple[str, Path]]:
    """Yield each method with its file in the folder `output`, the float `graph` in INT8.

    The activations are measured once for all methods.

    Args:
        graph: the `.onnx`, its BatchNorms as depthwise convolutions.
        output: a folder.
        calibration: the images that ranges are measured on.
        methods: of `METHODS`.
        keep_float: the modules of the rewritten network that stay in float32.

    Raises:
        MissingPackageError: onnx or onnxruntime is not installed.
        UnknownNameError: no such method.
        EngineError: ONNX Runtime fails on the graph.
    """
    try:
        import onnx
        from onnxruntime.quantization import QuantFormat  # noqa: F401
    except ImportError:
        raise MissingPackageError("onnxruntime", "onnx") from None
    chosen = [check_method(method, METHODS) for method in methods]
    model = onnx.load(str(graph))
    observers = _observe(model, calibration)
    excluded = _graph_names(model, keep_float)
    for method in chosen:
        path = output / f"model-{method}.onnx"
        save_onnx(_quantize(model, observers, method, excluded), path)
        yield method, path


def _observe(model: ModelProto, calibration: Calibration) -> dict[str, Observer]:
    """What every float tensor of the graph was on the images."""
    import onnx
    import onnxruntime

    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    inner = list(dict.fromkeys(name for node in model.graph.node for name in node.output if name))
    outputs = {output.name for output in model.graph.output}
    shown.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in inner
        if name not in outputs
    )
    options = onnxruntime.SessionOptions()
    # Nothing may be fused away that is to be looked at.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            shown.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # Its errors have no common base but this.
        raise EngineError(f"ONNX Runtime cannot calibrate the network: {error}.") from error
    image_name = session.get_inputs()[0].name
    names = [image_name, *(output.name for output in session.get_outputs())]
    observers = {name: Observer(ONNX) for name in names}
    for batch in calibration.batches():
        values = [batch, *session.run(None, {image_name: batch})]
        for name, value in zip(names, values, strict=True):
            if isinstance(value, np.ndarray) and value.dtype == np.float32 and value.size:
                observers[name].see(value)
    return {
        name: observer for name, observer in observers.items() if np.isfinite(observer.low).all()
    }


def _quantize(
    model: ModelProto, observers: dict[str, Observer], method: RangeMethod, excluded: list[str]
) -> ModelProto:
    """The graph with quantised weights and QDQ nodes."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    measured = {name: observer.range(method) for name, observer in observers.items()}
    joined = [(*node.output, *node.input) for node in model.graph.node if node.op_type == "Concat"]
    ranges = {
        name: tuple(np.array(end, np.float32) for end in ends)
        for name, ends in share_ranges(measured, joined).items()
    }
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with _quiet_quantizer():
        quantizer = QDQQuantizer(
            copy,
            True,  # per channel
            False,  # weights of 8 bits
            QuantType.QInt8,
            QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, ranges),
            None,
            excluded,
            list(OPERATORS),
            {
                "WeightSymmetric": True,
                "ActivationSymmetric": False,
                "TensorQuantOverrides": {
                    name: [{"axis": 0, "reduce_range": True}] for name in _image_weights(model)
                },
            },
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()  # as the format asks for, and other runtimes do
    made: ModelProto = quantizer.model.model
    return made


@contextmanager
def _quiet_quantizer() -> Iterator[None]:
    """Silence the quantiser's advice on preprocessing, which has been done."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _image_weights(model: ModelProto) -> list[str]:
    """The weights of the convolutions that read the images."""
    nodes: Any = model.graph.node
    images = model.graph.input[0].name
    return [node.input[1] for node in nodes if node.op_type == "Conv" and node.input[0] == images]


def _graph_names(model: ModelProto, paths: Collection[str]) -> list[str]:
    """The graph's names of these modules' steps: each reads the weights of its module."""
    weights = {f"{path}.weight" for path in paths}
    nodes: Any = model.graph.node
    return [node.name for node in nodes if weights & set(node.input)]
