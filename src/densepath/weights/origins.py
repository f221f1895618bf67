"""The one table of origins: where weights come from, how a file of each is known, who reads it.

On the line: another system's file → `import_weights` → Checkpoint. Importing, converting, the
verbs' help, the error about unknown kinds and the docs' table go through these rows. A new one is
a file with a function `read(path, request)` and a row (docs/architecture.md, "Adding one").
Nothing here imports torch, NumPy or a reader: readers stand as `"module:function"`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from densepath.bundle.formats import named
from densepath.errors import WeightsError
from densepath.files import missing
from densepath.names import check_network_path
from densepath.weights.imported import Imported, ImportRequest
from densepath.weights.paddle_inference.files import is_part

MAX_BYTES = 4 << 30  # the largest published file of these families has 350 MB
START_BYTES = 512
# The first pickle of a torch.save file before torch 1.6 is this number (torch/serialization.py).
TORCH_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

# First bytes of what is often taken for a weights file.
_MISTAKEN = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself: run `git lfs pull`"),
    (b"<", "a web page, not weights: the download answered with an error or a login page"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\x89HDF", "an HDF5 file, as of Keras; only PyTorch, Paddle and MindSpore files are read"),
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


def _is_torch(path: Path, start: bytes) -> bool:
    """Whether `torch.save` wrote it, in a zip archive or as before torch 1.6."""
    return start.startswith((b"PK\x03\x04", TORCH_LEGACY_START))


def _is_pickle(path: Path, start: bytes) -> bool:
    """Whether it is a plain pickle, of protocol 2 or later."""
    return start[:1] == b"\x80"


def _is_paddle_inference(path: Path, start: bytes) -> bool:
    """Whether it is a Paddle program, its tensors, or a folder with a program."""
    return is_part(path, start)


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
            "torch",
            "PyTorch weights",
            (".pth", ".pt"),
            "timm, torchvision, their users",
            _is_torch,
            _NAMED,
            "`torch.load(weights_only=True)`, today's and the old form",
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
