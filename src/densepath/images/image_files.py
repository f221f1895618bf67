"""Which files of a folder are images: one rule, one walk, and one account of what is passed over.

On the line: before `decode.py`. Whoever reads a folder or an archive asks here: data sets,
`predict`, calibration, the images of parity. `deploy/cpp/src/image_paths.cpp` follows it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from densepath.images.clutter import is_clutter_entry
from densepath.images.decode import HEIF_SUFFIXES, readable_suffixes
from densepath.images.opened import why_not_heif
from densepath.images.read_as import DICOM_SUFFIXES
from densepath.wording import counted

RAW_SUFFIXES = frozenset((
    ".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".nef", ".nrw", ".orf", ".pef", ".raf",
    ".raw", ".rw2", ".sr2", ".srw", ".x3f"
))  # fmt: skip
OTHER_PICTURES = frozenset((
    ".ai", ".avif", ".avifs", ".cdr", ".dds", ".emf", ".eps", ".exr", ".fits", ".hdr",
    ".icns", ".ico", ".j2k", ".jp2", ".jpx", ".jxl", ".jxr", ".nii", ".pcx", ".pdf", ".psd",
    ".svg", ".svgz", ".tga", ".wmf", ".xcf"
))  # fmt: skip
LONGEST_SUFFIX = 8
MOST_NAMED = 8


def is_image_name(name: str, *, values: bool = False) -> bool:
    """Whether the name ends as an image's that is read, in any case, blanks behind it or not.

    With `values` also as a DICOM file's or an array's: `read_as.py:ReadAs.by_value`.
    """
    return suffix_of(name) in readable_suffixes(values=values)


def suffix_of(name: str) -> str:
    """`.jpg` of `A.JPG `; empty where what stands behind the last dot is no suffix."""
    suffix = os.path.splitext(name.rstrip())[1].lower()  # noqa: PTH122
    behind = suffix[1:]
    plausible = behind.isascii() and behind.isalnum() and len(behind) <= LONGEST_SUFFIX
    return suffix if plausible else ""


@dataclass
class PassedOver:
    """What is left out where images are looked for, counted.

    Attributes:
        suffixes: how many files of each suffix are no images; "" for those without one.
        clutter: entries of operating systems and tools, and hidden ones, by name.
        links: links to folders that were not followed.
    """

    suffixes: Counter[str] = field(default_factory=Counter)
    clutter: Counter[str] = field(default_factory=Counter)
    links: int = 0

    def add(self, name: str) -> None:
        """Count the file `name`, which is no image."""
        self.suffixes[suffix_of(name)] += 1

    def update(self, other: PassedOver) -> None:
        """Count what another walk left out, too."""
        self.suffixes += other.suffixes
        self.clutter += other.clutter
        self.links += other.links

    def __bool__(self) -> bool:
        """Whether anything was left out, clutter aside."""
        return bool(self.suffixes or self.links)

    def notes(self) -> list[str]:
        """A clause for each kind, with its cure; empty where nothing was passed over.

        `8 HEIC photos (8 .heic): this needs ...`, `4 files that are no images (3 .txt, 1 .xml)`.
        """
        kinds: dict[str, Counter[str]] = {}
        for suffix, number in self.suffixes.items():
            kinds.setdefault(_kind_of(suffix), Counter())[suffix] = number
        made = [_clause(kind, kinds[kind]) for kind in KINDS if kind in kinds]
        if self.links:
            found = counted(self.links, "link to a folder", "links to folders")
            made.append(f"{found}, not followed")
        return made

    def sentences(self, where: object) -> Iterator[str]:
        """What was passed over in a data set, clutter too: one sentence, or none."""
        notes = self.notes()
        if self.clutter:
            names = _listed(Counter({repr(name): n for name, n in self.clutter.items()}))
            entries = counted(self.clutter.total(), "entry", "entries")
            notes.append(f"{entries} hidden or left by the operating system ({names})")
        if notes:
            yield f"ignored in {where}: {'; '.join(notes)}."

    def __str__(self) -> str:
        """All notes as one sentence without a stop: `passed over: ...`; empty for nothing."""
        return f"passed over: {'; '.join(self.notes())}" if self else ""


@dataclass(frozen=True)
class UnreadableFolder:
    """A folder that may not be read, and the system's reason."""

    path: str
    reason: str


def images_below(
    folder: str, passed_over: PassedOver, *, follow_links: bool = False, values: bool = False
) -> Iterator[str | UnreadableFolder]:
    """The files with an image's suffix below `folder`, sorted by name, folder by folder.

    The names of one folder are held at a time.

    Args:
        folder: is the beginning of every path.
        passed_over: is told of the other files, and of links that are not followed.
        follow_links: go into linked folders, but not back to one that is being read.
        values: as of `is_image_name`.
    """
    return _images_below(folder, passed_over, follow_links, values, frozenset())


def _images_below(
    folder: str,
    passed_over: PassedOver,
    follow_links: bool,
    values: bool,
    above: frozenset[tuple[int, int]],
) -> Iterator[str | UnreadableFolder]:
    """The same as `images_below`; `above` has device and inode of the folders around this one."""
    try:
        found = os.stat(folder)  # noqa: PTH116
        here = above | {(found.st_dev, found.st_ino)}
        with os.scandir(folder) as entries:
            inside = []
            for entry in entries:
                if is_clutter_entry(entry):
                    passed_over.clutter[entry.name] += 1
                else:
                    inside.append((entry.name, entry.is_dir(), entry.is_symlink()))
    except OSError as error:
        yield UnreadableFolder(folder, error.strerror or str(error))
        return
    if follow_links and len(here) == len(above):
        return
    for name, is_folder, is_link in sorted(inside):
        path = os.path.join(folder, name)  # noqa: PTH118
        if is_folder and is_link and not follow_links:
            passed_over.links += 1
        elif is_folder:
            yield from _images_below(path, passed_over, follow_links, values, here)
        elif is_image_name(name, values=values):
            yield path
        else:
            passed_over.add(name)


# What is passed over: kind → its name for one and for several.
KINDS: dict[str, tuple[str, str]] = {
    "heif": ("HEIC photo", "HEIC photos"),
    "raw": ("raw photo", "raw photos"),
    "dicom": ("DICOM file", "DICOM files"),
    "picture": ("picture of a kind that is not read", "pictures of kinds that are not read"),
    "other": ("file that is no image", "files that are no images"),
    "bare": ("file without a suffix", "files without a suffix"),
}


def _kind_of(suffix: str) -> str:
    """The kind of a file that is passed over."""
    if not suffix:
        return "bare"
    for kind, suffixes in (
        ("heif", HEIF_SUFFIXES),
        ("raw", RAW_SUFFIXES),
        ("dicom", DICOM_SUFFIXES),
        ("picture", OTHER_PICTURES),
    ):
        if suffix in suffixes:
            return kind
    return "other"


def _clause(kind: str, suffixes: Counter[str]) -> str:
    """`3 raw photos (2 .cr2, 1 .nef): save them as JPEG or PNG`."""
    cures = {
        "heif": why_not_heif(),
        "raw": "save them as JPEG or PNG to have them read",
        "dicom": "networks that have the setting intensity read them (docs/data.md)",
        "picture": "save them as PNG or JPEG to have them read",
        "bare": "files that are named, one by one or by a pattern, are read whatever their suffix",
    }
    listed = "" if kind == "bare" else f" ({_listed(suffixes)})"
    cure = f": {cures[kind]}" if kind in cures else ""
    return f"{counted(suffixes.total(), *KINDS[kind])}{listed}{cure}"


def _listed(counter: Counter[str]) -> str:
    """`3 .txt, 1 .xml`, the most frequent first."""
    most = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{number:,} {name}" for name, number in most[:MOST_NAMED]]
    if len(most) > MOST_NAMED:
        named.append(f"{sum(number for _, number in most[MOST_NAMED:]):,} others")
    return ", ".join(named)
