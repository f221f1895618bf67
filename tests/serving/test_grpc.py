"""What gRPC brings that REST does not: messages as they are, health, and reflection."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("fastapi")
grpc = pytest.importorskip("grpc")
health_pb2 = pytest.importorskip("grpc_health.v1.health_pb2")
SERVICE = "inference.GRPCInferenceService"
SERVING, NOT_SERVING, UNKNOWN = 1, 2, 3


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(server.grpc) as opened:
        yield opened


def call(channel, data: bytes, method: str = "ModelInfer", **options) -> bytes:
    """The answer's bytes to a message's."""
    ask = channel.unary_unary(
        f"/{SERVICE}/{method}",
        request_serializer=lambda sent: sent,
        response_deserializer=lambda got: got,
    )
    return ask(data, timeout=30, **options)


def refusal(channel, data, **options) -> tuple[str, str]:
    """The code and message of a refused call."""
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, data if isinstance(data, bytes) else data.SerializeToString(), **options)
    return caught.value.code().name, caught.value.details()


def infer_request(**more):
    from densepath.serving.v2.messages import message

    request = message("ModelInferRequest")(model_name="gray", **more)
    request.inputs.add(name="images", datatype="UINT8", shape=[1, 2, 2, 3])
    request.raw_input_contents.append(bytes(12))
    return request


@pytest.mark.parametrize("megabytes", [3, 20, 60])
def test_a_message_that_is_too_large_is_not_told_as_a_full_queue(start, megabytes):
    server = start("colour", "--max-body-mb", "1")
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.grpc, options) as channel:
        request = infer_request()
        request.raw_input_contents[0] = bytes(megabytes * 1_000_000)
        code, said = refusal(channel, request)
        assert code == "INVALID_ARGUMENT"
        assert "more than the 2 MB allowed" in said
        assert call(channel, b"", "ServerReady")


def test_a_message_that_is_cut_or_none_is_the_clients_mistake(channel):
    whole = infer_request().SerializeToString()
    assert call(channel, whole)
    for data in (whole[:-1], whole[:-12], whole[: len(whole) // 2], b"\xff" * 9, b"{}"):
        code, said = refusal(channel, data)
        assert code == "INVALID_ARGUMENT", data
        assert "damaged" in said or "no model" in said or "no inputs" in said or "bytes" in said


def test_unknown_parameters_are_refused_by_name(channel):
    for place, known in (("", "top_k"), ("inputs", None), ("outputs", "classification")):
        request = infer_request()
        if place == "outputs":
            request.outputs.add(name="logits")
        holder = getattr(request, place)[0] if place else request
        holder.parameters["topk"].int64_param = 3
        code, said = refusal(channel, request)
        assert code == "INVALID_ARGUMENT"
        assert "unknown parameter of" in said
        assert "'topk'" in said
        assert (known or "there are none here") in said
    request = infer_request()
    request.parameters["top_k"].int64_param = 3
    assert call(channel, request.SerializeToString())


def test_values_that_would_be_passed_over_are_refused(channel):
    from densepath.serving.v2.messages import message

    both = infer_request()
    both.inputs[0].contents.uint_contents.extend([0] * 12)
    assert "beside the raw_input_contents" in refusal(channel, both)[1]
    other = infer_request()
    del other.raw_input_contents[:]
    other.inputs[0].contents.uint_contents.extend([0] * 12)
    assert call(channel, other.SerializeToString())
    other.inputs[0].contents.fp32_contents.extend([0.5] * 12)
    assert "has fp32_contents; those of UINT8 are uint_contents" in refusal(channel, other)[1]
    for method, kind in (
        ("RepositoryModelLoad", "RepositoryModelLoadRequest"),
        ("RepositoryModelUnload", "RepositoryModelUnloadRequest"),
    ):
        order = message(kind)(model_name="gray")
        order.parameters["config"].string_param = "{}"
        assert "'config'" in refusal(channel, order, method=method)[1]
        order = message(kind)(model_name="gray", repository_name="r")
        assert "no repository 'r'" in refusal(channel, order, method=method)[1]


@pytest.fixture
def health(channel):
    from grpc_health.v1.health_pb2_grpc import HealthStub

    return HealthStub(channel)


def ask(name: str = ""):
    return health_pb2.HealthCheckRequest(service=name)


def test_health_knows_the_server_its_service_and_its_models(health):
    for name in ("", SERVICE, "colour", "gray"):
        assert health.Check(ask(name)).status == SERVING
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(ask("colours"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert "there are colour, gray, inference.GRPCInferenceService" in caught.value.details()


def test_a_watcher_hears_of_models_that_go_and_of_the_end(start):
    from grpc_health.v1.health_pb2_grpc import HealthStub

    server = start("colour", "gray", "--linger", "1")
    with grpc.insecure_channel(server.grpc) as channel, server.http() as client:
        stub = HealthStub(channel)
        colour, whole = stub.Watch(ask("colour")), stub.Watch(ask())
        other = stub.Watch(ask("none"))
        assert next(colour).status == SERVING
        assert next(whole).status == SERVING
        assert next(other).status == UNKNOWN
        client.post("/v2/repository/models/colour/unload")
        assert next(colour).status == NOT_SERVING
        assert stub.Check(ask("colour")).status == NOT_SERVING
        assert stub.Check(ask()).status == SERVING
        client.post("/v2/repository/models/colour/load")
        assert next(colour).status == SERVING
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert next(whole).status == NOT_SERVING
        assert list(whole) == []  # the stream ends: nobody waits for it
        assert list(other) == []  # of what is unknown there is nothing new
        stopping.join(30)
    assert server.process.returncode == 0


def test_watchers_take_no_place_of_others(server, channel, health):
    """More than may be are refused, and calls go on."""
    from densepath.serving.v2.grpc_health import MOST_STREAMS

    watching = [health.Watch(ask()) for _ in range(MOST_STREAMS + 5)]
    codes = []
    for each in watching:
        try:
            assert next(each).status == SERVING
        except grpc.RpcError as error:
            codes.append(error.code())
    assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 5
    for _ in range(40):
        assert call(channel, infer_request().SerializeToString())
    for each in watching:
        each.cancel()
    assert health.Check(ask()).status == SERVING


def reflected(channel, request, *, version: str = "v1alpha", **options):
    from grpc_reflection.v1alpha import reflection_pb2

    asking = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    return next(asking(iter([request]), timeout=30, **options))


@pytest.mark.parametrize("version", ["v1alpha", "v1"])
def test_reflection_tells_a_client_without_files_what_it_may_call(channel, version):
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from grpc_reflection.v1alpha import reflection_pb2

    question = reflection_pb2.ServerReflectionRequest
    listed = reflected(channel, question(list_services=""), version=version)
    names = {each.name for each in listed.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names
    pool = descriptor_pool.DescriptorPool()
    for name in (SERVICE, "grpc.health.v1.Health"):
        found = reflected(channel, question(file_containing_symbol=name), version=version)
        for file in found.file_descriptor_response.file_descriptor_proto:
            pool.Add(descriptor_pb2.FileDescriptorProto.FromString(file))
    method = pool.FindServiceByName(SERVICE).methods_by_name["ModelMetadata"]
    request = message_factory.GetMessageClass(method.input_type)(name="gray")
    answer = message_factory.GetMessageClass(method.output_type).FromString(
        call(channel, request.SerializeToString(), "ModelMetadata")
    )
    assert answer.name == "gray"


@pytest.mark.parametrize("of", [f"{SERVICE}.ModelInfer", "grpc.health.v1.Health.Watch"])
def test_reflection_finds_a_method_by_its_name(channel, of):
    """As `grpcurl describe` asks; what is no method there is not found."""
    from grpc_reflection.v1alpha import reflection_pb2

    question = reflection_pb2.ServerReflectionRequest
    found = reflected(channel, question(file_containing_symbol=of))
    service = reflected(channel, question(file_containing_symbol=of.rpartition(".")[0]))
    assert found.file_descriptor_response == service.file_descriptor_response
    assert found.file_descriptor_response.file_descriptor_proto
    for name in (f"{of}s", f"{of}.more", "nothing", ""):
        answer = reflected(channel, question(file_containing_symbol=name))
        assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_health_is_open_and_reflection_behind_the_key(start, tmp_path):
    from grpc_health.v1.health_pb2_grpc import HealthStub
    from grpc_reflection.v1alpha import reflection_pb2

    key = "a-key-of-some-length-0123"
    file = tmp_path / "key"
    file.write_text(key)
    server = start("colour", "--api-key-file", str(file))
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(server.grpc) as channel:
        assert HealthStub(channel).Check(ask()).status == SERVING
        with pytest.raises(grpc.RpcError) as caught:
            reflected(channel, question)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        said = (("authorization", f"Bearer {key}"),)
        found = reflected(channel, question, metadata=said)
        assert found.list_services_response.service
        assert refusal(channel, infer_request())[0] == "UNAUTHENTICATED"
