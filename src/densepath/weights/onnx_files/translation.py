"""An ONNX graph's nodes as those of a Graph, one after another."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from densepath.errors import KeyMismatchError, WeightsError
from densepath.weights.onnx_files.call import Call, Known, read_attributes
from densepath.weights.onnx_files.operators import rule_of
from densepath.weights.structure.graph import REFUSED, Node

if TYPE_CHECKING:
    from onnx import NodeProto

# Operators that hand on what they read, in the same layout.
_SAME_LAYOUT = ("Cast", "Identity", "Dropout", "Add", "Sub", "Mul", "Div", "BatchNormalization")


@dataclass
class Translation:
    """A graph's nodes, translated one after another.

    Attributes:
        known: what is known of its values.
        nodes: so far.
        notes: what the user should know.
    """

    known: Known
    nodes: list[Node] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, proto: NodeProto) -> None:
        """Translate one node, or know its result where that is constant.

        Raises:
            WeightsError: it is damaged.
        """
        attributes = read_attributes(proto, self.known.constants)
        if not proto.output or self.known.constants.fold(proto, attributes):
            return
        call = Call(self.known, proto, attributes)
        if call.data and proto.op_type in _SAME_LAYOUT:
            self._keep_layout(call)
        try:
            nodes = list(rule_of(proto)(call))
        except KeyMismatchError as error:
            # It may belong to what computes a shape, and to no layer.
            odd = call.unknown()
            nodes = [replace(odd, inputs=odd.inputs[:1], attributes={REFUSED: str(error)})]
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise WeightsError(f"{call.to_text()} is damaged: {error}") from error
        self.nodes += nodes

    def _keep_layout(self, call: Call) -> None:
        """The result has the layout of what is read."""
        if layout := self.known.layouts.get(call.data[0]):
            self.known.layouts[call.outputs[0]] = layout
