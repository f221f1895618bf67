"""PyTorch's files: what `torch.save`, TorchScript, `torch.export` and safetensors wrote.

Tables of tensors, and whole pickled networks as such tables; nothing that a file names is imported
or run (`torch_unpickle.py`). What their names mean says `torch_network.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from densepath.errors import UnsafeFileError, WeightsError
from densepath.weights.origins import START_BYTES, is_legacy_torch
from densepath.weights.stand_ins import ModuleTable, as_tables
from densepath.weights.torch_archive import read_legacy, read_zip


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file by their names.

    Raises:
        WeightsError: it is no such file, or damaged.
    """
    try:
        return load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} cannot be read as a safetensors file: {error}. It is damaged or "
            "incomplete: compare its size with the publisher's."
        ) from error


def read_pth(path: Path) -> Any:
    """What a file of PyTorch holds: zipped, of the form before torch 1.6, or a program.

    A pickled network, and a program, becomes a `ModuleTable` of its tensors; all else is plain
    data, or a stand-in of `plain_data.py`.

    Raises:
        UnsafeFileError: the file asks for code to be run.
        WeightsError: it is no such file, or is damaged.
    """
    with path.open("rb") as file:
        start = file.read(START_BYTES)
    try:
        opened = read_legacy(path) if is_legacy_torch(start) else read_zip(path)
        value = as_tables(opened.value)
    except UnsafeFileError as error:
        raise UnsafeFileError(
            f"{path} is refused: {error}. A weights file holds tensors and layers only; if you "
            "trust it, load it in its own program and save model.state_dict()."
        ) from error
    except WeightsError as error:
        raise WeightsError(f"{path} cannot be read as a PyTorch file: {error}.") from error
    except Exception as error:  # a damaged file can make the unpickler raise anything
        raise WeightsError(
            f"{path} cannot be read as a PyTorch file ({_first_line(error)}). It is damaged or "
            "incomplete: compare its size with the publisher's, or save model.state_dict() again."
        ) from error
    if opened.kind and isinstance(value, dict):
        whole = value if isinstance(value, ModuleTable) else ModuleTable(value)
        whole.kind, whole.epsilons = opened.kind, opened.epsilons
        return whole
    return value


def _first_line(error: Exception) -> str:
    """What the error says in short; its kind where it says nothing."""
    return str(error).partition("\n")[0][:200] or type(error).__name__
