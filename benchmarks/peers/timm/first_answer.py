"""The shortest script on timm that names what is in one photo; see cold_start.py.

Run: benchmarks/peers/timm/.venv/bin/python benchmarks/peers/timm/first_answer.py FILE --prepare
     benchmarks/peers/timm/.venv/bin/python benchmarks/peers/timm/first_answer.py FILE PHOTO
"""

from __future__ import annotations

import sys
from pathlib import Path

import operators  # noqa: F401  before torchvision
import timm
import torch
from PIL import Image

path, photo = sys.argv[1:]
file = Path(f"{path}.safetensors")
if photo == "--prepare":
    import safetensors.torch
    from logits import build

    safetensors.torch.save_file(build(timm.create_model, "densenet121").state_dict(), str(file))
else:
    model = timm.create_model("densenet121", checkpoint_path=str(file)).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.inference_mode():
        logits = model(transform(Image.open(photo).convert("RGB"))[None])
    scores, classes = logits.softmax(1).topk(5)
    print(scores.tolist(), classes.tolist())
