"""The one way in: a source's name or path → the parts that it has."""

from __future__ import annotations

from pathlib import Path

from densepath.data.cifar10_files import is_batches_folder
from densepath.data.options import DataOptions
from densepath.data.parts import Parts
from densepath.errors import DatasetError

SOURCES = (
    "`digits`, `cifar10`, a folder with one folder a class, a list file (.txt), "
    "a table (.csv), or CIFAR-10 as a .tar.gz, a .zip of JPEGs or the unpacked folder"
)


def find_parts(source: str | Path, channels: int, options: DataOptions) -> Parts:
    """The parts of a source.

    Raises:
        DatasetError: no such source, or one that cannot be read.
    """
    name = str(source)
    if name == "digits":
        from densepath.data.digits import find_digits

        return find_digits(channels)
    if name == "cifar10":
        from densepath.data.cifar10 import find_cifar10

        return find_cifar10(None, channels)
    path = Path(source).expanduser()
    if not path.exists():
        raise DatasetError(f"there is no data set {name!r}. A data set is {SOURCES}.")
    packed = path.is_file() and name.endswith((".zip", ".tar.gz", ".tgz"))
    if packed or (path.is_dir() and is_batches_folder(path)):
        from densepath.data.cifar10 import find_cifar10

        return find_cifar10(path, channels)
    if path.is_dir():
        from densepath.data.folder import find_folders

        return find_folders(path, channels, options)
    if path.suffix == ".txt":
        from densepath.data.listfile import find_lists

        return find_lists(path, channels, options)
    if path.suffix == ".csv":
        from densepath.data.table import find_rows

        return find_rows(path, channels, options)
    raise DatasetError(f"{name} is no kind of data set that is known. A data set is {SOURCES}.")
