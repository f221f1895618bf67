"""What kind of weights file this is, by its bytes, and its tensors under the file's own names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from densepath.errors import WeightsError
from densepath.files import missing
from densepath.names import check_network_path
from densepath.weights import mindspore, paddle, pytorch
from densepath.weights.trainers import Contents, find_network

Naming = Literal["paddle", "mindcv", "pytorch"]

MAX_BYTES = 4 << 30  # the largest published file of these families has 350 MB
# The first pickle of a torch.save file before torch 1.6 is this number (torch/serialization.py).
TORCH_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

# First bytes of what is often taken for a weights file.
_MISTAKEN = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself: run `git lfs pull`"),
    (b"<", "a web page, not weights: the download answered with an error or a login page"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"\x89HDF", "an HDF5 file, as of Keras; only PyTorch, Paddle and MindSpore files are read"),
    (b"\0", "in Paddle's binary form: save it again with paddle.save(layer.state_dict(), ...)"),
)


def read_tensors(path: Path) -> tuple[Naming | None, Contents]:
    """The file's network in float32 under the file's own names, and whose names they are.

    The naming is None where no name is one of a DenseNet or DPN.

    Raises:
        UnsafeFileError: the file asks for code to be run.
        KeyMismatchError: two networks are in it.
        WeightsError: no such file, none of the known kinds, damaged, or without tensors.
    """
    value = _reader(path)(path)
    found = find_network(value, lambda names: naming_of(names) is not None, str(path))
    if found is None:
        raise WeightsError(
            f"{path} holds no table of arrays but a value of type {type(value).__name__}; save "
            "model.state_dict() instead of the model."
        )
    tensors = {name: _to_float32(tensor) for name, tensor in found.tensors.items()}
    return naming_of(tensors), replace(found, tensors=tensors)


def _reader(path: Path) -> Callable[[Path], Any]:
    """The function that reads this kind of file.

    Raises:
        WeightsError: no such file, empty, too large, or of an unknown kind.
    """
    check_network_path(path)
    if not path.is_file():
        raise WeightsError(missing(path))
    size_bytes = path.stat().st_size
    if not 0 < size_bytes <= MAX_BYTES:
        raise WeightsError(f"{path} has {size_bytes} bytes; it is no weights file of this kind.")
    with path.open("rb") as file:
        start = file.read(64)
    for beginning, kind in _MISTAKEN:
        # A safetensors file may begin with any byte: its header's length.
        if start.lstrip().startswith(beginning) and start[8:9] != b"{":
            raise WeightsError(f"{path} is {kind}.")
    if start[8:9] == b"{":
        return pytorch.read_safetensors
    if start.startswith(b"PK\x03\x04") or start.startswith(TORCH_LEGACY_START):
        return pytorch.read_pth
    if start[:1] == b"\x80":
        return paddle.read_pdparams
    if start[:1] == b"\x0a":  # field 1, of bytes: the first value of a MindSpore checkpoint
        return mindspore.read_ckpt
    raise WeightsError(
        f"{path} is none of the kinds of weights files that are read: .safetensors and .pth of "
        "PyTorch, .pdparams of Paddle, .ckpt of MindSpore."
    )


def _to_float32(value: Tensor | np.ndarray) -> Tensor:
    """The values in float32, in memory of their own."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.astype(np.float32))
    if value.is_quantized:
        value = value.dequantize()
    return value.detach().to_dense().to(torch.float32).contiguous()


def naming_of(names: Iterable[str]) -> Naming | None:
    """Whose names these are, or None."""
    names = list(names)
    if any(name.startswith(tuple(f"{stem}." for stem in paddle.STEMS.values())) for name in names):
        return "paddle"
    if any(name.endswith(".moving_mean") for name in names):
        return "mindcv"
    if any("denselayer" in name or ".conv1_1.conv." in name for name in names):
        return "pytorch"
    return None
