"""From a row of the catalogue to a network with first weights."""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

from densepath.models.catalogue import find_spec
from densepath.models.densenet import DenseNet
from densepath.models.dpn import DPN
from densepath.models.spec import DenseNetArch, ModelSpec, Stem, StemPool, check_build, replace_arch

Model: TypeAlias = DenseNet | DPN

SMALL_INPUT_SIZE = 32


def resolve_spec(
    model: str | ModelSpec,
    *,
    stem: Stem | None = None,
    bn_eps: float | None = None,
    stem_pool: StemPool | None = None,
) -> ModelSpec:
    """The row of `model` with the given switches thrown; None leaves a switch as it is.

    Raises:
        UnknownNameError: no model, stem or stem pool of that name.
        UsageError: a value that no network can have.
    """
    spec = find_spec(model) if isinstance(model, str) else model
    arch = replace_arch(spec.arch, stem=stem, bn_eps=bn_eps, stem_pool=stem_pool)
    to_small = arch.stem == "small" and spec.arch.stem != "small"
    input_size = SMALL_INPUT_SIZE if to_small else spec.input_size
    return dataclasses.replace(spec, arch=arch, input_size=input_size)


def build_model(
    model: str | ModelSpec,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    stem: Stem | None = None,
    bn_eps: float | None = None,
    stem_pool: StemPool | None = None,
) -> Model:
    """A network with first weights, in training mode.

    Args:
        model: a name of the catalogue, or a spec.
        num_classes: the logits.
        in_channels: the channels of the images.
        drop_rate: dropout; DenseNet after each dense layer, DPN before the classifier.
        drop_path_rate: stochastic depth of the deepest layer; it grows linearly from 0.
        stem: `small` replaces stride and max-pool by one 3×3 convolution, for images of 32 to
            64 pixels.
        bn_eps: ε of every BatchNorm; PaddleClas's DPN weights need 1e-5.
        stem_pool: the padding of the stem's max-pool; MindCV's DPN weights need `same`.

    Raises:
        UnknownNameError: no model, stem or stem pool of that name.
        UsageError: a count below 1 or a rate outside [0, 1).
    """
    check_build(num_classes, in_channels, drop_rate, drop_path_rate)
    spec = resolve_spec(model, stem=stem, bn_eps=bn_eps, stem_pool=stem_pool)
    family = DenseNet if isinstance(spec.arch, DenseNetArch) else DPN
    return family(spec, num_classes, in_channels, drop_rate, drop_path_rate)
