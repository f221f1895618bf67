"""The program as an ONNX graph, and the preprocessing beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from densepath.exporting.job import Job
from densepath.exporting.program import quiet_exporters
from densepath.images.preprocess import Preprocess

if TYPE_CHECKING:
    from onnx import GraphProto
    from torch.export import ExportedProgram

OPSET = 20  # antialiased Resize is of 18; ONNX Runtime has had 20 since 1.17


def write(job: Job) -> dict[str, str]:
    """The format's files are in the folder; the names of the parts."""
    return write_onnx(job.program, job.checkpoint.preprocess, job.folder)


def write_onnx(program: ExportedProgram, preprocess: Preprocess, folder: Path) -> dict[str, str]:
    """`model.onnx` and `preprocess.onnx` are in `folder`; the names of the parts."""
    import onnx
    import torch.onnx

    from densepath.exporting.preprocess_onnx import build_preprocess_onnx

    with quiet_exporters():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
            optimize=True,
        )
        assert exported is not None
        model = exported.model_proto
    _forget_origins(model.graph)
    onnx.save(model, str(folder / "model.onnx"))
    onnx.save(build_preprocess_onnx(preprocess), str(folder / "preprocess.onnx"))
    return {"model": "model.onnx", "preprocess": "preprocess.onnx"}


def _forget_origins(graph: GraphProto) -> None:
    """The graph says nothing of the machine that made it: source files, lines, stack traces."""
    for item in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
