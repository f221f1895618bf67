"""The program as an ONNX graph, and the preprocessing beside it."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from densepath.errors import UsageError
from densepath.exporting.job import Job
from densepath.exporting.program import quiet_exporters
from densepath.images.preprocess import Preprocess

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto
    from torch.export import ExportedProgram

OPSET = 20  # ONNX Runtime has had it since 1.17
# PyTorch writes 18, and its converter goes up from there to 25; ONNX Runtime has had 18 since 1.14.
# The preprocessing graph needs 18, too, for its antialiased Resize, and always is of that.
OPSETS = range(18, 26)
IMAGES, LOGITS = "images", "logits"
# What the free axes of the images are called.
AXES = ("batch", "channels", "height", "width")


def check_opset(opset: int | None, formats: Collection[str]) -> int:
    """The opset to write ONNX in; `OPSET` where none is asked for.

    Raises:
        UsageError: one is, and no ONNX; or it cannot be written here.
    """
    if opset is None:
        return OPSET
    if "onnx" not in formats:
        raise UsageError(
            f"opset {opset} is of ONNX, which is not among the formats: {', '.join(formats)}. Add "
            "onnx to them, or leave the opset out."
        )
    if not isinstance(opset, int) or opset not in OPSETS:
        raise UsageError(f"opset {opset!r} cannot be written; choices: {_list(OPSETS[-1])}.")
    from onnx.defs import onnx_opset_version

    if opset > onnx_opset_version():
        raise UsageError(
            f"opset {opset} is newer than the installed onnx; choices: "
            f"{_list(onnx_opset_version())}. Or update it: pip install -U onnx"
        )
    return opset


def write(job: Job) -> dict[str, str]:
    """Write the format's files into the folder; gives the names of the parts."""
    opset = OPSET if job.opset is None else job.opset
    return write_onnx(job.program, job.checkpoint.preprocess, job.folder, opset)


def write_onnx(
    program: ExportedProgram, preprocess: Preprocess, folder: Path, opset: int = OPSET
) -> dict[str, str]:
    """Write `model.onnx` and `preprocess.onnx` into `folder`; gives the names of the parts.

    The model's input is called `images`, its output `logits`, the free axes as in `AXES`; both
    files are of the oldest IR version that their opset allows, so that older runtimes read them.
    """
    import onnx
    import torch.onnx

    from densepath.exporting.preprocess_onnx import build_preprocess_onnx

    with quiet_exporters():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=[IMAGES],
            output_names=[LOGITS],
            verbose=False,
            optimize=True,
        )
        assert exported is not None
        model = exported.model_proto
    _forget_origins(model.graph)
    _name_axes(model.graph)
    save_onnx(model, folder / "model.onnx")
    onnx.save(build_preprocess_onnx(preprocess), str(folder / "preprocess.onnx"))
    return {"model": "model.onnx", "preprocess": "preprocess.onnx"}


def save_onnx(model: ModelProto, path: Path) -> None:
    """Write the model, checked, to `path` in the oldest IR version that its opsets allow."""
    import onnx

    model.ir_version = onnx.helper.find_min_ir_version_for(list(model.opset_import), True)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


def read_versions(path: Path) -> dict[str, str]:
    """The `onnx_opset` and `onnx_ir` of a file."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    opsets = {one.domain: one.version for one in model.opset_import}
    return {"onnx_opset": str(opsets[""]), "onnx_ir": str(model.ir_version)}


def _list(last: int) -> str:
    """The opsets that can be written, up to `last`."""
    return ", ".join(str(opset) for opset in OPSETS if opset <= last)


def _forget_origins(graph: GraphProto) -> None:
    """Remove what the graph says of its maker's machine: source files, lines, stack traces."""
    for item in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")


def _name_axes(graph: GraphProto) -> None:
    """Name the free axes as `AXES` does, in every shape, in place of PyTorch's `s77`."""
    (images,) = (one for one in graph.input if one.name == IMAGES)
    dimensions = images.type.tensor_type.shape.dim
    names = {
        dimension.dim_param: name
        for dimension, name in zip(dimensions, AXES, strict=True)
        if dimension.dim_param
    }
    if not names:
        return
    symbols = re.compile("|".join(rf"\b{re.escape(symbol)}\b" for symbol in names))
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = symbols.sub(
                    lambda found: names[found[0]], dimension.dim_param
                )
