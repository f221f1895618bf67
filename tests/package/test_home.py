"""The cache, with and without a home folder that can be written."""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from pathlib import Path

import pytest

from densepath import files, notes
from densepath.errors import OutputError
from densepath.files import cache_dir, expand_user, find_cached


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine of its own: a temporary folder, no named cache, nothing remembered."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.delenv("DENSEPATH_CACHE", raising=False)
    _forget()
    yield scratch
    _forget()


def _forget():
    files._temporary_cache.cache_clear()
    notes._said.clear()


def _no_home():
    raise RuntimeError("Could not determine home directory.")


def unusable_homes(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "file").write_text("")
    return {
        "a device": "/dev/null",
        "a file": str(tmp_path / "file"),
        "empty": "",
        "root": "/",
        "relative": "x",
    }


def test_the_cache_is_in_a_home_that_can_be_written(machine, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # not there yet, and can be made
    assert cache_dir() == tmp_path / "home" / ".cache" / "densepath"
    assert list(machine.iterdir()) == []


@pytest.mark.parametrize("kind", ["a device", "a file", "empty", "root", "relative", "unknown"])
def test_without_such_a_home_it_is_a_folder_of_the_users_own(
    machine, monkeypatch, tmp_path, kind, caplog
):
    if kind == "unknown":
        monkeypatch.setattr(Path, "home", _no_home)
    else:
        monkeypatch.setenv("HOME", unusable_homes(tmp_path)[kind])
    with caplog.at_level(logging.WARNING):
        folder = find_cached("kernels", "x.so").parents[1]
        find_cached("published", "y")
    assert folder == cache_dir() == machine / f"densepath-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(caplog.records) == 1
    assert str(folder) in caplog.text
    assert "DENSEPATH_CACHE" in caplog.text


@pytest.mark.parametrize("kind", ["writable by all", "a link", "a file"])
def test_a_folder_that_others_could_have_filled_is_not_taken(machine, monkeypatch, tmp_path, kind):
    monkeypatch.setenv("HOME", "/dev/null")
    planted = machine / f"densepath-{os.getuid()}"
    if kind == "writable by all":
        planted.mkdir()
        planted.chmod(0o777)
    elif kind == "a link":
        planted.symlink_to(tmp_path)
    else:
        planted.write_text("")
    folder = cache_dir()
    assert folder != planted
    assert folder.parent == machine
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_a_home_has_that_can_only_be_read_is_used(machine, monkeypatch, tmp_path):
    there = tmp_path / ".cache" / "densepath" / "published" / "weights"
    there.parent.mkdir(parents=True)
    there.write_text("")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(files, "_can_be_written", lambda folder: False)
    assert find_cached("published", "weights") == there
    assert find_cached("published", "others").is_relative_to(machine)


def test_without_a_temporary_folder_too_the_cure_is_named(machine, monkeypatch):
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null")
    with pytest.raises(OutputError, match="Name one in DENSEPATH_CACHE"):
        cache_dir()


def test_a_home_that_nobody_knows_is_left_in_the_name():
    assert expand_user("~nobody-of-this-name/photos") == Path("~nobody-of-this-name/photos")
