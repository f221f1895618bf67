"""Another system's tensors under our names: a table of names, and the strict way through it.

Nothing here imports torch: the scripts of `benchmarks/peers/` use the same tables the other way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TypeAlias

# Our name of a tensor → their names of its parts, to be joined along the first axis.
KeyMap: TypeAlias = dict[str, tuple[str, ...]]
# The same for a module: a convolution, a BatchNorm or the classifier.
ModulePair: TypeAlias = tuple[str, tuple[str, ...]]

NORM_LEAVES = ("weight", "bias", "running_mean", "running_var")
CLASSIFIER_LEAVES = ("weight", "bias")


def is_norm(module: str) -> bool:
    """Whether one of our modules is a BatchNorm, by its name."""
    last = module.rpartition(".")[2]
    return last == "bn" or last.startswith("norm")


def join_names(
    pairs: Iterable[ModulePair], norm_leaves: Sequence[str], separator: str = "."
) -> KeyMap:
    """The table of tensors of a table of modules; `norm_leaves` are their BatchNorm's names."""
    names: KeyMap = {}
    for ours, theirs in pairs:
        if is_norm(ours):
            leaves = list(zip(NORM_LEAVES, norm_leaves, strict=True))
        else:
            own = CLASSIFIER_LEAVES if ours == "classifier" else ("weight",)
            leaves = [(leaf, leaf) for leaf in own]
        for our_leaf, their_leaf in leaves:
            names[f"{ours}.{our_leaf}"] = tuple(
                f"{module}{separator}{their_leaf}" for module in theirs
            )
    return names


def differences(names: KeyMap, found: Collection[str]) -> tuple[list[str], list[str]]:
    """The keys of a table that `found` lacks, and those of `found` that the table lacks."""
    wanted = dict.fromkeys(key for keys in names.values() for key in keys)
    return [key for key in wanted if key not in found], [key for key in found if key not in wanted]
