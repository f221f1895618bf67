"""What Triton's extensions ask of a model: how it is configured, and what it has done so far.

Source: triton-inference-server/server, `docs/protocol/extension_model_configuration.md` and
`extension_statistics.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from densepath.names import to_json
from densepath.serving.core.model import ServedModel
from densepath.serving.core.service import Service
from densepath.serving.v2.infer import SERVER, input_tensors, output_tensors, platform
from densepath.serving.v2.tensors import BYTES

NANOSECONDS, MILLISECONDS, MICROSECONDS = 1e9, 1e3, 1e6
# What is measured, by its name in `/metrics`; the others of the protocol stay 0.
DURATIONS = {
    "success": ("densepath_model_request_seconds", " ok"),
    "fail": ("densepath_model_request_seconds", " failed"),
    "queue": ("densepath_queue_seconds", ""),
    "compute_input": ("", ""),
    "compute_infer": ("densepath_network_seconds", ""),
    "compute_output": ("", ""),
    "cache_hit": ("", ""),
    "cache_miss": ("", ""),
}


def config(service: Service, model: ServedModel) -> dict[str, Any]:
    """Triton's ModelConfig; sizes are without the batch's, of any size are -1."""
    settings, engine = service.settings, model.predictor.engine.info
    limits: dict[str, Any] = {
        "precision": engine.precision,
        "max_queue": settings.max_queue,
        "max_pixels": settings.max_pixels,
        "max_body_bytes": settings.max_body_bytes,
        "timeout_s": settings.timeout_s,
    }
    predictor = model.predictor
    if predictor.thresholds is not None:
        limits["thresholds"] = to_json(predictor.thresholds)
    if predictor.temperature is not None:
        limits["temperature"] = predictor.temperature
    return {
        "name": model.source.name,
        "platform": platform(model),
        "backend": SERVER,
        "max_batch_size": settings.max_images,
        "input": [{**_tensor(each), "format": "FORMAT_NCHW"} for each in input_tensors(model)],
        "output": [_tensor(each) for each in output_tensors(model)],
        "dynamic_batching": {
            "preferred_batch_size": [settings.max_batch or engine.batch_size],
            "max_queue_delay_microseconds": round(settings.max_delay_s * MICROSECONDS),
        },
        "parameters": {name: {"string_value": f"{value}"} for name, value in limits.items()},
    }


def _tensor(tensor: dict[str, Any]) -> dict[str, Any]:
    """A tensor of the metadata as a configuration has it."""
    kind = "STRING" if tensor["datatype"] == BYTES else tensor["datatype"]
    return {"name": tensor["name"], "data_type": f"TYPE_{kind}", "dims": tensor["shape"][1:]}


def statistics(service: Service, name: str = "", version: str = "") -> dict[str, Any]:
    """Triton's statistics of a model, or of all that answer; of all workers together.

    Raises:
        NotFoundError: no such model or version, or it is not loaded.
    """
    return {"model_stats": [_statistics(service, m) for m in _models(service, name, version)]}


def _models(service: Service, name: str, version: str) -> Iterator[ServedModel]:
    """The model and version; all loaded versions of a name alone; all of all without one."""
    repository = service.repository
    if name:
        repository.find(name, version)  # says what there is
    for known in [name] if name else repository.names:
        for each in [version] if version else repository.versions(known):
            yield repository.find(known, each)


def _statistics(service: Service, model: ServedModel) -> dict[str, Any]:
    """The statistics of one version."""
    source = model.source
    found = service.metrics.of_model((source.name, source.version))
    last_s = found.get("densepath_last_answer_time_seconds", 0.0)
    return {
        "name": source.name,
        "version": source.version,
        "last_inference": int(last_s * MILLISECONDS),
        "inference_count": int(found.get("densepath_images_total answered", 0)),
        "execution_count": int(found.get("densepath_batch_size_count", 0)),
        "inference_stats": {
            each: {
                "count": int(found.get(f"{metric}_count{outcome}", 0)),
                "ns": int(found.get(f"{metric}_sum{outcome}", 0) * NANOSECONDS),
            }
            for each, (metric, outcome) in DURATIONS.items()
        },
        # Sizes of batches are a histogram of `/metrics`, not counted one by one.
        "batch_stats": [],
    }
