"""PaddleClas's package on one photo, from a local inference model; see cold_start.py.

Run: cd benchmarks/peers/paddleclas; .venv/bin/python first_answer.py FOLDER --prepare
     .venv/bin/python first_answer.py FOLDER PHOTO
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

folder, photo = sys.argv[1:]
if photo == "--prepare":
    from predict import export_model

    Path(folder).mkdir(parents=True)
    export_model(Path(folder))
else:
    os.environ["FLAGS_enable_pir_api"] = "0"  # noqa: SIM112  Paddle's own spelling
    from paddleclas import PaddleClas

    predictor = PaddleClas(inference_model_dir=folder, use_gpu=False, enable_mkldnn=True, topk=5)
    print(next(iter(predictor.predict(photo))))
