"""The only evaluation-time image arithmetic in Python: uint8 image → the network's input.

It travels with the weights, so that training, evaluation, prediction and every exported form do
the same. Pillow does the antialiased resizing, as in torchvision and timm; OpenCV's plain
bilinear resizing, which PaddleClas and MindCV use, is written out here.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from densepath.choices import CropRounding, Interpolation, SideRounding
from densepath.errors import UnknownNameError, UsageError
from densepath.images.intensity import Intensity
from densepath.images.read_as import ReadAs

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Image = NDArray[np.uint8]
Size = tuple[int, int]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# A resized image of more pixels is made in part only; as many as a file may have.
MOST_PIXELS = 89_478_485
COEFFICIENT = 2048
INTENSITY = "intensity"  # the field that may be absent in files
# The modes of Pillow's images by their number of channels.
MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes the network's input: resize, centre crop, normalise.

    Attributes:
        size: height and width of the input in pixels.
        resize_short: the short side before the crop; None resizes straight to `size`.
        interpolation: `bilinear` and `bicubic` are Pillow's, antialiased; `cv2_bilinear` is
            OpenCV's `INTER_LINEAR`, which is not.
        side_rounding: how the long side is made whole: `truncate` (torchvision, timm) or
            `round` (PaddleClas).
        crop_rounding: how the crop's corner is made whole: `round` (torchvision) or `floor`
            (PaddleClas, MindCV).
        mean, std: of values scaled to 0…1, one a channel; their number is the channels:
            1 for grayscale, 3 for RGB, others for arrays and files that have as many.
        intensity: which values of a file of more than 8 bits are black and white, as it is read;
            None: such files are read as photos are.
    """

    size: tuple[int, int]
    resize_short: int | None = None
    interpolation: Interpolation = "bilinear"
    side_rounding: SideRounding = "truncate"
    crop_rounding: CropRounding = "round"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    intensity: Intensity | None = None

    def __post_init__(self) -> None:
        """Raise UsageError where a field has a value that no preprocessing can have."""
        for kind, value, choices in (
            ("interpolation", self.interpolation, get_args(Interpolation)),
            ("side rounding", self.side_rounding, get_args(SideRounding)),
            ("crop rounding", self.crop_rounding, get_args(CropRounding)),
        ):
            if value not in choices:
                raise UnknownNameError(kind, value, choices)
        if len(self.size) != 2 or min(self.size) < 1:
            raise UsageError(f"size is {self.size}; it must be a height and a width of 1 or more.")
        if self.resize_short is not None and self.resize_short < min(self.size):
            raise UsageError(
                f"resize_short is {self.resize_short}, less than the crop of {self.size}; "
                "name a larger one, or none to resize straight to the size."
            )
        if not self.mean or len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise UsageError(
                f"mean {self.mean} and std {self.std} must have one value a channel, std above 0."
            )

    @property
    def channels(self) -> int:
        """The channels of the input."""
        return len(self.mean)

    @property
    def read_as(self) -> ReadAs:
        """How files are read for it."""
        return ReadAs(self.channels, self.intensity)

    def fit(self, image: Image | Picture) -> Image:
        """The image resized and cropped: uint8 HWC of any size → uint8 HWC of `size`.

        A Pillow image of mode RGB or L is taken too, which saves two copies of it.

        Raises:
            UsageError: the image is not uint8 HWC with `channels` channels.
        """
        self.check(image)
        target, corner = self.place(size_of(image))
        return resize(image, target, self.interpolation, part=(corner, self.size))

    def place(self, old: Size) -> tuple[Size, Size]:
        """The height and width that an image of size `old` gets, and the crop's top and left."""
        if self.resize_short is None:
            return self.size, (0, 0)
        height, width = old
        long, short = max(height, width), min(height, width)
        whole = (
            int(self.resize_short * long / short)  # torchvision's expression
            if self.side_rounding == "truncate"
            else round(long * (self.resize_short / short))  # PaddleClas's
        )
        sides = (self.resize_short, whole) if height <= width else (whole, self.resize_short)
        # Where the crop is not square its long side may not fit: then the image is stretched.
        target = (max(sides[0], self.size[0]), max(sides[1], self.size[1]))
        return target, self._corner(target)

    def __call__(self, image: Image) -> NDArray[np.float32]:
        """uint8 HWC of any size → float32 CHW, normalised.

        Raises:
            UsageError: the image is not uint8 HWC with `channels` channels.
        """
        return self.normalise(self.fit(image))

    def normalise(
        self, image: Image, *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """(image / 255 − mean) / std: uint8 […, H, W, C] → float32 […, C, H, W], contiguous.

        The result is written to `out`, if it is given.
        """
        scale, offset = self.scale_and_offset()
        planes = np.moveaxis(image, -1, -3)
        values = np.empty(planes.shape, np.float32) if out is None else out
        np.multiply(planes, scale[:, None, None], out=values)
        values += offset[:, None, None]
        return values

    def scale_and_offset(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The float32 [channels] a and b with input = a · uint8 + b."""
        mean, std = np.array(self.mean), np.array(self.std)
        return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)

    def at_size(self, size: int | tuple[int, int], crop_share: float | None = None) -> Preprocess:
        """The same arithmetic for another input size.

        Args:
            size: side in pixels, or height and width.
            crop_share: the share of the short side that the crop keeps; by default as now.

        Raises:
            UsageError: a size below 1, more pixels than any image has that is read, or a share
                outside (0, 1].
        """
        height, width = (size, size) if isinstance(size, int) else size
        if height * width > MOST_PIXELS:
            side = math.isqrt(MOST_PIXELS)
            raise UsageError(
                f"size is {height} × {width}; an input has at most {MOST_PIXELS:,} pixels, as "
                f"{side:,} × {side:,}."
            )
        if crop_share is not None and not 0 < crop_share <= 1:
            raise UsageError(f"the crop's share is {crop_share}; it must lie in (0, 1].")
        if crop_share is None and self.resize_short is None:
            return dataclasses.replace(self, size=(height, width))
        share = crop_share or min(self.size) / (self.resize_short or min(self.size))
        resize_short = max(math.floor(min(height, width) / share + 1e-6), min(height, width))
        return dataclasses.replace(self, size=(height, width), resize_short=resize_short)

    def to_text(self) -> str:
        """What it does, for a person, in one line."""
        height, width = self.size
        way = f"resized to {height} × {width}"
        if self.resize_short is not None:
            way = f"short side resized to {self.resize_short}, centre crop {height} × {width}"
        mean, std = (" ".join(f"{value:.4g}" for value in row) for row in (self.mean, self.std))
        own = "" if self.intensity is None else f"; intensity {self.intensity.to_text()}"
        return f"{way}, {self.interpolation}; mean {mean}, std {std} of values from 0 to 1{own}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back.

        An intensity is among them only where there is one: older readers know no such field.
        """
        values = {name: value for name, value in vars(self).items() if name != INTENSITY}
        return values if self.intensity is None else values | {INTENSITY: self.intensity.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocess:
        """The preprocessing that `to_dict` wrote.

        Raises:
            UsageError: a field is missing, unknown or impossible.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise UnknownNameError("field of preprocessing", name, known)
        missing = [name for name in known if name not in values and name != INTENSITY]
        if missing:
            raise UsageError(f"the description of preprocessing lacks {', '.join(missing)}.")
        try:
            lists = {name: tuple(values[name]) for name in ("size", "mean", "std")}
            given = values.get(INTENSITY)
            own = None if given is None else Intensity.from_dict(given)
            return cls(**{**values, **lists, INTENSITY: own})
        except TypeError as error:
            raise UsageError(f"not a description of preprocessing: {error}.") from error

    def _corner(self, resized: tuple[int, int]) -> tuple[int, int]:
        """Top and left of the centre crop of an image of the size `resized`."""
        whole = round if self.crop_rounding == "round" else math.floor
        return whole((resized[0] - self.size[0]) / 2), whole((resized[1] - self.size[1]) / 2)

    def check(self, image: Image | Picture) -> None:
        """Raise unless the image is uint8 HWC with the right channels."""
        if isinstance(image, np.ndarray):
            right = image.dtype == np.uint8 and image.ndim == 3 and image.size > 0
            right = right and image.shape[2] == self.channels
            found = f"{image.dtype} {image.shape}"
        else:
            mode = getattr(image, "mode", "none")
            right = mode == MODES.get(self.channels)
            found = f"{type(image).__name__} of mode {mode}"
        if not right:
            raise UsageError(
                f"the image is {found}; this preprocessing takes uint8 [height, width, "
                f"{self.channels}], values 0 to 255."
            )


def size_of(image: Image | Picture) -> Size:
    """Height and width."""
    if isinstance(image, np.ndarray):
        return image.shape[0], image.shape[1]
    return image.height, image.width


def resize(
    image: Image | Picture,
    size: Size,
    interpolation: Interpolation,
    *,
    part: tuple[Size, Size] | None = None,
) -> Image:
    """uint8 HWC, or a Pillow image of mode RGB or L → uint8 HWC of `size` (height, width).

    `part` is (top, left) and (height, width) of a crop of the resized image, which is then the
    result. An image that has the size already keeps its pixels.
    """
    (top, left), (height, width) = part or ((0, 0), size)
    small = size[0] * size[1] <= MOST_PIXELS
    if not isinstance(image, np.ndarray):
        if small and interpolation != "cv2_bilinear" and size_of(image) != tuple(size):
            picture = image.resize((size[1], size[0]), _method(interpolation))
            return _to_array(picture.crop((left, top, left + width, top + height)))
        return resize(_to_array(image), size, interpolation, part=part)
    if image.shape[:2] == tuple(size):
        return image[top : top + height, left : left + width]
    if interpolation == "cv2_bilinear":
        return _resize_like_opencv(image, size, (top, left), (height, width))
    if not small:
        return _resize_part(image, size, interpolation, (top, left), (height, width))
    resized = _resize_with_pillow(image, size, interpolation)
    return resized[top : top + height, left : left + width]


def _resize_with_pillow(
    image: Image,
    size: Size,
    interpolation: Interpolation,
    box: tuple[float, float, float, float] | None = None,
) -> Image:
    """The image, or its `box` (left, top, right, bottom), antialiased to `size`."""
    from PIL import Image as Pillow

    method = _method(interpolation)
    height, width = size
    if image.shape[2] == 3:
        picture = Pillow.fromarray(np.ascontiguousarray(image))
        return np.asarray(picture.resize((width, height), method, box))
    layers = [Pillow.fromarray(np.ascontiguousarray(layer)) for layer in image.transpose(2, 0, 1)]
    return np.stack([np.asarray(p.resize((width, height), method, box)) for p in layers], axis=2)


def _method(interpolation: Interpolation) -> Any:
    """Pillow's name of it."""
    from PIL import Image as Pillow

    return Pillow.Resampling[interpolation.upper()]


def _to_array(picture: Picture) -> Image:
    """uint8 HWC of a picture of mode RGB or L."""
    pixels = np.asarray(picture)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def _resize_part(
    image: Image, size: Size, interpolation: Interpolation, corner: Size, part: Size
) -> Image:
    """A crop of an image whose resized form would not fit into memory: 1 × 10,000 pixels, say."""
    v, u = image.shape[0] / size[0], image.shape[1] / size[1]
    (top, left), (height, width) = corner, part
    box = (left * u, top * v, (left + width) * u, (top + height) * v)
    return _resize_with_pillow(image, part, interpolation, box)


def _resize_like_opencv(image: Image, size: Size, corner: Size, part: Size) -> Image:
    """OpenCV's `INTER_LINEAR`: four neighbours at (i + 0.5) · scale − 0.5, weights of 11 bits.

    Source: OpenCV 4 `imgproc/src/resize.cpp`: INTER_RESIZE_COEF_BITS = 11, and the shifts of
    its vertical pass on 8 bits; equal bit by bit, see `benchmarks/peers/opencv/`.
    """
    top, bottom, v = _neighbours(image.shape[0], size[0], corner[0], part[0])
    left, right, u = _neighbours(image.shape[1], size[1], corner[1], part[1])
    rows, places = np.unique(np.concatenate([top, bottom]), return_inverse=True)
    used = image[rows]
    across = used.take(left, axis=1) * (COEFFICIENT - u[None, :, None])
    across += used.take(right, axis=1) * u[None, :, None]
    across >>= 4
    upper = across[places[: part[0]]] * (COEFFICIENT - v[:, None, None])
    lower = across[places[part[0] :]] * v[:, None, None]
    upper >>= 16
    lower >>= 16
    upper += lower
    upper += 2
    upper >>= 2
    return upper.astype(np.uint8)


def _neighbours(
    old: int, new: int, start: int, count: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.int32]]:
    """For `count` new positions the two old ones, and the weight of the second in 1/2048."""
    at = ((np.arange(start, start + count) + 0.5) * (old / new) - 0.5).astype(np.float32)
    first = np.floor(at).astype(np.intp)
    weight = np.rint((at - first.astype(np.float32)) * COEFFICIENT).astype(np.int32)
    return first.clip(0, old - 1), (first + 1).clip(0, old - 1), weight
