"""How many bits images have, and which values, before anything is trained on them.

On the line: beside `decode.py`; `data inspect` asks, and suggests a setting `intensity`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from densepath.errors import ImageError
from densepath.images.decode import MAX_PIXELS, START, read_values
from densepath.images.dicom_header import is_dicom
from densepath.images.intensity import Intensity
from densepath.images.npy import is_npy
from densepath.wording import counted

PNG, PNG_DEPTH_AT, DEEP_BITS = b"\x89PNG\r\n\x1a\n", 24, 16
TIFFS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
USUAL = "percentiles:0.5,99.5"
FULL_BITS = 16


@dataclass(frozen=True)
class Depth:
    """Files of one kind with more than 8 bits, among those that were looked at.

    Attributes:
        what: the kind, as `a PNG image of 16 bits`.
        count: how many.
        least, most: of all their values, after a DICOM's rescale.
        whole: whether the values are integers.
        is_dicom: whether they are DICOM files.
    """

    what: str
    count: int
    least: float
    most: float
    whole: bool
    is_dicom: bool

    def __str__(self) -> str:
        """`40 × a PNG image of 16 bits, values 0 to 4,095`."""
        return f"{self.count:,} × {self.what}, values {self.least:,.6g} to {self.most:,.6g}"

    def __add__(self, other: Depth) -> Depth:
        """Both together, of the same kind."""
        least, most = min(self.least, other.least), max(self.most, other.most)
        whole = self.whole and other.whole
        return Depth(self.what, self.count + other.count, least, most, whole, self.is_dicom)


def find_depths(paths: Iterable[str | Path], channels: int = 1) -> tuple[Depth, ...]:
    """The kinds of files that have more than 8 bits; those of 8 are only looked at.

    Files that cannot be read are passed over: others count them.
    """
    found: dict[str, Depth] = {}
    for path in paths:
        depth = _depth_of(Path(path), channels)
        if depth is not None:
            found[depth.what] = found[depth.what] + depth if depth.what in found else depth
    return tuple(found.values())


def suggest(depths: tuple[Depth, ...]) -> str:
    """The setting that such files probably want."""
    if all(depth.is_dicom for depth in depths):
        return "file"
    plain = all(depth.whole and depth.least >= 0 and not depth.is_dicom for depth in depths)
    if not plain:
        return USUAL
    bits = max(8, *(int(depth.most).bit_length() for depth in depths))
    return "file" if bits >= FULL_BITS else f"range:0,{(1 << bits) - 1}"


def said_of(depths: tuple[Depth, ...], looked_at: int, intensity: Intensity | None) -> str:
    """What a person should know of them: two sentences, of which one is how they are read."""
    count = sum(depth.count for depth in depths)
    kinds = "; ".join(map(str, depths))
    found = (
        f"of {counted(looked_at, 'image')} looked at, {count:,} with more than 8 bits ({kinds})."
    )
    if intensity is not None:
        return f"{found} They are read by the intensity {intensity.to_text()}."
    return (
        f"{found} "
        "By default their upper 8 bits are read, and DICOM files and arrays not at all; the "
        f"setting intensity says which values count: preprocess.intensity={suggest(depths)}."
    )


def _depth_of(path: Path, channels: int) -> Depth | None:
    """A file's depth; None where it has 8 bits or cannot be read, as a pipe that nobody fills."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            start = file.read(START)
        is_png = start.startswith(PNG) and start[PNG_DEPTH_AT : PNG_DEPTH_AT + 1] == b"\x10"
        if not (is_png or is_dicom(start) or is_npy(start) or start.startswith(TIFFS)):
            return None
        values = read_values(path, channels=channels, max_pixels=MAX_PIXELS)
    except (OSError, ImageError):
        return None
    if values.shown:
        return None
    ends = [
        float(end) * values.slope + values.intercept
        for end in (values.stored.min(), values.stored.max())
    ]
    whole = values.stored.dtype.kind != "f"
    return Depth(values.what, 1, min(ends), max(ends), whole, is_dicom(start))
