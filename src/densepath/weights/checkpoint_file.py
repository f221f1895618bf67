"""A checkpoint's file: its format number, its description and its tensors, read without PyTorch.

On the line: `Checkpoint.load` makes a Checkpoint of what is read here; our kernels take it as it
is, so that a server or a prediction need not wait for PyTorch. `deploy/cpp/src/checkpoint.cpp`
reads the same files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from densepath.bundle import fields
from densepath.bundle.bundle import bundle_around
from densepath.errors import CheckpointError, WeightsError
from densepath.files import missing
from densepath.images.preprocess import Preprocess
from densepath.models.spec import ModelSpec
from densepath.names import check_network_path
from densepath.weights.match import check_tensors

METADATA_KEY = "densepath"
FORMAT = 1
# Of the INT8 weights of our kernels, which are a file of a bundle and no checkpoint.
INT8_FORMAT = "int8-1"
Framework = Literal["numpy", "pt"]


@dataclass(frozen=True)
class CheckpointFile:
    """What is in a file.

    Attributes:
        spec: the architecture.
        preprocess: the way from an image to the network's input.
        labels: the name of each class, in the order of the logits.
        in_channels: the channels of the images.
        multi_label: every class is a yes or no of its own.
        provenance: where the weights come from.
        tensors: by name; of a checkpoint those of the network, of INT8 weights also its scales.
        metadata: all texts of the file, by their keys.
        thresholds: what each class's score must be above for a yes, where they were chosen.
        temperature: what logits are divided by before they become scores, where it was fitted.
    """

    spec: ModelSpec
    preprocess: Preprocess
    labels: list[str]
    in_channels: int
    multi_label: bool
    provenance: dict[str, Any]
    tensors: dict[str, Any]
    metadata: dict[str, str]
    thresholds: tuple[float, ...] | None = None
    temperature: float | None = None


def read_checkpoint(
    path: str | Path, formats: Sequence[int | str] = (FORMAT,), *, framework: Framework = "numpy"
) -> CheckpointFile:
    """What is in the file `path`.

    Args:
        path: the file.
        formats: those that are taken, of `FORMAT` and `INT8_FORMAT`.
        framework: whose tensors are made: NumPy's arrays, or PyTorch's.

    Raises:
        CheckpointError: no such file, not a checkpoint of densepath, of another format, damaged, or
            with the tensors of another network.
        UsageError: its name is no UTF-8.
    """
    path = Path(path)
    check_network_path(path)
    if not path.is_file():
        raise CheckpointError(missing(path))
    with _open(path, framework) as file:
        metadata = file.metadata() or {}
        description = _read_description(path, metadata, formats)
        tensors = {name: _tensor(file, name) for name in file.keys()}  # noqa: SIM118
    try:
        made = CheckpointFile(
            ModelSpec.from_dict(description["spec"]),
            Preprocess.from_dict(description["preprocess"]),
            [str(label) for label in description["labels"]],
            int(description["in_channels"]),
            bool(description["multi_label"]),
            dict(description["provenance"]),
            tensors,
            metadata,
            fields.thresholds(description.get("thresholds"), "thresholds"),
            fields.temperature(description.get("temperature"), "temperature"),
        )
        fields.check_decisions(made.thresholds, len(made.labels), multi_label=made.multi_label)
        if description["format"] == FORMAT:  # of others the kernels know the tensors
            check_tensors(tensors, made.spec, len(made.labels), made.in_channels, str(path))
    except (KeyError, TypeError, ValueError, WeightsError, fields.WrongFieldError) as error:
        raise CheckpointError(f"{path}: a damaged checkpoint: {error}") from error
    return made


def is_checkpoint(path: Path) -> bool:
    """Whether the file is one that `Checkpoint.save` wrote, or a damaged one of those."""
    try:
        with _open(path, "numpy") as file:
            return METADATA_KEY in (file.metadata() or {})
    except CheckpointError:
        return False


def _tensor(file: Any, name: str) -> Any:
    """The tensor of that name.

    Raises:
        TypeError: NumPy itself lacks its type, whatever another package has added to it.
    """
    tensor = file.get_tensor(name)
    if getattr(tensor.dtype, "kind", "f") not in "fiub":
        raise TypeError(f"data type '{tensor.dtype}' not understood")
    return tensor


@contextmanager
def _open(path: Path, framework: Framework) -> Iterator[Any]:
    """Yields the file, open.

    Raises:
        CheckpointError: it is no whole safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework=framework) as file:
            yield file
    except (SafetensorError, OSError, TypeError) as error:  # the last of a type that NumPy lacks
        raise CheckpointError(
            f"{path} cannot be read as a safetensors file: {error}. It may be incomplete or "
            "of another kind; weights of other systems are read by "
            f"`densepath import {path.name} -o x.safetensors`."
        ) from error


def _read_description(
    path: Path, metadata: dict[str, str], formats: Sequence[int | str]
) -> dict[str, Any]:
    """The JSON document in a checkpoint's metadata.

    Raises:
        CheckpointError: there is none, it is not JSON, or it is of another format.
    """
    text = metadata.get(METADATA_KEY)
    if text is None:
        raise CheckpointError(
            f"{path} holds tensors, but not densepath's description of them. Import it first: "
            f"densepath import {path.name} -o x.safetensors"
        )
    try:
        values: dict[str, Any] = json.loads(text)
        written = values["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: its description is damaged: {error!r}") from error
    if type(written) in (int, str) and written in formats:
        return values
    around = bundle_around(path)
    if written == INT8_FORMAT and around is not None:
        raise CheckpointError(f"{path} is a file of the bundle {around}: name that folder.")
    read = " and ".join(repr(one) for one in formats)
    raise CheckpointError(
        f"{path} is of checkpoint format {written!r}; this densepath reads "
        f"format{'s' if formats[1:] else ''} {read}. Make it again, or install the densepath that "
        "wrote it."
    )
