"""The messages of `open_inference.proto`, in a pool of their own.

Clients of the same protocol (tritonclient) have messages of the same names: in protobuf's common
pool they could not live in one process.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"


@cache
def pool(*serialized: bytes) -> DescriptorPool:
    """What `open_inference.binpb` describes, and these other files."""
    compiled = files("densepath.serving.v2") / "open_inference.binpb"
    made = DescriptorPool()
    for file in FileDescriptorSet.FromString(compiled.read_bytes()).file:
        made.Add(file)
    for other in serialized:
        made.AddSerializedFile(other)
    return made


@cache
def message(name: str) -> Any:
    """The class of a message, such as `ModelInferRequest`."""
    return GetMessageClass(pool().FindMessageTypeByName(f"{PACKAGE}.{name}"))


def methods() -> list[tuple[str, Any, Any]]:
    """Name, request and response of each method of the service."""
    service = pool().FindServiceByName(SERVICE)
    return [
        (method.name, message(method.input_type.name), message(method.output_type.name))
        for method in service.methods
    ]
