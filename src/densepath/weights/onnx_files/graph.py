"""ONNX files of any exporter: their graph, in which `weights/structure/` finds the network.

The package `onnx` decodes the file, and is imported here and in the files beside it only. It is the
extra `onnx`; nothing is executed, and ONNX Runtime is not needed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from densepath.errors import MissingPackageError, WeightsError
from densepath.weights.onnx_files.call import Known
from densepath.weights.onnx_files.operators import TO_NCHW
from densepath.weights.onnx_files.tensors import Constants
from densepath.weights.onnx_files.translation import Translation
from densepath.weights.structure.graph import Graph

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, ValueInfoProto

# protobuf's own limit; larger networks keep their weights in a file beside.
MAX_BYTES = (1 << 31) - 1
OLDEST_OPSET = 3
QUANTISED = ("QuantizeLinear", "DequantizeLinear", "ConvInteger", "MatMulInteger")
UINT8, FLOATS = 2, (1, 10, 11, 16)  # TensorProto's numbers: uint8; float, half, double, bfloat16
PIXELS_NOTE = "its input takes pixels from 0 to 255"
NHWC_NOTE = "its input is [N, height, width, channels]; a network here takes the channels first"


def read_graph(model: ModelProto, path: Path) -> Graph:
    """The graph of the model in a file.

    Raises:
        UnsafeFileError: it asks for a file outside its folder.
        WeightsError: it is quantised, or damaged.
    """
    if model.functions:
        raise WeightsError(
            f"{path} has {len(model.functions)} functions of its own; write them out first: "
            "onnx.save(onnx.inliner.inline_local_functions(onnx.load(FILE)), FILE)."
        )
    opset = max(
        (one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=1
    )
    if opset < OLDEST_OPSET:
        raise WeightsError(f"{path} is of opset {opset}; from {OLDEST_OPSET} on they are read.")
    _check_float(model.graph, path)
    return _translate(model.graph, path, opset)


def load_model(path: Path) -> ModelProto:
    """The model of a file, without the tensors beside it.

    Raises:
        MissingPackageError: the package `onnx` is not installed.
        WeightsError: it is no ONNX file, or damaged.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingPackageError("onnx", "onnx") from error
    from google.protobuf.message import DecodeError

    size_bytes = path.stat().st_size
    if size_bytes > MAX_BYTES:
        raise WeightsError(f"{path} has {size_bytes:,} bytes; an ONNX file has 2 GiB at most.")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (DecodeError, ValueError, TypeError) as error:
        raise WeightsError(
            f"{path} cannot be read as an ONNX model: {error}. It is damaged, incomplete or of "
            "another kind: compare its size with the publisher's."
        ) from error
    if not model.graph.node:
        raise WeightsError(f"{path} is an ONNX file without a graph.")
    if not all(isinstance(text, str) for text in _texts(model)):
        raise WeightsError(f"{path} is a damaged ONNX file: a name in it is no text.")
    return model


def _texts(model: ModelProto) -> Iterator[object]:
    """All names in a model; protobuf gives those that are no text as bytes."""
    graph = model.graph
    yield from (model.producer_name, model.producer_version, graph.name)
    yield from (one.domain for one in model.opset_import)
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        for attribute in node.attribute:
            yield from (attribute.name, attribute.t.name)
    yield from (value.name for value in (*graph.input, *graph.output))
    for tensor in graph.initializer:
        yield tensor.name
        yield from (text for entry in tensor.external_data for text in (entry.key, entry.value))


def _check_float(graph: GraphProto, path: Path) -> None:
    """Raise unless the network computes in floats."""
    for node in graph.node:
        if node.op_type in QUANTISED or node.op_type.startswith("QLinear"):
            raise WeightsError(
                f"{path} is a quantised model ({node.op_type} {node.name or node.output[0]!r}): "
                "its weights were rounded to 8 bits. Import the float model that it was made of, "
                "and quantise that: densepath quantize."
            )


def _translate(graph: GraphProto, path: Path, opset: int) -> Graph:
    """The graph's nodes and weights."""
    if graph.sparse_initializer:
        raise WeightsError(f"{path} has sparse tensors, which are not read.")
    initialisers = {tensor.name: tensor for tensor in graph.initializer}
    images = _images(graph, initialisers.keys(), path)
    constants = Constants(path, initialisers)
    translation = Translation(Known(constants, opset))
    if is_last := _is_channels_last(graph, images.name):
        translation.known.layouts[images.name] = "NHWC"
        translation.notes.append(NHWC_NOTE)
    if images.type.tensor_type.elem_type == UINT8:
        translation.notes.append(PIXELS_NOTE)
    for node in graph.node:
        translation.add(node)
    read = {name for node in graph.node for name in node.input}
    loose = tuple(name for name in constants.weights() if name not in read)
    return Graph(
        tuple(translation.nodes),
        images.name,
        tuple(one.name for one in graph.output),
        _size(images, is_last=is_last),
        loose,
        tuple(translation.notes),
    )


def _images(graph: GraphProto, initialisers: Collection[str], path: Path) -> ValueInfoProto:
    """The one input that is no initialiser.

    Raises:
        WeightsError: there is none, several, or one that is no image.
    """
    inputs = [one for one in graph.input if one.name not in initialisers]
    if len(inputs) != 1:
        names = ", ".join(one.name for one in inputs[:3]) or "none"
        raise WeightsError(f"{path} has {len(inputs)} inputs ({names}); an image model has one.")
    (images,) = inputs
    kind = images.type.tensor_type
    if kind.elem_type not in (UINT8, *FLOATS) or (
        kind.HasField("shape") and len(kind.shape.dim) != 4
    ):
        raise WeightsError(
            f"{path}: its input {images.name!r} is no batch of images: four sides, floats or uint8."
        )
    return images


def _is_channels_last(graph: GraphProto, name: str) -> bool:
    """Whether the input is [N, height, width, channels]: a Transpose comes before all layers."""
    follow = {name}
    for node in graph.node:
        if not any(one in follow for one in node.input):
            continue
        if node.op_type == "Transpose":
            perm = [number for one in node.attribute if one.name == "perm" for number in one.ints]
            return perm == TO_NCHW
        if node.op_type in ("Cast", "Identity", "Add", "Sub", "Mul", "Div"):
            follow.update(node.output)
    return False


def _size(images: ValueInfoProto, *, is_last: bool) -> tuple[int, int] | None:
    """Height and width of the images, where the file fixes both."""
    sides = [one.dim_value for one in images.type.tensor_type.shape.dim]
    if len(sides) != 4:
        return None
    height, width = sides[1:3] if is_last else sides[2:]
    return (height, width) if height > 0 and width > 0 else None
