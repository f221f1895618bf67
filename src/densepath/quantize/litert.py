"""A Checkpoint's network as a `.tflite` file for LiteRT, in INT8 or float32.

The file takes pixels as they are, [1, H, W, C] from 0 to 255, and normalises them itself, for a
device has the camera's bytes and no floating point. INT8 is whole: no step computes in float.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import torch
from torch import nn

from densepath.engines.native_output import quiet_native_output
from densepath.errors import EngineError, MissingPackageError
from densepath.files import write_atomically
from densepath.quantize.calibration import Calibration, check_calibration
from densepath.quantize.edge_network import PixelNetwork, build_edge_network
from densepath.quantize.layers import choose_layers, rewritten_paths
from densepath.quantize.litert_graph import IMAGES, LOGITS, LiteRtGraph
from densepath.quantize.litert_ranges import METHODS, measure_ranges
from densepath.quantize.observer import check_method
from densepath.quantize.sharing import Range
from densepath.quantize.task import Task, Written
from densepath.weights.checkpoint import Checkpoint

# What these packages say of their own code, and no user can mend.
OWN_WARNINGS = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    r"Warning: Enabling `experimental_preserve_all_tensors`",
)


def write(task: Task, methods: Sequence[str]) -> Iterator[Written]:
    """The form by each of the methods, in folders of the task's."""
    for method in methods:
        folder = task.folder(f"litert-{method}")
        write_litert(
            task.checkpoint,
            folder / "model.tflite",
            calibration=task.calibration,
            method=method,
            keep_float=task.kept_names(),
        )
        yield method, folder, {"model": "model.tflite"}


def write_litert(
    checkpoint: Checkpoint,
    path: Path,
    *,
    calibration: Calibration | None,
    method: str = "minmax",
    keep_float: Collection[str] = (),
) -> None:
    """`path` is the checkpoint's network as a `.tflite` file; the same input gives the same bytes.

    With a calibration: INT8, weights a scale a channel; the input `images` is uint8 [1, H, W, C],
    scale 1 and zero point 0, the output `logits` int8 [1, num_classes] with its scale. Without:
    float32, the same pixels as float32, and float32 logits. A step's result is named by the layer
    of `models/plan.py` that it belongs to, and its kind: `features.conv0/conv_2d`.

    Args:
        checkpoint: the network, of its preprocessing's size.
        path: the file.
        calibration: images that ranges of activations are measured on; None for float32.
        method: of `METHODS`: how a range comes of the values; see `observer.py`.
        keep_float: layers that compute in float32 in the midst of the integers; see
            `choose_layers`.

    Raises:
        UnknownNameError: no such method or layer.
        UsageError: layers to be kept in a network that is float32 anyhow, or images that are not
            the network's.
        MissingPackageError: a package of the extra `edge` is not installed.
        EngineError: the converter failed.
        OutputError: the file cannot be written.
    """
    chosen = check_method(method, METHODS)
    check_calibration(calibration, checkpoint.preprocess, keep_float)
    kept = choose_layers(checkpoint.spec, keep_float)
    network = build_edge_network(checkpoint.to_model())
    graph = LiteRtGraph(_convert(checkpoint, network))
    weights = [
        (name, _weights(network.get_submodule(path)))
        for name, paths in rewritten_paths(checkpoint.spec, network).items()
        for path in paths
    ]
    graph.name_ends(IMAGES, LOGITS)
    outputs = graph.name_steps(weights)
    if calibration is not None:
        steps = [step for layer in kept for step in outputs[layer.name]]
        made = graph.to_bytes()
        graph = LiteRtGraph(_quantize(made, measure_ranges(made, calibration, chosen), steps))
        graph.take_bytes(f"{weights[0][0]}/quantize")
    with write_atomically(path) as temporary:
        temporary.write_bytes(graph.to_bytes())


def _convert(checkpoint: Checkpoint, network: nn.Module) -> bytes:
    """The float32 network on pixels as a `.tflite`.

    Raises:
        MissingPackageError: litert-torch is not installed.
        EngineError: it failed.
    """
    whole = PixelNetwork(network, checkpoint.preprocess).eval()
    pixels = torch.zeros(1, *checkpoint.preprocess.size, checkpoint.in_channels)
    with _quiet():
        try:
            import litert_torch
        except ImportError:
            raise MissingPackageError("litert-torch", "edge") from None
        try:
            last = litert_torch.to_channel_last_io(whole, args=[0]).eval()
            return bytes(litert_torch.convert(last, (pixels,)).model_content())
        except Exception as error:  # its passes raise many kinds, most of them private
            raise EngineError(f"LiteRT cannot convert the network: {error}") from error


def _quantize(network: bytes, ranges: dict[str, Range], keep_float: list[str]) -> bytes:
    """The float32 `.tflite` in INT8.

    Args:
        network: the file.
        ranges: of each activation, by its name.
        keep_float: the names of the results of steps that stay float32.

    Raises:
        MissingPackageError: ai-edge-quantizer is not installed.
    """
    with _quiet():
        try:
            from ai_edge_quantizer import qtyping, quantizer, recipe
        except ImportError:
            raise MissingPackageError("ai-edge-quantizer", "edge") from None
        whole = quantizer.Quantizer(bytearray(network), recipe.static_wi8_ai8())
        for name in keep_float:
            for step in (
                qtyping.TFLOperationName.CONV_2D,
                qtyping.TFLOperationName.DEPTHWISE_CONV_2D,
                qtyping.TFLOperationName.FULLY_CONNECTED,
            ):
                whole.update_quantization_recipe(
                    f"^{re.escape(name)};", step, algorithm_key=quantizer.AlgorithmName.NO_QUANTIZE
                )
        measured = {
            name: {"min": np.array([low], np.float32), "max": np.array([high], np.float32)}
            for name, (low, high) in ranges.items()
        }
        made = whole.quantize(measured, enable_progress_bar=False, enable_progress_report=False)
    return bytes(made.quantized_model)


def _weights(layer: nn.Module) -> np.ndarray:
    """A layer's weights as LiteRT has them: outputs first, input channels last."""
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    weight = layer.weight.detach().numpy()
    return np.ascontiguousarray(np.moveaxis(weight, 1, -1))


@contextmanager
def _quiet() -> Iterator[None]:
    """What the converter and the quantizer print of their progress stays unsaid."""
    with warnings.catch_warnings(), quiet_native_output():
        for message in OWN_WARNINGS:
            warnings.filterwarnings("ignore", message)
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
