"""ONNX's sums and products, of two maps or with constants: scales, shifts and classifiers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from densepath.weights.onnx_files.call import CHANNELS, FOUR, Call
from densepath.weights.structure.attributes import misfit
from densepath.weights.structure.graph import Node


def arithmetic(call: Call) -> Iterator[Node]:
    """Add, Sub, Mul, Div: of two maps, or of a map and a constant a channel."""
    kind = call.proto.op_type
    if len(call.data) != 1:
        names = {"Add": "add", "Sum": "add", "Mul": "multiply"}
        yield call.node(names.get(kind, kind))
        return
    if len(call.proto.input) != 2:
        raise misfit(call.unknown(), f"has {len(call.proto.input)} operands")
    place = 1 if call.proto.input[0] == call.data[0] else 0
    value = call.constant(place)
    assert value is not None
    flat = _per_channel(call, value.astype(np.float64))
    minus = np.array([-1.0])
    if kind in ("Add", "Sum"):
        yield call.node("scale", {"beta": flat})
    elif kind == "Mul":
        yield call.node("scale", {"gamma": flat})
    elif kind == "Sub":
        yield call.node("scale", {"beta": -flat} if place else {"gamma": minus, "beta": flat})
    elif place:
        with np.errstate(divide="ignore", invalid="ignore"):
            yield call.node("scale", {"gamma": 1 / flat})
    else:
        yield call.unknown()


def _per_channel(call: Call, value: np.ndarray) -> np.ndarray:
    """A constant as a value a channel, or a single one.

    Raises:
        KeyMismatchError: it differs along another axis.
    """
    if value.size == 1:
        return value.reshape(1)
    shape, layout = value.shape, call.layout()
    wide = call.attributes.get("broadcast") and call.attributes.get("axis") == CHANNELS
    if wide or layout == "NC":
        fits = shape[-1] == value.size and len(shape) <= (1 if wide else 2)
    elif layout == "NHWC":
        fits = shape[-1] == value.size and len(shape) <= FOUR
    else:
        fits = 3 <= len(shape) <= FOUR and shape[-3] == value.size
    if not fits:
        raise misfit(call.unknown(), f"has a constant of shape {list(shape)}, not one a channel")
    return value.reshape(-1)


def matmul(call: Call) -> Iterator[Node]:
    """MatMul by a constant, which is a classifier without its bias."""
    if len(call.data) != 1 or call.proto.input[0] != call.data[0]:
        yield call.unknown()
        return
    weight = call.constant(1)
    assert weight is not None
    call.flattened()
    yield call.node("linear", {"weight": weight.T})


def gemm(call: Call) -> Iterator[Node]:
    """Gemm by a constant: alpha · x · W + beta · bias."""
    weight, bias = call.constant(1), call.constant(2)
    if weight is None or call.attributes.get("transA", 0):
        yield call.unknown()
        return
    call.flattened()
    alpha, beta = call.attributes.get("alpha", 1.0), call.attributes.get("beta", 1.0)
    weight = weight if call.attributes.get("transB", 0) else weight.T
    yield call.node(
        "linear",
        {
            "weight": weight if alpha == 1 else weight * alpha,
            "bias": bias if bias is None or beta == 1 else bias * beta,
        },
    )
