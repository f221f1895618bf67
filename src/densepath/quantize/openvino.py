"""OpenVINO's graph in INT8, by NNCF: for servers.

NNCF quantises what it finds profitable for a CPU: every convolution, with the BatchNorm behind a
Concat in the same fused integer subgraph, so that no float island is left. The layer that reads the
images has weights of 7 bits, as in ONNX Runtime's form and for its reason (`onnxruntime.py`).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from densepath.engines.openvino import import_openvino, shared_core
from densepath.errors import EngineError, MissingPackageError, UnknownNameError
from densepath.exporting.job import input_shape
from densepath.exporting.program import export_program
from densepath.exporting.rewrite import rewrite
from densepath.quantize.calibration import Calibration
from densepath.quantize.layers import choose_layers, rewritten_paths
from densepath.quantize.task import Task, Written

# How the range of an activation is made of those of the images. NNCF's own choice is the mean of
# their extremes, which clips what lies beyond: 16 dB where the others have 33.
METHODS = ("histogram", "minmax", "mean_minmax")
CONVOLUTION = "convolution"  # PyTorch's numbered name of each one, which OpenVINO keeps


def write(task: Task, methods: Sequence[str]) -> Iterator[Written]:
    """Write the form by each of the methods, into folders of the task's."""
    from densepath.exporting.openvino import write_openvino

    checkpoint, size = task.checkpoint, task.checkpoint.preprocess.size
    plain = task.folder("openvino")
    shape = input_shape(checkpoint, dynamic_size=False)
    parts = write_openvino(export_program(checkpoint, size), checkpoint.preprocess, plain, shape)
    network = rewrite(checkpoint.to_model())
    became = rewritten_paths(checkpoint.spec, network)
    order = [path for paths in became.values() for path in paths]
    chosen = choose_layers(checkpoint.spec, task.keep_float)
    kept = [order.index(path) for layer in chosen for path in became[layer.name]]
    for method in methods:
        folder = task.folder(f"openvino-{method}")
        quantize_openvino(
            plain / parts["model"],
            folder / parts["model"],
            task.calibration,
            method=method,
            keep_float=kept,
        )
        for suffix in (".xml", ".bin"):
            shutil.copy(plain / f"preprocess{suffix}", folder)
        yield method, folder, parts


def quantize_openvino(
    graph: Path,
    output: Path,
    calibration: Calibration,
    *,
    method: str = METHODS[0],
    keep_float: Collection[int] = (),
) -> None:
    """Write the float `graph` in INT8 to `output` (.xml, with a .bin).

    Args:
        graph: the `.xml` that the export wrote.
        output: another `.xml`.
        calibration: the images that ranges are measured on.
        method: of `METHODS`.
        keep_float: the places of layers that stay in float32, among those with weights.

    Raises:
        MissingPackageError: nncf or openvino is not installed.
        UnknownNameError: no such method.
        EngineError: NNCF fails on the graph.
    """
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS)
    nncf, openvino = import_nncf(), import_openvino()
    model = shared_core().read_model(graph)
    advanced = nncf.AdvancedQuantizationParameters(
        activations_range_estimator_params=_range_of(method),
        overflow_fix=nncf.OverflowFix.FIRST_LAYER,
    )
    names = _graph_names(model, keep_float)
    try:
        with _without_bars():
            made = nncf.quantize(
                model,
                nncf.Dataset(list(calibration.batches())),
                preset=nncf.QuantizationPreset.PERFORMANCE,
                advanced_parameters=advanced,
                subset_size=len(calibration),
                ignored_scope=nncf.IgnoredScope(names=names) if names else None,
            )
    except (RuntimeError, nncf.errors.ValidationError) as error:
        raise EngineError(f"NNCF cannot quantise the network: {error}.") from error
    openvino.save_model(made, output, compress_to_fp16=False)


def import_nncf() -> ModuleType:
    """The package `nncf`, which says errors only.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import nncf
    except ImportError:
        raise MissingPackageError("nncf", "openvino") from None
    nncf.set_log_level(logging.ERROR)
    return nncf


def _range_of(method: str) -> Any:
    """NNCF's name of the method."""
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    return getattr(RangeEstimatorParametersSet, method.upper())


@contextmanager
def _without_bars() -> Iterator[None]:
    """Stop NNCF from drawing progress bars of its own: they would break ours."""
    from nncf.common.logging import track_progress

    drawn = track_progress.Progress, track_progress.WeightedProgress
    track_progress.Progress, track_progress.WeightedProgress = map(_undrawn, drawn)
    try:
        yield
    finally:
        track_progress.Progress, track_progress.WeightedProgress = drawn


def _undrawn(progress: type) -> Callable[..., Any]:
    """What makes such a progress bar, but one that draws nothing."""
    return lambda *columns, **options: progress(*columns, **{**options, "disable": True})


def _graph_names(model: Any, places: Collection[int]) -> list[str]:
    """OpenVINO's names of the layers at these places; the classifier is behind all convolutions."""
    found: dict[int, str] = {}
    classifier: list[str] = []
    for operation in model.get_ordered_ops():
        name = operation.get_friendly_name()
        if "Convolution" in operation.get_type_name():
            number = name.split("/")[0].removeprefix(CONVOLUTION).removeprefix("_")
            found[int(number or 0)] = name
        elif operation.get_type_name() == "MatMul":
            classifier.append(name)
    found |= dict(enumerate(classifier, start=len(found)))
    return [found[place] for place in places]
