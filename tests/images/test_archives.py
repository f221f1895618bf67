"""Images of large archives: the list is read once, and only what is asked for is unpacked."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from densepath.errors import DatasetError
from densepath.exporting.parity_images import collect_images
from densepath.images import archives
from densepath.images.archives import open_images
from densepath.images.preprocess import Preprocess
from densepath.quantize.drawing import draw

MANY = 500


class Counting(zipfile.ZipFile):
    """An archive that counts how often one is opened, and what is read of it."""

    opened, read_names = 0, ()

    def __init__(self, *args, **options):
        Counting.opened += 1
        super().__init__(*args, **options)

    def open(self, name, *args, **options):
        Counting.read_names += (getattr(name, "filename", name),)
        return super().open(name, *args, **options)


@pytest.fixture
def counted(monkeypatch):
    """What counts from here on."""
    Counting.opened, Counting.read_names = 0, ()
    monkeypatch.setattr(archives.zipfile, "ZipFile", Counting)
    return Counting


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """A zip archive of many small images in a few folders."""
    with io.BytesIO() as buffer:
        Image.new("RGB", (8, 8), (200, 30, 30)).save(buffer, "PNG")
        png = buffer.getvalue()
    path = tmp_path_factory.mktemp("archives") / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(MANY):
            archive.writestr(f"{number % 7}/{number:05}.png", png)
        archive.writestr("read.me", b"x")
    return path


def test_a_comparison_opens_an_archive_once_and_reads_what_it_takes(many, counted):
    with collect_images([many], 40) as chosen:
        assert len({path.name for path in chosen.paths if path.is_file()}) == 40
        assert chosen.description == f"40 of {MANY} images: many.zip"
    assert counted.opened == 1
    assert counted.read_names == tuple(chosen.names)
    assert not any(path.exists() for path in chosen.paths)


def test_images_of_several_sources_are_in_their_order(many, tmp_path, counted):
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    with collect_images([many, tmp_path / "one.png", many], 2 * MANY + 1) as chosen:
        assert chosen.names[:MANY] == chosen.names[MANY + 1 :] == sorted(chosen.names[:MANY])
        assert chosen.names[MANY] == "one.png"
        assert len(set(chosen.paths)) == 2 * MANY + 1
    assert counted.opened == 2


def test_calibration_unpacks_the_images_that_are_drawn(many, counted):
    network = Preprocess((8, 8))
    drawn = draw(many, network.read_as, network.fit, 12, 0, reading={})
    assert drawn.description == f"{MANY} images: many.zip"
    assert drawn.passed_over.suffixes == {".me": 1}
    assert counted.read_names == tuple(name for name, _ in drawn.images)
    assert len(drawn.images) == 12
    assert counted.opened == 2  # once to see that it is not CIFAR-10


def test_a_damaged_member_is_named_when_it_is_asked_for(many, tmp_path):
    damaged = tmp_path / "damaged.zip"
    content = bytearray(many.read_bytes())
    content[content.index(b"IDAT")] ^= 255  # of the first image
    damaged.write_bytes(content)
    with open_images([damaged]) as found:
        assert found.path(1).is_file()
        with pytest.raises(DatasetError, match=r"damaged.zip: 0/00000.png cannot be unpacked"):
            found.path(0)
