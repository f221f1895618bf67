"""timm and torchvision: `.pth` and `.safetensors` files, and the names they have used.

DenseNet: our names are theirs. DPN: timm calls the projection of a first block `c1x1_w_s1` or
`c1x1_w_s2` after its stride, stores the classifier as a 1×1 convolution, and DPN-68b's last 1×1
convolution as two.

Source: torchvision 0.28 `models/densenet.py`, timm 1.0 `models/densenet.py` and `models/dpn.py`.
"""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from densepath.errors import KeyMismatchError, UnsafeFileError, WeightsError
from densepath.weights.match import is_weight

# Where training programs put the network in their own tables; an average of weights first, as
# it is what their publishers evaluate.
WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "model",
    "network",
    "net",
)

_RENAMED = (
    # torchvision before 0.2 named the parts of a layer `norm.1`, `conv.2`.
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\."), r"\1\2."),
    (re.compile(r"\.c1x1_w_s[12]\."), ".c1x1_w."),
    # A classifier inside a Sequential with a sigmoid or dropout (CheXNet and its kin).
    (re.compile(r"^classifier\.0\."), "classifier."),
)
_SPLIT = re.compile(r"^(.*\.c1x1_c)([12])\.weight$")
_NETWORK_START = re.compile(r"(?:^|\.)(features\.|classifier\.)")


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


def read_pth(path: Path) -> dict[str, Tensor]:
    """The tensors of a `torch.save` file, zipped or of the form before torch 1.6.

    Raises:
        UnsafeFileError: the file asks for code to be run.
        WeightsError: it is no such file, is damaged, or holds no table of tensors.
    """
    try:
        # argparse.Namespace holds a training program's options; its construction runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            value = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from error
    except Exception as error:  # a damaged file can make torch raise anything
        raise WeightsError(
            f"{path} cannot be read as a PyTorch file ({_first_line(error)}). It is "
            "damaged, incomplete or a TorchScript program: compare its size with the "
            "publisher's, or save model.state_dict() again."
        ) from error
    return _network_in(value, path)


def _first_line(error: Exception) -> str:
    """What the error says in short; its kind where it says nothing."""
    return str(error).partition("\n")[0] or type(error).__name__


def _refusal(path: Path, reason: str) -> WeightsError:
    """The error for a pickle that torch's restricted unpickler does not take."""
    named = re.search(r"GLOBAL ([\w.]+)", reason)
    if not named:
        return WeightsError(f"{path} cannot be read as a PyTorch file: {reason[:200]}")
    return UnsafeFileError(
        f"{path} is refused: it asks for {named[1]}. A weights file holds tensors only; if you "
        "trust it, load it in its own program and save model.state_dict()."
    )


def _network_in(value: Any, path: Path) -> dict[str, Tensor]:
    """The table of tensors inside a training program's file.

    Raises:
        WeightsError: there is none.
    """
    while isinstance(value, Mapping):
        tensors = {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, Tensor)}
        if any(_NETWORK_START.search(name) for name in tensors):
            return tensors
        inner = next((value[key] for key in WRAPPERS if isinstance(value.get(key), Mapping)), None)
        if inner is None:
            return tensors
        value = inner
    raise WeightsError(
        f"{path} holds a {type(value).__name__}, not a table of tensors; save "
        "model.state_dict() instead of the model."
    )


def to_canonical(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under our names, whichever of its names their source used.

    A prefix before `features.` (as `module.` of DataParallel) is dropped, batch counters too.

    Raises:
        KeyMismatchError: the file holds more than one network, or halves that do not fit.
    """
    renamed: dict[str, Tensor] = {}
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name = _rename(key)
        if not is_weight(name):
            continue
        split = _SPLIT.match(name)
        target = halves.setdefault(f"{split[1]}.conv.weight", {}) if split else renamed
        name = split[2] if split else name
        if name in target:
            raise KeyMismatchError(
                f"two tensors of the file are the network's {_rename(key)}: it holds more than "
                "one network. Save the state dict of one of them."
            )
        target[name] = tensor
    for name, parts in halves.items():
        if len({part.shape[1:] for part in parts.values()}) > 1:
            raise KeyMismatchError(f"the two parts of {name} have different shapes.")
        renamed[name] = torch.cat([parts[key] for key in sorted(parts)])
    classifier = renamed.get("classifier.weight")
    if classifier is not None and classifier.dim() == 4:
        renamed["classifier.weight"] = classifier.flatten(1)
    return renamed


def _rename(key: str) -> str:
    """Our name for one of theirs."""
    start = _NETWORK_START.search(key)
    name = key[start.start(1) :] if start else key
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return name
