"""The child process of `simulate.py`: LiteRT's reference kernels on images.

Run as `python -m densepath.npu.simulator MODEL INPUT.npy OUTPUT.npz`; whatever happens here is an
error message there. Of one image every tensor is kept, of several the logits.

The reference kernels are the definition of the arithmetic: integers alone, the same on every
machine, and what Arm's compiler says that the NPU computes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def main(model: str, source: str, target: str) -> None:
    """`target` has the tensors that were kept, by their numbers, and the names of them."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    images = np.load(source)
    interpreter: Any = Interpreter(
        model_path=model,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        experimental_preserve_all_tensors=len(images) == 1,
    )
    interpreter.allocate_tensors()
    output = interpreter.get_output_details()[0]["index"]
    answers = [_run(interpreter, image, output) for image in images]
    kept = [output]
    if len(images) == 1:
        kept = [i for operator in interpreter._get_ops_details() for i in operator["outputs"]]
    made: dict[str, Any] = {"order": np.array(kept), "output": np.array(output)}
    details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    for index in kept:
        made[f"tensor_{index}"] = interpreter.get_tensor(index)
        made[f"name_{index}"] = np.array(details[index]["name"])
        made[f"scale_{index}"] = np.array(details[index]["quantization"], np.float64)
    made[f"tensor_{output}"] = np.concatenate(answers)
    with Path(target).open("wb") as file:
        np.savez(file, **made)


def _run(interpreter: Any, image: NDArray[np.uint8], output: int) -> NDArray[np.int8]:
    """The logits [1, classes] of an image [H, W, C]."""
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
    interpreter.invoke()
    logits: NDArray[np.int8] = interpreter.get_tensor(output)
    return logits


if __name__ == "__main__":
    main(*sys.argv[1:4])
