"""The tensors of a program that `torch.export.save` wrote, a `.pt2` file, by their names.

Today's archive has the bytes of each tensor and a JSON table of names and shapes; torch 2.1 to 2.7
put a state dict of `torch.save` beside the program's JSON. The program itself is not run, nor
read but for BatchNorm's ε.

Source: torch 2.13 `torch.export.pt2_archive.constants`, `torch._export.serde.schema`.
"""

from __future__ import annotations

import io
import json
import re
from typing import Any

import torch

from densepath.errors import WeightsError
from densepath.weights.torch_calls import Storage, rebuild
from densepath.weights.torch_zip import Archive, read_member

_OLD_PROGRAM, _OLD_STATE = "serialized_exported_program.json", "serialized_state_dict.pt"
# What an archive of either age has.
MARKS = ("archive_format", _OLD_PROGRAM)
_CONFIG = re.compile(r"^data/weights/.*_weights_config\.json$")
_EPSILON = re.compile(rb'"name":\s*"eps",\s*"arg":\s*\{\s*"as_float":\s*([0-9][0-9.e+-]*)')
# `ScalarType` of the schema.
_DTYPES = {
    **{1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64},
    **{6: torch.float16, 7: torch.float32, 8: torch.float64, 12: torch.bool, 13: torch.bfloat16},
}


def read_program(archive: Archive) -> tuple[dict[str, Any], frozenset[float]]:
    """The tensors of a program by name, and the ε of its BatchNorms.

    Raises:
        UnsafeFileError: it asks for code to be run.
        WeightsError: it has no weights, or they are damaged.
    """
    if _OLD_PROGRAM in archive:
        content = bytes(archive.read(_OLD_STATE))
        state = read_member(Archive(io.BytesIO(content), len(content)))
        return state, _epsilons(archive, [_OLD_PROGRAM])
    configs = [name for name in archive.names("data/weights/") if _CONFIG.match(name)]
    if len(configs) != 1:
        found = f"{len(configs)} tables" if configs else "no table"
        raise WeightsError(
            f"it is an archive of torch.export with {found} of weights; save one program, by "
            "torch.export.save, or model.state_dict()"
        )
    table = json.loads(bytes(archive.read(configs[0])))["config"]
    state = {name: _tensor(archive, entry) for name, entry in table.items()}
    return state, _epsilons(archive, archive.names("models/"))


def _tensor(archive: Archive, entry: dict[str, Any]) -> Any:
    """A tensor of today's archive.

    Raises:
        WeightsError: it is of an unknown type, is pickled, or is not in the archive whole.
    """
    meta = entry["tensor_meta"]
    dtype = _DTYPES.get(meta["dtype"])
    if dtype is None or entry.get("use_pickle"):
        raise WeightsError(f"it holds numbers of the unknown type {meta['dtype']}")
    content = archive.read(f"data/weights/{entry['path_name']}")
    sides, steps = ([one["as_int"] for one in meta[name]] for name in ("sizes", "strides"))
    storage = Storage(dtype, len(content) // dtype.itemsize, lambda: content)
    return rebuild(storage, meta["storage_offset"]["as_int"], sides, steps)


def _epsilons(archive: Archive, names: list[str]) -> frozenset[float]:
    """The ε of the BatchNorms of a program's JSON."""
    texts = [bytes(archive.read(name)) for name in names if name.endswith(".json")]
    return frozenset(float(number) for text in texts for number in _EPSILON.findall(text))
