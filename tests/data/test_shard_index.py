"""The headers of tar files, as Python's tarfile reads them, and what is wrong with a shard in one line."""

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unit.data import shard_index
from unit.data.shard_index import read_indexes
from unit.errors import DataError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
CHARACTERS = st.characters(blacklist_characters="/.\0\n", blacklist_categories=("Cs",))
PARTS = st.text(CHARACTERS, min_size=1, max_size=60).filter(lambda part: part != "__MACOSX")


def tar(path: Path, members: Sequence[tuple[str, bytes]], form: str = "pax") -> str:
    with tarfile.open(path, "w", format=FORMATS[form]) as shard:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    return str(path)


def found(file: str, cache: Path | None = None) -> list[tuple[str, bytes]]:
    ((_, members),) = read_indexes([file], cache)
    content = Path(file).read_bytes()
    return [(os.fsdecode(name), content[offset : offset + size]) for offset, size, name in members.tolist()]


def checked(content: bytearray, head: int = 0) -> bytearray:
    """With a right checksum in the header at `head`."""
    content[head + 148 : head + 156] = b" " * 8
    content[head + 148 : head + 156] = b"%06o\0 " % sum(content[head : head + 512])
    return content


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["gnu", "pax"]),
    st.lists(st.lists(PARTS, min_size=1, max_size=5), min_size=1, max_size=5, unique_by=tuple),
    st.integers(0, 1500),
)
def test_what_tarfile_reads_is_read(tmp_path: Path, form: str, names: list[list[str]], size: int) -> None:
    members = [("/".join(parts) + ".jpg", random.Random(k).randbytes(size + k)) for k, parts in enumerate(names)]
    file = tar(tmp_path / "x.tar", members, form)
    with tarfile.open(file) as shard:
        told = [(info.name, shard.extractfile(info).read()) for info in shard]  # type: ignore[union-attr]
    assert found(file) == told == members


def test_the_standards_long_names(tmp_path: Path) -> None:
    members = [(f"{'folder/' * 20}{k}.jpg", b"x" * k) for k in range(4)]
    assert found(tar(tmp_path / "x.tar", members, "ustar")) == members


def test_a_name_beyond_any_path_is_refused(tmp_path: Path) -> None:
    """In the index each row has room for the longest name, so one would multiply the memory of all."""
    file = tar(tmp_path / "x.tar", [("a.jpg", b"1"), ("b" * 5000 + ".jpg", b"2")])
    with pytest.raises(DataError, match=r"x\.tar: has a name of 5,004 bytes; write the shard with shorter names$"):
        found(file)


def test_a_size_that_only_pax_or_gnu_can_say(tmp_path: Path) -> None:
    file = tar(tmp_path / "x.tar", [("a.jpg", b"1" * 700), ("b.jpg", b"2")])
    plain = bytearray(Path(file).read_bytes())
    gnu = plain.copy()
    gnu[124:136] = b"\x80" + (700).to_bytes(11, "big")
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = {"size": "700"}
    pax = bytearray(info.tobuf(tarfile.PAX_FORMAT)) + plain[512:]
    for content in (gnu, pax):
        Path(file).write_bytes(checked(content, len(content) - len(plain)))
        assert found(file) == [("a.jpg", b"1" * 700), ("b.jpg", b"2")]


def test_old_gnu_headers_with_times_behind_the_name_are_read(tmp_path: Path) -> None:
    file = Path(tar(tmp_path / "x.tar", [("a.jpg", b"1")], "gnu"))
    content = bytearray(file.read_bytes())
    content[345:357] = b"14567216541\0"  # when it was last read
    file.write_bytes(checked(content))
    assert [image for _, image in found(str(file))] == [b"1"]  # tarfile, and so WebDataset, takes them for a folder


def test_a_size_beyond_all_files_is_a_shard_cut_short(tmp_path: Path) -> None:
    file = Path(tar(tmp_path / "x.tar", [("a.jpg", b"1")]))
    for size in (b"\x80" + b"\xff" * 11, b"\x80" + b"\0" * 5 + b"\x80" * 6, b"77777777777\0"):
        content = bytearray(file.read_bytes())
        content[124:136] = size
        file.write_bytes(checked(content))
        with pytest.raises(DataError, match=r"x\.tar: is damaged or cut short"):
            read_indexes([str(file)], None)


def test_a_hard_link_has_no_content_whatever_its_size(tmp_path: Path) -> None:
    file = Path(tar(tmp_path / "x.tar", [("l.jpg", b""), ("a.jpg", b"1")]))
    content = bytearray(file.read_bytes())
    content[124:136], content[156:157] = b"%011o\0" % 700, tarfile.LNKTYPE
    file.write_bytes(checked(content))
    assert found(str(file)) == [("a.jpg", b"1")]


def test_folders_links_and_other_files_are_passed_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as shard:
        for name, kind in (("d", tarfile.DIRTYPE), ("l.jpg", tarfile.SYMTYPE), ("h.jpg", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "a.jpg"
            shard.addfile(info)
        for name in ("a.json", "./d/a.JPEG", "a.cls", "._a.jpg", "d/.b/a.png", "__MACOSX/a.jpg", "b.webp"):
            info = tarfile.TarInfo(name)
            info.size = 3
            shard.addfile(info, io.BytesIO(b"abc"))
    assert found(str(tmp_path / "x.tar")) == [("d/a.JPEG", b"abc"), ("b.webp", b"abc")]


def test_of_a_sample_the_plain_image_counts_and_of_a_name_the_last(tmp_path: Path) -> None:
    members = [("1.depth.png", b"d"), ("1.jpg", b"p"), ("1.seg.png", b"s"), ("2.left.jpg", b"l"), ("v1.2/3.jpg", b"3")]
    expected = [("1.jpg", b"P"), ("2.left.jpg", b"l"), ("v1.2/3.jpg", b"3")]
    assert found(tar(tmp_path / "x.tar", [*members, ("1.jpg", b"P")])) == expected


@pytest.mark.parametrize("names", [["1.jpg", "1.png"], ["x.1.jpg", "x.2.jpg"]])
def test_several_images_in_a_sample_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(DataError, match=rf"x\.tar: {names[0]} and {names[1]} are one sample"):
        found(tar(tmp_path / "x.tar", [("0.jpg", b""), *((name, b"") for name in names)]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\xff\xd8" + bytes(2000), "is not a tar file"),
        (b"PK\3\4 short", "is not a tar file"),
        (bytes(1024), "holds no images, and 0 other members"),
    ],
)
def test_a_file_that_is_not_a_shard_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(DataError, match=rf"x\.tar: {words}") as caught:
        read_indexes([str(tmp_path / "x.tar")], None)
    assert "\n" not in str(caught.value)


def test_a_compressed_shard_is_to_be_unpacked(tmp_path: Path) -> None:
    plain = Path(tar(tmp_path / "x.tar", [("a.jpg", b"")]))
    packed = tmp_path / "y.tar.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(DataError, match=r"y\.tar\.gz: is compressed \(gzip\); unpack it"):
        read_indexes([str(packed)], None)


def test_a_shard_without_images_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images, and 1 other members"):
        read_indexes([tar(tmp_path / "x.tar", [("a.json", b"")])], None)


def test_a_shard_cut_anywhere_is_refused(tmp_path: Path) -> None:
    file = Path(tar(tmp_path / "x.tar", [(f"{k}.jpg", b"x" * 700) for k in range(3)]))
    original = file.read_bytes()
    end = 3 * (512 + 1024)
    for length in (*range(1, end, 97), *range(512, end + 512, 512)):
        file.write_bytes(original[:length])
        with pytest.raises(DataError, match=r"x\.tar: is (not a tar file|damaged or cut short)"):
            read_indexes([str(file)], None)


def test_damage_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    file = Path(tar(tmp_path / "x.tar", [(f"{k}.jpg", b"x" * 700) for k in range(3)]))
    content = bytearray(file.read_bytes())
    content[1536 + 3] ^= 1  # in the second one's name
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.tar: is damaged or cut short at byte 1,536"):
        read_indexes([str(file)], None)


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_zeros_in_the_middle_are_not_taken_for_the_end(tmp_path: Path, blocks: int) -> None:
    file = Path(tar(tmp_path / "x.tar", [(f"{k}.jpg", b"x" * 700) for k in range(3)], "ustar"))
    content = bytearray(file.read_bytes())
    content[1536 : 1536 + 512 * blocks] = bytes(512 * blocks)
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.tar: is damaged or cut short at byte 1,536"):
        read_indexes([str(file)], None)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["ä.jpg", f"{'folder/' * 20}long.jpg", "/".join(["n" * 90] * 11) + ".jpg"])
def test_a_zeroed_block_is_refused_or_changes_nothing(tmp_path: Path, form: str, name: str) -> None:
    name = name[-200:] if form == "ustar" else name  # which has no longer ones
    file = Path(tar(tmp_path / "x.tar", [(f"{k}/{name}", b"x" * 700) for k in range(3)], form))
    original, index, refused = file.read_bytes(), read_indexes([str(file)], None)[0][1].tolist(), 0
    for start in range(0, len(original), 512):
        file.write_bytes(original[:start] + bytes(512) + original[start + 512 :])
        try:
            assert read_indexes([str(file)], None)[0][1].tolist() == index, start
        except DataError:
            refused += 1
    assert refused >= 3


def test_a_long_name_may_end_with_a_block(tmp_path: Path) -> None:
    """GNU's zero byte at its end is then in a block of zeros of its own."""
    members = [("/".join(["n" * 101] * 4) + "/" + "n" * 100 + ".jpg", b"1")]
    assert len(members[0][0]) == 512
    assert found(tar(tmp_path / "x.tar", members, "gnu")) == members


def test_sizes_below_zero_are_refused(tmp_path: Path) -> None:
    file = Path(tar(tmp_path / "x.tar", [("a.jpg", b"1"), ("b.jpg", b"2")], "gnu"))
    content = bytearray(file.read_bytes())
    content[124:136] = b"\xff" * 12
    file.write_bytes(checked(content))
    with pytest.raises(DataError, match=r"x\.tar: is "):
        read_indexes([str(file)], None)


def test_damaged_headers_of_any_kind_are_one_line_or_read(tmp_path: Path) -> None:
    members = [(f"{'long' * 40}/ä{k}.jpg", b"x" * 100) for k in range(2)]
    for form in FORMATS:
        file = Path(tar(tmp_path / "x.tar", members if form != "ustar" else [("a.jpg", b"x")], form))
        original, rng = file.read_bytes(), random.Random(0)
        for _ in range(300):
            content = bytearray(original)
            for _ in range(rng.choice((1, 3, 40))):
                content[rng.randrange(len(content))] = rng.randrange(256)
            file.write_bytes(checked(content) if rng.random() < 0.7 else content)
            try:
                read_indexes([str(file)], None)
            except DataError as error:
                assert "\n" not in str(error)  # noqa: PT017


def test_an_index_is_cached_until_the_shard_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, file = tmp_path / "cache", tar(tmp_path / "x.tar", [("a.jpg", b"1"), ("ä.jpg", b"22")])
    first = found(file, cache)
    with monkeypatch.context() as patch:
        patch.setattr(shard_index, "_read_members", None)
        assert found(file, cache) == first == [("a.jpg", b"1"), ("ä.jpg", b"22")]
        os.utime(file, ns=(1, 1))
        with pytest.raises(TypeError):
            found(file, cache)
    tar(Path(file), [("b.jpg", b"3")])
    assert found(file, cache) == [("b.jpg", b"3")]


@pytest.mark.parametrize("damage", ["bit", "cut", "longer", "head", "empty", "folder", "another"])
def test_a_damaged_cached_index_is_replaced(tmp_path: Path, damage: str) -> None:
    cache, file = tmp_path / "cache", tar(tmp_path / "x.tar", [("a.jpg", b"1"), ("b.jpg", b"22")])
    first = found(file, cache)
    (record,) = (path for path in cache.rglob("*") if path.is_file())
    good = record.read_bytes()
    bit = good[:-1] + bytes([good[-1] ^ 1])
    head = good[:16] + b"\xff" * 4 + good[20:]
    if damage == "folder":
        record.unlink()
        record.mkdir()
    elif damage == "another":
        found(tar(tmp_path / "y.tar", [("y.jpg", b"1")]), cache)
        (other,) = (path for path in cache.rglob("*") if path.is_file() and path != record)
        shutil.copy(other, record)
    else:
        bad = {"bit": bit, "cut": good[:-1], "longer": good + b"x", "head": head, "empty": b""}
        record.write_bytes(bad[damage])
    assert found(file, cache) == first
    assert damage == "folder" or record.read_bytes() == good


def test_without_a_cache_folder_it_is_read_each_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    file = tar(tmp_path / "x.tar", [("a.jpg", b"1")])
    assert found(file, tmp_path / "file" / "below") == found(file) == [("a.jpg", b"1")]


def test_a_million_images_take_little_memory(tmp_path: Path) -> None:
    names = [f"city/{k:012d}.jpg" for k in range(1000)]
    ((_, members),) = read_indexes([tar(tmp_path / "x.tar", [(name, b"") for name in names], "ustar")], None)
    assert members.nbytes == 1000 * (16 + len(names[0]))


def test_a_shard_that_may_not_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tar(tmp_path / "x.tar", [("a.jpg", b"1")])

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"x\.tar: can't be read \(Permission denied\)"):
        read_indexes([file], None)
