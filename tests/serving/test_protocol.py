"""The Open Inference Protocol V2 as NVIDIA's own clients speak it, over HTTP and gRPC."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("fastapi")
grpcclient = pytest.importorskip("tritonclient.grpc")
httpclient = pytest.importorskip("tritonclient.http")
from tritonclient.utils import InferenceServerException  # noqa: E402

LOGITS = 1e-5


@pytest.fixture(params=["http", "grpc"])
def triton(request, server):
    """A client, its module, and what differs between the two."""
    module = {"http": httpclient, "grpc": grpcclient}[request.param]
    address = server.url.removeprefix("http://") if request.param == "http" else server.grpc
    client = module.InferenceServerClient(address)
    yield SimpleNamespace(client=client, module=module, kind=request.param)
    client.close()


def infer(triton, array, *, model="colour", outputs=None, datatype="FP32", name="images", **more):
    tensor = triton.module.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    wanted = outputs and [triton.module.InferRequestedOutput(each) for each in outputs]
    return triton.client.infer(model, [tensor], outputs=wanted, **more)


def metadata(triton, model, version=""):
    found = triton.client.get_model_metadata(model, version)
    if triton.kind == "http":
        return found
    return {
        "name": found.name,
        "versions": list(found.versions),
        "inputs": [
            {"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in found.inputs
        ],
        "outputs": [
            {"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in found.outputs
        ],
    }


def reference(bundles, tensor, name="colour"):
    import densepath

    with densepath.load(bundles / name, engine="native") as predictor:
        return predictor.engine.run_tensor(tensor)


def test_the_server_says_that_it_lives_and_is_ready(triton):
    assert triton.client.is_server_live()
    assert triton.client.is_server_ready()
    assert triton.client.is_model_ready("colour")
    assert triton.client.is_model_ready("colour", "2")
    assert triton.client.is_model_ready("gray")


def test_the_metadata_say_what_goes_in_and_out(triton):
    server = triton.client.get_server_metadata()
    name = server["name"] if triton.kind == "http" else server.name
    assert name == "densepath"
    found = metadata(triton, "colour")
    assert found["versions"] == ["1", "2"]
    assert found["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 3, 32, 32]}]
    assert [tensor["name"] for tensor in found["outputs"]] == [
        "logits",
        "class_ids",
        "scores",
        "labels",
    ]
    assert metadata(triton, "gray", "1")["inputs"][0]["shape"] == [-1, 1, 28, 36]


def test_a_batch_of_tensors_has_the_logits_of_the_engine(triton, bundles, tensor):
    """Of two versions the later one answers when none is named."""
    for version, name in (("1", "colour"), ("2", "newer"), ("", "newer")):
        result = infer(triton, tensor, model_version=version, request_id="a-7")
        logits = result.as_numpy("logits")
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, reference(bundles, tensor, name), atol=LOGITS)
        response = result.get_response()
        said = response if isinstance(response, dict) else None
        assert (said["id"] if said else response.id) == "a-7"
        assert (said["model_version"] if said else response.model_version) == (version or "2")


def test_image_files_and_pixels_are_answered_as_predict_does(triton, files, answers):
    from densepath.images.decode import open_image

    data = np.array([file.read_bytes() for file in files], dtype=object)
    wanted = ["class_ids", "scores", "labels"]
    result = infer(triton, data, datatype="BYTES", outputs=wanted, model_version="1")
    for i, answer in enumerate(answers["colour"]):
        assert result.as_numpy("class_ids")[i].tolist() == answer["class_ids"]
        labels = [label.decode() for label in result.as_numpy("labels")[i]]
        assert labels == answer["labels"]
        np.testing.assert_allclose(result.as_numpy("scores")[i], answer["scores"], atol=1e-5)
    pixels = open_image(files[3])[None]
    result = infer(triton, pixels, datatype="UINT8", outputs=["class_ids"], model_version="1")
    assert result.as_numpy("class_ids").tolist() == [answers["colour"][3]["class_ids"]]


def test_all_outputs_come_when_none_is_named_and_as_many_classes_as_asked(triton, tensor):
    result = infer(triton, tensor[:2], parameters={"top_k": 3})
    assert result.as_numpy("logits").shape == (2, 7)
    assert result.as_numpy("class_ids").shape == (2, 3)
    assert result.as_numpy("labels").shape == (2, 3)


def test_the_classification_extension_names_the_best_classes(triton, bundles, tensor):
    tensor_in = triton.module.InferInput("images", list(tensor[:1].shape), "FP32")
    tensor_in.set_data_from_numpy(tensor[:1])
    wanted = triton.module.InferRequestedOutput("logits", class_count=2)
    result = triton.client.infer("colour", [tensor_in], outputs=[wanted], model_version="1")
    logits = reference(bundles, tensor[:1])[0]
    best = np.argsort(-logits)[:2]
    for said, i in zip(result.as_numpy("logits")[0], best, strict=True):
        score, index, _ = said.decode().split(":", 2)
        assert int(index) == i
        assert abs(float(score) - logits[i]) < LOGITS


def test_json_without_binary_data_is_answered_alike(server, bundles, tensor):
    client = httpclient.InferenceServerClient(server.url.removeprefix("http://"))
    with contextlib.closing(client):
        given = httpclient.InferInput("images", list(tensor[:2].shape), "FP32")
        given.set_data_from_numpy(tensor[:2], binary_data=False)
        wanted = httpclient.InferRequestedOutput("logits", binary_data=False)
        result = client.infer("colour", [given], outputs=[wanted], model_version="1")
    assert "data" in result.get_response()["outputs"][0]
    np.testing.assert_allclose(
        result.as_numpy("logits"), reference(bundles, tensor[:2]), atol=LOGITS
    )


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_bodies_are_read(server, tensor, algorithm):
    client = httpclient.InferenceServerClient(server.url.removeprefix("http://"))
    with contextlib.closing(client):
        given = httpclient.InferInput("images", list(tensor[:1].shape), "FP32")
        given.set_data_from_numpy(tensor[:1])
        result = client.infer("colour", [given], request_compression_algorithm=algorithm)
    assert result.as_numpy("logits").shape == (1, 7)


def test_typed_contents_are_read_and_answered_over_grpc(server, tensor):
    from densepath.serving.v2.messages import message

    request = message("ModelInferRequest")(model_name="colour", model_version="1")
    given = request.inputs.add(name="images", datatype="FP32", shape=tensor[:1].shape)
    given.contents.fp32_contents.extend(tensor[0].ravel().tolist())
    import grpc

    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=lambda sent: sent.SerializeToString(),
            response_deserializer=message("ModelInferResponse").FromString,
        )
        answer = call(request, timeout=30)
    assert not answer.raw_output_contents
    assert len(answer.outputs[0].contents.fp32_contents) == 7
    assert len(answer.outputs[3].contents.bytes_contents) == 5


WRONG = {
    "shape": (np.zeros((1, 3, 32), np.float32), "FP32", "images", r"shape \[1, 3, 32\]"),
    "channels": (np.zeros((1, 4, 32, 32), np.float32), "FP32", "images", r"\[N, 3, 32, 32\]"),
    "empty": (np.zeros((0, 3, 32, 32), np.float32), "FP32", "images", r"shape \[0, 3"),
    "type": (np.zeros((1, 3, 32, 32), np.int32), "INT32", "images", "datatype INT32"),
    "name": (np.zeros((1, 3, 32, 32), np.float32), "FP32", "pictures", "'pictures'.*'images'"),
    "value": (np.full((1, 3, 32, 32), np.nan, np.float32), "FP32", "images", "not finite"),
    "file": (np.array([b"GIF89a, or not"], dtype=object), "BYTES", "images", "damaged"),
    "too many": (np.zeros((33, 3, 32, 32), np.float32), "FP32", "images", "at most 32"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_tensor_is_refused_with_what_is_taken(triton, wrong):
    array, datatype, name, said = WRONG[wrong]
    with pytest.raises(InferenceServerException, match=said):
        infer(triton, array, datatype=datatype, name=name)


def test_unknown_models_versions_and_outputs_are_refused_with_those_there_are(triton, tensor):
    for options, said in (
        ({"model": "colours"}, "no model 'colours'; there are colour, gray"),
        ({"model_version": "9"}, "no version '9'; it has 1, 2"),
        ({"outputs": ["probabilities"]}, "there are logits, class_ids, scores, labels"),
    ):
        with pytest.raises(InferenceServerException, match=said):
            infer(triton, tensor[:1], **options)
    with pytest.raises(InferenceServerException, match="no model"):
        triton.client.get_model_metadata("colours")


def test_a_deadline_that_cannot_be_held_is_told(triton, tensor):
    with pytest.raises(InferenceServerException, match=r"(?i)deadline"):
        infer(triton, tensor, timeout=1)  # microseconds


def test_models_are_loaded_anew_and_unloaded_while_others_answer(start, triton, tensor):
    own = start("colour", "gray")
    address = own.url.removeprefix("http://") if triton.kind == "http" else own.grpc
    client = triton.module.InferenceServerClient(address)
    with contextlib.closing(client):
        client.load_model("colour")
        client.unload_model("colour")
        assert not client.is_model_ready("colour")
        assert client.is_model_ready("gray")
        assert client.is_server_ready()
        other = SimpleNamespace(client=client, module=triton.module)
        with pytest.raises(InferenceServerException, match="not loaded"):
            infer(other, tensor[:1])
        index = client.get_model_repository_index()
        rows = index if triton.kind == "http" else index.models
        states = {
            (row["name"], row["state"]) if triton.kind == "http" else (row.name, row.state)
            for row in rows
        }
        assert states == {("colour", "UNAVAILABLE"), ("gray", "READY")}
        client.load_model("colour")
        assert infer(other, tensor[:1]).as_numpy("logits").shape == (1, 7)
        with pytest.raises(InferenceServerException, match="no model 'x'"):
            client.load_model("x")
    assert own.stop() == 0


def test_our_messages_have_the_names_and_numbers_of_tritons():
    """Two descriptions of one protocol, by different hands."""
    from tritonclient.grpc import service_pb2

    from densepath.serving.v2.messages import methods

    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    assert {"ModelConfig", "ModelStatistics"} <= {name for name, *_ in methods()}
    for name, asked, answered in methods():
        compare(asked.DESCRIPTOR, theirs[name].input_type)
        compare(answered.DESCRIPTOR, theirs[name].output_type)


# Of Triton's own, those fields that say something of this server.
PARTIAL = {
    f"inference.{name}"
    for name in ("ModelConfig", "ModelInput", "ModelOutput", "ModelDynamicBatching")
} | {"inference.ModelStatistics"}


def compare(ours, theirs):
    assert ours.full_name == theirs.full_name
    for field in ours.fields:
        other = theirs.fields_by_name[field.name]
        assert (field.number, field.type) == (other.number, other.type), field.full_name
        assert field.is_repeated == other.is_repeated, field.full_name
        if field.message_type is not None:
            compare(field.message_type, other.message_type)
    if ours.full_name not in PARTIAL:
        assert len(ours.fields) == len(theirs.fields), ours.full_name


def test_the_compiled_description_is_that_of_the_proto_file(tmp_path):
    from importlib.resources import files as resources

    protoc = pytest.importorskip("grpc_tools.protoc")
    folder = resources("densepath.serving.v2")
    target = tmp_path / "compiled.binpb"
    words = ["protoc", f"-I{folder}", f"--descriptor_set_out={target}", "open_inference.proto"]
    assert protoc.main(words) == 0
    assert target.read_bytes() == (folder / "open_inference.binpb").read_bytes()
