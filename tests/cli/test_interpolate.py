"""`interpolate` writes the walk in every format, and refuses mistakes in one line without touching a file."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny import TINY
from unit.__main__ import main
from unit.domains import Domain, PerDomain
from unit.images import is_marked
from unit.model.networks import build_autoencoders
from unit.translation.interpolation import RATE, walk
from unit.translation.translator import MODEL_FILE, Translator

A, B = Domain
Command = Callable[..., tuple[int, list[str]]]


@pytest.fixture(scope="module")
def translator() -> Translator:
    return Translator(build_autoencoders(TINY.model), TINY, PerDomain("sunny", "rainy"), 7, "cpu", "fp32")


@pytest.fixture
def here(tmp_path: Path, translator: Translator, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a run and two images."""
    monkeypatch.chdir(tmp_path)
    translator.save(tmp_path / "run" / MODEL_FILE)
    for name, size in {"1.png": (20, 16), "2.jpg": (33, 40)}.items():
        levels = np.random.default_rng(len(name)).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(levels).save(tmp_path / name)
    return tmp_path


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run `interpolate` on the two images, and return its status and the lines of standard error."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level

    def run(*words: str) -> tuple[int, list[str]]:
        root.handlers = []  # those of pytest, which would keep `main` from logging to standard error
        images = [] if words[0].endswith((".png", ".jpg")) else ["1.png", "2.jpg"]
        status = main(["interpolate", "run", *images, *words, "--device", "cpu", "--precision", "fp32"])
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        assert captured.out == ""
        assert all(line.isprintable() and not line.startswith("Traceback") for line in lines)
        return status, lines

    yield run
    root.handlers = handlers
    root.setLevel(level)


def frames_of(translator: Translator, domains: tuple[Domain, Domain], count: int) -> list[np.ndarray]:
    with Image.open("1.png") as first, Image.open("2.jpg") as second:
        return [np.asarray(frame) for frame in walk(translator, (first, domains[0]), (second, domains[1]), count)]


@pytest.mark.parametrize(
    ("words", "domains"), [(("sunny",), (A, A)), (("b",), (B, B)), (("sunny", "rainy"), (A, B)), (("b", "a"), (B, A))]
)
def test_a_folder_holds_an_image_for_each_frame(
    here: Path, command: Command, translator: Translator, words: tuple[str, ...], domains: tuple[Domain, Domain]
) -> None:
    status, lines = command("--domain", *words, "--out", "walk.v2", "--frames", "3")
    assert (status, lines) == (
        0,
        [
            "2.jpg: cropped around its centre to the shape of the first image",
            "walk.v2: 3 frames, sunny at the left, rainy at the right",
        ],
    )
    names = ["000001.png", "000002.png", "000003.png"]
    assert sorted(path.name for path in (here / "walk.v2").iterdir()) == names
    for name, expected in zip(names, frames_of(translator, domains, 3), strict=True):
        assert np.array_equal(np.asarray(Image.open(here / "walk.v2" / name)), expected)
        assert is_marked(here / "walk.v2" / name)
        assert b"digitalsourcetype/trainedAlgorithmicMedia" in (here / "walk.v2" / name).read_bytes()


@pytest.mark.parametrize("name", ["walk.gif", "walk.WEBP"])
def test_an_animation_holds_every_frame(here: Path, command: Command, translator: Translator, name: str) -> None:
    assert command("--domain", "a", "--out", name, "--frames", "5")[0] == 0
    expected = frames_of(translator, (A, A), 5)
    with Image.open(here / name) as animation:
        assert (animation.n_frames, animation.info["loop"]) == (5, 0)  # type: ignore[attr-defined]
        for number in range(5):
            animation.seek(number)
            shown = np.asarray(animation.convert("RGB")).astype(int)
            assert animation.info["duration"] == 1000 / RATE
            nearest = min(range(5), key=lambda k: np.abs(shown - expected[k]).mean())
            assert nearest == number
    assert b"UNIT image translation" in (here / name).read_bytes()


@pytest.mark.parametrize("name", ["walk.mp4", "walk.mkv"])
def test_a_video_holds_every_frame(here: Path, command: Command, name: str) -> None:
    av = pytest.importorskip("av")
    assert command("--domain", "a", "--out", name, "--frames", "5")[0] == 0
    with av.open(str(here / name)) as video:
        frames = list(video.decode(video=0))
        assert [round(frame.time * RATE) for frame in frames] == [0, 1, 2, 3, 4]
        assert (frames[0].width, frames[0].height) == (40, 16)
    assert b"UNIT image translation" in (here / name).read_bytes()


def test_the_frames_have_the_requested_size(here: Path, command: Command) -> None:
    assert command("--domain", "a", "--out", "walk", "--frames", "2", "--size", "32")[0] == 0
    with Image.open(here / "walk/000001.png") as frame:
        assert frame.size == (80, 32)


def test_images_of_one_shape_are_not_cropped(here: Path, command: Command) -> None:
    Image.new("RGB", (40, 32)).save("3.png")
    assert command("1.png", "3.png", "--domain", "a", "--out", "x.gif")[1] == [
        "x.gif: 40 frames, sunny at the left, rainy at the right"
    ]


MISTAKES: list[tuple[list[str], int, str]] = [
    (["--domain", "snowy", "--out", "x.gif"], 2, "domain snowy: must be a (sunny) or b (rainy)"),
    (["--domain", "a", "b", "a", "--out", "x.gif"], 2, "--domain: there are two images"),
    (["--out", "x.gif"], 2, "--domain"),
    (["--domain", "a"], 2, "--out"),
    (["--domain", "a", "--out", ""], 2, "--out"),
    (["--domain", "a", "--out", "x.jpg"], 2, "must end in .gif, .webp, .mp4, .mkv, or be a folder"),
    (["--domain", "a", "--out", "x.gif", "--frames", "1"], 2, "--frames"),
    (["--domain", "a", "--out", "1.png"], 2, "must end in .gif"),
    (["--domain", "a", "--out", "folder.gif"], 2, "folder.gif: is a folder"),
    (["--domain", "a", "--out", "file"], 2, "file: not a folder"),
    (["--domain", "a", "--out", "old.gif"], 2, "exists already; --overwrite replaces it"),
    (["--domain", "a", "--out", "old"], 2, "old/000002.png exists already"),
    (["old/000002.png", "1.png", "--domain", "a", "--out", "old", "--overwrite"], 2, "old/000002.png is an input"),
    (["1.png", "nowhere.png", "--domain", "a", "--out", "x.gif"], 3, "nowhere.png: no such file"),
    (["1.png", "text.png", "--domain", "a", "--out", "x.gif"], 3, "text.png: is not an image"),
]


@pytest.mark.parametrize(("words", "status", "said"), MISTAKES)
def test_a_mistake_is_one_line_and_touches_nothing(
    here: Path, command: Command, words: list[str], status: int, said: str
) -> None:
    for folder in ("folder.gif", "old"):
        (here / folder).mkdir()
    for file in ("file", "old.gif", "text.png"):
        (here / file).write_text("kept")
    Image.new("RGB", (20, 16)).save("old/000002.png")
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    given, lines = command(*words)
    assert (given, len(lines)) == (status, 1)
    assert said in lines[0]
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_overwriting(here: Path, command: Command) -> None:
    (here / "old.gif").write_text("old")
    assert command("--domain", "a", "--out", "old.gif", "--frames", "2", "--overwrite")[0] == 0
    with Image.open(here / "old.gif") as animation:
        assert animation.n_frames == 2  # type: ignore[attr-defined]


def test_a_video_needs_its_package_and_the_line_says_so(
    here: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    status, lines = command("--domain", "a", "--out", "x.mp4", "--frames", "2")
    assert status == 2
    assert "pip install av" in lines[-1]
    assert not (here / "x.mp4").exists()


def test_frames_beyond_the_memory_are_refused_before_any_is_made(here: Path, command: Command) -> None:
    status, lines = command("--domain", "a", "--out", "walk.webp", "--frames", "10000", "--size", "2000")
    assert (status, len(lines)) == (1, 1)
    assert lines[0].startswith("error: --frames: they take 1200 GB of memory in a GIF or WebP file, but ")
    assert not (here / "walk.webp").exists()
