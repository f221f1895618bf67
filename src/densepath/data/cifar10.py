"""CIFAR-10: the official archive, binary or Python, packed or not; or a zip of JPEGs.

Whatever the form, it is read once into arrays that stay in the cache and are mapped into memory
from then on, so that worker processes share them.

Source: A. Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
import zipfile
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densepath.data.cifar10_files import SIDE, Arrays, read_batches
from densepath.data.dataset import Sample, one_line
from densepath.data.fingerprint import fingerprint_array
from densepath.data.parts import Parts
from densepath.errors import DatasetError, OutputError
from densepath.files import find_cached, sha256, write_atomically
from densepath.images.clutter import lies_in_clutter
from densepath.images.decode import open_image

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
# The MD5 that the page publishes for each archive; the binary one is downloaded: no pickles.
ARCHIVES = {
    "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
}
CLASS_NAMES = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]
TIMEOUT_S = 60


class Cifar10Dataset:
    """The images of `train` or `test`, mapped from the cache."""

    named, multi_label = True, False
    groups: NDArray[np.int64] | None = None

    def __init__(self, folder: Path, name: str, channels: int) -> None:
        self.class_names = list(CLASS_NAMES)
        self._folder, self._name, self._channels = folder, name, channels
        self._map()
        self.description = f"CIFAR-10, {name} split ({len(self):,} images)"

    def _map(self) -> None:
        """Map the arrays into memory, whose pages processes share."""
        try:
            images = np.load(self._folder / f"{self._name}-images.npy", mmap_mode="r")
            targets = np.load(self._folder / f"{self._name}-targets.npy")
        except (ValueError, EOFError, OSError) as error:
            raise DatasetError(
                f"the cached images in {self._folder} are damaged: {error}. Delete that folder."
            ) from error
        # A plain view: np.memmap makes an object of its own for every index, ten times slower.
        self._images: NDArray[np.uint8] = images.view(np.ndarray)
        self._targets: NDArray[np.uint8] = targets

    def __getstate__(self) -> dict[str, object]:
        """Everything but the images: another process maps them itself."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_images", "_targets")}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Map the images in this process."""
        self.__dict__.update(state)
        self._map()

    __repr__ = one_line

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._targets)

    def load(self, index: int) -> Sample:
        """Sample `index`."""
        image = self._images[index]
        if self._channels == 1:
            from PIL import Image as Pillow

            image = np.asarray(Pillow.fromarray(image).convert("L"))[:, :, None]
        return Sample(image, self.target(index), self.path(index))

    def path(self, index: int) -> str:
        """`cifar10/SPLIT/INDEX`."""
        return f"cifar10/{self._name}/{index}"

    def target(self, index: int) -> int:
        """The class's number."""
        return int(self._targets[index])

    def fingerprint(self, index: int) -> int:
        """64 bits of the pixels."""
        return fingerprint_array(self._images[index])


def find_cifar10(source: Path | None, channels: int) -> Parts:
    """The two parts of CIFAR-10.

    Args:
        source: an official archive, its unpacked folder or a zip of JPEGs; None downloads one.
        channels: 3, or 1 for grayscale.

    Raises:
        DatasetError: the images are not to be had, damaged, or of another layout.
    """
    source = source or _downloaded()
    folder = find_cached("cifar10", _digest(source)[:16], "test-targets.npy").parent
    if not (folder / "test-targets.npy").exists():
        _unpack(source, folder)
    return Parts(
        {
            "train": lambda: Cifar10Dataset(folder, "train", channels),
            "test": lambda: Cifar10Dataset(folder, "test", channels),
        },
        {"train": "CIFAR-10's training images", "test": "CIFAR-10's test images"},
    )


def _digest(source: Path) -> str:
    """The SHA-256 of an archive; of a folder, that of its batches' SHA-256."""
    if not source.is_dir():
        return sha256(source)
    batches = sorted(path for path in source.glob("*_batch*") if path.is_file())
    return hashlib.sha256("".join(map(sha256, batches)).encode()).hexdigest()


def _unpack(source: Path, folder: Path) -> None:
    """Write the images and classes of both splits into the cache folder, as arrays."""
    read = _read_zip if zipfile.is_zipfile(source) else read_batches
    for name in ("train", "test"):
        images, targets = read(source, name)
        for kind, array in (("images", images), ("targets", targets)):
            target = folder / f"{name}-{kind}.npy"
            with write_atomically(target) as temporary, temporary.open("wb") as file:
                np.save(file, array)


def _read_zip(source: Path, split: str) -> Arrays:
    """The JPEGs `SPLIT/CLASS/NAME` of a zip, in sorted order."""
    try:
        with zipfile.ZipFile(source) as archive:
            names = sorted(n for n in archive.namelist() if _place(n)[:1] == (split,))
            _check_layout(source, split, names)
            images = np.empty((len(names), SIDE, SIDE, 3), np.uint8)
            with closing(_tracked(names, split)) as tracked:
                for number, name in enumerate(tracked):
                    image = open_image(archive.read(name))
                    if image.shape != images.shape[1:]:
                        raise DatasetError(f"{source}: {name} is {image.shape}, not 32 × 32 RGB.")
                    images[number] = image
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise DatasetError(f"{source} is damaged: {error}. Download it again.") from error
    targets = [CLASS_NAMES.index(_place(n)[1]) for n in names]
    return images, np.array(targets, np.uint8)


def _place(name: str) -> tuple[str, ...]:
    """(SPLIT, CLASS, FILE) of an entry of the zip; nothing for other entries."""
    parts = tuple(name.split("/"))[-3:]
    if lies_in_clutter(name):
        return ()
    known = len(parts) == 3 and parts[0] in ("train", "test") and parts[1] in CLASS_NAMES
    return parts if known and parts[2] else ()


def _check_layout(source: Path, split: str, names: list[str]) -> None:
    """Raise unless the zip has images of that split."""
    if not names:
        raise DatasetError(
            f"{source} has no entries {split}/CLASS/NAME.jpg with the classes "
            f"{', '.join(CLASS_NAMES)}: it is not CIFAR-10 as JPEGs. Unpack other archives and "
            "name the folder."
        )


def _tracked(names: list[str], split: str) -> Generator[str, None, None]:
    """`names`, with a progress bar on standard error; close it, and the bar's thread ends."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    said = f"reading CIFAR-10 {split}"
    yield from track(names, said, console=console, transient=True, disable=not console.is_terminal)


def _downloaded() -> Path:
    """An official archive in the cache, its checksum verified.

    Raises:
        DatasetError: it cannot be had; the message names the file to put where.
    """
    paths = [find_cached("cifar10", name) for name in ARCHIVES]
    there = [path for path in paths if path.exists()]
    target = there[0] if there else find_cached("cifar10", URL.rpartition("/")[2])
    if not there:
        try:
            _download(target)
        except (OSError, OutputError, http.client.HTTPException) as error:
            raise DatasetError(
                f"cannot download {URL} ({error}). Without network put that file at {target}, "
                "or name a local archive or folder in place of cifar10."
            ) from error
    found = _md5(target)
    if found != ARCHIVES[target.name]:
        raise DatasetError(
            f"{target} has the MD5 {found}, not {ARCHIVES[target.name]}: it is damaged. Delete "
            "it and try again."
        )
    return target


def _download(target: Path) -> None:
    """Download URL to `target`, which appears whole; a bar on standard error tells how far."""
    from rich.console import Console
    from rich.progress import wrap_file

    console = Console(stderr=True)
    with (
        urllib.request.urlopen(URL, timeout=TIMEOUT_S) as answer,
        write_atomically(target) as temporary,
        wrap_file(
            answer,
            int(answer.headers.get("Content-Length", 0)),
            description=target.name,
            console=console,
            disable=not console.is_terminal,
        ) as counted,
        temporary.open("wb") as file,
    ):
        while chunk := counted.read(1 << 20):
            file.write(chunk)


def _md5(path: Path) -> str:
    """The MD5 that the publisher gives; it guards against damage, not against malice."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
