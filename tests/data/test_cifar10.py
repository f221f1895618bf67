"""CIFAR-10 in every form it comes in, made small: 20 training and 10 test images."""

import io
import pickle
import struct
import tarfile
import urllib.error
import urllib.request
import zipfile

import numpy as np
import pytest
from PIL import Image as Pillow

from densepath.data import cifar10
from densepath.data.open import open_dataset
from densepath.errors import DatasetError

TRAIN_BATCHES = [f"data_batch_{i}" for i in range(1, 6)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSEPATH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cifar10"


def batch(number):
    """Four images [4, 3072] (two for the test batch, number 0) and their classes."""
    count = 4 if number else 10
    rng = np.random.default_rng(number)
    images = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
    return images, (np.arange(count, dtype=np.uint8) + number) % 10


def binary_batch(number):
    images, classes = batch(number)
    return np.concatenate([classes[:, None], images], axis=1).tobytes()


def short_string(text):
    return b"U" + struct.pack("<B", len(text)) + text


def python2_pickle(number):
    """The dictionary as Python 2 wrote it, protocol 2: strings are bytes (opcodes U and T)."""
    images, classes = batch(number)
    raw = images.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
        + short_string(b"b") + b"\x87R"
        + b"(K\x01K" + struct.pack("<B", len(images)) + b"M" + struct.pack("<H", 3072) + b"\x86"
        + b"cnumpy\ndtype\n" + short_string(b"u1") + b"K\x00K\x01\x87R"
        + b"(K\x03" + short_string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + b"\x89T" + struct.pack("<I", len(raw)) + raw + b"tb"
    )  # fmt: skip
    labels = b"](" + b"".join(b"K" + struct.pack("<B", c) for c in classes) + b"e"
    items = short_string(b"data") + array + short_string(b"labels") + labels
    return b"\x80\x02}(" + items + b"u."


def forms():
    """name → the files of the official archive in that form."""
    numbered = [*enumerate(TRAIN_BATCHES, start=1), (0, "test_batch")]
    return {
        "binary": {f"cifar-10-batches-bin/{n}.bin": binary_batch(i) for i, n in numbered},
        "python": {f"cifar-10-batches-py/{n}": python2_pickle(i) for i, n in numbered},
    }


def write_tar(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def assert_is_the_small_cifar(source):
    for split, numbers in (("train", range(1, 6)), ("test", [0])):
        dataset = open_dataset(source, split=split, validation_fraction=0)
        images = np.concatenate([batch(i)[0] for i in numbers])
        classes = np.concatenate([batch(i)[1] for i in numbers])
        assert len(dataset) == len(classes)
        assert dataset.class_names[:2] == ["airplane", "automobile"]
        for index in range(len(dataset)):
            sample = dataset.load(index)
            # "The first 1024 bytes are the red channel values, row-major": the page's words.
            np.testing.assert_array_equal(
                sample.image, images[index].reshape(3, 32, 32).transpose(1, 2, 0)
            )
            assert sample.target == classes[index]


@pytest.mark.parametrize("form", ["binary", "python"])
def test_an_official_archive_is_read_packed_and_unpacked(form, tmp_path):
    files = forms()[form]
    assert_is_the_small_cifar(write_tar(tmp_path / "cifar.tar.gz", files))
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert_is_the_small_cifar((tmp_path / name).parent)


def test_a_pickle_that_asks_for_code_is_refused_and_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("run!",)

    files = {name: pickle.dumps({"data": Evil()}) for name in forms()["python"]}
    path = write_tar(tmp_path / "evil.tar.gz", files)
    with pytest.raises(DatasetError, match=r"asks for builtins.print, which is not run"):
        open_dataset(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.pop("cifar-10-batches-bin/data_batch_3.bin"), "is not CIFAR-10"),
        (lambda f: f.update({"x/data_batch_3.bin": b"\0" * 100}), "data_batch_3.bin is damaged"),
        (lambda f: f.update({"x/test_batch.bin": b"\x0b" * 3073}), "classes from 0 to 9"),
        (lambda f: f.update({"x/test_batch.bin": b""}), "must be uint8"),
    ],
)
def test_a_damaged_archive_names_the_batch(change, message, tmp_path):
    files = forms()["binary"]
    change(files)
    with pytest.raises(DatasetError, match=message):
        open_dataset(write_tar(tmp_path / "cifar.tar.gz", files), split="test")


def test_a_truncated_archive_is_refused(tmp_path):
    path = write_tar(tmp_path / "cifar.tar.gz", forms()["binary"])
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DatasetError, match="is damaged"):
        open_dataset(path)


def write_zip(path, names, size=(32, 32)):
    """JPEGs of one gray each: 100 plus the class's number."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            color = 100 + cifar10.CLASS_NAMES.index(name.split("/")[-2])
            file = io.BytesIO()
            Pillow.new("RGB", size, (color,) * 3).save(file, "JPEG", quality=100)
            archive.writestr(name, file.getvalue())
    return path


def test_a_zip_of_jpegs_is_read_in_the_order_of_the_classes(tmp_path):
    names = [
        f"top/{s}/{c}/{i}.jpg" for s in ("train", "test") for c in ("ship", "cat") for i in "01"
    ]
    path = write_zip(tmp_path / "cifar.zip", names)
    dataset = open_dataset(path, validation_fraction=0)
    assert [dataset.target(i) for i in range(4)] == [3, 3, 8, 8]
    assert [int(dataset.load(i).image.mean().round()) for i in range(4)] == [103, 103, 108, 108]
    assert open_dataset(path, channels=1).load(0).image.shape == (32, 32, 1)


def test_a_zip_of_other_images_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", ["train/cat/0.jpg", "test/cat/0.jpg"], size=(30, 32))
    with pytest.raises(DatasetError, match=r"train/cat/0.jpg is \(32, 30, 3\), not 32 × 32"):
        open_dataset(path)
    path = write_zip(tmp_path / "b.zip", ["photos/cat/0.jpg"])
    with pytest.raises(DatasetError, match=r"no entries train/CLASS/NAME.jpg"):
        open_dataset(path)


def test_images_are_read_once_and_then_mapped_from_the_cache(tmp_path, monkeypatch):
    path = write_tar(tmp_path / "cifar.tar.gz", forms()["binary"])
    open_dataset(path)

    def refuse(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(cifar10, "_unpack", refuse)
    dataset = open_dataset(path)
    # Another process gets the place of the arrays, not the 60 kB in them.
    data = pickle.dumps(dataset)
    assert len(data) < 1000
    np.testing.assert_array_equal(pickle.loads(data).load(7).image, dataset.load(7).image)


def test_a_damaged_cache_says_what_to_delete(tmp_path, cache):
    path = write_tar(tmp_path / "cifar.tar.gz", forms()["binary"])
    open_dataset(path)
    (found,) = cache.glob("*/train-images.npy")
    found.write_bytes(found.read_bytes()[:200])
    with pytest.raises(DatasetError, match="Delete that folder"):
        open_dataset(path)


def test_without_network_the_error_names_the_file_to_put_where(monkeypatch, cache):
    def refuse(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(DatasetError) as caught:
        open_dataset("cifar10")
    assert cifar10.URL in str(caught.value)
    assert f"put that file at {cache / 'cifar-10-binary.tar.gz'}" in str(caught.value)
    assert not (cache / "cifar-10-binary.tar.gz").exists()


def test_a_download_with_another_checksum_is_refused(monkeypatch, cache):
    class Answer(io.BytesIO):
        headers = {"Content-Length": "5"}  # noqa: RUF012

    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: Answer(b"other"))
    with pytest.raises(
        DatasetError, match="has the MD5 795f3202b17cb6bc3d4b771d8c6c9eaf, not c32a"
    ):
        open_dataset("cifar10")


@pytest.mark.parametrize("form", ["binary", "python"])
def test_an_archive_that_was_put_there_by_hand_is_verified_and_used(form, monkeypatch, cache):
    cache.mkdir(parents=True)
    path = write_tar(cache / f"cifar-10-{form}.tar.gz", forms()[form])
    monkeypatch.setitem(cifar10.ARCHIVES, path.name, cifar10._md5(path))
    assert_is_the_small_cifar("cifar10")
