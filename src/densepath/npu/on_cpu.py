"""What a compiled program leaves to the CPU beside the NPU, and what is known of its cost.

Vela writes such operators down with no cycles, for it does not know the CPU. Their work is known
from their shapes: multiply-adds, and the bytes that they read and write. Their time is not.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from densepath.bundle.tflite import Operator, read_network

# The operator that stands for all that the NPU computes in one go.
NPU = "ethos-u"


class Work(NamedTuple):
    """Of an operator: multiply-adds, and bytes that it reads and writes."""

    macs: int
    moved_bytes: int


def work_on_cpu(compiled: Path) -> dict[str, list[Work]]:
    """The work of the operators that the CPU runs, by the names of what they make, in order.

    Raises:
        BundleError: the compiled program cannot be read.
        MissingPackageError: `ai-edge-litert`, which reads it, is not installed.
    """
    found: dict[str, list[Work]] = defaultdict(list)
    for operator in read_network(compiled).operators:
        if operator.kind != NPU:
            work = Work(count_macs(operator), count_bytes(operator))
            found[operator.outputs[0].name].append(work)
    return dict(found)


def count_macs(operator: Operator) -> int:
    """Multiply-adds of convolutions and fully connected layers; of others 0."""
    weights = operator.inputs[1] if len(operator.inputs) > 1 else None
    if weights is None:
        return 0
    outputs = int(np.prod(operator.outputs[0].shape, dtype=np.int64))
    terms = {
        "CONV_2D": weights.shape[1:],
        "DEPTHWISE_CONV_2D": weights.shape[1:3],
        "FULLY_CONNECTED": weights.shape[-1:],
    }
    return outputs * int(np.prod(terms[operator.kind])) if operator.kind in terms else 0


def count_bytes(operator: Operator) -> int:
    """Bytes of all inputs, weights among them, and outputs."""
    ends = (*operator.inputs, *operator.outputs)
    return sum(tensor.nbytes for tensor in ends if tensor is not None)
