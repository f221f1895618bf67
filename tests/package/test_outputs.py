"""What the path of an output stands for: links, pipes, devices, open files, modes and owners."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from densepath import temporaries
from densepath.errors import OutputError
from densepath.files import open_output, write_atomically, write_text
from densepath.outputs import check_file, check_folder

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX paths")
NOBODY = 65534


@pytest.fixture
def shared():
    """A folder that any user may look into."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


IMPORTS = """
import os, tempfile
from densepath.errors import OutputError
from densepath.files import write_text
from densepath.folders import write_folder
"""
# Once all is imported, for Python may stand in root's own folder.
NO_ROOT = f"""
if os.geteuid() == 0:
    os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})
"""


def as_a_user(code: str, folder: Path) -> str:
    """What the code prints, run in the folder by one who is not root."""
    run = subprocess.run(
        [sys.executable, "-c", IMPORTS + NO_ROOT + code], cwd=folder, capture_output=True, text=True
    )
    return run.stdout + run.stderr


def own(path: Path) -> None:
    """Give the path to the user of `as_a_user`."""
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)


@pytest.mark.parametrize("kind", ["relative", "absolute", "chain", "dangling", "of another folder"])
def test_a_link_stays_and_what_it_points_to_is_written(tmp_path, kind):
    target, link = tmp_path / "there" / "x.txt", tmp_path / "link.txt"
    target.parent.mkdir()
    if kind != "dangling":
        target.write_text("old")
    if kind == "chain":
        (tmp_path / "middle").symlink_to("there/x.txt")
        link.symlink_to(tmp_path / "middle")
    elif kind == "of another folder":
        link = target.parent / "link.txt"
        link.symlink_to("../there/x.txt")
    else:
        link.symlink_to(target if kind == "absolute" else "there/x.txt")
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert sorted(p.name for p in target.parent.iterdir() if not p.is_symlink()) == ["x.txt"]


def test_links_that_lead_nowhere_are_refused_with_the_reason(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("not/mounted.txt")
    for check in (check_file, lambda path: write_text(path, "x")):
        with pytest.raises(OutputError, match="Too many levels of symbolic links"):
            check(tmp_path / "loop")
        with pytest.raises(OutputError, match=r"a link to .*and there is no folder .*/not$"):
            check(tmp_path / "gone")
    assert not (tmp_path / "not").exists()


def read_in_background(path: Path) -> tuple[threading.Thread, list[bytes]]:
    """A thread that reads the pipe, and what it has read."""
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()), daemon=True)
    reader.start()
    return reader, found


@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_gets_the_whole_output_and_stays_a_pipe(tmp_path, linked):
    pipe = path = tmp_path / "pipe"
    os.mkfifo(pipe)
    if linked:
        path = tmp_path / "link"
        path.symlink_to(pipe)
    reader, found = read_in_background(pipe)
    write_text(path, "much\n" * 50_000)
    reader.join(20)
    assert found == [b"much\n" * 50_000]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert {p.name for p in tmp_path.iterdir()} <= {"pipe", "link"}


def test_a_pipe_gets_each_line_of_a_text_as_it_is_written(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    lines: list[str] = []
    read, done = threading.Event(), threading.Event()

    def listen() -> None:
        with pipe.open() as file:
            lines.append(file.readline())
            read.set()
            lines.extend(file)
        done.set()

    threading.Thread(target=listen, daemon=True).start()
    with open_output(pipe) as file:
        file.write("first\n")
        assert read.wait(20)
        assert lines == ["first\n"]
        file.write("second\n")
    assert done.wait(20)
    assert lines == ["first\n", "second\n"]


def test_a_terminal_is_written_to(tmp_path):
    leader, follower = os.openpty()
    (tmp_path / "link").symlink_to(os.ttyname(follower))
    write_text(tmp_path / "link", "hello\n")
    assert os.read(leader, 100).replace(b"\r", b"") == b"hello\n"
    assert (tmp_path / "link").is_symlink()
    os.close(leader)
    os.close(follower)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="root makes devices")
def test_a_device_stays_one_and_a_disk_is_refused(tmp_path):
    try:
        os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o600, os.makedev(240, 99))
    except PermissionError:
        pytest.skip("not in this container")
    write_text(tmp_path / "null", "text")
    assert stat.S_ISCHR((tmp_path / "null").stat().st_mode)
    with pytest.raises(OutputError, match="it is a disk; name a file"):
        write_text(tmp_path / "disk", "text")


@pytest.mark.parametrize("how", ["path", "link", "link to a link"])
def test_standard_output_is_appended_to_where_the_caller_appends(tmp_path, how):
    """And what was printed before comes before it."""
    path = "/dev/stdout"
    for name in {"path": [], "link": ["a"], "link to a link": ["a", "b"]}[how]:
        (tmp_path / name).symlink_to(path)
        path = str(tmp_path / name)
    code = f"""
from densepath.files import write_text
print("first")
write_text({path!r}, "text\\n")
print("last")
"""
    (tmp_path / "log").write_text("before\n")
    with (tmp_path / "log").open("a") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True)
    assert (tmp_path / "log").read_text() == "before\nfirst\ntext\nlast\n"
    assert how == "path" or Path(path).is_symlink()


def test_open_files_are_written_by_their_numbers(tmp_path):
    ends = os.pipe()
    (tmp_path / "link").symlink_to(f"/dev/fd/{ends[1]}")
    write_text(tmp_path / "link", "through\n")
    write_text(f"/proc/self/fd/{ends[1]}", "and through\n")
    assert os.read(ends[0], 100) == b"through\nand through\n"
    (tmp_path / "reading").symlink_to(f"/dev/fd/{ends[0]}")
    with pytest.raises(OutputError, match="it is not open for writing"):
        check_file(tmp_path / "reading")
    for end in ends:
        os.close(end)
    with pytest.raises(OutputError, match="Bad file descriptor"):
        write_text(tmp_path / "link", "x")


def test_sockets_and_folders_are_no_files_and_files_and_pipes_are_no_folders(tmp_path):
    with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(tmp_path):
        made.bind("socket")  # whose names are short
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="it is a socket; name a file"):
        write_text(tmp_path / "socket", "x")
    with pytest.raises(OutputError, match="Is a directory; name a file"):
        check_file(tmp_path)
    for name, kind in (("file", "a file"), ("pipe", "a pipe"), ("socket", "a socket")):
        with pytest.raises(OutputError, match=f"it is {kind}; name a folder"):
            check_folder(tmp_path / name)
        with pytest.raises(OutputError, match="Not a directory"):
            check_folder(tmp_path / name / "below")
    with pytest.raises(OutputError, match="cannot write standard output: it is no folder"):
        check_folder("/dev/stdout")
    assert stat.S_ISSOCK((tmp_path / "socket").stat().st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_a_file_that_is_replaced_keeps_its_mode_and_owner(tmp_path, mode):
    path = tmp_path / "x.txt"
    path.write_text("old")
    own(path)
    path.chmod(mode)
    before = path.stat()
    write_text(path, "new")
    after = path.stat()
    assert path.read_text() == "new"
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (
        before.st_mode,
        before.st_uid,
        before.st_gid,
    )


def test_another_name_of_a_file_keeps_what_was_written_before(tmp_path):
    (tmp_path / "x").write_text("old")
    (tmp_path / "backup").hardlink_to(tmp_path / "x")
    write_text(tmp_path / "x", "new")
    assert (tmp_path / "backup").read_text() == "old"


WRITE = """
try:
    write_text("{}", "new")
except OutputError as error:
    print(error)
"""


def test_a_file_that_its_user_has_made_read_only_is_refused(shared):
    own(shared)
    (shared / "x").write_text("old")
    own(shared / "x")
    (shared / "x").chmod(0o444)
    assert as_a_user(WRITE.format("x"), shared) == "cannot write x: Permission denied\n"
    assert (shared / "x").read_text() == "old"


def test_a_writable_file_of_a_read_only_folder_is_written_through(shared):
    (shared / "x").write_text("old and longer")
    own(shared / "x")
    shared.chmod(0o555)
    before = (shared / "x").stat()
    assert as_a_user(WRITE.format("x"), shared) == ""
    assert (shared / "x").read_text() == "new"
    assert (shared / "x").stat().st_ino == before.st_ino
    assert as_a_user(WRITE.format("y"), shared) == "cannot write y: Permission denied\n"
    shared.chmod(0o755)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="root gives files away")
def test_a_file_whose_owner_cannot_be_kept_is_written_through(shared):
    shared.chmod(0o777)
    (shared / "x").write_text("of root")
    (shared / "x").chmod(0o666)
    assert as_a_user(WRITE.format("x"), shared) == ""
    assert (shared / "x").read_text() == "new"
    assert (shared / "x").stat().st_uid == 0


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EXDEV, errno.EPERM])
def test_a_file_that_is_a_mount_point_is_written_through(tmp_path, monkeypatch, code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    (tmp_path / "x").write_text("old and longer")
    before = (tmp_path / "x").stat()
    monkeypatch.setattr(Path, "replace", refuse)
    write_text(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "new"
    assert (tmp_path / "x").stat().st_ino == before.st_ino
    with pytest.raises(OutputError, match=os.strerror(code)):
        write_text(tmp_path / "y", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_the_longest_name_that_the_system_takes_is_written(tmp_path):
    for name in ("x" * 255, "ü" * 127):
        write_text(tmp_path / name, "text")
        assert (tmp_path / name).read_text() == "text"


def test_folders_that_were_made_for_a_write_that_fails_go_again(tmp_path):
    with pytest.raises(ZeroDivisionError), write_atomically(tmp_path / "a" / "b" / "x"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


SLOW = """
import sys, time
from densepath.files import write_atomically
with write_atomically(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("begun", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_has_left_goes_with_the_next_write(tmp_path):
    path = tmp_path / "x.txt"
    with subprocess.Popen([sys.executable, "-c", SLOW, path], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"begun\n"
        temporaries._remove_leftovers.cache_clear()
        write_text(tmp_path / "y.txt", "text")
        assert len(list(tmp_path.iterdir())) == 2  # of one that lives nothing is removed
        process.send_signal(signal.SIGKILL)
    assert not path.exists()
    temporaries._remove_leftovers.cache_clear()
    write_text(path, "text")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.txt", "y.txt"]


def test_leftovers_of_another_machine_and_files_with_names_like_them_are_left_alone(tmp_path):
    for name in (".x.densepath-00000000-1-12345678.tmp", ".x.tmp", "x.densepath.tmp"):
        (tmp_path / name).write_text("")
    before = {path.name for path in tmp_path.iterdir()}
    write_text(tmp_path / "x", "text")
    assert {path.name for path in tmp_path.iterdir()} == before | {"x"}


FILL = """
for name, text in (("mine", "first"), ("mine", "second"), ("other", "x")):
    try:
        with write_folder(name) as (scratch, put):
            (scratch / "last").write_text(text)
            put()
    except OutputError as error:
        print(error)
print(os.listdir("."), os.listdir("mine"), open("mine/last").read())
"""


def test_a_writable_folder_in_a_read_only_one_is_filled(shared):
    (shared / "mine").mkdir()
    own(shared / "mine")
    shared.chmod(0o555)
    said = as_a_user(FILL, shared)
    shared.chmod(0o755)
    assert said == "cannot write other: Permission denied\n['mine'] ['last'] second\n"
