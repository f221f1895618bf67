"""Lets torchvision be imported beside a CPU build of torch.

torchvision's package on the registry is a CUDA build: beside torch's CPU build its compiled
operators do not load, and its import then fails on `torchvision::nms`. Models and transforms do
not use those operators, so it is enough that their names are known. Import this module first.
"""

from __future__ import annotations

import torch

_library = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
