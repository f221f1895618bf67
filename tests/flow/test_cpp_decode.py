"""The C++ decoders beside Pillow: every kind of JPEG and PNG, and thousands of damaged ones."""

from __future__ import annotations

import hashlib
import subprocess
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from densepath.images.decode import open_image
from fixtures.deep_files import load_fuzz

pytestmark = pytest.mark.slow

DAMAGED = 600
TIME_LIMIT_S = 120


@pytest.fixture(scope="module")
def fuzz() -> dict[str, ModuleType]:
    """The modules that make files and damage them."""
    return {name: load_fuzz(name) for name in ("seeds", "value_seeds", "mutate")}


@pytest.fixture(scope="module")
def whole_files(fuzz, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("whole")
    paths = []
    for i, data in enumerate(fuzz["seeds"].seeds().values()):
        paths.append(folder / f"{i}.img")
        paths[-1].write_bytes(data)
    return paths


def decoded(cpp, paths, channels=3) -> list[str]:
    names = "".join(f"{path}\n" for path in paths)
    run = subprocess.run(
        [cpp.decoder, str(channels)],
        input=names.encode(),
        capture_output=True,
        check=True,
        timeout=TIME_LIMIT_S,
    )
    return run.stdout.decode().splitlines()


@pytest.mark.parametrize("channels", [3, 1])
def test_every_kind_of_jpeg_and_png_has_pillows_pixels(cpp, whole_files, channels):
    assert len(whole_files) > 300
    lines = decoded(cpp, whole_files, channels)
    for path, line in zip(whole_files, lines, strict=True):
        image = open_image(path, channels=channels)
        shape = " ".join(map(str, image.shape))
        assert line == f"pixels {shape} {hashlib.sha256(image.tobytes()).hexdigest()}"


def test_a_damaged_file_is_never_read_where_python_refuses_it_or_read_as_other_pixels(
    cpp, fuzz, whole_files, tmp_path
):
    rng = np.random.default_rng(0)
    paths = []
    for i in range(DAMAGED):
        paths.append(tmp_path / f"{i}.img")
        source = whole_files[rng.integers(len(whole_files))].read_bytes()
        paths[-1].write_bytes(fuzz["mutate"].mutate(source, rng))
    found = [
        fuzz["mutate"].verdict(line, fuzz["mutate"].in_python(path))
        for path, line in zip(paths, decoded(cpp, paths), strict=True)
    ]
    assert found.count("equal pixels") > DAMAGED / 20
    assert found.count("refused with the same words") > DAMAGED / 2
    # Pillow takes a PNG whose data ends between two rows, and leaves the rest black.
    assert found.count("REFUSED, BUT PYTHON READS") < DAMAGED / 50
    assert {f for f in found if f.isupper()} <= {"REFUSED, BUT PYTHON READS"}


def test_a_png_that_wants_a_dictionary_for_its_pixels_is_refused(cpp, fuzz, tmp_path):
    # Found by the fuzzer: zlib then stops without an error, again and again.
    wanting = bytearray(zlib.compress(b"\0" * 3))
    wanting[1] |= 0x20
    wanting[1] -= (wanting[0] * 256 + wanting[1]) % 31
    assert wanting[1] & 0x20
    whole = fuzz["seeds"].png(np.zeros((1, 2, 1), int), 8, 0)
    header = whole[: whole.index(b"IDAT") - 4]
    path = tmp_path / "dictionary.png"
    path.write_bytes(header + fuzz["seeds"].chunk(b"IDAT", bytes(wanting)))
    assert decoded(cpp, [path]) == [fuzz["mutate"].in_python(path)]
    assert "truncated" in decoded(cpp, [path])[0]
