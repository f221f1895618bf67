"""images/image_files.py: which files of a folder are images, and what is said of the others."""

from __future__ import annotations

import os
import zipfile

import pytest
from PIL import Image

from densepath.errors import DataError, DatasetError
from densepath.exporting.parity_images import collect_images
from densepath.images.clutter import is_clutter
from densepath.images.decode import readable_suffixes
from densepath.images.find import find_images
from densepath.images.image_files import (
    PassedOver,
    UnreadableFolder,
    images_below,
    is_image_name,
)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def walk(folder):
    passed_over = PassedOver()
    found = [os.path.relpath(name, folder) for name in images_below(str(folder), passed_over)]
    return found, passed_over


@pytest.mark.parametrize(
    "name",
    ["a.jpg", "A.JPG", "b.JPEG ", "c.jfif", "d.jpe", "e.Webp", "f.TIFF", "a.b.png", "x y.bmp"],
)
def test_names_of_images_are_known_in_any_case_and_with_blanks_behind_them(name):
    assert is_image_name(name)


@pytest.mark.parametrize(
    "name",
    ["a", "jpg", ".jpg", "a.jpg~", "a.jpg.txt", "a.jpg.part", "Dr. Smith", "a.", "a.png?w=2"],
)
def test_other_names_are_no_images(name):
    assert not is_image_name(name)


@pytest.mark.parametrize("name", [".a.jpg", "._a.jpg", "__MACOSX", "@eaDir", "Thumbs.db"])
def test_what_an_operating_system_leaves_is_hidden(name):
    assert is_clutter(name)


def test_a_walk_counts_what_it_passes_over_by_suffix_and_says_the_cure(tmp_path):
    touch(
        tmp_path, "a.jpg", "b.TXT", "c.txt", "d.xml", "more/e.dng", "more/f.CR2", "g.svg", "README"
    )
    touch(tmp_path, ".hidden", "@eaDir/a.jpg", "__MACOSX/._a.jpg", "Thumbs.db")
    found, passed_over = walk(tmp_path)
    assert found == ["a.jpg"]
    assert passed_over.notes() == [
        "2 raw photos (1 .cr2, 1 .dng): save them as JPEG or PNG to have them read",
        "1 picture of a kind that is not read (1 .svg): save them as PNG or JPEG to have them read",
        "3 files that are no images (2 .txt, 1 .xml)",
        "1 file without a suffix: files that are named, one by one or by a pattern, are read "
        "whatever their suffix",
    ]


def test_heic_photos_are_named_with_the_package_that_reads_them(tmp_path, monkeypatch):
    monkeypatch.setattr("densepath.images.opened.find_spec", lambda name: None)
    readable_suffixes.cache_clear()
    try:
        touch(tmp_path, "a.jpg", "b.heic", "c.HEIC", "d.hif")
        _, passed_over = walk(tmp_path)
    finally:
        readable_suffixes.cache_clear()
    [note] = passed_over.notes()
    assert note.startswith("3 HEIC photos (2 .heic, 1 .hif): ")
    assert "pillow-heif" in note
    assert "heic" in note


def test_many_kinds_of_files_are_summed_up(tmp_path):
    touch(tmp_path, *(f"{i}.x{i:02d}" for i in range(12)))
    _, passed_over = walk(tmp_path)
    [note] = passed_over.notes()
    assert note.startswith("12 files that are no images (1 .x00, ")
    assert note.endswith("4 others)")


def test_links_to_folders_are_counted_or_followed_but_never_in_circles(tmp_path):
    touch(tmp_path, "in/a.png")
    (tmp_path / "in" / "up").symlink_to(tmp_path)
    (tmp_path / "twin").symlink_to(tmp_path / "in")
    found, passed_over = walk(tmp_path)
    assert found == ["in/a.png"]
    assert passed_over.notes() == ["2 links to folders, not followed"]
    followed = [*images_below(str(tmp_path), PassedOver(), follow_links=True)]
    assert sorted(os.path.relpath(name, tmp_path) for name in followed) == [
        "in/a.png",
        "twin/a.png",
    ]


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    [found] = images_below(str(tmp_path / "gone"), PassedOver())
    assert isinstance(found, UnreadableFolder)
    assert "no such file" in found.reason.lower()


def test_a_folder_without_images_names_what_it_has(tmp_path):
    touch(tmp_path, "a.nef", "b.nef")
    with pytest.raises(DataError, match=r"no images in this folder; passed over: 2 raw photos"):
        list(find_images([str(tmp_path)]))


def test_folders_lists_and_patterns_are_counted_together(tmp_path):
    for name in ("one", "two"):
        touch(tmp_path, f"{name}/a.jpg", f"{name}/b.txt")
    passed_over = PassedOver()
    names = [str(tmp_path / "one"), "-"]
    found = list(find_images(names, lines=[f"{tmp_path}/tw*\n"], passed_over=passed_over))
    assert len(found) == 2
    assert passed_over.suffixes == {".txt": 2}


def test_the_images_of_parity_and_of_a_zip_archive_are_found_by_the_same_rule(tmp_path):
    folder = tmp_path / "photos"
    touch(folder, "b.txt", "c.arw", "@eaDir/x.jpg")
    Image.new("RGB", (9, 9)).save(folder / "a.JPG")
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.rglob("*"):
            file.write(path, path.relative_to(tmp_path))
    for source in (folder, archive):
        with collect_images([source], 9) as found:
            assert len(found.paths) == 1
            assert found.passed_over.suffixes == {".txt": 1, ".arw": 1}


def test_an_archive_without_images_names_what_it_has(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("one.dng", b"x")
    with (
        pytest.raises(DatasetError, match="no images in this archive; passed over: 1 raw photo"),
        collect_images([tmp_path / "a.zip"], 1),
    ):
        pass


def test_where_nothing_was_passed_over_nothing_is_said():
    assert list(PassedOver().sentences("photos")) == []
    assert str(PassedOver()) == ""
