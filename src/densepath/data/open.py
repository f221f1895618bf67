"""The one way in: a source's name or path → a data set."""

from __future__ import annotations

from pathlib import Path

from densepath.data.cifar10_files import is_batches_folder
from densepath.data.dataset import Dataset, Split, check_split
from densepath.errors import DatasetError
from densepath.files import expand_user

SOURCES = (
    "`digits`, `cifar10`, a folder with one folder a class, a list file (.txt), "
    "a table (.csv), or CIFAR-10 as a .tar.gz, a .zip of JPEGs or the unpacked folder"
)


def open_dataset(
    source: str | Path,
    *,
    split: Split = "train",
    channels: int = 3,
    validation_fraction: float = 0.1,
    seed: int = 0,
    data_root: str | Path | None = None,
) -> Dataset:
    """One split of a data set.

    Args:
        source: `digits`, `cifar10`, a folder, a list file, a CSV or a CIFAR-10 archive.
        split: where a source has no validation split, its test split serves; where it has no
            splits at all, `validation` is a fraction held out of it, `train` the rest, and
            `test` all of it.
        channels: 3 for RGB, 1 for grayscale.
        validation_fraction: the share held out.
        seed: draws it.
        data_root: the folder that a list file's or CSV's paths start from; its own by default.

    Raises:
        DatasetError: no such source, or one that cannot be read.
        UnknownNameError: no such split.
    """
    check_split(split)
    name = str(source)
    if name == "digits":
        from densepath.data.digits import DigitsDataset

        return DigitsDataset(split, channels=channels)
    if name == "cifar10":
        from densepath.data.cifar10 import open_cifar10

        return open_cifar10(None, split, channels=channels)
    path = expand_user(source)
    if path.is_dir() and is_batches_folder(path):
        from densepath.data.cifar10 import open_cifar10

        return open_cifar10(path, split, channels=channels)
    if path.is_dir():
        from densepath.data.folder import open_folder

        return open_folder(
            path, split, channels=channels, validation_fraction=validation_fraction, seed=seed
        )
    if not path.exists():
        raise DatasetError(f"there is no data set {name!r}. A data set is {SOURCES}.")
    if name.endswith((".zip", ".tar.gz", ".tgz")):
        from densepath.data.cifar10 import open_cifar10

        return open_cifar10(path, split, channels=channels)
    root = expand_user(data_root) if data_root is not None else None
    if path.suffix in (".txt", ".csv"):
        from densepath.data.listfile import open_list
        from densepath.data.table import open_table

        open_file = open_list if path.suffix == ".txt" else open_table
        return open_file(
            path,
            split,
            root=root,
            channels=channels,
            validation_fraction=validation_fraction,
            seed=seed,
        )
    raise DatasetError(f"{name} is no kind of data set that is known. A data set is {SOURCES}.")
