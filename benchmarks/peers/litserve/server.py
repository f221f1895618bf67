"""A Bundle's ONNX file behind LitServe, as its documentation writes an API with batches.

Run: benchmarks/peers/litserve/.venv/bin/python benchmarks/peers/litserve/server.py BUNDLE
     [--port 8000] [--threads 2] [--workers 1] [--max-batch 1] [--batch-timeout 0.01]; then
     curl --form file=@photo.jpg http://127.0.0.1:8000/predict
"""

import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
from fastapi import Request

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from onnx_classifier import Classifier, parse_options


class ClassifierAPI(litserve.LitAPI):
    """An uploaded file → its five best classes."""

    def __init__(self, bundle: Path, threads: int, **options: Any) -> None:
        """`options` are LitAPI's: the largest batch, and how long it waits to be full."""
        super().__init__(**options)
        self._bundle, self._threads = bundle, threads

    def setup(self, device: str) -> None:
        """Once in each worker."""
        self._classifier = Classifier(self._bundle, self._threads)

    def decode_request(self, request: Request) -> np.ndarray:
        """The network's input, of one image."""
        return self._classifier.preprocess(request["file"].file.read())

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits of a batch, or of one image where there are no batches."""
        if images.ndim == 3:
            return self._classifier.run(images[None])[0]
        return self._classifier.run(images)

    def encode_response(self, logits: np.ndarray) -> dict[str, Any]:
        """The answer to one request."""
        return self._classifier.best(logits)


if __name__ == "__main__":
    options = parse_options(__doc__)
    batches = {"max_batch_size": options.max_batch, "batch_timeout": options.batch_timeout}
    api = ClassifierAPI(
        options.bundle, options.threads, **(batches if options.max_batch > 1 else {})
    )
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=options.workers)
    server.run(host="127.0.0.1", port=options.port, log_level="warning", generate_client_file=False)
