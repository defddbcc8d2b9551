"""WebDataset reads what ``shards`` writes: each image of the folder once, byte for byte."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import webdataset
from PIL import Image

from unit.__main__ import main
from unit.data import shard_writer
from unit.data.shards import Shards

pytestmark = pytest.mark.skipif(not hasattr(os, "pread"), reason="needs Linux or macOS")


def make_images(folder: Path, *names: str) -> Path:
    """Small ones, all different."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number // 256, number % 256, 7)).save(folder / name, "PNG")
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["shards", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out.rstrip("\n"), captured.err


def members(pattern: str) -> dict[str, bytes]:
    """By name, of all shards that the verb printed."""
    found = {}
    for path in sorted(Path(pattern).parent.glob("*.tar")):
        with tarfile.open(path) as shard:
            found |= {info.name: shard.extractfile(info).read() for info in shard}  # type: ignore[union-attr]
    return found


NAMES = ("1.jpg", "2.PNG", "x/1.jpg", "x/v1.2/3.final.webp", "ä/ö ü.png", f"{'long/' * 60}{'n' * 90}.jpg")


def test_each_image_is_there_once_byte_for_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_images(tmp_path / "sunny", *NAMES)
    (folder / "notes.txt").write_text("no image")
    status, out, err = run(capsys, folder, tmp_path / "out", "--per_shard", 4)
    assert (status, out, err) == (0, str(tmp_path / "out" / "sunny-{000000..000001}.tar"), "")
    renamed = {"2.PNG": "2.png", "x/v1.2/3.final.webp": "x/v1.2/3_final.webp"}
    assert members(out) == {renamed.get(name, name): (folder / name).read_bytes() for name in NAMES}
    assert len(Shards.open(Path(out))) == len(NAMES)


def test_webdataset_reads_the_same_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_images(tmp_path / "in", *NAMES)
    _, out, _ = run(capsys, folder, tmp_path / "out", "--per_shard", 3)
    code = (
        "import json, sys, webdataset; json.dump([[s.pop('__key__'), sorted(s), next(s[k].hex() for k in s if k[0] != "
    )
    code += "'_')] for s in webdataset.WebDataset(sys.argv[1], shardshuffle=False, empty_check=False)], sys.stdout)"
    done = subprocess.run([sys.executable, "-c", code, out], capture_output=True, check=True)  # it leaves files open
    samples = json.loads(done.stdout)
    assert sorted(content for _, _, content in samples) == sorted((folder / name).read_bytes().hex() for name in NAMES)
    assert all(sum(not field.startswith("_") for field in fields) == 1 for _, fields, _ in samples)
    shards = Shards.open(Path(out))
    names = [shards.name(k).partition("/")[2] for k in range(len(shards))]
    assert [key for key, _, _ in samples] == [name.rpartition(".")[0] for name in names]


def test_names_that_would_be_one_sample_are_numbered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("a.b.jpg", "a.jpg", "a.png", "a_b-2.jpg", "a_b.jpg", "a_b.png")
    _, out, _ = run(capsys, make_images(tmp_path / "in", *names), tmp_path / "out")
    assert out == str(tmp_path / "out" / "in-000000.tar")
    found = members(out)
    keys = {name.partition(".")[0] for name in found}
    assert len(keys) == len(found) == len(names)
    assert {"a_b", "a", "a-2"} <= keys
    assert len(Shards.open(Path(out))) == len(names)


def test_a_shard_ends_after_so_many_images_or_megabytes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_images(tmp_path / "in", *(f"{k}.png" for k in range(10)))
    for k in range(10):
        with (folder / f"{k}.png").open("ab") as file:
            file.write(bytes(400_000))
    counts = {}
    for flag, number in (("--per_shard", 4), ("--megabytes", 1)):
        _, out, _ = run(capsys, folder, tmp_path / flag, flag, number)
        shards = Shards.open(Path(out))
        files = [shards.name(k).partition("/")[0] for k in range(10)]
        counts[flag] = [files.count(name) for name in sorted(set(files))]
    assert counts == {"--per_shard": [4, 4, 2], "--megabytes": [3, 3, 3, 1]}


def test_neighbours_are_parted_by_a_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_images(tmp_path / "in", *(f"{k:03d}.png" for k in range(100)))
    orders, contents = [], []
    for number, seed in enumerate((0, 0, 1)):
        _, out, _ = run(capsys, folder, tmp_path / str(number), "--seed", seed)
        shards = Shards.open(Path(out))
        orders.append([shards.name(k) for k in range(100)])
        contents.append(Path(out).read_bytes())
    assert contents[0] == contents[1]
    assert sorted(orders[0]) == sorted(orders[2])
    assert len({tuple(order) for order in (orders[0], orders[2], sorted(orders[0]))}) == 3


@pytest.mark.parametrize("name", ["100%d", "{a,b}", "x*?", "...", "näh e"])
def test_a_folder_of_any_name_gives_a_pattern_that_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    folder = make_images(tmp_path / "in" / name, "1.png", "2.png")
    status, out, _ = run(capsys, folder, tmp_path / "out %d", "--per_shard", 1)
    assert status == 0
    assert len(Shards.open(Path(out))) == 2


def test_shards_are_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = make_images(tmp_path / "in", "1.png"), tmp_path / "out"
    run(capsys, folder, out)
    before = (out / "in-000000.tar").read_bytes()
    make_images(folder, "2.png")
    status, printed, err = run(capsys, folder, out)
    assert (status, printed) == (2, "")
    assert err == f"error: {out}: has in-000000.tar already; give another folder, or remove its shards\n"
    assert (out / "in-000000.tar").read_bytes() == before
    assert run(capsys, make_images(tmp_path / "other", "1.png"), out)[0] == 0


def test_an_image_that_vanishes_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_images(tmp_path / "in", "1.png", "2.png")
    monkeypatch.setattr("unit.data.shard_writer.list_images", lambda _: ["1.png", "2.png", "3.png"])
    status, _, err = run(capsys, folder, tmp_path / "out", "--per_shard", 1)
    assert (status, err) == (3, f"error: {folder / '3.png'}: can't be read (No such file or directory); remove it\n")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    folder = make_images(tmp_path / "in", "1.png", "2.png")
    monkeypatch.setattr(webdataset.ShardWriter, "write", full)
    status, _, err = run(capsys, folder, tmp_path / "out")
    assert status == 1
    assert err.startswith(f"error: {tmp_path / 'out'}: can't be written (No space left on device); ")
    assert err.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_package_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "webdataset", None)
    status, _, err = run(capsys, make_images(tmp_path / "in", "1.png"), tmp_path / "out")
    assert (status, err) == (2, "error: shards: needs the package webdataset; pip install 'webdataset>=1.0'\n")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["/nowhere", "out"], 3, "/nowhere"),
        ([], 2, "FOLDER, OUT"),
        (["x", "y", "--per_shard", "0"], 2, "--per_shard"),
        (["x", ""], 2, "OUT: is empty"),
    ],
)
def test_mistakes_are_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, words: str
) -> None:
    given, out, err = run(capsys, *arguments)
    assert (given, out) == (status, "")
    assert words in err
    assert err.count("\n") == 1


def test_check_refuses_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patterns = []
    for name in ("sunny", "rainy"):
        folder = make_images(tmp_path / name, "1.png", "2.png")
        patterns.append(run(capsys, folder, tmp_path / "out")[1])
    status = main(["check", "--a", patterns[0], "--b", patterns[1]])
    assert status == 2
    assert "check reads image files, not shards" in capsys.readouterr().err


@pytest.mark.parametrize("hard_links", [True, False])
def test_shards_that_another_process_wrote_meanwhile_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, hard_links: bool
) -> None:
    folder, out = make_images(tmp_path / "in", "1.png", "2.png"), tmp_path / "out"
    samples = shard_writer._samples

    def slow(*arguments: Any) -> Iterator[dict[str, Any]]:
        yield from samples(*arguments)
        (out / "in-000000.tar").write_bytes(b"another's")

    def no_link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links")

    monkeypatch.setattr(shard_writer, "_samples", slow)
    if not hard_links:
        monkeypatch.setattr("os.link", no_link)
    status, printed, err = run(capsys, folder, out, "--per_shard", 1)
    assert (status, printed) == (2, "")
    assert err == f"error: {out}: has in-000000.tar already; give another folder, or remove its shards\n"
    assert [path.name for path in out.iterdir()] == ["in-000000.tar"]
    assert (out / "in-000000.tar").read_bytes() == b"another's"


def test_shards_are_written_where_there_are_no_hard_links(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no hard links")

    monkeypatch.setattr("os.link", no_link)
    status, out, _ = run(capsys, make_images(tmp_path / "in", "1.png"), tmp_path / "out")
    assert status == 0
    assert len(Shards.open(Path(out))) == 1
