"""The child process of `simulate.py`: LiteRT's reference kernels on one input.

Run as `python -m densepath.npu.simulator MODEL INPUT.npy OUTPUT.npz`; whatever happens here is an
error message there. The reference kernels are the definition of the arithmetic: integers alone, the
same on every machine, and what Arm's compiler says that the NPU computes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np


def main(model: str, source: str, target: str) -> None:
    """`target` has every tensor of the network, by its number, and the names of them."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter: Any = Interpreter(
        model_path=model,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.load(source))
    interpreter.invoke()
    made: dict[str, Any] = {}
    outputs = [i for op in interpreter._get_ops_details() for i in op["outputs"]]
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    for index in outputs:
        made[f"tensor_{index}"] = interpreter.get_tensor(index)
        made[f"name_{index}"] = np.array(details[index]["name"])
        made[f"scale_{index}"] = np.array(details[index]["quantization"], np.float64)
    made["order"] = np.array(outputs)
    made["output"] = np.array(interpreter.get_output_details()[0]["index"])
    with Path(target).open("wb") as file:
        np.savez(file, **made)


if __name__ == "__main__":
    main(*sys.argv[1:4])
