"""Which model tensors of ours are of, by their shapes: of the catalogue, or of its own numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from densepath.errors import KeyMismatchError
from densepath.models.catalogue import CATALOGUE
from densepath.models.spec import DPNArch, ModelSpec
from densepath.weights.adapt import first_layer
from densepath.weights.arch_of import densenet_arch, dpn_arch, spec_of
from densepath.weights.match import expected_shapes, fitting_models

# timm 1.0 `models/dpn.py`: of all its networks of these names the only one without ReLU, which a
# state dict does not tell.
_DPN48B = (10, 128, 32, (3, 4, 6, 3), (16, 32, 32, 64))
Shapes = dict[str, tuple[int, ...]]
_BLOCK = re.compile(r"features\.conv([2-5])_(\d+)\.")


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """The shape of each tensor."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def find_model(shapes: Shapes) -> ModelSpec:
    """The catalogue's model of these shapes, else one of their own numbers, else the nearest.

    Raises:
        KeyMismatchError: a network that is known to compute something else.
    """
    if fitting := fitting_models(shapes):
        return CATALOGUE[fitting[0]]
    own = _own_model(shapes)
    if own is not None and isinstance(own.arch, DPNArch) and _numbers(own.arch) == _DPN48B:
        raise KeyMismatchError(
            "it is timm's dpn48b, whose activation is SiLU; densepath's DPN has ReLU, as the "
            "paper, so that it cannot compute this one."
        )
    if own is not None and expected_shapes(own, *counts_of(shapes, own)) == shapes:
        return own
    return min(CATALOGUE.values(), key=lambda spec: _distance(spec, shapes))


def _numbers(arch: DPNArch) -> tuple[object, ...]:
    """What tells one DPN from another."""
    return arch.stem_width, arch.k_r, arch.groups, arch.blocks, arch.dense_increment


def _own_model(shapes: Shapes) -> ModelSpec | None:
    """A network whose numbers are in no table, from the shapes of its convolutions."""
    convolutions = {name: shape for name, shape in shapes.items() if len(shape) == 4}
    if "features.conv0.weight" in convolutions:
        arch = densenet_arch([convolutions[name] for name in _in_order(convolutions)])
        return spec_of(arch) if arch else None
    stages = []
    for stage in range(2, 6):
        numbers = {
            int(found[2])
            for name in convolutions
            if (found := _BLOCK.match(name)) and int(found[1]) == stage
        }
        start = f"features.conv{stage}_1."
        parts = [
            convolutions.get(f"{start}{part}.conv.weight")
            for part in ("c1x1_w", "c1x1_a", "c3x3_b", "c1x1_c")
        ]
        if numbers and all(part is not None for part in parts):
            stages.append((len(numbers), *parts))
    stem = convolutions.get("features.conv1_1.conv.weight")
    own = dpn_arch(stem, stages) if stem else None  # type: ignore[arg-type]
    return spec_of(own) if own else None


def _in_order(names: Mapping[str, object]) -> list[str]:
    """A DenseNet's convolutions as they run: the stem, each block's layers, its transition."""

    def place(name: str) -> tuple[int, ...]:
        numbers = [int(number) for number in re.findall(r"\d+", name)]
        if ".denseblock" in name:
            return (numbers[0], 0, *numbers[1:])
        return (numbers[0], 1) if ".transition" in name else (0,)

    return sorted(names, key=place)


def _distance(spec: ModelSpec, found: Shapes) -> int:
    """How many tensors of a file are not those of a model, or the other way round."""
    counts = counts_of(found, spec)
    return len(set(found.items()) ^ set(expected_shapes(spec, *counts).items()))


def counts_of(shapes: Shapes, spec: ModelSpec) -> tuple[int, int]:
    """The classes and channels that tensors are for; 1,000 and 3 where they do not tell."""
    classifier, stem = shapes.get("classifier.weight", ()), shapes.get(first_layer(spec), ())
    classes = classifier[0] if len(classifier) == 2 else 1000
    channels = stem[1] if len(stem) == 4 else 3
    return max(classes, 1), max(channels, 1)
