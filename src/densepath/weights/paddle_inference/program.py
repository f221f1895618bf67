"""A Paddle program as its two forms tell it: operators in Paddle 2's vocabulary.

`pdmodel.py` and `pir.py` make it of a file, `graph.py` makes of it what `weights/structure` reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from densepath.errors import WeightsError


@dataclass(frozen=True)
class PaddleOperator:
    """One operator.

    Attributes:
        kind: Paddle 2's name of it, as `conv2d`.
        inputs: the names of the values that it reads, by the parameter's name, as `Filter`.
        outputs: the names of its results, by the parameter's name.
        attributes: numbers, texts and lists of them.
    """

    kind: str
    inputs: Mapping[str, Sequence[str]]
    outputs: Mapping[str, Sequence[str]]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def reads(self, parameter: str) -> str:
        """The one value of an input; empty where it has none.

        Raises:
            WeightsError: it has several.
        """
        names = self.inputs.get(parameter, ())
        if len(names) > 1:
            raise WeightsError(f"an operator {self.kind} has {len(names)} values as {parameter}")
        return names[0] if names else ""

    def writes(self, parameter: str) -> str:
        """The name of a result.

        Raises:
            WeightsError: it has none of that kind, or several.
        """
        names = self.outputs.get(parameter, ())
        if len(names) != 1:
            raise WeightsError(f"an operator {self.kind} has {len(names)} results as {parameter}")
        return names[0]


@dataclass(frozen=True)
class PaddleProgram:
    """A network without its numbers.

    Attributes:
        operators: in the order in which they run.
        parameters: the shape of each tensor in the file beside it, in the program's order.
        shapes: of the values, as far as the program says them; −1 is any.
        feeds: the names of the inputs.
        fetches: the names of the results.
    """

    operators: Sequence[PaddleOperator]
    parameters: Mapping[str, tuple[int, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    feeds: Sequence[str]
    fetches: Sequence[str]
