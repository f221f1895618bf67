"""A network with an `intensity` behind the server: the answers of `densepath predict`."""

from __future__ import annotations

import base64

import numpy as np
import pytest

import densepath
from densepath.images.intensity import Intensity
from densepath.images.preprocess import Preprocess
from fixtures.bundles import flowers
from fixtures.deep_files import dicom, needs_pydicom, npy, seeds, tiff

pytest.importorskip("fastapi")
httpclient = pytest.importorskip("tritonclient.http")
grpcclient = pytest.importorskip("tritonclient.grpc")
pytestmark = needs_pydicom
RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 4096, (40, 50), np.uint16)
FILES = {
    "scan.DCM": dicom(DEEP, stored=12, slope="1", intercept="-1024"),
    "IM0001": dicom(DEEP, seeds.IMPLICIT, photometric="MONOCHROME1"),
    "deep.png": seeds.png(DEEP[:, :, None], 16, 0),
    "deep.tif": tiff([DEEP], ">"),
    "deep.npy": npy(DEEP),
}
CT = Preprocess((32, 32), mean=(0.5,), std=(0.2,), intensity=Intensity.parse("window:400,1500"))


@pytest.fixture
def server(start, tmp_path):
    """A server of one network, and what the library answers for its files."""
    bundle = tmp_path / "ct"
    densepath.export(flowers(CT), bundle, to=["torch"], num_images=2, batch_sizes=[1])
    with densepath.load(bundle, engine="native") as predictor:
        answers = list(predictor.predict(list(FILES.values())))
    assert [answer.error for answer in answers] == [None] * len(FILES)
    return start(str(bundle), "--engine", "native"), answers


def check(rows, answers):
    assert len(rows) == len(answers)
    for row, answer in zip(rows, answers, strict=True):
        assert row["class_ids"] == list(answer.class_ids)
        np.testing.assert_allclose(row["scores"], answer.scores, atol=1e-5)


def test_uploads_are_answered_as_predict_does_whatever_they_are_called(server):
    running, answers = server
    with running.http() as client:
        # A browser that knows no such type says none, or a wrong one.
        form = [("files", (name, data, "image/jpeg")) for name, data in FILES.items()]
        check(client.post("/classify", files=form).json()["predictions"], answers)
        encoded = [base64.b64encode(data).decode() for data in FILES.values()]
        check(client.post("/classify", json={"images": encoded}).json()["predictions"], answers)
        raw = {"Content-Type": "application/dicom"}
        one = client.post("/classify", content=FILES["scan.DCM"], headers=raw)
        check(one.json()["predictions"], answers[:1])
        cut = client.post("/classify", content=FILES["scan.DCM"][:-99], headers=raw)
        assert cut.status_code == 422
        assert "SECRET" not in cut.text
    by_protocol(httpclient, running.url.removeprefix("http://"), answers)
    by_protocol(grpcclient, running.grpc, answers)
    assert not [line for line in running.lines if "SECRET" in line]


def by_protocol(module, address, answers):
    """The Open Inference Protocol, with the files as tensors of bytes."""
    client = module.InferenceServerClient(address)
    data = np.array(list(FILES.values()), dtype=object)
    tensor = module.InferInput("images", [len(data)], "BYTES")
    tensor.set_data_from_numpy(data)
    wanted = [module.InferRequestedOutput("class_ids")]
    found = client.infer("ct", [tensor], outputs=wanted).as_numpy("class_ids")
    assert found.tolist() == [list(answer.class_ids) for answer in answers]
    client.close()
