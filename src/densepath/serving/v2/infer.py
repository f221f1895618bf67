"""V2 inference: what inputs a bundle takes, and what outputs it gives.

One input, `images` (as the bundle's graph calls it), in one of three types: FP32 [N, C, H, W],
normalised; UINT8 [N, H, W, C], pixels of any size; BYTES [N], whole image files. Outputs: `logits`,
and of the best classes `class_ids`, `scores`, `labels`, as many as the parameter `top_k` says;
where thresholds were chosen also `decisions`, of all classes, which of them are above theirs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from densepath.engines.engine import Logits
from densepath.serving.core.errors import RequestError
from densepath.serving.core.model import ServedModel
from densepath.serving.core.service import Service
from densepath.serving.v2 import calls
from densepath.serving.v2.calls import InferRequest, Input, Output, Parameters, WantedOutput
from densepath.serving.v2.tensors import BYTES
from densepath.version import __version__

SERVER = "densepath"
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "statistics",
)
TOP_K = 5
IDS, SCORES, LABELS = "class_ids", "scores", "labels"
DECISIONS = "decisions"


def input_tensors(model: ServedModel) -> list[dict[str, Any]]:
    """The inputs of the metadata: the graph's own; other types of it are named in the docs."""
    preprocess, info = model.predictor.preprocess, model.predictor.engine.info
    sides = list(info.size or preprocess.size)
    shape = [-1, preprocess.channels, *sides]
    return [{"name": model.manifest.input.name, "datatype": "FP32", "shape": shape}]


def output_tensors(model: ServedModel) -> list[dict[str, Any]]:
    """The outputs of the metadata."""
    classes = len(model.predictor.labels)
    made = [
        {"name": model.manifest.output.name, "datatype": "FP32", "shape": [-1, classes]},
        {"name": IDS, "datatype": "INT64", "shape": [-1, -1]},
        {"name": SCORES, "datatype": "FP32", "shape": [-1, -1]},
        {"name": LABELS, "datatype": BYTES, "shape": [-1, -1]},
    ]
    if model.predictor.thresholds is not None:
        made.append({"name": DECISIONS, "datatype": "BOOL", "shape": [-1, classes]})
    return made


def platform(model: ServedModel) -> str:
    """The name of what runs the model."""
    return f"{SERVER}_{model.predictor.engine.info.name}"


def metadata(service: Service, model: ServedModel) -> dict[str, Any]:
    """What a model takes and gives."""
    return {
        "name": model.source.name,
        "versions": service.repository.versions(model.source.name),
        "platform": platform(model),
        "inputs": input_tensors(model),
        "outputs": output_tensors(model),
    }


def server_metadata() -> dict[str, Any]:
    """What the server is."""
    return {"name": SERVER, "version": __version__, "extensions": list(EXTENSIONS)}


async def infer(
    service: Service, model: ServedModel, request: InferRequest, asked_s: float | None = None
) -> list[Output]:
    """The outputs that were asked for.

    Args:
        service: what runs it.
        model: the one that was named.
        request: its tensors.
        asked_s: the client's time limit, where the protocol has told one.

    Raises:
        RequestError: one of the statuses of `core/errors.py`.
    """
    deadline = service.deadline(_asked_s(request.parameters, asked_s))
    top_k = _top_k(request.parameters)
    wanted = request.outputs or [
        WantedOutput(tensor["name"], request.all_binary) for tensor in output_tensors(model)
    ]
    known = [tensor["name"] for tensor in output_tensors(model)]
    for each in wanted:
        if each.name not in known:
            raise RequestError(f"no output {each.name!r}; there are {', '.join(known)}.")
    tensor = _only_input(model, request.inputs)
    if tensor.datatype == "FP32":
        logits = await service.infer(model, tensor.array, deadline)
    else:
        logits = await service.read_and_infer(model, _images(model, tensor), deadline)
    arrays: dict[str, NDArray[Any]] = {model.manifest.output.name: logits}
    if any(each.name not in arrays for each in wanted):
        arrays |= _best(model, logits, top_k)
    return [
        Output(each.name, _classified(each, arrays[each.name], model), each.is_binary)
        for each in wanted
    ]


def _only_input(model: ServedModel, inputs: list[Input]) -> Input:
    """The one input, of a type that is taken."""
    name = model.manifest.input.name
    if len(inputs) != 1 or inputs[0].name != name:
        named = ", ".join(repr(each.name) for each in inputs)
        raise RequestError(
            f"the inputs are {named}; model {model.source.name} has one, {name!r}: FP32 images, "
            "normalised, UINT8 pixels or BYTES of image files."
        )
    if inputs[0].datatype not in ("FP32", "UINT8", BYTES):
        raise RequestError(
            f"input {name!r} has the datatype {inputs[0].datatype}; it must be FP32 (normalised "
            "images [N, C, H, W]), UINT8 (pixels [N, H, W, C]) or BYTES (image files [N])."
        )
    return inputs[0]


def _images(model: ServedModel, tensor: Input) -> list[tuple[str, Any]]:
    """The images in a tensor of pixels or of files."""
    array, name = tensor.array, tensor.name
    if tensor.datatype == BYTES:
        files = array.ravel()
        if not files.size:
            raise RequestError(f"input {name!r} is empty.")
        return [(f"{name}[{i}]", bytes(file)) for i, file in enumerate(files)]
    channels = model.predictor.preprocess.channels
    if array.ndim != 4 or array.shape[3] not in {1, 3, channels} or 0 in array.shape:
        raise RequestError(
            f"input {name!r} has shape {list(array.shape)}; pixels are UINT8 "
            f"[N, height, width, {channels}]."
        )
    return [(f"{name}[{i}]", pixels) for i, pixels in enumerate(array)]


def _best(model: ServedModel, logits: Logits, top_k: int) -> dict[str, NDArray[Any]]:
    """The outputs that are of the best classes."""
    answers = model.predictor.answer(logits, [""] * len(logits), top_k=top_k)
    labels = [[label.encode() for label in each.labels] for each in answers]
    names = np.empty((len(answers), len(labels[0])), object)
    names[:] = labels
    decided = np.zeros((len(answers), len(model.predictor.labels)), np.bool_)
    for row, each in zip(decided, answers, strict=True):
        row[each.positive_ids or []] = True
    return {
        IDS: np.array([each.class_ids for each in answers], np.int64),
        SCORES: np.array([each.scores for each in answers], np.float32),
        LABELS: names,
        DECISIONS: decided,
    }


def _classified(wanted: WantedOutput, array: NDArray[Any], model: ServedModel) -> NDArray[Any]:
    """The array, or of the classification extension `VALUE:INDEX:LABEL` of its largest values.

    Raises:
        RequestError: the classification of an output that has no classes.
    """
    if not wanted.best:
        return array
    if wanted.name != model.manifest.output.name:
        raise RequestError(f"classification is of {model.manifest.output.name}, not {wanted.name}.")
    order = np.argsort(-array, axis=1, kind="stable")[:, : wanted.best]
    labels = model.predictor.labels
    made = np.empty(order.shape, object)
    for place, row, ids in zip(made, array, order, strict=True):
        place[:] = [f"{row[i]:.6f}:{i}:{labels[i]}".encode() for i in ids]
    return made


def _asked_s(parameters: Parameters, asked_s: float | None) -> float | None:
    """The time limit of the parameters, or of the protocol, the shorter one."""
    micros = parameters.get(calls.TIMEOUT)
    if micros is None:
        return asked_s
    if type(micros) is not int or micros < 1:
        raise RequestError(f"timeout is {micros!r}; it must be a number of microseconds.")
    return min(micros / 1e6, asked_s) if asked_s is not None else micros / 1e6


def _top_k(parameters: Parameters) -> int:
    """The classes of `class_ids`, `scores` and `labels`."""
    top_k = parameters.get(calls.TOP_K, TOP_K)
    if type(top_k) is not int or top_k < 1:
        raise RequestError(f"top_k is {top_k!r}; it must be a number from 1 on.")
    return top_k
