from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from unit.errors import DataError
from unit.listing import list_images


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def link(path: Path, target: Path | str) -> None:
    try:
        path.symlink_to(target, target_is_directory=Path(path.parent, target).is_dir())
    except OSError:
        pytest.skip("needs links")


def complaint(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        list_images(folder)
    message = str(caught.value)
    assert message.isprintable()
    assert message.startswith(str(folder))
    assert caught.value.exit_status == 3
    return message


def test_all_images_below_in_code_point_order(tmp_path: Path) -> None:
    names = ["B.png", "Z/a.jpg", "a.JPG", "a/b.TiFf", "a/b/c/d.webp", "a0.gif", "b.png", "ä.png", "日.bmp"]
    touch(tmp_path, *reversed(names))
    assert list_images(tmp_path) == names


def test_hidden_and_other_files_are_skipped(tmp_path: Path) -> None:
    touch(
        tmp_path, "a.jpg", "a.txt", "jpg", "a.pdf", "a.jpg.part", "._a.jpg", ".hidden/a.jpg", "__MACOSX/a.jpg", "a.eps"
    )
    assert list_images(tmp_path) == ["a.jpg"]


def test_a_root_may_be_hidden(tmp_path: Path) -> None:
    touch(tmp_path / ".data", "a.jpg")
    assert list_images(tmp_path / ".data") == ["a.jpg"]


def test_a_folder_named_as_an_image_is_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "x.jpg/y.png")
    assert list_images(tmp_path) == ["x.jpg/y.png"]


def test_links_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "a.jpg", "b/c.jpg")
    touch(tmp_path / "root", "z.png")
    link(tmp_path / "root" / "linked", tmp_path / "elsewhere")
    link(tmp_path / "root" / "again", tmp_path / "elsewhere")
    link(tmp_path / "root" / "y.jpg", tmp_path / "elsewhere" / "a.jpg")
    link(tmp_path / "root" / "broken.jpg", tmp_path / "nowhere")  # reading it will name it
    assert list_images(tmp_path / "root") == [
        "again/a.jpg",  # and not as linked/a.jpg too
        "again/b/c.jpg",
        "broken.jpg",
        "y.jpg",
        "z.png",
    ]


def test_loops_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jpg", "a/b/y.jpg")
    link(tmp_path / "a" / "b" / "up", "..")
    link(tmp_path / "a" / "here", ".")
    link(tmp_path / "a" / "self", "self")
    assert list_images(tmp_path) == ["a/b/y.jpg", "a/x.jpg"]


def test_each_folder_is_visited_once_however_many_paths_lead_there(tmp_path: Path) -> None:
    for level in range(12):  # 4096 paths to the last one
        touch(tmp_path, f"{level}/x.jpg")
        for name in ("a", "b"):
            link(tmp_path / str(level) / name, tmp_path / str(level + 1))
    assert list_images(tmp_path) == sorted(f"{level}/x.jpg" for level in range(12))
    assert len(list_images(tmp_path / "0")) == 12
    every = tmp_path / "all"
    for number in range(6):  # each linked to all
        touch(every, f"{number}/x.jpg")
        for other in range(6):
            link(every / str(number) / f"to-{other}", every / str(other))
    assert list_images(every) == [f"{number}/x.jpg" for number in range(6)]


@pytest.mark.parametrize("name", ["IMG_1.HEIC", "a.heif", "b.CR2", "c.svg", "d.MP4", "deep/e.mov"])
def test_unsupported_images_are_counted_and_named_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    touch(tmp_path, "x.jpg", "notes.txt", name)
    assert list_images(tmp_path) == ["x.jpg"]
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path}: 1 image or video file not read: {name}; convert")
    assert ("heif-convert" in message) == name.lower().endswith(("heic", "heif"))


def test_many_unsupported_images_are_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "x.jpg", *(f"{k:03d}.nef" for k in range(50)))
    list_images(tmp_path)
    (message,) = caplog.messages
    assert "50 image or video files not read: 000.nef, 001.nef, 002.nef and 47 more; " in message


def test_image_content_under_another_suffix_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "x.jpg", "empty")
    for suffix in ("JPEG", "PNG", "GIF", "TIFF", "WEBP"):
        Image.new("RGB", (2, 2)).save(tmp_path / f"{suffix}.x", suffix)
    (tmp_path / "phone").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "words.md").write_text("GIFs and JPEGs")
    list_images(tmp_path)
    assert "6 image or video files not read: GIF.x, JPEG.x, PNG.x and 3 more" in caplog.text


def test_a_folder_of_nothing_but_heic_says_how_to_convert_them(tmp_path: Path) -> None:
    touch(tmp_path, "1.HEIC")
    assert "no images among 1 files (suffixes: .heic)" in complaint(tmp_path)
    assert "heif-convert" in complaint(tmp_path)


# What is wrong with a folder


def test_a_missing_folder_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "sunny").mkdir()
    assert f"did you mean {tmp_path / 'sunny'}?" in complaint(tmp_path / "suny")
    if not (tmp_path / "SUNNY").exists():
        assert f"did you mean {tmp_path / 'sunny'}?" in complaint(tmp_path / "SUNNY")
    assert "did you mean" not in complaint(tmp_path / "entirely")


def test_a_missing_folder_above_is_named(tmp_path: Path) -> None:
    (tmp_path / "sunny").mkdir()
    assert f"did you mean {tmp_path / 'sunny'}?" in complaint(tmp_path / "suny" / "x" / "y")
    assert f"{tmp_path / 'entirely'} is missing too" in complaint(tmp_path / "entirely" / "x" / "y")


def test_a_missing_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sunny").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "did you mean sunny?" in complaint(Path("suny"))


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    assert "is a file, not a folder" in complaint(tmp_path / "a.jpg")
    assert "no such folder" in complaint(tmp_path / "a.jpg" / "b")


def test_an_empty_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a/.hidden.jpg")
    assert "no files" in complaint(tmp_path)


def test_a_folder_of_other_files(tmp_path: Path) -> None:
    touch(tmp_path, "1.npy", "2.npy", "x/3.NPY", "readme", "odd.x\n")
    message = complaint(tmp_path)
    assert "no images among 5 files (suffixes: .npy, " in message
    assert "no suffix" in message
    assert ".jpg, .png" in message


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "shut/b.jpg")
    (tmp_path / "shut").chmod(0)
    try:
        with pytest.raises(DataError, match="shut: can't be listed"):
            list_images(tmp_path)
    finally:
        (tmp_path / "shut").chmod(0o700)


def test_a_folder_that_fails_while_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    touch(tmp_path, "a.jpg")
    monkeypatch.setattr(os, "scandir", fail)
    assert "can't be listed (Permission denied)" in complaint(tmp_path)
