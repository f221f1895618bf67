"""Whose threads the kernels run on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from densepath.training.blocks import library
from densepath.training.blocks.library import find_parallel
from densepath.training.blocks.native import NativeOperations

SCRIPT = """
import torch
from densepath.training.blocks import library, native

if {alone}:
    library.find_parallel = lambda: None
torch.manual_seed(0)
operations = native.NativeOperations(3)
x = operations.new_map(2, 9, 7, 40).normal_()
print(operations.moments(x).mean.sum().item().hex())
"""


def test_without_a_list_of_mapped_files_the_kernels_have_threads_of_their_own(tmp_path):
    assert find_parallel(tmp_path / "none") is None
    (tmp_path / "maps").write_text("7f00-7f01 r-xp 00000000 08:01 12  /usr/lib/libother.so\n")
    assert find_parallel(tmp_path / "maps") is None


def test_the_threads_are_those_of_pytorchs_openmp_not_of_another_librarys(tmp_path, monkeypatch):
    """scikit-learn brings one of its own, which stands before PyTorch's in the alphabet."""
    paths = {"own": "torch/lib/libgomp.so.1", "other": "scikit_learn.libs/libgomp-1.so"}
    opened = []
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "torch" / "__init__.py"))
    monkeypatch.setattr(library.ctypes, "CDLL", opened.append)
    lines = [f"7f00-7f01 r-xp 00000000 08:01 12  {tmp_path}/{path}\n" for path in paths.values()]
    maps = tmp_path / "maps"
    maps.write_bytes("".join(lines).encode() + b"7f02-7f03 r-xp 0 08:01 12  /tmp/libgomp-\xff\n")
    assert find_parallel(maps) is None  # this one has no such function
    assert opened == [str(tmp_path / paths["own"])]
    maps.write_text(lines[1])
    assert find_parallel(maps) is None
    assert len(opened) == 1
    maps.write_text(f"7f00-7f01 r-xp 00000000 08:01 12  {tmp_path}/torch.libs/libgomp-2.so\n")
    find_parallel(maps)
    assert opened[1] == str(tmp_path / "torch.libs" / "libgomp-2.so")


def test_an_environment_behind_a_link_has_its_threads_borrowed_too(tmp_path, monkeypatch):
    folder = Path(torch.__file__).parent
    (tmp_path / "linked").symlink_to(folder)
    plainly = find_parallel()
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "linked" / "__init__.py"))
    assert find_parallel() == plainly


def test_borrowed_threads_and_own_ones_compute_the_same_bits():
    said = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT.format(alone=alone)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for alone in (False, True)
    }
    assert len(said) == 1


def test_more_threads_than_the_machine_has_compute_all_parts():
    x = NativeOperations(64).new_map(3, 11, 5, 24).normal_()
    found = NativeOperations(64).moments(x)
    torch.testing.assert_close(found.mean, x.double().mean((0, 1, 2)), rtol=1e-5, atol=1e-6)
