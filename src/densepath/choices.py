"""What options may be and what they are by default, in Python, on the command line, in a recipe.

Nothing here imports anything, so that the command line shows them without what computes. The
formats and runtimes have a table of their own, with their precisions: `bundle/formats.py`.
"""

from __future__ import annotations

from typing import Literal

# Images and data sets.
Interpolation = Literal["bilinear", "bicubic", "cv2_bilinear"]
SideRounding = Literal["truncate", "round"]
CropRounding = Literal["round", "floor"]
IntensityKind = Literal["file", "range", "window", "percentiles"]
Split = Literal["train", "validation", "test"]
OnError = Literal["skip", "fail"]
Uncertain = Literal["mask", "zeros", "ones"]

# Training.
LossKind = Literal["cross_entropy", "focal"]
Sampler = Literal["shuffle", "balanced"]
Monitor = Literal[
    "top1", "top5", "loss", "macro_auroc", "mean_average_precision", "float_top1", "train_loss"
]

# How a network is run, and its answers written.
FloatPrecision = Literal["float32", "bfloat16"]
PrecisionRequest = Literal["auto", "float32", "bfloat16"]
Mode = Literal["auto", "latency", "throughput"]
TestPooling = Literal["mean", "mean_max"]
TestAugmentation = Literal["none", "flip", "five-crop", "flip+five-crop"]
AnswerFormat = Literal["table", "json", "csv"]
TOP_K = 5  # classes of an answer

# Measuring.
MissingClasses = Literal["refuse", "allow"]
THRESHOLD = 0.5  # of the scores of a multi-label network
EVALUATION_BATCH_SIZE = 32
SIMULATED_IMAGES = 500  # that an NPU's simulator answers for the ladder

# Exporting: what the parity gate compares answers on.
PARITY_IMAGES = 50
PARITY_BATCH_SIZES = (1, 4, 8)

# Quantising.
CALIBRATION_IMAGES = 200
HELD_OUT_IMAGES = 100

# What a person sees of a training, and what a server logs.
ProgressStyle = Literal["auto", "bar", "lines", "none"]
LogFormat = Literal["json", "text"]
LogLevel = Literal["debug", "info", "warning", "error"]
