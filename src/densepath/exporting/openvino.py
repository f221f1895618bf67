"""The program as OpenVINO's IR, and the preprocessing beside it; weights stay float32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from densepath.engines.openvino import import_openvino
from densepath.errors import OutputError
from densepath.exporting.job import Job
from densepath.exporting.program import quiet_exporters
from densepath.images.preprocess import Preprocess

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def write(job: Job) -> dict[str, str]:
    """Write the format's files into the folder; gives the names of the parts."""
    return write_openvino(job.program, job.checkpoint.preprocess, job.folder, job.input_shape)


def write_openvino(
    program: ExportedProgram,
    preprocess: Preprocess,
    folder: Path,
    shape: tuple[int | None, ...],
) -> dict[str, str]:
    """Write `model.xml`, `preprocess.xml` and their `.bin` into `folder`; gives the parts' names.

    `shape` of the images, None where any size is taken.

    Raises:
        MissingPackageError: openvino is not installed.
    """
    openvino = import_openvino()
    from openvino.tools.ovc import convert_model

    from densepath.exporting.preprocess_openvino import build_preprocess_openvino

    with quiet_exporters():
        model = convert_model(program)
    model.reshape([-1 if side is None else side for side in shape])
    model.inputs[0].get_tensor().set_names({"images"})
    model.outputs[0].get_tensor().set_names({"logits"})
    graphs = {"model": model, "preprocess": build_preprocess_openvino(preprocess)}
    for part, graph in graphs.items():
        try:
            openvino.save_model(graph, folder / f"{part}.xml", compress_to_fp16=False)
        except RuntimeError as error:  # a full disk, for one
            path = folder / f"{part}.xml"
            raise OutputError(f"cannot write {path}: {error}; is the disk full?") from error
    return {part: f"{part}.xml" for part in graphs}
