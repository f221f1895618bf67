"""How a network wants files read: its channels, and which values are black and white.

On the line: from `Preprocess` to every reader, data set and walk over a folder.
"""

from __future__ import annotations

from dataclasses import dataclass

from densepath.images.intensity import Intensity

PHOTO_CHANNELS = (1, 3)
# How files that are read for their values are usually called, besides TIFFs.
DICOM_SUFFIXES = frozenset((".dcm", ".dicom"))
NPY_SUFFIX = ".npy"


@dataclass(frozen=True)
class ReadAs:
    """What pixels are made of a file.

    Attributes:
        channels: 3 for RGB, 1 for grayscale, others for TIFFs of as many pages and arrays.
        intensity: which values of a deep file are black and white; None: as photos are read.
    """

    channels: int = 3
    intensity: Intensity | None = None

    @property
    def by_value(self) -> bool:
        """Whether files of measured values are read: DICOM, `.npy`, the pages of TIFFs.

        For other networks they are what they always were: no images.
        """
        return self.intensity is not None or self.channels not in PHOTO_CHANNELS


AS_PHOTOS = ReadAs()
