"""A Caffe model as a Graph: its layers in order, its images, its results."""

from __future__ import annotations

from dataclasses import dataclass, field

from densepath.errors import KeyMismatchError, WeightsError
from densepath.weights.caffe.layers import LayerCall, names_rounding, rule_of
from densepath.weights.caffe.model import CaffeModel
from densepath.weights.structure.graph import REFUSED, Graph, Node

DATA = ("Data", "ImageData", "HDF5Data", "MemoryData", "DummyData", "WindowData", "Input")
# What training has beside the network.
ASIDE = ("SoftmaxWithLoss", "Accuracy", "Silence", "SigmoidCrossEntropyLoss", *DATA)
LOSS = "the loss"
ROUNDING_NOTE = (
    "its pools name a rounding (ceil_mode or round_mode), which is taken for down, as nobody names "
    "the default"
)


@dataclass
class _Names:
    """The values of a graph: layers of Caffe may write where they read."""

    now: dict[str, str] = field(default_factory=dict)
    count: int = 0

    def read(self, name: str) -> str:
        """What is called so at this place."""
        return self.now.get(name, name)

    def write(self, name: str) -> str:
        """A value of its own for what is called so from here on."""
        self.count += 1
        self.now[name] = f"{name}#{self.count}"
        return self.now[name]


def graph_of(model: CaffeModel) -> Graph:
    """The graph of a network's layers.

    Raises:
        WeightsError: it has no images, or nothing reads them.
    """
    images, size = _images(model)
    names = _Names()
    nodes: list[Node] = []
    read = set[str]()
    for layer in model.layers:
        if layer.kind in ASIDE:
            continue
        if not layer.tops:
            raise WeightsError(f"the layer {layer.name!r} writes nothing")
        inputs = tuple(names.read(bottom) for bottom in layer.bottoms)
        call = LayerCall(layer, inputs, tuple(names.write(top) for top in layer.tops))
        read.update(inputs)
        try:
            nodes += rule_of(layer)(call)
        except KeyMismatchError as error:
            nodes.append(Node(layer.kind, inputs, call.outputs[:1], {}, {REFUSED: str(error)}))
    made = [output for node in nodes for output in node.outputs]
    outputs = tuple(name for name in made if name not in read)
    if (logits := _sigmoid_loss(model, names)) in outputs:
        nodes.append(Node("sigmoid", (logits,), (LOSS,), name=LOSS))
        outputs = (*(name for name in outputs if name != logits), LOSS)
    notes = (ROUNDING_NOTE,) if any(names_rounding(layer) for layer in model.layers) else ()
    return Graph(tuple(nodes), images, outputs, size, notes=notes)


def _sigmoid_loss(model: CaffeModel, names: _Names) -> str:
    """The logits that a network was trained on with a sigmoid in the loss; else nothing."""
    for layer in model.layers:
        if layer.kind == "SigmoidCrossEntropyLoss" and layer.bottoms:
            return names.read(layer.bottoms[0])
    return ""


def _images(model: CaffeModel) -> tuple[str, tuple[int, int] | None]:
    """The name of the images, and their height and width where the file says them.

    Raises:
        WeightsError: the file has no input.
    """
    shape = list(model.shape)
    if model.inputs:
        return model.inputs[0], _sides(shape)
    for layer in model.layers:
        if layer.kind not in DATA or not layer.tops:
            continue
        shapes = layer.parameter("input").messages(1)
        crop = layer.parameter("transform").integer(3, 0)
        shape = shapes[0].integers(1) if shapes else [1, 3, crop, crop]
        return layer.tops[0], _sides(shape)
    made = {top for layer in model.layers for top in layer.tops}
    for layer in model.layers:
        for bottom in layer.bottoms:
            if bottom not in made:
                return bottom, None
    raise WeightsError("it has no input")


def _sides(shape: list[int]) -> tuple[int, int] | None:
    """Height and width of a shape of four sides."""
    if len(shape) < 4 or min(shape[2:4]) < 1:
        return None
    return shape[2], shape[3]
