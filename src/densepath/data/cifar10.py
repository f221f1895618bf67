"""CIFAR-10: the official archive, or a zip of JPEGs as `train|test/CLASS/NAME.jpg`.

The archive is read once into arrays that stay in the cache and are mapped into memory from
then on, so that worker processes share them. The binary archive is used: it holds no pickles.

Source: A. Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import tarfile
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densepath.data.dataset import Sample, Split, check_split
from densepath.data.decode import open_image
from densepath.errors import DatasetError, OutputError
from densepath.files import cache_dir, sha256, write_atomically

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
ARCHIVE = "cifar-10-binary.tar.gz"
# The page publishes MD5 c32a1d4ab5d03f1284b67883e8d87530 for this file.
ARCHIVE_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
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
SIDE = 32
TIMEOUT_S = 60
RECORD_BYTES = 1 + 3 * SIDE * SIDE


class Cifar10Dataset:
    """The images of one split, mapped from the cache; `validation` is the test split."""

    multi_label = False

    def __init__(self, folder: Path, name: str, channels: int) -> None:
        self.class_names = list(CLASS_NAMES)
        self._folder, self._name, self._channels = folder, name, channels
        self._map()
        self.description = f"CIFAR-10, {name} split ({len(self):,} images)"

    def _map(self) -> None:
        """The arrays are mapped into memory: processes share their pages."""
        images = np.load(self._folder / f"{self._name}-images.npy", mmap_mode="r")
        # A plain view: np.memmap makes an object of its own for every index, ten times slower.
        self._images: NDArray[np.uint8] = images.view(np.ndarray)
        self._targets: NDArray[np.uint8] = np.load(self._folder / f"{self._name}-targets.npy")

    def __getstate__(self) -> dict[str, object]:
        """Everything but the images: another process maps them itself."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_images", "_targets")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._map()

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


def open_cifar10(archive: Path | None, split: Split, *, channels: int = 3) -> Cifar10Dataset:
    """One split of CIFAR-10.

    Args:
        archive: a local zip of JPEGs or the official binary archive; None downloads the latter.
        split: `validation` is the test split.
        channels: 3, or 1 for grayscale.

    Raises:
        DatasetError: the archive is not to be had, damaged, or of another layout.
    """
    check_split(split)
    name = "train" if split == "train" else "test"
    source = archive or _downloaded()
    folder = cache_dir() / "cifar10" / sha256(source)[:16]
    if not (folder / "test-targets.npy").exists():
        _unpack(source, folder)
    return Cifar10Dataset(folder, name, channels)


def _unpack(source: Path, folder: Path) -> None:
    """The cache folder holds the images and classes of both splits as arrays."""
    read = _read_zip if zipfile.is_zipfile(source) else _read_binary
    for name in ("train", "test"):
        images, targets = read(source, name)
        for kind, array in (("images", images), ("targets", targets)):
            target = folder / f"{name}-{kind}.npy"
            with write_atomically(target) as temporary, temporary.open("wb") as file:
                np.save(file, array)


def _read_zip(source: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The JPEGs `SPLIT/CLASS/NAME` of a zip, in sorted order."""
    with zipfile.ZipFile(source) as archive:
        names = sorted(n for n in archive.namelist() if _place(n)[:1] == (split,))
        _check_layout(source, split, names)
        images = np.stack([open_image(archive.read(n)) for n in _tracked(names, split)])
    targets = [CLASS_NAMES.index(_place(n)[1]) for n in names]
    return images, np.array(targets, np.uint8)


def _place(name: str) -> tuple[str, ...]:
    """(SPLIT, CLASS, FILE) of an entry of the zip; nothing for other entries."""
    parts = tuple(name.split("/"))[-3:]
    known = len(parts) == 3 and parts[0] in ("train", "test") and parts[1] in CLASS_NAMES
    return parts if known and parts[2] else ()


def _check_layout(source: Path, split: str, names: list[str]) -> None:
    """Returns when the zip has images of that split."""
    if not names:
        raise DatasetError(
            f"{source} has no entries {split}/CLASS/NAME.jpg with the classes "
            f"{', '.join(CLASS_NAMES)}: it is not CIFAR-10 as JPEGs. Unpack other archives and "
            "name the folder."
        )


def _tracked(names: list[str], split: str) -> Iterator[str]:
    """`names`, with a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    said = f"reading CIFAR-10 {split}"
    yield from track(names, said, console=console, transient=True, disable=not console.is_terminal)


def _read_binary(source: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The records of the official binary archive: a class byte, then 3 planes of 32 × 32."""
    wanted = (
        [f"data_batch_{i}.bin" for i in range(1, 6)] if split == "train" else ["test_batch.bin"]
    )
    try:
        with tarfile.open(source) as archive:
            members = {Path(m.name).name: m for m in archive.getmembers() if m.isfile()}
            missing = [name for name in wanted if name not in members]
            if missing:
                raise DatasetError(
                    f"{source} lacks {', '.join(missing)}: it is not the binary version of "
                    f"CIFAR-10. Download {URL}"
                )
            parts = []
            for name in wanted:
                opened = archive.extractfile(members[name])
                assert opened is not None
                parts.append(opened.read())
            raw = b"".join(parts)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DatasetError(f"{source} is damaged: {error}. Download it again.") from error
    if len(raw) % RECORD_BYTES:
        raise DatasetError(f"{source} is damaged: its records are not {RECORD_BYTES} bytes long.")
    records = np.frombuffer(raw, np.uint8).reshape(-1, RECORD_BYTES)
    images = records[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].copy()


def _downloaded() -> Path:
    """The official archive in the cache, its checksum verified.

    Raises:
        DatasetError: it cannot be had; the message names the file to put where.
    """
    target = cache_dir() / "cifar10" / ARCHIVE
    if not target.exists():
        try:
            with (
                write_atomically(target) as temporary,
                urllib.request.urlopen(URL, timeout=TIMEOUT_S) as answer,
                temporary.open("wb") as file,
            ):
                while chunk := answer.read(1 << 20):
                    file.write(chunk)
        except (OSError, OutputError) as error:
            raise DatasetError(
                f"cannot download {URL} ({error}). Without network put that file at {target}, "
                "or name a local archive or folder with --data."
            ) from error
    found = _md5(target)
    if found != ARCHIVE_MD5:
        raise DatasetError(
            f"{target} has the MD5 {found}, not {ARCHIVE_MD5}: it is damaged. Delete it and try "
            "again."
        )
    return target


def _md5(path: Path) -> str:
    """The MD5 that the publisher gives; it guards against damage, not against malice."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
