"""`create_model`: a network by name, with first weights or with published, trained or own ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, overload

from densepath.errors import UsageError
from densepath.models.build import Model, build_model
from densepath.models.catalogue import find_spec
from densepath.models.intermediates import FeatureNet
from densepath.models.spec import Stem, StemPool, replace_arch
from densepath.weights.adapt import adapt_model
from densepath.weights.checkpoint import Checkpoint
from densepath.weights.checkpoint_file import is_checkpoint
from densepath.weights.import_file import import_weights
from densepath.weights.published import published_for
from densepath.weights.subject import open_checkpoint


@overload
def create_model(
    name: str,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    stem: Stem | None = None,
    bn_eps: float | None = None,
    stem_pool: StemPool | None = None,
    features_only: Literal[False] = False,
    out_indices: None = None,
) -> Model: ...


@overload
def create_model(
    name: str,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    stem: Stem | None = None,
    bn_eps: float | None = None,
    stem_pool: StemPool | None = None,
    features_only: Literal[True],
    out_indices: Sequence[int] | None = None,
) -> FeatureNet: ...


def create_model(
    name: str,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    in_channels: int | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    stem: Stem | None = None,
    bn_eps: float | None = None,
    stem_pool: StemPool | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
) -> Model | FeatureNet:
    """A network of the catalogue, in training mode: call `.eval()` before predicting.

    Args:
        name: the model, as `densenet121`.
        weights: published weights (`timm/densenet121.ra_in1k`), a checkpoint file, a run
            folder, or a file of another system; None for first weights.
        num_classes: the logits; by default the weights', else 1,000. Another number than the
            weights' gets a new classifier.
        in_channels: the channels of the images; by default the weights', else 3. Another number
            than the weights' adapts the first layer by `adapt_first_layer`.
        drop_rate: dropout.
        drop_path_rate: stochastic depth.
        stem, bn_eps, stem_pool: as in `build_model`; with weights they are the weights' own.
        features_only: a backbone without a classifier, which gives a list of maps.
        out_indices: with `features_only`, which: 0 is the stem, then one a stage; all by default.

    Raises:
        UnknownNameError: no such model or weights.
        UsageError: weights of another model, or switches beside weights.
        WeightsError: weights that cannot be had or read.
    """
    if out_indices is not None and not features_only:
        raise UsageError("out_indices chooses the maps of features_only=True; name both.")
    made = _create(
        name,
        weights,
        num_classes=num_classes,
        in_channels=in_channels,
        drop_rate=drop_rate,
        drop_path_rate=drop_path_rate,
        stem=stem,
        bn_eps=bn_eps,
        stem_pool=stem_pool,
    )
    return FeatureNet(made, out_indices) if features_only else made


def _create(
    name: str,
    weights: str | Path | None,
    *,
    num_classes: int | None,
    in_channels: int | None,
    drop_rate: float,
    drop_path_rate: float,
    stem: Stem | None,
    bn_eps: float | None,
    stem_pool: StemPool | None,
) -> Model:
    """The network whole; the arguments are those of `create_model`."""
    if weights is None:
        return build_model(
            name,
            num_classes=1000 if num_classes is None else num_classes,
            in_channels=3 if in_channels is None else in_channels,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            stem=stem,
            bn_eps=bn_eps,
            stem_pool=stem_pool,
        )
    switches = {"stem": stem, "bn_eps": bn_eps, "stem_pool": stem_pool}
    given = [switch for switch, value in switches.items() if value is not None]
    if given:
        raise UsageError(f"{' and '.join(given)} cannot be chosen: the weights bring their own.")
    return adapt_model(
        _open_weights(weights, name),
        num_classes=num_classes,
        in_channels=in_channels,
        drop_rate=drop_rate,
        drop_path_rate=drop_path_rate,
    )


def _open_weights(weights: str | Path, model: str) -> Checkpoint:
    """The checkpoint of `weights`, which is one of `model`.

    Raises:
        UsageError: it is one of another model.
    """
    spec = find_spec(model)
    path = Path(weights)
    if path.is_file() and not is_checkpoint(path):
        return import_weights(path, model)
    checkpoint = open_checkpoint(weights, to_train=True)
    # The switches are the weights' own; the layers must be those of the model.
    switches = {"bn_eps": spec.arch.bn_eps, "stem_pool": spec.arch.stem_pool}
    if replace_arch(checkpoint.spec.arch, **switches) != spec.arch:
        raise UsageError(
            f"{weights} is a {checkpoint.spec.name}, not a {spec.name}. Published for "
            f"{spec.name}: {', '.join(published_for(spec.name)) or 'nothing'}."
        )
    return checkpoint
