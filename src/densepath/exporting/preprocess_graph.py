"""The arithmetic of `images/preprocess.py` as a graph, said once for every runtime.

On the line: Preprocess → graph (uint8 image of any size → model input) → Bundle. A runtime's file
(`preprocess_onnx.py`, `preprocess_openvino.py`) brings the operations; this file says in which
order they are done. Whole numbers stay exact when a runtime has only 32 bits of them: positions
are counted from the middle of the image, where the crop is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from densepath.exporting.graph import Axis, GraphTensor
from densepath.images.preprocess import COEFFICIENT, MOST_PIXELS, Preprocess

# Reach of Pillow's kernels in pixels of the smaller image. Source: Pillow 13 `Resample.c`.
SUPPORT = {"bilinear": 1, "bicubic": 2}
# Weights are whole multiples of 1 / WEIGHT. Source: the same, PRECISION_BITS.
WEIGHT = 2.0**22
# a of the bicubic kernel. Source: Pillow 13 `Resample.c`, `bicubic_filter`.
CUBIC_A = -0.5

# New columns that are made at a time.
GROUP = 8
# Sizes of windows, four an octave, up to the side of the largest image.
WINDOWS = [quarter << octave for octave in range(2, 26) for quarter in (4, 5, 6, 7)]


def preprocess_graph(image: GraphTensor, preprocess: Preprocess) -> tuple[GraphTensor, GraphTensor]:
    """byte [height, width, channels] → real [1, channels, *size] and byte [*size, channels].

    The first is normalised; the second is the same image before that.
    """
    rows, columns = _axes(image, preprocess)
    if preprocess.interpolation == "cv2_bilinear":
        pixels = _resize_like_opencv(image, rows, columns)
    else:
        kernel, channels = preprocess.interpolation, preprocess.channels
        pixels = image.to.resize_like_pillow(image, rows, columns, kernel, channels)
    scale, offset = (
        image.constant(values[None, :, None, None], "real")
        for values in preprocess.scale_and_offset()
    )
    pixels = pixels.reshape(*preprocess.size, preprocess.channels)
    planes = pixels.transpose(2, 0, 1).reshape(1, preprocess.channels, *preprocess.size)
    return planes.cast("real") * scale + offset, pixels


def _axes(image: GraphTensor, preprocess: Preprocess) -> tuple[Axis, Axis]:
    """The image's height and width with what becomes of them; see `Preprocess.fit`."""
    height, width = image.dimension(0), image.dimension(1)
    (new_height, new_width), short = preprocess.size, preprocess.resize_short
    zero = height.constant(0)
    if short is None:
        target = height.constant(new_height), height.constant(new_width)
        return Axis(height, target[0], zero, new_height), Axis(width, target[1], zero, new_width)
    sides = _sides(height, width, short, preprocess.side_rounding == "round")
    axes = []
    for old, side, size in zip((height, width), sides, preprocess.size, strict=True):
        whole = side.most(size)
        spare = whole - size
        first = spare // 2
        if preprocess.crop_rounding == "round":  # Halves go to the even number.
            first = (spare + (first - first // 2 * 2)) // 2
        axes.append(Axis(old, whole, first, size))
    return axes[0], axes[1]


def _sides(
    height: GraphTensor, width: GraphTensor, resize_short: int, rounds: bool
) -> tuple[GraphTensor, GraphTensor]:
    """Height and width after the short side has been made `resize_short`."""
    long, short = height.most(width), height.least(width)
    if rounds:
        whole = long.to.rounded_side(long, short, resize_short)
    else:  # ⌊resize_short · long / short⌋ without the large product.
        times = long // short
        whole = times * resize_short + (long - times * short) * resize_short // short
    tall, fixed = height > width, long.constant(resize_short)
    return tall.where(whole, fixed), tall.where(fixed, whole)


def vertical_first(rows: Axis, columns: Axis) -> GraphTensor:
    """Whether Pillow resizes the height before the width; one rounding lies between the two.

    Source: Pillow 13 `Resample.c`, `ImagingResampleInner`; before, the width always came first.
    """
    # Of what is too large to be made whole, Pillow makes the crop only: see `preprocess.resize`.
    huge = more_pixels(rows, columns, MOST_PIXELS)
    height, width = (huge.where(a.old.constant(a.size), a.target) for a in (rows, columns))
    less_high, less_wide = rows.old - height, columns.old - width
    return (less_high > 0) & (less_high > less_wide * 2)


def more_pixels(rows: Axis, columns: Axis, limit: int) -> GraphTensor:
    """Whether the whole resized image would have more pixels than `limit`."""
    return rows.target.cast("real") * columns.target.cast("real") > float(limit)


def resize_by_matrices(
    image: GraphTensor, rows: Axis, columns: Axis, kernel: str, channels: int
) -> GraphTensor:
    """Pillow's resizing as products of matrices, of that part only which the crop needs.

    byte [height, width, channels] → byte [rows.size, columns.size, channels]. Between the two
    directions the values are rounded to 0…255, as Pillow does.
    """

    def width_first(image: GraphTensor, *numbers: GraphTensor) -> GraphTensor:
        down, across = _axes_of(numbers, rows.size, columns.size)
        return _across_then_down(image, down, across, kernel, channels)

    def height_first(image: GraphTensor, *numbers: GraphTensor) -> GraphTensor:
        down, across = _axes_of(numbers, rows.size, columns.size)
        turned = _across_then_down(image.transpose(1, 0, 2), across, down, kernel, channels)
        return turned.transpose(1, 0, 2)

    order = vertical_first(rows, columns)
    return order.either(height_first, width_first, image, *rows.numbers, *columns.numbers)


def _axes_of(numbers: Sequence[GraphTensor], *sizes: int) -> tuple[Axis, Axis]:
    """Two axes of their `numbers`, as the body of a branch is given them."""
    (old, target, first), (old_2, target_2, first_2) = numbers[:3], numbers[3:]
    return Axis(old, target, first, sizes[0]), Axis(old_2, target_2, first_2, sizes[1])


def _across_then_down(
    image: GraphTensor, rows: Axis, columns: Axis, kernel: str, channels: int
) -> GraphTensor:
    """byte [height, width, channels] → byte [rows.size, columns.size, channels].

    A few columns are made at a time, from the window that they need: all other weights are zero,
    and floats are made of the window only.
    """
    num_groups = -(-columns.size // GROUP)
    same_channel = np.eye(channels).reshape(1, channels, 1, channels)

    def group(place: GraphTensor, used: GraphTensor, *numbers: GraphTensor) -> GraphTensor:
        old, target, first = numbers
        part = Axis(old, target, first + place * GROUP, GROUP)
        left, width = _window(part, kernel)
        width = width.least(old)
        weights = _weights(part, kernel, left, width).transpose(1, 0).reshape(-1, 1, GROUP, 1)
        weights = (weights * used.constant(same_channel, "real")).reshape(-1, GROUP * channels)
        window = used.cut(left, left + width, 1).cast("real").reshape(0, -1)
        return _rounded(window @ weights)

    top, height = _window(rows, kernel)
    used = image.take((height.count() + top).least(rows.old - 1), 0)
    across = used.to.each(group, num_groups, used, *columns.numbers).transpose(1, 0, 2)
    crop = _rounded(_weights(rows, kernel, top, height) @ across.reshape(0, -1))
    whole = crop.reshape(rows.size, num_groups * GROUP, channels)
    zero, size = (rows.old.constant(number) for number in (0, columns.size))
    return whole.cut(zero, size, 1).cast("byte")


def _rounded(values: GraphTensor) -> GraphTensor:
    """The nearest of 0, 1, … 255, halves upwards, as Pillow's `clip8` after its half."""
    return (values + 0.5).floor().most(0.0).least(255.0)


def _window(axis: Axis, kernel: str) -> tuple[GraphTensor, GraphTensor]:
    """The first of the old pixels that the crop needs, and a number that reaches over all of them.

    The number is one of a few, and may reach beyond the last pixel: runtimes prepare a product
    anew for every shape, and keep what they prepared.
    """
    grid = axis.target * 2
    radius = axis.old.most(axis.target) * (2 * SUPPORT[kernel])
    needed = (axis.old * (2 * axis.size - 2) + radius * 2) // grid + 4
    sizes = axis.old.constant(np.array(WINDOWS))
    one = sizes.constant(1)
    place = (sizes < needed).where(one, sizes.constant(0)).sum(0)
    size = sizes.take(place, 0).reshape()
    middle = axis.first * 2 + 1 - axis.target
    start = (middle * axis.old - radius) // grid + axis.old // 2 - 1
    return start.least(axis.old - size).most(0), size


def _weights(axis: Axis, kernel: str, start: GraphTensor, size: GraphTensor) -> GraphTensor:
    """[axis.size, size]: what each old pixel from `start` on adds to each new one.

    The distance of the middles over the kernel's scale is a whole number over
    2 · max(old, target), so that nothing is lost where positions are large.
    """
    old = (size.count() + start) * 2 + 1 - axis.old
    apart = old * axis.target - axis.middles().reshape(axis.size, 1) * axis.old
    scale = (axis.old.most(axis.target) * 2).cast("real")
    t = (apart.absolute().cast("real") / scale).least(float(SUPPORT[kernel]))
    inside = (old < axis.old).cast("real")  # Behind the last pixel there is nothing.
    weights = (1.0 - t if kernel == "bilinear" else _cubic(t)) * inside
    return (weights / weights.sum(1) * WEIGHT).round() * (1 / WEIGHT)


def _cubic(t: GraphTensor) -> GraphTensor:
    """The values of Keys' cubic kernel at 0 ≤ t ≤ 2."""
    near = (t * (CUBIC_A + 2) - (CUBIC_A + 3)) * t * t + 1.0
    far = (((t - 5.0) * t + 8.0) * t - 4.0) * CUBIC_A
    return (t < 1.0).where(near, far)


def _resize_like_opencv(image: GraphTensor, rows: Axis, columns: Axis) -> GraphTensor:
    """OpenCV's `INTER_LINEAR`, bit by bit; see `preprocess._resize_like_opencv`.

    The whole numbers are kept as floats, below 2²⁴, where these are exact and quick.
    """
    top, bottom, v = _neighbours(rows)
    left, right, u = _neighbours(columns)
    u, v = u.reshape(columns.size, 1), v.reshape(rows.size, 1, 1)
    whole = float(COEFFICIENT)

    def across(row: GraphTensor) -> GraphTensor:
        used = image.take(row, 0)
        first, second = used.take(left, 1).cast("real"), used.take(right, 1).cast("real")
        return _shifted(first * (whole - u) + second * u, 4)

    def down(values: GraphTensor, weight: GraphTensor) -> GraphTensor:
        """⌊values · weight / 2¹⁶⌋, in two steps since the product has 26 bits."""
        upper = _shifted(values, 8)
        lower = _shifted((values - upper * 256.0) * weight, 8)
        return _shifted(upper * weight + lower, 8)

    sums = down(across(top), whole - v) + down(across(bottom), v)
    return _shifted(sums + 2.0, 2).cast("byte")


def _shifted(values: GraphTensor, bits: int) -> GraphTensor:
    """⌊values / 2^bits⌋."""
    return (values * 2.0**-bits).floor()


def _neighbours(axis: Axis) -> tuple[GraphTensor, GraphTensor, GraphTensor]:
    """For each new position the two old ones, and the weight of the second in 1/2048."""
    half = axis.old // 2
    odd = axis.old - half * 2
    above = axis.middles() * axis.old + (1 - odd) * axis.target
    grid = axis.target * 2
    whole = above // grid
    rest = (above - whole * grid).cast("real") / grid.cast("real")
    # Positions are rounded to float32 here, as OpenCV rounds them.
    place = (whole + half - 1 + odd).cast("real") + rest
    first = place.floor()
    weight = ((place - first) * float(COEFFICIENT)).round()
    left, last = first.cast("whole"), axis.old - 1
    return left.most(0).least(last), (left + 1).most(0).least(last), weight
