"""A node of an ONNX file with what its rule asks of it: constants, attributes, layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from densepath.errors import WeightsError
from densepath.weights.onnx_files.tensors import Constants
from densepath.weights.structure.attributes import SAME, misfit
from densepath.weights.structure.graph import Node

if TYPE_CHECKING:
    from onnx import NodeProto

Layout = Literal["NCHW", "NHWC", "NC"]
CHANNELS, FOUR = 1, 4  # the axis of channels, and how many axes a map has


@dataclass
class Known:
    """What is known of a graph's values, so far.

    Attributes:
        constants: its constant values.
        opset: the version of its operators.
        layouts: of the values, where it is not NCHW.
        pads: values that are another one with padding: that one, and (top, left, bottom, right).
    """

    constants: Constants
    opset: int
    layouts: dict[str, Layout] = field(default_factory=dict)
    pads: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """A node of the file, with what its rule asks of it."""

    known: Known
    proto: NodeProto
    attributes: Mapping[str, Any]

    @property
    def outputs(self) -> list[str]:
        """The names of its results."""
        return list(self.proto.output)

    @property
    def data(self) -> list[str]:
        """The names of those inputs that are not constant."""
        return [name for name in self.proto.input if name and name not in self.constants]

    @property
    def constants(self) -> Constants:
        """The constant values of its graph."""
        return self.known.constants

    def to_text(self) -> str:
        """The node in a message."""
        return f"{self.constants.path}: {self.proto.op_type} {self.proto.name or self.outputs[0]!r}"

    def constant(self, place: int) -> np.ndarray | None:
        """The constant input at a place; None where there is no input.

        Raises:
            KeyMismatchError: it is computed, not constant.
        """
        name = self.proto.input[place] if len(self.proto.input) > place else ""
        if not name:
            return None
        if name not in self.constants:
            raise misfit(self.unknown(), "computes its weights or shape of other values")
        return self.constants.get(name)

    def given(self, name: str, place: int) -> list[int] | None:
        """Whole numbers that are an attribute in old opsets and an input in new ones."""
        if name in self.attributes:
            return [int(one) for one in np.asarray(self.attributes[name]).reshape(-1)]
        value = self.constant(place)
        return None if value is None else [int(one) for one in value.reshape(-1)]

    def node(
        self,
        kind: str,
        tensors: Mapping[str, np.ndarray | None] | None = None,
        *,
        inputs: Sequence[str] | None = None,
        output: int = 0,
        **attributes: Any,
    ) -> Node:
        """A node of this kind; tensors that are None are left out, floats become float32."""
        kept = {
            name: tensor if tensor.dtype == np.float32 else tensor.astype(np.float32)
            for name, tensor in (tensors or {}).items()
            if tensor is not None
        }
        read = self.data if inputs is None else inputs
        name = self.proto.name or self.outputs[output]
        return Node(kind, tuple(read), (self.outputs[output],), kept, attributes, name)

    def unknown(self) -> Node:
        """The node under the file's own word."""
        domain = self.proto.domain
        word = self.proto.op_type if domain in ("", "ai.onnx") else f"{domain}.{self.proto.op_type}"
        return self.node(word)

    def layout(self) -> Layout:
        """The layout of what it reads."""
        return self.known.layouts.get(self.data[0], "NCHW")

    def flattened(self) -> None:
        """Its result is [N, C] from here on."""
        self.known.layouts[self.outputs[0]] = "NC"

    def padded(self) -> tuple[list[str], tuple[int, ...]]:
        """What it reads, before a padding that stands in front of it, and that padding."""
        source, pads = self.known.pads.get(self.proto.input[0], ("", (0, 0, 0, 0)))
        return ([source] if source else [self.proto.input[0]]), pads

    def padding(self, kernel: Sequence[int], before: Sequence[int]) -> Any:
        """The padding (top, left, bottom, right), with that of a Pad before it."""
        auto = self.attributes.get("auto_pad", b"NOTSET")
        auto = auto.decode() if isinstance(auto, bytes) else auto
        if auto in ("NOTSET", "VALID", ""):
            own = list(self.attributes.get("pads", [0, 0, 0, 0])) if auto != "VALID" else [0] * FOUR
            return tuple(one + other for one, other in zip(own, before, strict=True))
        if any(before):
            raise misfit(self.unknown(), "pads by itself and behind a Pad")
        strides = list(self.attributes.get("strides", [1, 1]))
        if set(kernel) == {1} or (strides == [1, 1] and all(side % 2 for side in kernel)):
            half = tuple(side // 2 for side in kernel)
            return half * 2
        return SAME if auto == "SAME_UPPER" else auto


def read_attributes(proto: NodeProto, constants: Constants) -> dict[str, Any]:
    """A node's attributes by name.

    Raises:
        WeightsError: one is damaged.
    """
    from onnx import helper

    try:
        return {one.name: helper.get_attribute_value(one) for one in proto.attribute}
    except (ValueError, TypeError) as error:
        raise WeightsError(
            f"{constants.path}: an attribute of {proto.op_type} {proto.name!r} is damaged: {error}"
        ) from error
