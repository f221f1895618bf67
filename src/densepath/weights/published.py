"""The weights that others publish: where they are, what they claim, how images reach them.

Every row is copied from its publisher:
timm 1.0.31 `models/densenet.py`, `models/dpn.py` and `results/results-imagenet.csv`;
torchvision 0.28 `models/densenet.py`; PaddleClas 2.6 `ppcls/arch/backbone/model_zoo/` and
`docs/zh_CN/models/ImageNet1k/DenseNet.md`, `DPN.md`; MindCV 0.3 `mindcv/models/` and
`configs/densenet/README.md`, `configs/dpn/README.md`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from densepath.errors import UnknownNameError
from densepath.images.preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from densepath.models.spec import ModelSpec, StemPool

Origin = Literal["timm", "torchvision", "paddle", "mindcv"]

# timm 1.0 `data/constants.py`: the mean and scale that DPN's authors trained with.
DPN_MEAN = (124 / 255, 117 / 255, 104 / 255)
DPN_STD = (1 / (0.0167 * 255),) * 3

LICENCES: dict[Origin, str] = {
    "timm": "Apache-2.0",
    "torchvision": "BSD-3-Clause",
    "paddle": "Apache-2.0",
    "mindcv": "Apache-2.0",
}
_TORCHVISION = "https://download.pytorch.org/models/"
_PADDLE = "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/"
_MINDCV = "https://download.mindspore.cn/toolkits/mindcv/"


@dataclass(frozen=True)
class Switches:
    """How a publisher's network differs from the catalogue's row; None where it does not.

    Attributes:
        bn_eps: ε of every BatchNorm.
        stem_pool: the padding of the stem's max-pool.
    """

    bn_eps: float | None = None
    stem_pool: StemPool | None = None


# Source: the numbers were found by comparing logits (tests/parity); only DPN differs.
PADDLE_DPN = Switches(bn_eps=1e-5)
MINDCV_DPN = Switches(stem_pool="same")
AS_CATALOGUE = Switches()


@dataclass(frozen=True)
class Published:
    """One published set of ImageNet-1k weights.

    Attributes:
        name: what `create_model(weights=...)` and every SUBJECT take.
        model: the catalogue's model.
        location: the address of the file, or for timm the repository on the Hugging Face hub.
        file: the file's name.
        sha256: its SHA-256 or the first digits of it; empty where the publisher gives none.
        top1, top5: the accuracy in percent that the publisher claims.
        preprocess: the way from image to input that the claim was measured with.
        switches: where the publisher's network differs from the catalogue's.
    """

    name: str
    model: str
    location: str
    file: str
    sha256: str
    top1: float
    top5: float
    preprocess: Preprocess
    switches: Switches = AS_CATALOGUE

    @property
    def origin(self) -> Origin:
        """Who publishes it."""
        return self.name.partition("/")[0]  # type: ignore[return-value]

    @property
    def licence(self) -> str:
        """The licence its publisher gives, as an SPDX name."""
        return LICENCES[self.origin]


def _pillow(
    crop_pct: float,
    interpolation: Literal["bilinear", "bicubic"] = "bicubic",
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> Preprocess:
    """torchvision's and timm's way to 224 pixels; `crop_pct` is the share of the resized side."""
    return Preprocess(
        size=(224, 224),
        resize_short=math.floor(224 / crop_pct),
        interpolation=interpolation,
        side_rounding="truncate",
        crop_rounding="round",
        mean=mean,
        std=std,
    )


def _opencv(side_rounding: Literal["truncate", "round"]) -> Preprocess:
    """PaddleClas's and MindCV's way to 224 pixels; they differ in rounding the long side."""
    return Preprocess(
        size=(224, 224),
        resize_short=256,
        interpolation="cv2_bilinear",
        side_rounding=side_rounding,
        crop_rounding="floor",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


_BICUBIC = _pillow(0.875)
_BICUBIC_95 = _pillow(0.95)
TIMM_DPN_INPUT = _pillow(0.875, mean=DPN_MEAN, std=DPN_STD)
TORCHVISION_INPUT = _pillow(0.875, "bilinear")
PADDLE_INPUT = _opencv("round")
MINDCV_INPUT = _opencv("truncate")
# GluonCV 0.10 `scripts/classification/imagenet/verify_pretrained.py`: Resize(256) keeping the
# ratio and CenterCrop(224), both MXNet's, which resizes by OpenCV's bilinear.
GLUON_INPUT = _opencv("truncate")
# Keras 3.15: `preprocess_input` in the mode "torch" after the resize of
# `image_dataset_from_directory`, straight to the size, bilinear and not antialiased.
KERAS_INPUT = Preprocess(size=(224, 224), interpolation="cv2_bilinear")
# torchxrayvision 1.5.7 `utils.normalize` makes (2 · image / 255 − 1) · 1024, from −1024 to 1024, of
# it: (v − 0.5) / (1 / 2048) of v from 0 to 1. The centre square is cropped, then resized.
XRAY_INPUT = Preprocess(size=(224, 224), resize_short=224, mean=(0.5,), std=(1 / 2048,))
# MONAI has no one habit; its tutorials scale values to 0…1, and resize to the network's size.
MONAI_INPUT = Preprocess(size=(224, 224), mean=(0.0,), std=(1.0,))

# fmt: off
# tag                     top-1   top-5   preprocessing
_TIMM_ROWS = (
    ("densenet121.ra_in1k", 75.574, 92.648, _BICUBIC),  # 76.486 at 288 pixels, crop 0.95
    ("densenet121.tv_in1k", 74.750, 92.158, _BICUBIC),
    ("densenet161.tv_in1k", 77.384, 93.656, _BICUBIC),
    ("densenet169.tv_in1k", 75.922, 92.976, _BICUBIC),
    ("densenet201.tv_in1k", 77.284, 93.480, _BICUBIC),
    ("dpn68.mx_in1k",       76.304, 92.994, TIMM_DPN_INPUT),
    ("dpn68b.mx_in1k",      77.494, 93.834, TIMM_DPN_INPUT),
    ("dpn68b.ra_in1k",      78.546, 93.982, _BICUBIC_95),  # 79.342 at 288 pixels, crop 1
    ("dpn92.mx_in1k",       80.032, 94.876, TIMM_DPN_INPUT),
    ("dpn98.mx_in1k",       79.664, 94.644, TIMM_DPN_INPUT),
    ("dpn107.mx_in1k",      80.166, 94.932, TIMM_DPN_INPUT),
    ("dpn131.mx_in1k",      79.836, 94.708, TIMM_DPN_INPUT),
)

# model          top-1   top-5   first digits of the SHA-256, which are in the file's name
_TORCHVISION_ROWS = (
    ("densenet121", 74.434, 91.972, "a639ec97"),
    ("densenet161", 77.138, 93.560, "8d451a50"),
    ("densenet169", 75.600, 92.806, "b2777c0a"),
    ("densenet201", 76.896, 93.370, "c1103571"),
)

# model          top-1 top-5
_PADDLE_ROWS = (
    ("DenseNet121", 75.7, 92.6),
    ("DenseNet161", 78.6, 94.1),
    ("DenseNet169", 76.8, 93.3),
    ("DenseNet201", 77.6, 93.7),
    ("DenseNet264", 78.0, 93.9),
    ("DPN68",       76.8, 93.4),
    ("DPN92",       79.9, 94.8),
    ("DPN98",       80.6, 95.1),
    ("DPN107",      80.9, 95.3),
    ("DPN131",      80.7, 95.1),
)

# model          top-1  top-5  folder and file
_MINDCV_ROWS = (
    ("densenet121", 75.64, 92.84, "densenet/densenet121-120_5004_Ascend.ckpt"),
    ("densenet161", 79.09, 94.66, "densenet/densenet161-120_5004_Ascend.ckpt"),
    ("densenet169", 77.26, 93.71, "densenet/densenet169-120_5004_Ascend.ckpt"),
    ("densenet201", 78.14, 94.08, "densenet/densenet201-120_5004_Ascend.ckpt"),
    ("dpn92",       79.46, 94.49, "dpn/dpn92-e3e0fca.ckpt"),
    ("dpn98",       79.94, 94.57, "dpn/dpn98-119a8207.ckpt"),
    ("dpn107",      80.05, 94.74, "dpn/dpn107-7d7df07b.ckpt"),
    ("dpn131",      80.07, 94.72, "dpn/dpn131-47f084b3.ckpt"),
)
# fmt: on


def _mindcv(model: str, top1: float, top5: float, path: str) -> Published:
    """A row of MindCV; eight digits at the end of a file's name are those of its SHA-256.

    Source: MindCV 0.3 `configs/README.md`, "Model Checkpoint Format".
    """
    folder, _, file = path.partition("/")
    is_dpn = folder == "dpn"
    digits = re.search(r"-([0-9a-f]{8})\.ckpt$", file)
    return Published(
        name=f"mindcv/{model}",
        model=model,
        location=f"{_MINDCV}{path}",
        file=file,
        sha256=digits[1] if digits else "",
        top1=top1,
        top5=top5,
        preprocess=MINDCV_INPUT,
        switches=MINDCV_DPN if is_dpn else AS_CATALOGUE,
    )


def _paddle(model: str, top1: float, top5: float) -> Published:
    """A row of PaddleClas, which publishes no checksums."""
    return Published(
        name=f"paddle/{model}",
        model=model.lower(),
        location=f"{_PADDLE}{model}_pretrained.pdparams",
        file=f"{model}_pretrained.pdparams",
        sha256="",
        top1=top1,
        top5=top5,
        preprocess=PADDLE_INPUT,
        switches=PADDLE_DPN if model.startswith("DPN") else AS_CATALOGUE,
    )


def _torchvision(model: str, top1: float, top5: float, digits: str) -> Published:
    """A row of torchvision."""
    file = f"{model}-{digits}.pth"
    return Published(
        f"torchvision/{model}",
        model,
        _TORCHVISION + file,
        file,
        digits,
        top1,
        top5,
        TORCHVISION_INPUT,
    )


def _timm(tag: str, top1: float, top5: float, preprocess: Preprocess) -> Published:
    """A row of timm; the hub gives the checksum with the file."""
    model, name = tag.partition(".")[0], f"timm/{tag}"
    return Published(name, model, name, "model.safetensors", "", top1, top5, preprocess)


PUBLISHED: dict[str, Published] = {
    row.name: row
    for row in (
        *(_timm(*row) for row in _TIMM_ROWS),
        *(_torchvision(*row) for row in _TORCHVISION_ROWS),
        *(_paddle(*row) for row in _PADDLE_ROWS),
        *(_mindcv(*row) for row in _MINDCV_ROWS),
    )
}


def find_published(name: str) -> Published:
    """The published weights of that name; letter case does not matter.

    Raises:
        UnknownNameError: nobody publishes weights under that name.
    """
    by_lower = {known.lower(): row for known, row in PUBLISHED.items()}
    row = by_lower.get(name.lower())
    if row is None:
        raise UnknownNameError("published weights", name, PUBLISHED)
    return row


def published_for(model: str) -> list[str]:
    """The names of all published weights of one model of the catalogue."""
    return [row.name for row in PUBLISHED.values() if row.model == model]


@dataclass(frozen=True)
class Habit:
    """What the weights of a system usually are, where a file does not say.

    Attributes:
        owner: whose weights, in words: "PaddleClas's"; of DPN, where it is another's, `dpn_owner`.
        preprocess: the way to the input; of DPN, where it is another, `dpn_preprocess`.
        dpn_switches: where the system's DPN differs from the catalogue's; its DenseNet does not.
    """

    owner: str
    preprocess: Preprocess
    dpn_switches: Switches = AS_CATALOGUE
    dpn_owner: str | None = None
    dpn_preprocess: Preprocess | None = None


# By the `origin` of an `Imported`.
HABITS: dict[str, Habit] = {
    "paddle": Habit("PaddleClas's", PADDLE_INPUT, PADDLE_DPN),
    "mindcv": Habit("MindCV's", MINDCV_INPUT, MINDCV_DPN),
    "pytorch": Habit(
        "torchvision's DenseNet",
        TORCHVISION_INPUT,
        dpn_owner="timm's DPN",
        dpn_preprocess=TIMM_DPN_INPUT,
    ),
    "keras": Habit("Keras's", KERAS_INPUT),
    "gluon": Habit("Gluon's", GLUON_INPUT),
    "mxnet": Habit("the DPN authors'", TIMM_DPN_INPUT),
    "torchxrayvision": Habit("torchxrayvision's", XRAY_INPUT),
    "monai": Habit("MONAI's (values from 0 to 1, as its ScaleIntensity makes them)", MONAI_INPUT),
}


def habits(origin: str, spec: ModelSpec) -> tuple[Switches, Preprocess]:
    """The switches and the preprocessing of a system's weights, where no source is named.

    Networks for small images have no habit: their images are only scaled to the input size.
    """
    if spec.arch.stem == "small":
        return AS_CATALOGUE, Preprocess(size=(spec.input_size, spec.input_size))
    habit = HABITS[origin]
    if spec.family == "dpn":
        return habit.dpn_switches, habit.dpn_preprocess or habit.preprocess
    return AS_CATALOGUE, habit.preprocess


def habit_of(origin: str, spec: ModelSpec) -> str:
    """Whose preprocessing `habits` answers with, in words."""
    if spec.arch.stem == "small":
        return "the model's own size, ImageNet's mean and deviation"
    habit = HABITS[origin]
    owner = (habit.dpn_owner if spec.family == "dpn" else None) or habit.owner
    return f"what {owner} weights usually take"
