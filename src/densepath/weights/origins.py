"""The one table of origins: where weights come from, how a file of each is known, who reads it.

On the line: another system's file → `import_weights` → Checkpoint. Importing, converting, the
verbs' help, the error about unknown kinds and the docs' table go through these rows. A new one is
a file with a function `read(path, request)` and a row (docs/architecture.md, "Adding one").
Nothing here imports torch, NumPy or a reader: readers stand as `"module:function"`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from densepath.bundle.formats import named
from densepath.errors import WeightsError
from densepath.files import missing
from densepath.names import check_network_path
from densepath.weights.caffe.start import is_caffe
from densepath.weights.imported import Imported, ImportRequest
from densepath.weights.paddle_inference.files import is_part

MAX_BYTES = 4 << 30  # the largest published file of these families has 350 MB
START_BYTES = 512
# The first pickle of a torch.save file before torch 1.6 is this number (torch/serialization.py).
TORCH_LEGACY_NUMBER = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

# First bytes of what is often taken for a weights file.
_MISTAKEN = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself: run `git lfs pull`"),
    (b"<", "a web page, not weights: the download answered with an error or a login page"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
)


@dataclass(frozen=True)
class Origin:
    """A kind of file or folder that weights come in.

    Attributes:
        name: short, for provenance and programs.
        title: what such a file is, for people: "PyTorch weights".
        endings: how its names usually end, as `.pth`; only its content decides.
        systems: whose files these are.
        recognises: whether a path is one, by its first `START_BYTES` bytes, which are empty of a
            folder; it may look further inside.
        reader: `"module:function"` of a path and an `ImportRequest` that gives an `Imported`.
        way: how it is read, for the docs.
        folder: it may be a folder.
    """

    name: str
    title: str
    endings: tuple[str, ...]
    systems: str
    recognises: Callable[[Path, bytes], bool]
    reader: str
    way: str
    folder: bool = False

    def read(self, path: Path, request: ImportRequest) -> Imported:
        """The network in a file of this kind.

        Raises:
            UnsafeFileError: the file asks for code to be run.
            KeyMismatchError: it is not of the model that is asked for, or of none.
            WeightsError: it is damaged, or lacks a part.
        """
        found: Imported = named(self.reader)(path, request)
        return found


def _is_safetensors(path: Path, start: bytes) -> bool:
    """Whether the header's length is followed by the header, a JSON object."""
    return start[8:9] == b"{"


def _is_keras(path: Path, start: bytes) -> bool:
    """Whether it is HDF5, or a zip archive with the two members of a `.keras` file."""
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return True
    if not start.startswith(b"PK\x03\x04"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return {"config.json", "model.weights.h5"} <= set(archive.namelist())
    except Exception:  # zipfile raises many kinds for a damaged one, which another row may know
        return False


def _is_mxnet(path: Path, start: bytes) -> bool:
    """Whether `mx.nd.save` wrote it: its magic number, and a reserved one that is 0."""
    return start[:16] == (0x112).to_bytes(16, "little")


def _is_torch(path: Path, start: bytes) -> bool:
    """Whether `torch.save` wrote it, in a zip archive or as before torch 1.6."""
    return start.startswith(b"PK\x03\x04") or is_legacy_torch(start)


def is_legacy_torch(start: bytes) -> bool:
    """Whether `torch.save` wrote it before 1.6: the number stands behind the pickle's own start."""
    return start[:1] == b"\x80" and TORCH_LEGACY_NUMBER in start[:24]


def _is_pickle(path: Path, start: bytes) -> bool:
    """Whether it is a plain pickle, of protocol 2 or later."""
    return start[:1] == b"\x80"


def _is_paddle_inference(path: Path, start: bytes) -> bool:
    """Whether it is a Paddle program, its tensors, or a folder with a program."""
    return is_part(path, start)


def _is_onnx(path: Path, start: bytes) -> bool:
    """Whether it begins as an ONNX model does: the IR version, then a text or the graph."""
    return (
        len(start) > 2
        and start[0] == 0x08
        and 0 < start[1] < 0x80
        and start[2] in (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42)
    )


def _is_caffe(path: Path, start: bytes) -> bool:
    """Whether it begins with a network's name, if it has one, and then a layer or an input."""
    return is_caffe(start)


def _is_mindspore(path: Path, start: bytes) -> bool:
    """Whether it begins with field 1, of bytes: the first value of a MindSpore checkpoint."""
    return start[:1] == b"\x0a"


_NAMED = "densepath.weights.state_dicts:read"

# The first row that recognises a file reads it.
ORIGINS: dict[str, Origin] = {
    row.name: row
    for row in (
        Origin(
            "safetensors",
            "safetensors weights",
            (".safetensors",),
            "timm",
            _is_safetensors,
            _NAMED,
            "safetensors",
        ),
        Origin(
            "keras",
            "a Keras model or its weights",
            (".keras", ".h5"),
            "Keras 2 and 3",
            _is_keras,
            "densepath.weights.keras:read",
            "h5py (extra `keras`) in a process of its own; a configuration as JSON, never built",
        ),
        Origin(
            "mxnet",
            "MXNet parameters",
            (".params",),
            "DPN's authors, Gluon and GluonCV",
            _is_mxnet,
            "densepath.weights.mxnet:read",
            "a reader of MXNet's arrays, and of the `-symbol.json` beside them",
        ),
        Origin(
            "torch",
            "PyTorch weights",
            (".pth", ".pt", ".pt2", ".ckpt"),
            "torchvision, timm, torchxrayvision, MONAI, fastai, Lightning, their users",
            _is_torch,
            _NAMED,
            "an unpickler that knows tensors, and takes whole models, TorchScript and torch.export "
            "for tables of them",
        ),
        Origin(
            "pdparams",
            "PaddlePaddle weights",
            (".pdparams",),
            "PaddleClas",
            _is_pickle,
            _NAMED,
            "an unpickler that knows NumPy arrays and nothing else",
        ),
        Origin(
            "paddle-inference",
            "a PaddleClas inference model",
            (".pdmodel", ".json", ".pdiparams"),
            "PaddleClas",
            _is_paddle_inference,
            "densepath.weights.paddle_inference.reader:read",
            "readers of Paddle's protobuf programs, PIR JSON and tensors; the network is found by "
            "its structure. Any of the files, or their folder, with its `inference.yml`",
            folder=True,
        ),
        Origin(
            "onnx",
            "an ONNX file",
            (".onnx",),
            "PyTorch, Paddle2ONNX, the ONNX zoo",
            _is_onnx,
            "densepath.weights.onnx_files.reader:read",
            "the package `onnx` decodes it; the network is found by its structure, whatever its "
            "names, also with its tensors in files beside it",
        ),
        Origin(
            "caffe",
            "a Caffe model",
            (".caffemodel",),
            "Caffe",
            _is_caffe,
            "densepath.weights.caffe.reader:read",
            "a reader of Caffe's protobuf messages; the network is found by its layers' structure",
        ),
        Origin(
            "mindspore",
            "a MindSpore checkpoint",
            (".ckpt",),
            "MindCV",
            _is_mindspore,
            _NAMED,
            "a reader of MindSpore's protobuf messages",
        ),
    )
}


def find_origin(path: Path) -> Origin:
    """The row of a file or folder.

    Raises:
        WeightsError: no such file, empty, too large, or of none of the kinds.
    """
    check_network_path(path)
    start = b"" if path.is_dir() else _start_of(path)
    for beginning, kind in _MISTAKEN:
        # A safetensors file may begin with any byte: its header's length.
        if start.lstrip().startswith(beginning) and not _is_safetensors(path, start):
            raise WeightsError(f"{path} is {kind}.")
    for row in ORIGINS.values():
        if (row.folder or not path.is_dir()) and row.recognises(path, start):
            return row
    if path.is_dir():
        raise WeightsError(missing(path))
    if start[:1] == b"\0":
        raise WeightsError(
            f"{path} is in Paddle's binary form: save it again with "
            "paddle.save(layer.state_dict(), ...)."
        )
    kinds = "; ".join(f"{'/'.join(row.endings)} ({row.systems})" for row in ORIGINS.values())
    raise WeightsError(f"{path} is none of the kinds of weights files that are read: {kinds}.")


def is_weights(path: Path) -> bool:
    """Whether a row of the table reads a path."""
    try:
        find_origin(path)
    except WeightsError:
        return False
    return True


def _start_of(path: Path) -> bytes:
    """The first bytes of a file.

    Raises:
        WeightsError: there is no such file, it is empty or too large.
    """
    if not path.is_file():
        raise WeightsError(missing(path))
    size_bytes = path.stat().st_size
    if not 0 < size_bytes <= MAX_BYTES:
        raise WeightsError(f"{path} has {size_bytes} bytes; it is no weights file of this kind.")
    with path.open("rb") as file:
        return file.read(START_BYTES)


def endings() -> list[str]:
    """The endings of all rows, each once."""
    return list(dict.fromkeys(ending for row in ORIGINS.values() for ending in row.endings))


def systems() -> list[str]:
    """The systems of all rows, each once."""
    all_of = (system for row in ORIGINS.values() for system in row.systems.split(", "))
    return list(dict.fromkeys(all_of))
