"""Images of every kind that a caller may hand in, read and resized."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from densepath.errors import ImageError, UsageError
from densepath.images.decode import MAX_PIXELS, from_pillow, open_picture
from densepath.images.download import Url
from densepath.images.preprocess import Image
from densepath.images.read_as import ReadAs

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    Readable: TypeAlias = str | Path | bytes | NDArray[np.uint8] | Picture | Url | "ReadImage"


@dataclass(frozen=True, slots=True)
class ReadImage:
    """An image on its way: its name, and its pixels or why there are none.

    `image` is uint8 HWC, resized and cropped.
    """

    name: str
    image: Image | None
    error: str | None = None

    def __repr__(self) -> str:
        """The name and the size, or why there is no image."""
        said = self.error if self.image is None else " × ".join(map(str, self.image.shape))
        return f"<ReadImage {self.name}: {said}>"


def read_image(
    image: Readable,
    name: str,
    read_as: ReadAs,
    fit: Callable[[Image | Picture], Image],
    max_pixels: int = MAX_PIXELS,
) -> ReadImage:
    """The image, read and resized by `fit`; or why it cannot be."""
    if isinstance(image, ReadImage):
        return image
    try:
        return ReadImage(name, fit(open_readable(image, read_as, max_pixels)))
    except ImageError as error:
        return ReadImage(name, None, error.reason)
    except UsageError as error:
        return ReadImage(name, None, str(error))


def open_readable(image: Any, read_as: ReadAs, max_pixels: int = MAX_PIXELS) -> Image | Picture:
    """A path, bytes, array, tensor, Pillow image or Url → what `Preprocess.fit` takes.

    Gray arrays [height, width] are taken too, and gray and RGB become one another. A tensor may
    have its channels first or last; what is in memory has 8 bits already. A file's height × width
    may be `max_pixels`.

    Raises:
        ImageError: it cannot be read.
        UsageError: an object that is none of these, or pixels that are no bytes.
    """
    channels, intensity = read_as.channels, read_as.intensity
    if isinstance(image, bytes) and not image:
        raise ImageError("<bytes>", "no bytes at all")
    if isinstance(image, str | Path | bytes):
        return open_picture(image, channels=channels, intensity=intensity, max_pixels=max_pixels)
    if isinstance(image, Url):
        content = image.fetch()
        return open_picture(content, channels=channels, intensity=intensity, max_pixels=max_pixels)
    if is_tensor(image):
        image = _channels_last(image, channels)
    if not isinstance(image, np.ndarray):
        if not is_picture(image):
            kind = type(image).__name__
            raise UsageError(f"a {kind} is not a path, bytes, a uint8 array or a Pillow image")
        return from_pillow(image, channels=channels)
    check_pixels(image)
    pixels = image[:, :, None] if image.ndim == 2 else image
    if pixels.ndim == 3 and {pixels.shape[2], channels} == {1, 3}:
        return from_pillow(_to_pillow(pixels), channels=channels)
    if pixels.ndim == 3 and pixels.shape[2] != channels and pixels.shape[0] in (1, 3, channels):
        raise UsageError(
            f"the image is a uint8 array of {_sides(pixels)} with its channels first; hand in "
            "uint8 [height, width, channels]: x.transpose(1, 2, 0)"
        )
    return pixels


def check_pixels(pixels: Any) -> None:
    """Raise unless an array or a tensor is one of bytes.

    Raises:
        UsageError: its values are of another type; the message says how they become bytes.
    """
    kind = str(pixels.dtype).removeprefix("torch.")
    if kind == "uint8":
        return
    convert = ".to(torch.uint8)" if is_tensor(pixels) else ".astype(np.uint8)"
    cure = f"x{convert} where they lie in 0 to 255"
    if "float" in kind:
        cure += f", (x * 255).round(){convert} where they lie in 0 to 1"
    raise UsageError(
        f"the image is {kind} of {_sides(pixels)}; whether such values are pixels, shares or "
        f"normalised cannot be known. Hand in uint8, values 0 to 255: {cure}."
    )


def is_tensor(value: Any) -> bool:
    """Whether it is a torch tensor; torch is not imported for it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_picture(value: Any) -> bool:
    """Whether it is a Pillow image; Pillow's many modules are not imported for it."""
    return hasattr(value, "getbands")


def _channels_last(tensor: Any, channels: int) -> NDArray[np.uint8]:
    """A tensor's pixels as an array [height, width] or [height, width, channels].

    Raises:
        UsageError: its values are no bytes, or both or neither of its ends may be the channels.
    """
    check_pixels(tensor)
    pixels: NDArray[np.uint8] = tensor.detach().cpu().numpy()
    if pixels.ndim != 3:
        return pixels
    first, last = (side in {1, 3, channels} for side in (pixels.shape[0], pixels.shape[2]))
    if first == last:
        said = "either end may" if first else "no end can"
        raise UsageError(
            f"the image is a uint8 tensor of {_sides(pixels)}: {said} be the channels. Hand in "
            "an array of uint8 [height, width, channels]: x.permute(1, 2, 0).numpy() where they "
            "are first"
        )
    return pixels.transpose(1, 2, 0) if first else pixels


def _sides(pixels: Any) -> str:
    """`3 × 224 × 224`."""
    return " × ".join(map(str, pixels.shape))


def _to_pillow(pixels: Image) -> Picture:
    """A uint8 array of 1 or 3 channels as a Pillow image."""
    from PIL import Image as Pillow

    return Pillow.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
