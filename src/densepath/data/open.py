"""The public shortcut: one split of a source as a data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from densepath.data.dataset import Dataset, Split
from densepath.data.options import DEFAULT_OPTIONS, DataOptions
from densepath.data.splits import open_split
from densepath.images.intensity import Intensity
from densepath.images.read_as import ReadAs


def open_dataset(
    source: str | Path,
    *,
    split: Split = "train",
    channels: int = 3,
    intensity: Intensity | None = None,
    options: DataOptions = DEFAULT_OPTIONS,
    data_root: str | Path | None = None,
    **fields: Any,
) -> Dataset:
    """One split of a data set.

    Args:
        source: `digits`, `cifar10`, a folder, a list file, a table or a CIFAR-10 archive.
        split: `validation` is held out of the training images where a source has no such split;
            `test` is the validation split where it has no other, and all images where it has no
            splits at all.
        channels: 3 for RGB, 1 for grayscale.
        intensity: which values of a deep file are black and white.
        options: how the source is to be read.
        data_root: the option `root`.
        fields: single options in place of `options`, as `validation_fraction` and `seed`.

    Raises:
        DatasetError: no such source, one that cannot be read, or one without that split.
        UnknownNameError: no such split.
        TypeError: no such option.
    """
    if data_root is not None:
        fields["root"] = data_root
    read_as = ReadAs(channels, intensity)
    return open_split(source, split, read_as=read_as, options=replace(options, **fields))
