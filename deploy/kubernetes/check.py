"""Holds the manifests of this folder to the types of Kubernetes and KServe, without a cluster.

Every document is built from the models of the Python packages `kubernetes` and `kserve`, which know
each field's name and type and which are required. With `--crd`, documents of that kind are also
validated against its schema, closed: a field that the API server would silently drop is an error.

Run: python deploy/kubernetes/check.py [FILE...] [--crd CRD.yaml ...]
in an environment with `pip install kserve jsonschema`, which bring kubernetes and PyYAML. The CRDs
lie in KServe's repository as config/crd/full/serving.kserve.io_inferenceservices.yaml, in
prometheus-operator's as example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kserve.models
import kubernetes.client
import yaml

HERE = Path(__file__).resolve().parent
# (apiVersion, kind) → the model that has its fields.
MODELS = {
    ("v1", "PersistentVolumeClaim"): "V1PersistentVolumeClaim",
    ("v1", "Pod"): "V1Pod",
    ("v1", "Service"): "V1Service",
    ("apps/v1", "Deployment"): "V1Deployment",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "V2HorizontalPodAutoscaler",
    ("policy/v1", "PodDisruptionBudget"): "V1PodDisruptionBudget",
    ("serving.kserve.io/v1beta1", "InferenceService"): "V1beta1InferenceService",
}
PRIMITIVES = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}


def build(type_name: str, data: Any, where: str) -> tuple[Any, list[str]]:
    """The value as the model that `type_name` names, and what is wrong with it.

    `type_name` is as the generated models write it: `V1Pod`, `List[V1Volume]`, `Dict[str, str]`,
    in older ones `list[V1Volume]`, `dict(str, str)`.
    """
    if found := re.fullmatch(r"[lL]ist\[(.*)\]", type_name):
        if not isinstance(data, list):
            return data, [f"{where} is {data!r}, not a list"]
        built = [build(found[1], each, f"{where}[{i}]") for i, each in enumerate(data)]
        return [value for value, _ in built], [error for _, errors in built for error in errors]
    if found := re.fullmatch(r"[dD]ict[\[(]str, (.*)[\])]", type_name):
        if not isinstance(data, dict):
            return data, [f"{where} is {data!r}, not a mapping"]
        pairs = {key: build(found[1], each, f"{where}.{key}") for key, each in data.items()}
        wrong = [error for _, errors in pairs.values() for error in errors]
        return {key: value for key, (value, _) in pairs.items()}, wrong
    if type_name in PRIMITIVES:
        fits = isinstance(data, PRIMITIVES[type_name])
        fits = fits and (type_name in ("bool", "object") or not isinstance(data, bool))
        return data, [] if fits else [f"{where} is {data!r}, not of type {type_name}"]
    return _build_model(type_name, data, where)


def _build_model(type_name: str, data: Any, where: str) -> tuple[Any, list[str]]:
    """The mapping as a model, None where a field is wrong, unknown or missing."""
    model = getattr(kserve.models, type_name, None) or getattr(kubernetes.client, type_name)
    if not isinstance(data, dict):
        return data, [f"{where} is {data!r}, not a {type_name}"]
    fields = {key: name for name, key in model.attribute_map.items()}
    wrong = [f"{where}.{key} is no field of {type_name}" for key in data if key not in fields]
    values = {}
    for key in data.keys() & fields.keys():
        name = fields[key]
        values[name], errors = build(model.openapi_types[name], data[key], f"{where}.{key}")
        wrong += errors
    if wrong:
        return None, wrong
    try:
        return model(**values), []
    except ValueError as error:  # a required field is missing, or a value is out of its range
        return None, [f"{where}: {' '.join(str(error).split())}"]


def close(schema: Any) -> Any:
    """The schema in which an object has the fields that are named, and no others."""
    if isinstance(schema, list):
        return [close(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: close(value) for key, value in schema.items()}
    is_open = {"additionalProperties", "x-kubernetes-preserve-unknown-fields"} & schema.keys()
    if isinstance(schema.get("properties"), dict) and "type" in schema and not is_open:
        closed["additionalProperties"] = False
    return closed


def read_crds(paths: list[Path]) -> dict[tuple[str, str], Any]:
    """(apiVersion, kind) → the closed schema of the served versions."""
    found = {}
    for path in paths:
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
        for version in spec["versions"]:
            key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
            found[key] = close(version["schema"]["openAPIV3Schema"])
    return found


def check(document: Any, schemas: dict[tuple[str, str], Any]) -> tuple[list[str], list[str]]:
    """What the document was held to, and what is wrong with it."""
    key = (document.get("apiVersion"), document.get("kind"))
    held, wrong = [], []
    if key in MODELS:
        held.append(MODELS[key])
        wrong += build(MODELS[key], document, document["kind"])[1]
    if key in schemas:
        held.append("the CRD's schema")
        found = jsonschema.Draft202012Validator(schemas[key]).iter_errors(document)
        wrong += [f"{error.json_path}: {error.message}" for error in found]
    return held, wrong


def read(paths: list[Path]) -> Iterator[tuple[Path, Any]]:
    """The documents of the files, in order."""
    for path in paths:
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            yield path, document


def main() -> int:
    """Prints a line for each document; 1 when one is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, help="all of this folder by default")
    parser.add_argument("--crd", nargs="+", type=Path, default=[], help="schemas to hold them to")
    arguments = parser.parse_args()
    schemas, failed = read_crds(arguments.crd), False
    for path, document in read(arguments.files or sorted(HERE.glob("*.yaml"))):
        held, wrong = check(document, schemas)
        name = f"{path.name}: {document.get('kind')} {document['metadata']['name']}"
        print(f"{name}: {', '.join(held) or 'not checked: give its CRD'}: {len(wrong)} wrong")
        for line in wrong:
            print(f"  {line}")
        failed |= bool(wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
