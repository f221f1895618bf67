"""Whether tensors are those of a network, and if not, what is wrong and the likely cause.

Shapes are compared without PyTorch, for whoever reads a checkpoint without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from densepath.errors import KeyMismatchError, WeightsError
from densepath.models.plan import tensor_shapes
from densepath.models.spec import ModelSpec, check_build

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
SHOWN_KEYS = 3


def is_weight(name: str) -> bool:
    """Whether a tensor of a state dict belongs to the weights; batch counters do not."""
    return not name.endswith("num_batches_tracked")


def expected_shapes(spec: ModelSpec, num_classes: int, in_channels: int) -> dict[str, Shape]:
    """The shape of every parameter and running statistic of a network, by name, in order.

    Raises:
        UsageError: a count below 1.
    """
    check_build(num_classes, in_channels, 0.0, 0.0)
    return tensor_shapes(spec, num_classes, in_channels)


def check_tensors(
    tensors: Mapping[str, Any],
    spec: ModelSpec,
    num_classes: int,
    in_channels: int,
    source: str,
) -> None:
    """Raise unless `tensors`, PyTorch's or NumPy's, are exactly those of the network.

    Raises:
        KeyMismatchError: some are missing, unexpected or of the wrong shape; the message
            counts them, names the first few of each, and the likely cause.
    """
    expected = expected_shapes(spec, num_classes, in_channels)
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    wrong = [
        f"{name} {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if missing or unexpected or wrong:
        cause = _cause_of_shapes(tensors, spec, expected)
        raise mismatch(source, spec.name, missing, unexpected, wrong, cause)


def check_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise unless all values are numbers that are finite.

    Raises:
        WeightsError: a tensor holds NaN or infinite values.
    """
    import torch

    broken = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        more = f", and {len(broken) - 1} more of {len(tensors)} tensors do" if broken[1:] else ""
        raise WeightsError(
            f"{source}: {broken[0]} holds NaN or infinite values{more}; training had diverged. "
            "Take a checkpoint of an earlier epoch."
        )


def mismatch(
    source: str,
    model: str,
    missing: Iterable[str],
    unexpected: Iterable[str],
    wrong: Iterable[str],
    cause: str,
) -> KeyMismatchError:
    """The error that lists what does not fit `model`, and why."""
    lists = (("missing", missing), ("unexpected", unexpected), ("of the wrong shape", wrong))
    parts = [_count(title, list(names)) for title, names in lists]
    text = "; ".join(part for part in parts if part)
    return KeyMismatchError(f"{source} does not fit {model}: {text}. {cause}".rstrip())


def _count(title: str, names: list[str]) -> str:
    """`12 missing (a, b, c, ...)`, or nothing."""
    if not names:
        return ""
    more = ", ..." if len(names) > SHOWN_KEYS else ""
    return f"{len(names)} {title} ({', '.join(names[:SHOWN_KEYS])}{more})"


def _cause_of_shapes(
    tensors: Mapping[str, Any], spec: ModelSpec, expected: dict[str, Shape]
) -> str:
    """The likely cause in a sentence, or nothing when there is no good guess."""
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    fitting = [name for name in fitting_models(found) if name != spec.name]
    if fitting:
        return f"These are the weights of {' or '.join(fitting)}: name that model."
    differing = {name for name in expected if found.get(name) != expected[name]}
    if differing <= {"classifier.weight", "classifier.bias"} and "classifier.weight" in found:
        return f"Its classifier.weight is one of {found['classifier.weight'][0]} classes."
    return ""


def fitting_models(found: Mapping[str, Shape]) -> list[str]:
    """The catalogue's models that have exactly these tensors, whatever their classes."""
    from densepath.models.catalogue import CATALOGUE  # only what does not fit needs it

    classifier = found.get("classifier.weight")
    stem = found.get("features.conv0.weight", found.get("features.conv1_1.conv.weight"))
    if not classifier or not stem or len(stem) != 4 or not (classifier[0] and stem[1]):
        return []
    return [
        name
        for name, spec in CATALOGUE.items()
        if spec.arch.stem_width == stem[0]
        and expected_shapes(spec, classifier[0], stem[1]) == dict(found)
    ]
