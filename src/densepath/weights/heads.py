"""Which tensors of a PyTorch program are the network's classifier, where it is one.

Programs call it `classifier`, `fc`, `head` or something of their own, and put dropout before or a
sigmoid behind it. A head of several layers is none of ours: the network is then a backbone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from densepath.weights.trainers import is_harmless

# What programs call a network's last layer, or the last word of its name.
_HEADS = (
    *("classifier", "fc", "head", "last_linear", "class_layers", "logits", "linear", "output"),
    *("out", "cls", "classification_head", "cls_head", "final", "fc_out", "_fc", "pred", "top"),
)
_NUMBER = re.compile(r"\.\d+$")


@dataclass(frozen=True)
class Head:
    """A file's classifier.

    Attributes:
        module: its name in the file.
        names: the file's names by ours, `classifier.weight` and, where there is one, `.bias`.
        guessed: it is none of the usual names.
    """

    module: str
    names: dict[str, str]
    guessed: bool = False


def find_head(
    tensors: Mapping[str, Tensor], others: Sequence[str], prefix: str, channels: int
) -> Head | None:
    """The classifier of a network; None where it has none, or one of several layers.

    Args:
        tensors: those of the file.
        others: the names of those that are not the features'.
        prefix: what stands before the network's names.
        channels: of the last features, which a classifier reads.
    """
    own = f"{prefix}classifier"
    if f"{own}.weight" in others or f"{own}.bias" in others:
        inside = [key for key in others if key.startswith(f"{own}.")]
        return Head(own, {key.removeprefix(prefix): key for key in inside})
    modules = _linears(tensors, others, channels)
    learned = {
        key.rpartition(".")[0]
        for key in others
        if key.endswith((".weight", ".bias")) and not is_harmless(key)
    }
    named = [module for module in modules if _word(module) in _HEADS]
    if len(named) > 1:
        near = [module for module in named if module.startswith(prefix)] if prefix else []
        near = near or [module for module in named if _word(module) == "classifier"]
        named = near
    if len(named) == 1 and _is_alone(named[0], learned):
        return Head(named[0], modules[named[0]])
    if len(modules) == 1 and learned == set(modules):
        (module,) = modules
        return Head(module, modules[module], guessed=True)
    return None


def _linears(
    tensors: Mapping[str, Tensor], others: Sequence[str], channels: int
) -> dict[str, dict[str, str]]:
    """The layers that read the last features whole: the file's names by ours, a layer each."""
    found: dict[str, dict[str, str]] = {}
    for key in others:
        module, _, leaf = key.rpartition(".")
        shape = tuple(tensors[key].shape)
        if leaf != "weight" or is_harmless(key) or shape[1:] not in ((channels,), (channels, 1, 1)):
            continue
        names = {"classifier.weight": key}
        bias = f"{module}.bias"
        if bias in tensors and tuple(tensors[bias].shape) == shape[:1]:
            names["classifier.bias"] = bias
        found[module] = names
    return found


def _word(module: str) -> str:
    """The word that a module's name ends in, its numbers in a Sequential aside."""
    parts = _NUMBER.sub("", module).split(".")
    known = [part for part in parts if part in _HEADS]
    return known[-1] if known else parts[-1]


def _is_alone(module: str, learned: set[str]) -> bool:
    """Whether no other layer that learned stands in the same head."""
    parts = module.split(".")
    last = max((at for at, part in enumerate(parts) if part in _HEADS), default=len(parts) - 1)
    head = ".".join(parts[: last + 1])
    return not any(other != module and f"{other}.".startswith(f"{head}.") for other in learned)
