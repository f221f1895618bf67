"""A Checkpoint's network as a `.pte` program for ExecuTorch's XNNPACK, in INT8 or float32."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from densepath.engines.native_output import quiet_native_output
from densepath.errors import EngineError, MissingPackageError, UnknownNameError
from densepath.files import write_atomically
from densepath.quantize.calibration import Calibration, check_calibration
from densepath.quantize.edge_network import UnpaddedMaxPool, build_edge_network
from densepath.quantize.layers import choose_layers, rewritten_paths
from densepath.quantize.task import Task, Written
from densepath.weights.checkpoint import Checkpoint

# torchao's observers, not ours.
METHODS = ("histogram", "minmax")
# The least scale of an activation, XNNPACKQuantizer's own.
LEAST_SCALE = 2.0**-12


def write(task: Task, methods: Sequence[str]) -> Iterator[Written]:
    """Write the form by each of the methods, into folders of the task's."""
    for method in methods:
        folder = task.folder(f"executorch-{method}")
        write_executorch(
            task.checkpoint,
            folder / "model.pte",
            calibration=task.calibration,
            method=method,
            keep_float=task.kept_names(),
        )
        yield method, folder, {"model": "model.pte"}


def write_executorch(
    checkpoint: Checkpoint,
    path: Path,
    *,
    calibration: Calibration | None,
    method: str = METHODS[0],
    keep_float: Collection[str] = (),
) -> None:
    """Write the network as a `.pte` program to `path`; the same input gives the same bytes.

    The input is float32 [1, C, H, W], normalised, the output float32 logits [1, num_classes].
    With a calibration it computes in INT8 between them, weights with a scale a channel.

    Args:
        checkpoint: the network, of its preprocessing's size.
        path: the file.
        calibration: images that ranges of activations are measured on; None for float32.
        method: `minmax` holds every value; `histogram` takes the range of least squared error.
        keep_float: layers that compute in float32 in the midst of the integers; see
            `choose_layers`.

    Raises:
        UnknownNameError: no such method or layer.
        UsageError: layers to be kept in a network that is float32 anyhow, or images that are not
            the network's.
        MissingPackageError: executorch is not installed.
        EngineError: the converter failed.
        OutputError: the file cannot be written.
    """
    if method not in METHODS:
        raise UnknownNameError("method", method, METHODS)
    check_calibration(calibration, checkpoint.preprocess, keep_float)
    chosen = choose_layers(checkpoint.spec, keep_float)
    network: nn.Module = build_edge_network(checkpoint.to_model(), UnpaddedMaxPool)
    became = rewritten_paths(checkpoint.spec, network)
    kept = [path for layer in chosen for path in became[layer.name]]
    image = torch.zeros(1, checkpoint.in_channels, *checkpoint.preprocess.size)
    with _quiet():
        try:
            if calibration is not None:
                network = _quantize(network, image, calibration, method, kept)
            program = _lower(network, image)
        except ImportError as error:
            raise MissingPackageError("executorch", "edge") from error
        except RuntimeError as error:
            raise EngineError(f"ExecuTorch cannot convert the network: {error}") from error
    with write_atomically(path) as temporary:
        temporary.write_bytes(program)


def _quantize(
    network: nn.Module,
    image: torch.Tensor,
    calibration: Calibration,
    method: str,
    keep_float: list[str],
) -> nn.Module:
    """The network with quantised weights and the ranges of activations in it."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(_configuration(method))
    quantizer.set_filter_function(_outside(keep_float))
    exported = torch.export.export(network, (image,), strict=False).module(check_guards=False)
    prepared = prepare_pt2e(exported, quantizer)
    with torch.inference_mode():
        for images in calibration.batches(1):
            prepared(torch.from_numpy(images))
    return convert_pt2e(prepared)


def _configuration(method: str) -> Any:
    """XNNPACKQuantizer's types, with the observer of the method."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e import HistogramObserver, MinMaxObserver

    plain = get_symmetric_quantization_config(is_per_channel=True)
    observer = MinMaxObserver if method == "minmax" else HistogramObserver
    activation = dataclasses.replace(
        plain.input_activation, observer_or_fake_quant_ctr=observer.with_args(eps=LEAST_SCALE)
    )
    return dataclasses.replace(plain, input_activation=activation, output_activation=activation)


def _outside(layers: list[str]) -> Callable[[torch.fx.Node], bool]:
    """Whether a node of the graph belongs to none of the layers."""

    def outside(node: torch.fx.Node) -> bool:
        stack = node.meta.get("nn_module_stack", {})
        return not any(path in layers for path, _ in stack.values())

    return outside


def _lower(network: nn.Module, image: torch.Tensor) -> bytes:
    """The program, all of it for XNNPACK."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    with torch.no_grad():
        exported = torch.export.export(network, (image,), strict=False)
        lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        return bytes(lowered.to_executorch().buffer)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says of its own code."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), quiet_native_output():
            warnings.filterwarnings("ignore", module=r"(torch|torchao|executorch)\b")
            for category in (DeprecationWarning, FutureWarning):  # of Python's, in their code
                warnings.simplefilter("ignore", category)
            yield
    finally:
        logging.disable(before)
