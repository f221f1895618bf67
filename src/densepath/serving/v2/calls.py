"""What a client asks of V2, whatever protocol it came by, and the tensors of the answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from numpy.typing import NDArray

from densepath.serving.core.errors import RequestError
from densepath.serving.v2.tensors import BYTES, TYPES

Parameters: TypeAlias = dict[str, Any]

TOP_K, CLASSIFICATION = "top_k", "classification"
# Triton's, in microseconds.
TIMEOUT = "timeout"
# What a request, one of its inputs and one of its outputs may say; the binary ones are REST's.
OF_REQUEST, OF_OUTPUT = (TOP_K, TIMEOUT), (CLASSIFICATION,)
BINARY_SIZE, BINARY, ALL_BINARY = "binary_data_size", "binary_data", "binary_data_output"


@dataclass(frozen=True)
class Input:
    """A tensor that a client sent; of type BYTES, an array of `bytes` objects."""

    name: str
    datatype: str
    array: NDArray[Any]


@dataclass(frozen=True)
class WantedOutput:
    """An output that a client asks for.

    Attributes:
        name: of the metadata.
        is_binary: behind the JSON, not in it.
        best: of Triton's classification extension: as many `SCORE:INDEX:LABEL`; else 0.
    """

    name: str
    is_binary: bool = False
    best: int = 0


@dataclass(frozen=True)
class InferRequest:
    """What a client asks for, whatever way it came.

    Attributes:
        id: handed back.
        inputs: at least one.
        outputs: None for all.
        parameters: of the whole request.
        all_binary: outputs go behind the JSON where nothing else is said.
    """

    id: str
    inputs: list[Input]
    outputs: list[WantedOutput] | None
    parameters: Parameters = field(default_factory=dict)
    all_binary: bool = False


@dataclass(frozen=True)
class Output:
    """A tensor of the answer."""

    name: str
    array: NDArray[Any]
    is_binary: bool = False

    @property
    def datatype(self) -> str:
        """The protocol's name of the type."""
        kinds = (name for name, kind in TYPES.items() if self.array.dtype == kind)
        return next(kinds, BYTES)


def wanted_best(parameters: Parameters) -> int:
    """The classes that an output's `classification` asks for; 0 where it asks for none.

    Raises:
        RequestError: it is no number from 1 on.
    """
    best = parameters.get(CLASSIFICATION, 0)
    if type(best) is not int or best < 0 or (CLASSIFICATION in parameters and best < 1):
        raise RequestError(f"classification is {best!r}; it must be a number from 1 on.")
    return best
