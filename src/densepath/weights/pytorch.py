"""timm and torchvision: `.pth` and `.safetensors` files, and the names they have used.

DenseNet: our names are theirs. DPN: timm calls the projection of a first block `c1x1_w_s1` or
`c1x1_w_s2` after its stride, stores the classifier as a 1×1 convolution, and DPN-68b's last 1×1
convolution as two.

Source: torchvision 0.28 `models/densenet.py`, timm 1.0 `models/densenet.py` and `models/dpn.py`.
"""

from __future__ import annotations

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
from densepath.weights.plain_data import STAND_INS
from densepath.weights.trainers import is_average

_RENAMED = (
    # torchvision before 0.2 named the parts of a layer `norm.1`, `conv.2`.
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\."), r"\1\2."),
    (re.compile(r"\.c1x1_w_s[12]\."), ".c1x1_w."),
    # A classifier inside a Sequential with a sigmoid or dropout (CheXNet and its kin).
    (re.compile(r"^classifier\.0\."), "classifier."),
)
_SPLIT = re.compile(r"^(.*\.c1x1_c)([12])\.weight$")
_NETWORK_START = re.compile(r"(?:^|\.)(features\.|classifier\.)")
_LAYER = re.compile(r"features\.(?:conv0|norm0|denseblock\d+|transition\d+|conv\d+_\w+)\.")
_HEAD = ("classifier.weight", "classifier.bias")
# What thop's counting of operations leaves in every module.
_COUNTED = ("total_ops", "total_params")


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
    """What a `torch.save` file holds, zipped or of the form before torch 1.6.

    Tensors are torch's own; all else is plain data, or a stand-in of `plain_data.py`.

    Raises:
        UnsafeFileError: the file asks for code to be run.
        WeightsError: it is no such file, or is damaged.
    """
    try:
        with torch.serialization.safe_globals([(call, name) for name, call in STAND_INS.items()]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(path, str(error)) from error
    except Exception as error:  # a damaged file can make torch raise anything
        raise WeightsError(
            f"{path} cannot be read as a PyTorch file ({_first_line(error)}). It is "
            "damaged, incomplete or a TorchScript program: compare its size with the "
            "publisher's, or save model.state_dict() again."
        ) from error


def _first_line(error: Exception) -> str:
    """What the error says in short; its kind where it says nothing."""
    return str(error).partition("\n")[0] or type(error).__name__


def _refusal(path: Path, reason: str) -> WeightsError:
    """The error for a pickle that torch's restricted unpickler does not take."""
    if "Unsupported operand" in reason:
        return WeightsError(
            f"{path} was saved with another pickle protocol than 2, which torch reads only with "
            "code. Save it again: torch.save(model.state_dict(), PATH)."
        )
    named = re.search(r"GLOBAL ([\w.]+)", reason)
    if not named:
        return WeightsError(f"{path} cannot be read as a PyTorch file: {reason[:200]}")
    return UnsafeFileError(
        f"{path} is refused: it asks for {named[1]}. A weights file holds tensors only; if you "
        "trust it, load it in its own program and save model.state_dict()."
    )


def to_canonical(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The network's tensors under our names, and the file's names of those that are not its.

    A prefix before `features.` (as `module.` of DataParallel) is dropped, batch counters too.
    Names inside the network that are not a layer's stay, for the check to name them.

    Raises:
        KeyMismatchError: the file holds more than one network, or halves that do not fit.
    """
    groups, aside = _by_prefix(tensors)
    chosen = _take_network(groups)
    # A trainer may keep the classifier apart from the features.
    if chosen and not any(name.startswith("classifier.") for name in chosen):
        heads = [group for group in groups.values() if {*_HEAD} <= set(group)]
        if len(heads) == 1:
            chosen |= {name: heads[0].pop(name) for name in _HEAD}
    aside += [key for group in groups.values() for key in group.values()]
    order = {key: place for place, key in enumerate(tensors)}
    found = {name: tensors[key] for name, key in chosen.items()}
    return _joined(found), sorted(aside, key=order.__getitem__)


def _by_prefix(tensors: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The file's names by ours for each prefix, and the names that begin no network.

    Raises:
        KeyMismatchError: two names of one prefix are the same tensor of ours.
    """
    groups: dict[str, dict[str, str]] = {}
    aside: list[str] = []
    for key in tensors:
        start = _NETWORK_START.search(key)
        if not is_weight(key):
            continue
        if start is None or key.endswith(_COUNTED):
            aside.append(key)
            continue
        group = groups.setdefault(key[: start.start(1)], {})
        name = _rename(key)
        if name in group:
            raise KeyMismatchError(
                f"{group[name]} and {key} are both the network's {name}: the file holds more than "
                "one network. Save the state dict of one of them."
            )
        group[name] = key
    return groups, aside


def _take_network(groups: dict[str, dict[str, str]]) -> dict[str, str]:
    """The network's group, which leaves `groups`; of several the average of weights.

    Raises:
        KeyMismatchError: several, and not just one of them is an average.
    """
    networks = [prefix for prefix, group in groups.items() if any(map(_LAYER.match, group))]
    names = [name for prefix in networks for name in groups[prefix]]
    if len(names) > len(set(names)):
        averages = [prefix for prefix in networks if is_average(prefix)]
        if len(averages) != 1:
            places = ", ".join(prefix.rstrip(".") or "its top" for prefix in networks)
            raise KeyMismatchError(
                f"the file holds more than one network: {places}. Save the state dict of one of "
                "them."
            )
        networks = averages
    chosen: dict[str, str] = {}
    for prefix in networks or list(groups)[:1]:
        chosen |= groups.pop(prefix)
    return chosen


def _joined(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with DPN-68b's halves joined, and a classifier of 1×1 flattened.

    Raises:
        KeyMismatchError: halves that do not fit.
    """
    whole: dict[str, Tensor] = {}
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in found.items():
        split = _SPLIT.match(name)
        if split:
            halves.setdefault(f"{split[1]}.conv.weight", {})[split[2]] = tensor
        else:
            whole[name] = tensor
    for name, parts in halves.items():
        if len({part.shape[1:] for part in parts.values()}) > 1:
            raise KeyMismatchError(f"the two parts of {name} have different shapes.")
        whole[name] = torch.cat([parts[key] for key in sorted(parts)])
    classifier = whole.get("classifier.weight")
    if classifier is not None and classifier.dim() == 4:
        whole["classifier.weight"] = classifier.flatten(1)
    return whole


def _rename(key: str) -> str:
    """Our name for one of theirs."""
    start = _NETWORK_START.search(key)
    name = key[start.start(1) :] if start else key
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return name
