"""The program as OpenVINO's IR, and the preprocessing beside it; weights stay float32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from densepath.errors import MissingPackageError
from densepath.export.program import quiet_exporters
from densepath.preprocess import Preprocess

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def write_openvino(
    program: ExportedProgram,
    preprocess: Preprocess,
    folder: Path,
    shape: tuple[int | None, ...],
) -> dict[str, str]:
    """`model.xml`, `preprocess.xml` and their `.bin` are in `folder`; the names of the parts.

    `shape` of the images, None where any size is taken.

    Raises:
        MissingPackageError: openvino is not installed.
    """
    try:
        import openvino
    except ImportError as error:
        raise MissingPackageError("openvino", "openvino") from error
    from densepath.export.preprocess_openvino import build_preprocess_openvino

    with quiet_exporters():
        model = openvino.convert_model(program)
    model.reshape([-1 if side is None else side for side in shape])
    model.inputs[0].get_tensor().set_names({"images"})
    model.outputs[0].get_tensor().set_names({"logits"})
    openvino.save_model(model, folder / "model.xml", compress_to_fp16=False)
    graph = build_preprocess_openvino(preprocess)
    openvino.save_model(graph, folder / "preprocess.xml", compress_to_fp16=False)
    return {"model": "model.xml", "preprocess": "preprocess.xml"}
