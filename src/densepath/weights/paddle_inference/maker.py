"""Names and tensors on the way along a program's operators, and nodes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from densepath.errors import WeightsError
from densepath.weights.paddle_inference.program import PaddleOperator, PaddleProgram
from densepath.weights.structure.graph import Node

Tensors = Mapping[str, np.ndarray]


class NodeMaker:
    """Nodes of operators, one after the other: a name may be written more than once."""

    def __init__(self, program: PaddleProgram, tensors: Tensors) -> None:
        self.program, self.tensors = program, tensors
        self.used: set[str] = set()
        self._versions: dict[str, int] = {}

    def current(self, name: str) -> str:
        """The name of a value as it was written last."""
        version = self._versions.get(name, 0)
        return f"{name}@{version}" if version else name

    def new(self, name: str) -> str:
        """The name of a value that is written now."""
        is_known = name in self._versions or name in self.program.feeds
        self._versions[name] = self._versions.get(name, 0) + 1 if is_known else 0
        return self.current(name)

    def tensor(self, name: str) -> np.ndarray | None:
        """A tensor of the file by its name; None where the name is a value's, or empty."""
        if name not in self.tensors:
            return None
        self.used.add(name)
        return self.tensors[name]

    def needed(self, operator: PaddleOperator, parameter: str) -> np.ndarray:
        """The tensor that an operator must have.

        Raises:
            WeightsError: it is computed, or missing.
        """
        found = self.tensor(operator.reads(parameter))
        if found is None:
            raise WeightsError(f"an operator {operator.kind} has no tensor as {parameter}")
        return found

    def node(
        self,
        kind: str,
        read: str,
        written: str,
        tensors: Tensors | None = None,
        **attributes: Any,
    ) -> Node:
        """A node of one input, a value's name, and one result."""
        inputs = (self.current(read),)
        return Node(kind, inputs, (self.new(written),), tensors or {}, attributes)
