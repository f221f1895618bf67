"""Folders that are written as a whole: where they may stand, and what a failure leaves."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from densepath import temporaries
from densepath.bundle.bundle import check_target
from densepath.errors import OutputError
from densepath.folders import contents, write_folder

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX paths")


def write(target: Path | str, text: str = "new", *others: str) -> Path:
    """Write a folder of a file `last`, and others; where it was made."""
    with write_folder(target, last=("last",)) as (scratch, put):
        for name in ("last", *others):
            (scratch / name).write_text(text)
        put()
    return scratch


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def old(tmp_path):
    """A folder with files."""
    folder = tmp_path / "here" / "old"
    folder.mkdir(parents=True)
    for name in ("last", "other"):
        (folder / name).write_text("old")
    return folder


def test_a_new_folder_appears_with_those_above_it_and_one_that_fails_takes_them_along(tmp_path):
    write(tmp_path / "a" / "b" / "new")
    assert names(tmp_path / "a" / "b" / "new") == ["last"]
    with pytest.raises(ZeroDivisionError), write_folder(tmp_path / "c" / "d"):
        raise ZeroDivisionError
    with write_folder(tmp_path / "c" / "d") as (scratch, _):
        (scratch / "never put").write_text("")
    assert names(tmp_path) == ["a"]


def test_an_empty_folder_is_filled_and_stays_the_same_folder(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir(mode=0o750)
    (folder / "lost+found").mkdir()  # as a new file system has
    before = folder.stat()
    scratch = write(folder)
    assert scratch.parent == folder
    assert names(folder) == ["last", "lost+found"]
    assert (folder.stat().st_ino, folder.stat().st_mode) == (before.st_ino, before.st_mode)


@pytest.mark.parametrize("is_old", [False, True])
def test_the_folder_that_one_stands_in_is_written_by_its_name_of_a_dot(
    old, tmp_path, monkeypatch, is_old
):
    (tmp_path / "empty").mkdir()
    folder = old if is_old else tmp_path / "empty"
    monkeypatch.chdir(folder)
    write(".")
    assert names(Path()) == ["last"]
    assert names(folder) == ["last"]
    assert names(tmp_path) == ["empty", "here"]


def test_a_link_stays_and_the_folder_that_it_points_to_is_replaced(old, tmp_path):
    (tmp_path / "current").symlink_to("here/old")
    (tmp_path / "chain").symlink_to(tmp_path / "current")
    for name in ("current", "chain"):
        scratch = write(tmp_path / name, name)
        assert scratch.parent == old.parent
        assert (tmp_path / name).is_symlink()
        assert (old / "last").read_text() == name
        assert names(old) == ["last"]
    assert names(tmp_path) == ["chain", "current", "here"]
    assert names(old.parent) == ["old"]


def test_a_link_to_a_folder_that_is_not_there_yet_is_followed_unless_it_leads_nowhere(tmp_path):
    (tmp_path / "link").symlink_to("new")
    (tmp_path / "gone").symlink_to("not/mounted")
    (tmp_path / "loop").symlink_to("loop")
    write(tmp_path / "link")
    assert names(tmp_path / "new") == ["last"]
    for name, reason in (("gone", "there is no folder .*/not$"), ("loop", "Too many levels")):
        for use in (write, lambda path: check_target(path, overwrite=True)):
            with pytest.raises(OutputError, match=reason):
                use(tmp_path / name)
    assert names(tmp_path) == ["gone", "link", "loop", "new"]


def test_a_folder_that_is_replaced_keeps_its_mode_and_owner(old):
    if os.geteuid() == 0:
        os.chown(old, 65534, 65534)
    old.chmod(0o2770)
    before = old.stat()
    write(old)
    after = old.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )


@pytest.mark.parametrize("known", [True, False])
def test_a_mount_point_is_filled_whether_its_system_calls_it_one_or_not(old, monkeypatch, known):
    """A bind mount of the same file system tells only when it is to be renamed."""
    rename = Path.rename

    def refuse(self, target):
        if self == old:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return rename(self, target)

    monkeypatch.setattr(Path, "is_mount", lambda self: known and self == old)
    monkeypatch.setattr(Path, "rename", refuse)
    inode = old.stat().st_ino
    write(old, "new", "more")
    assert old.stat().st_ino == inode
    assert names(old) == ["last", "more"]
    assert names(old.parent) == ["old"]


@pytest.mark.parametrize("failing", ["last", "other", "more"])
def test_a_folder_whose_filling_fails_midway_has_what_it_had(old, monkeypatch, failing):
    rename = Path.rename

    def fail(self, target):
        if self.name == failing and (failing == "other" or self.read_text() == "new"):
            monkeypatch.setattr(Path, "rename", rename)
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "is_mount", lambda self: self == old)
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(KeyboardInterrupt):
        write(old, "new", "more")
    assert names(old) == ["last", "other"]
    assert (old / "last").read_text() == "old"


def test_an_interruption_between_the_two_renamings_loses_nothing(old, monkeypatch):
    rename = Path.rename

    def interrupt(self, target):
        if self == old:
            rename(self, target)
            monkeypatch.setattr(Path, "rename", rename)
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(old)
    assert names(old) == ["last", "other"]
    assert names(old.parent) == ["old"]


def test_what_is_written_there_meanwhile_is_not_replaced(tmp_path):
    (tmp_path / "empty").mkdir()

    def write_late(target: Path) -> None:
        with write_folder(target) as (_, put):
            target.mkdir(exist_ok=True)
            (target / "photo.jpg").write_text("dear to me")
            put()

    for name in ("empty", "new"):
        with pytest.raises(OutputError, match=r"meanwhile|not empty"):
            write_late(tmp_path / name)
        assert names(tmp_path / name) == ["photo.jpg"]


SLOW = """
import sys, time
from densepath.folders import write_folder
with write_folder(sys.argv[1]) as (scratch, put):
    (scratch / "last").write_text("half")
    print("begun", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("exists", [False, True])
def test_what_a_killed_process_has_left_is_no_content_and_goes_with_the_next_write(
    tmp_path, exists
):
    target = tmp_path / "target"
    if exists:
        target.mkdir()
    with subprocess.Popen([sys.executable, "-c", SLOW, target], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(signal.SIGKILL)
    assert not exists or contents(target) == []
    check_target(target, overwrite=False)
    temporaries._remove_leftovers.cache_clear()
    write(target)
    assert (names(tmp_path), names(target)) == (["target"], ["last"])


def test_a_folder_whose_replacement_was_killed_between_the_renamings_comes_back(old):
    process = subprocess.run(["true"], check=True) and subprocess.Popen(["true"])
    process.wait()
    left = temporaries.temporary_in(old.parent, old.name).name
    left = left.replace(f"-{os.getpid()}-", f"-{process.pid}-")
    old.rename(old.parent / f"{left}-old")
    temporaries._remove_leftovers.cache_clear()
    temporaries.remove_leftovers(old.parent)
    assert names(old.parent) == ["old"]
    assert names(old) == ["last", "other"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_an_error_of_ours(old):
    old.chmod(0o300)
    with pytest.raises(OutputError, match="cannot be read: Permission denied"):
        contents(old)
    old.chmod(0o700)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="root mounts")
def test_a_real_mount_point_is_filled_and_overwritten(tmp_path):
    code = """
from densepath.folders import write_folder
for text in ("first", "second"):
    for name in ("bound", "memory"):
        with write_folder(name) as (scratch, put):
            (scratch / "last").write_text(text)
            put()
"""
    for name in ("source", "bound", "memory"):
        (tmp_path / name).mkdir()
    mounts = "mount --bind source bound && mount -t tmpfs none memory || exit 77"
    run = subprocess.run(
        [
            "unshare",
            "-m",
            "sh",
            "-c",
            f"{mounts}; '{sys.executable}' -c '{code}' && cat memory/last",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    if run.returncode == 77 or "unshare" in run.stderr:
        pytest.skip("nothing can be mounted in this container")
    assert (run.returncode, run.stdout) == (0, "second"), run.stderr
    assert names(tmp_path / "source") == ["last"]
    assert stat.S_ISDIR((tmp_path / "bound").stat().st_mode)
