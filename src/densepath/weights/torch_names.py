"""The names that PyTorch's programs give to a DenseNet's or DPN's tensors, and ours.

torchvision's names are ours, wherever the network stands in the program: `module.`, `_orig_mod.`,
`model.net.`, `encoder.`; with the features alone, as `0.0.` of fastai; with the parts of the
features numbered, as `Sequential(*features)` has them, or joined, as `features_conv0` of timm.

Source: torchvision 0.28 and 0.1 `models/densenet.py`; timm 1.0 `models/densenet.py`,
`models/dpn.py` and `timm.models._features`; MONAI 1.6 `monai.networks.nets.densenet`;
pretrainedmodels 0.7; fastai 2.8 `fastai.vision.learner`; segmentation_models_pytorch 0.6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from densepath.errors import KeyMismatchError
from densepath.weights.match import is_weight
from densepath.weights.trainers import is_average

_PART = r"conv0|norm0|denseblock\d+|transition\d+|norm5|conv1_1|conv[2-5]_\d+|conv5_bn_ac"
# What stands before the network, the word `features`, a part of it, and the rest of the name.
_IN_NETWORK = re.compile(rf"^((?:.*?[._])??)(features[._])?((?:{_PART})\..+)$")
_IN_FEATURES = re.compile(r"^((?:.*?\.)??)features\.(.+)$")
_NUMBERED = re.compile(r"^((?:.*?\.)??(?:features\.)?)\d+\.denselayer\d+\.")
# A file has few networks, and a network few parts.
_MOST_NETWORKS, _DIGITS = 8, 6
_RENAMED = (
    # torchvision before 0.2 named the parts of a layer `norm.1`, `conv.2`; MONAI `layers.norm1`.
    (re.compile(r"(denselayer\d+\.)layers\."), r"\1"),
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\."), r"\1\2."),
    (re.compile(r"\.c1x1_w_s[12]\."), ".c1x1_w."),
)
_SPLIT = re.compile(r"^(.*\.c1x1_c)([12])\.weight$")
_LAYER = re.compile(r"features\.(?:denseblock\d+\.denselayer\d+|conv[2-5]_\d+)\.")
# What thop's counting of operations leaves in every module.
_COUNTED = ("total_ops", "total_params")


@dataclass(frozen=True)
class NetworkNames:
    """A network's tensors among those of a file.

    Attributes:
        features: the file's names by ours, the classifier's not among them.
        prefix: what stands before the network's names in the file.
        others: the file's names of all other tensors, in their order.
    """

    features: dict[str, str]
    prefix: str
    others: list[str]


def find_names(tensors: Mapping[str, Tensor]) -> NetworkNames | None:
    """The network's names in a file; None where there is no network.

    Names inside the network that are not a layer's stay, for the check to name them.

    Raises:
        KeyMismatchError: the file holds more than one network.
    """
    numbered = _number_names(tensors)
    groups: dict[str, dict[str, str]] = {}
    for key in tensors:
        place = _place(numbered.get(key, key))
        if place is None or not is_weight(key) or key.endswith(_COUNTED):
            continue
        prefix, name = place
        group = groups.setdefault(prefix, {})
        if name in group:
            raise KeyMismatchError(
                f"{group[name]} and {key} are both the network's {name}: the file holds more than "
                "one network. Save the state dict of one of them."
            )
        group[name] = key
    if not any(_is_network(group) for group in groups.values()):
        return None
    prefix, chosen = _take_network(groups, tensors)
    taken = set(chosen.values())
    others = [key for key in tensors if is_weight(key) and key not in taken]
    return NetworkNames(chosen, prefix, others)


def is_network(names: Mapping[str, object] | list[str]) -> bool:
    """Whether these are names of a DenseNet's or DPN's layers."""
    keys = list(names)
    return any((place := _place(key)) and _LAYER.match(place[1]) for key in keys) or any(
        map(_NUMBERED.match, keys)
    )


def _is_network(group: Mapping[str, str]) -> bool:
    """Whether a group of names of ours has a layer of a network."""
    return any(map(_LAYER.match, group))


def _place(key: str) -> tuple[str, str] | None:
    """What stands before the network, and our name; None outside every network."""
    found = _IN_NETWORK.match(key)
    if found:
        name = f"features.{found[3]}"
        prefix = found[1]
    else:
        inside = _IN_FEATURES.match(key)
        if not inside:
            return None
        prefix, name = inside[1], f"features.{inside[2]}"
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return prefix, name


def _number_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """For each name of numbered features the name that the feature's own name would make."""
    starts = dict.fromkeys(found[1] for key in tensors if (found := _NUMBERED.match(key)))
    renamed: dict[str, str] = {}
    for start in list(starts)[:_MOST_NETWORKS]:
        parts: dict[int, dict[str, str]] = {}
        for key in tensors:
            number, _, rest = key.removeprefix(start).partition(".")
            if key.startswith(start) and number.isdecimal() and rest:
                parts.setdefault(int(number[:_DIGITS]), {})[rest] = key
        top = start.removesuffix("features.")
        for place, name in _names_of_parts(parts).items():
            for rest, key in parts[place].items():
                renamed[key] = f"{top}features.{name}.{rest}"
    return renamed


def _names_of_parts(parts: Mapping[int, Mapping[str, str]]) -> dict[int, str]:
    """The names of a DenseNet's numbered parts, told by what is in them and by their order."""
    names: dict[int, str] = {}
    blocks = transitions = 0
    for number in sorted(parts):
        rests = parts[number]
        if any(rest.startswith("denselayer") for rest in rests):
            blocks += 1
            names[number] = f"denseblock{blocks}"
        elif any(rest.startswith(("norm.", "conv.")) for rest in rests):
            transitions += 1
            names[number] = f"transition{transitions}"
        elif "running_mean" in rests:
            names[number] = "norm5" if blocks else "norm0"
        elif list(rests) == ["weight"] and not blocks:
            names[number] = "conv0"
    return names


def _take_network(
    groups: Mapping[str, Mapping[str, str]], tensors: Mapping[str, Tensor]
) -> tuple[str, dict[str, str]]:
    """The network's prefix and group; of several the average of weights, of equal ones the first.

    Raises:
        KeyMismatchError: several, and not just one of them is an average.
    """
    networks = [prefix for prefix, group in groups.items() if _is_network(group)]
    names = [name for prefix in networks for name in groups[prefix]]
    if len(names) > len(set(names)) and _are_equal([groups[name] for name in networks], tensors):
        return networks[0], dict(groups[networks[0]])
    if len(names) > len(set(names)):
        averages = [prefix for prefix in networks if is_average(prefix)]
        if len(averages) != 1:
            places = ", ".join(prefix.rstrip("._") or "its top" for prefix in networks)
            raise KeyMismatchError(
                f"the file holds more than one network: {places}. Save the state dict of one of "
                "them."
            )
        networks = averages
    chosen: dict[str, str] = {}
    for prefix in networks:
        chosen |= groups[prefix]
    return networks[0], chosen


def _are_equal(groups: list[Mapping[str, str]], tensors: Mapping[str, Tensor]) -> bool:
    """Whether groups are one network under several names, as of a module that has two owners."""
    first = groups[0]
    return all(
        group.keys() == first.keys()
        and all(torch.equal(tensors[group[name]], tensors[first[name]]) for name in first)
        for group in groups[1:]
    )


def joined(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with DPN-68b's halves joined.

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
    return whole
