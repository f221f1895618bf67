"""A Bundle's ONNX file behind FastAPI: an endpoint that is a plain function, so in the thread pool.

Run: benchmarks/peers/fastapi/.venv/bin/python benchmarks/peers/fastapi/server.py BUNDLE
     [--port 8000] [--threads 2] [--workers 1]; then
     curl --form file=@photo.jpg http://127.0.0.1:8000/classify
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, UploadFile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from onnx_classifier import Classifier, parse_options

# Uvicorn's further workers import this file, and have no command line.
BUNDLE, THREADS = "DENSEPATH_PEER_BUNDLE", "DENSEPATH_PEER_THREADS"


def make_app() -> FastAPI:
    """The application of one worker."""
    classifier = Classifier(Path(os.environ[BUNDLE]), int(os.environ[THREADS]))
    app = FastAPI()

    @app.post("/classify")
    def classify(file: UploadFile) -> dict[str, Any]:
        """An uploaded file → its five best classes."""
        images = classifier.preprocess(file.file.read())[None]
        return classifier.best(classifier.run(images)[0])

    return app


if __name__ == "__main__":
    options = parse_options(__doc__)
    os.environ |= {BUNDLE: str(options.bundle), THREADS: str(options.threads)}
    uvicorn.run(
        "server:make_app",
        factory=True,
        port=options.port,
        workers=options.workers,
        log_level="warning",
        access_log=False,
    )
