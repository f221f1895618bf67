"""Holds the layers of a pickled network, whose classes the file names, to those of ours.

A state dict has tensors alone; `torch.save(model)` also says what stands between them. What our
networks cannot compute is refused by the layer's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from densepath.errors import KeyMismatchError
from densepath.weights.stand_ins import ModuleTable, Part

_ACTIVATION = re.compile(r"(?:^|\.)(?:relu|act|activation)\d*$")
_SAME = ("ReLU", "Identity")
# In a head: nothing of it changes which class is the greatest, or what the logits are.
_PASSING = (
    *("Dropout", "Dropout1d", "Dropout2d", "AlphaDropout", "Identity", "Flatten", "Linear"),
    *("Sequential", "Conv2d", "ReLU", "AdaptiveAvgPool2d", "SelectAdaptivePool2d", "AvgPool2d"),
    *("Softmax", "LogSoftmax", "Sigmoid", "FastAdaptiveAvgPool"),
)


def epsilons(whole: ModuleTable, prefix: str) -> frozenset[float]:
    """The ε of the network's BatchNorms; what the file says of all where it has no layers."""
    found = {
        float(part.values["eps"])
        for _, part in _inside(whole, prefix)
        if part.short.startswith("BatchNorm") and isinstance(part.values.get("eps"), float)
    }
    return frozenset(found) or whole.epsilons


def check_layers(whole: ModuleTable, prefix: str) -> None:
    """Raise unless activations, pools and strides are those of a DenseNet or DPN.

    Raises:
        KeyMismatchError: one is not; the message names it.
    """
    for name, part in _inside(whole, prefix):
        wrong = _difference(name, part)
        if wrong:
            raise KeyMismatchError(
                f"its layer {name} is {wrong}; a DenseNet or DPN of densepath has {_usual(part)} "
                "there, so that this one would answer otherwise."
            )


def is_small(whole: ModuleTable, prefix: str) -> bool | None:
    """Whether the stem has stride 1 and no pool, as for small images; None: it does not say."""
    stem = next((p for name, p in _inside(whole, prefix) if name.endswith("conv0")), None)
    pool = next((p for name, p in _inside(whole, prefix) if name.endswith("pool0")), None)
    if stem is None or "stride" not in stem.values:
        return None
    return _pair(stem.values["stride"]) == (1, 1) and (pool is None or pool.short == "Identity")


def ends_in(whole: ModuleTable, module: str) -> tuple[bool, list[str]]:
    """Whether a sigmoid stands behind the classifier, and what else of its head is not ours."""
    top = re.sub(r"\.\d+$", "", module)
    head = [part for name, part in whole.parts.items() if f"{name}.".startswith(f"{top}.")]
    sigmoid = any(part.short == "Sigmoid" for part in head)
    return sigmoid, sorted({p.short for p in head if p.short not in _PASSING and p.values})


def _inside(whole: ModuleTable, prefix: str) -> Iterator[tuple[str, Part]]:
    """The layers of the network in the file, by name."""
    for name, part in whole.parts.items():
        if name.startswith(prefix) and "." in name.removeprefix(prefix):
            yield name, part


def _difference(name: str, part: Part) -> str:
    """What a layer is, where ours is something else; else nothing."""
    values = part.values
    if _ACTIVATION.search(name) and part.short not in _SAME:
        return f"a {part.short}"
    if part.short.startswith(("BlurPool", "InstanceNorm", "GroupNorm", "LayerNorm")):
        return f"a {part.short}"
    kernel, stride, padding = (
        _pair(values.get(key)) for key in ("kernel_size", "stride", "padding")
    )
    says = "kernel_size" in values
    if part.short == "MaxPool2d" and says:
        usual = (kernel, stride, padding) == ((3, 3), (2, 2), (1, 1))
        if not usual or values.get("ceil_mode"):
            return f"a MaxPool2d of kernel {kernel}, stride {stride}, padding {padding}"
    if part.short == "AvgPool2d" and says and (kernel, stride) != ((2, 2), (2, 2)):
        return f"an AvgPool2d of kernel {kernel}, stride {stride}"
    if part.short == "Conv2d" and _pair(values.get("dilation", 1)) != (1, 1):
        return f"a Conv2d of dilation {values['dilation']}"
    return ""


def _usual(part: Part) -> str:
    """What stands there in ours."""
    if part.short == "MaxPool2d":
        return "one of kernel 3, stride 2, padding 1"
    if part.short == "AvgPool2d":
        return "one of kernel 2, stride 2"
    if part.short == "Conv2d":
        return "none of a dilation"
    return "BatchNorm, ReLU, and pools without a blur"


def _pair(value: Any) -> tuple[Any, ...]:
    """A number twice, or the two of a pair."""
    return tuple(value) if isinstance(value, list | tuple) else (value, value)
