"""Names, links and permissions: each works or is one clear line; nothing outside --out is touched, nor an input."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import logging
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.tiny import TINY, tiny
from unit.__main__ import main
from unit.config_file import write_config
from unit.data.folders import ImageFolder, default_names
from unit.domains import PerDomain
from unit.errors import ConfigError, DataError, UserError, escape
from unit.images import read_image
from unit.listing import list_images
from unit.model.networks import build_autoencoders
from unit.training import checkpoint
from unit.training.loop import train
from unit.training.resolve import resolve
from unit.translation.files.jobs import find_images
from unit.translation.translator import Translator

pytestmark = pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="needs names of arbitrary bytes")

SIZE = (12, 8)


@dataclass
class Result:
    status: int
    out: str
    lines: list[str]
    """of standard error"""

    @property
    def counts(self) -> tuple[int, int, int]:
        """translated, skipped, failed"""
        done, skipped, failed = (int(part.split()[0]) for part in self.lines[-1].rsplit(": ", 1)[-1].split(", "))
        return done, skipped, failed


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Result:
    """The command in this process; whatever it says must be printable lines, and no traceback."""
    root = logging.getLogger()
    handlers, level, root.handlers = root.handlers, root.level, []
    try:
        status = main([os.fspath(word) for word in words])
    finally:
        root.handlers = handlers
        root.setLevel(level)
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert all(line.isprintable() for line in lines), lines
    assert not any("Traceback" in line for line in lines)
    return Result(status, captured.out, lines)


Command = Callable[..., Result]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    Translator(build_autoencoders(TINY.model), TINY, PerDomain("a", "b"), 0, "cpu", "fp32").save(path)
    return path


@pytest.fixture
def translate(model: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    def go(*words: str | Path) -> Result:
        return run(
            capsys, "translate", model, *("--direction", "a2b", "--device", "cpu", "--precision", "fp32"), *words
        )

    return go


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(path: str | Path, seed: int = 0) -> Path:
    """A PNG, whatever it is called: content decides."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    with path.open("wb") as file:
        Image.fromarray(noise).save(file, "PNG")
    return path


Tree = dict[str, tuple[Any, ...]]


def snapshot(folder: str | Path) -> Tree:
    """All there is: kind and mode; of files what they hold and when that was written; of links where they lead."""
    tree: Tree = {}
    for top, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(top, name)  # noqa: PTH118
            status = os.lstat(path)
            if os.path.islink(path):  # noqa: PTH114
                tree[path] = (status.st_mode, os.readlink(path))  # noqa: PTH115
            elif os.path.isfile(path):  # noqa: PTH113
                content = Path(path).read_bytes()
                tree[path] = (status.st_mode, status.st_ino, status.st_mtime_ns, hashlib.blake2b(content).hexdigest())
            else:
                tree[path] = (status.st_mode,)
    return tree


def changed(before: Tree, after: Tree) -> set[str]:
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def assert_only_below(folder: Path, before: Tree, after: Tree) -> None:
    for path in changed(before, after):
        assert Path(path) == folder or folder in Path(path).parents, f"{path!r} changed"


# Names that work

NAMES = [
    *(
        "a b.png",
        " lead.png",
        "trail .png",
        "x.png ",
        "new\nline.png",
        "cr\r\n.png",
        "tab\t\x1b[31m.png",
        "bell\x07.png",
    ),
    *("quote'\".png", "`touch y`$(z);|&.png", "☂🌧.png", "\u202egnp.png", "e\u0301.png", "日本語.PNG"),
    *("x" * 251 + ".png", "é" * 125 + ".png", "-x.png", "--out.png", "-", "--", "..x.png", "x..png", "...", "~.png"),
    *(
        os.fsdecode(b"\xff\xfe.png"),
        os.fsdecode(b"half\xe2\x98.png"),
        "[1].png",
        "[",
        "*.png",
        "**",
        "?.png",
    ),
    *("%s{}%(x)d.png", "\\.png", "C:\\x.png", "a:b.png", "CON.png", "x.png.", "\u2028.png", "\x85.png", "$HOME.png"),
]


def is_seen(name: str) -> bool:
    """In a folder."""
    return name.lower().endswith(".png") and not name.startswith(".")


def placed(name: str) -> str:
    """The name of its translation."""
    return Path(name).stem + ".png"


@pytest.mark.parametrize("way", ["files", "bare files", "folder", "pattern", "deep pattern"])
def test_odd_names_work(here: Path, translate: Command, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        name for name in NAMES if way == "files" or (way == "bare files" and name not in ("-", "--")) or is_seen(name)
    ]
    for name in names:
        put(here / "in" / name)
    words = {"files": [f"in/{name}" for name in names], "folder": ["in"], "pattern": ["in/*"]}.get(way, ["**/*"])
    if way == "bare files":
        monkeypatch.chdir(here / "in")
        words = ["--", *names]
    before = snapshot(here)
    result = translate("--out", here / "out", *words)
    assert (result.status, result.counts) == (0, (len(names), 0, 0)), result.lines
    assert {path.name for path in (here / "out").iterdir()} == set(map(placed, names))
    assert all(read_image(here / "out" / placed(name)).size == SIZE for name in names)
    assert_only_below(here / "out", before, snapshot(here))


@pytest.mark.parametrize("name", [name for name in NAMES if is_seen(name)])
def test_odd_names_are_trained_on(tmp_path: Path, name: str) -> None:
    put(tmp_path / name / name)  # the folder is called so, too
    assert list_images(tmp_path / name) == [name]
    assert list_images(tmp_path) == [f"{name}/{name}"]
    assert ImageFolder.open(tmp_path).image(0).size == SIZE


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_an_odd_name(here: Path, translate: Command, name: str) -> None:
    """As input and as --out."""
    put(here / "in" / name / "x.png")
    (here / "out" / name).mkdir(parents=True)
    result = translate(f"in/{name}", "--out", f"out/{name}")
    assert (result.status, result.counts) == (0, (1, 0, 0)), result.lines
    assert (here / "out" / name / "x.png").is_file()


def test_odd_names_that_are_not_there(here: Path, translate: Command) -> None:
    for words in (
        [f"in/{name}" for name in NAMES],
        [f"in/{name}/{name}" for name in NAMES],
        [glob.escape(f"in/{name}") + "*" for name in NAMES],
    ):
        result = translate("--out", "out", *words)
        assert result.status == 1
        *lines, _ = result.lines
        assert all(line.startswith(f"{escape(word)}: ") for line, word in zip(lines, words, strict=True))
    for name in NAMES:
        with pytest.raises(DataError) as caught:
            list_images(Path("in", name))
        assert str(caught.value).isprintable()
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("name", ["x" * 256, "x" * 5000, "é" * 128 + ".png", "x/" * 3000, "..", "../..", "/", "."])
def test_names_that_no_file_has(here: Path, translate: Command, name: str) -> None:
    (here / "in").mkdir()
    before = snapshot(here)
    result = translate(f"in/{name}/*.xyz", "--out", "out")
    assert (result.status, len(result.lines)) == (1, 2)
    assert snapshot(here) == before


def test_an_out_that_no_file_can_have(here: Path, translate: Command) -> None:
    put(here / "in/x.png")
    before = snapshot(here)
    for out in ("x" * 256, "x" * 256 + ".png", "x/" * 3000, "in/x.png/y"):
        result = translate("in", "--out", out)
        assert (result.status, result.lines[-1].endswith("0 translated, 0 already there, 1 failed")) == (1, True)
        assert len(result.lines) == 2
        assert snapshot(here) == before


# What is no image, among images

ODD_THINGS: dict[str, Callable[[Path], object]] = {
    "folder": lambda path: path.mkdir(),
    "loop": lambda path: path.symlink_to(path.name),
    "broken link": lambda path: path.symlink_to("nowhere"),
    "pipe": os.mkfifo,
    "empty": lambda path: path.touch(),
    "text": lambda path: path.write_text("text"),
    "link to a device": lambda path: path.symlink_to("/dev/zero"),
    "link to a process": lambda path: path.symlink_to("/proc/self/mem"),
    "link to the password file": lambda path: path.symlink_to("/etc/passwd"),
    "link to the root": lambda path: path.symlink_to("/proc/self/fdinfo"),
}


@pytest.mark.parametrize("kind", ODD_THINGS)
@pytest.mark.parametrize("way", ["file", "folder", "pattern"])
def test_files_that_are_not_images(here: Path, translate: Command, kind: str, way: str) -> None:
    put(here / "in/good.png")
    ODD_THINGS[kind](here / "in/x.jpg")
    before = snapshot(here / "in")
    result = translate(
        "--out", "out", *{"file": ["in/x.jpg", "in/good.png"], "folder": ["in"], "pattern": ["in/*"]}[way]
    )
    ignored = os.path.isdir("in/x.jpg") and way != "file"  # noqa: PTH112 - holds no image
    assert result.counts == (1, 0, 0 if ignored else 1)
    assert result.status == (0 if ignored else 1)
    assert len(result.lines) == (1 if ignored else 2)
    assert ignored or result.lines[0].startswith("in/x.jpg: ")
    assert [path.name for path in (here / "out").iterdir()] == ["good.png"]
    assert snapshot(here / "in") == before
    if not ignored and way == "folder":
        with pytest.raises(UserError, match=r"in/x\.jpg: "):
            ImageFolder.open(Path("in")).image(1)


def test_links_in_circles_end(here: Path, translate: Command) -> None:
    """Two of them make as many ways as a number has values: only ever going forward ends."""
    put(here / "in/sub/x.png")
    for name in ("one", "two", "sub/three", "sub/four"):
        (here / "in" / name).symlink_to(here / "in")
    before = snapshot(here)
    for words in (["in"], ["in/**/*.png"], ["**"], ["in/one/two/sub/x.png"], [f"{here}/**/in/**/x.png"]):
        assert translate(*words, "--out", "out").counts == (1, 0, 0)
        shutil.rmtree(here / "out")
    assert list_images(here / "in") == ["sub/x.png"]
    assert snapshot(here) == before


# Escape sequences and line breaks

EVIL = "x\x1b[2Jy\nforged"


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, a run, a model and a configuration; whose name clears the terminal and forges a line."""
    folder = tmp_path_factory.mktemp("evil") / EVIL
    for name in ("a", "b", "test_a", "test_b"):
        for number in range(4):
            put(folder / name / f"{number}{EVIL}.png", number)
        (folder / name / f"{EVIL}.HEIC").touch()
    data = {name: str(folder / name) for name in ("a", "b", "test_a", "test_b")}
    config = tiny(data=data | {"name_a": "a", "name_b": "b"}, train={"steps": 1})
    write_config(config, folder / "tiny.yaml")
    train(config, folder / "run")
    newest = folder / "run/checkpoints/step-00000001.pt"
    checkpoint.save({**checkpoint.load(newest), "facts": {"precision": EVIL, EVIL: EVIL}}, newest)
    return folder


COMMANDS: dict[str, tuple[str, ...]] = {
    "check": ("--config", "/tiny.yaml"),
    "check as JSON": ("--config", "/tiny.yaml", "--json"),
    "train, resuming": ("--config", "/tiny.yaml", "--out", "/run", "--train.steps", "2"),
    "train, restarting": ("--config", "/tiny.yaml", "--out", "/run", "--restart"),
    "train, planning": ("--config", "/tiny.yaml", "--out", "/run", "--dry_run"),
    "train, helping": ("--config", "/tiny.yaml", "--help", "all"),
    "train, printing": ("--config", "/tiny.yaml", "--print_config"),
    "translate": ("/run", "--direction", "a2b", "/a", "--out", "/out"),
    "translate, one by one": ("/run", "--direction", "a2b", "/a/*", "--out", "/out"),
    "interpolate": ("/run", f"/a/0{EVIL}.png", f"/b/1{EVIL}.png", "--domain", "a", "b", "--out", "/x.gif"),
    "evaluate": ("/run", "--sheet", "/sheet.png"),
    "evaluate, folders": ("/run", "--a", "/test_a", "--b", "/test_b", "--json"),
    "report": ("/run",),
    "shards": ("/a", "/shards"),
    "streets": ("/streets", "--train", "0", "--test", "1", "--size", "16"),
    "earth": ("/tiny.yaml",),
    "check, missing": ("--a", "/c", "--b", "/b"),
    "train, missing": ("--config", "/c.yaml"),
    "report, missing": ("/c",),
}
SILENT = {"interpolate", "train, helping", "train, printing", "translate, one by one", "streets", "earth"}
"""They read no folders."""


@pytest.mark.parametrize("verb", COMMANDS)
def test_no_name_reaches_the_terminal_raw_and_what_is_not_read_is_named(
    evil: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    capsys.readouterr()
    words = (f"{evil}{word}" if word.startswith("/") else word for word in COMMANDS[verb])
    try:
        result = run(capsys, verb.partition(",")[0].partition(" ")[0], *words)
    except SystemExit:  # --help
        result = Result(0, capsys.readouterr().out, [])
    lines = result.out.splitlines() + result.lines
    assert lines
    assert all(line.isprintable() and "forged" not in line.lstrip()[:6] for line in lines), lines
    if verb == "translate":  # which reads HEIC files, but not this one
        assert any("forged.HEIC: the file is empty" in line for line in result.lines), result.lines
    elif verb not in SILENT and "missing" not in verb:
        assert any("1 image or video file not read: " in line and "heif-convert" in line for line in result.lines)
    log = (evil / "run/run.log").read_bytes()
    assert b"\x1b" not in log
    assert all(line[:4].isdigit() for line in log.splitlines() if line)


# Told apart


@pytest.mark.parametrize(
    ("names", "outputs"),
    [
        (["x.png", "x.jpg"], ["x.jpg.png", "x.png"]),
        (["x.png", "x.jpg", "x.jpg.png", "x.png.jpg"], ["x.jpg-2.png", "x.jpg.png", "x.png", "x.png.png"]),
        (["x.png", "X.png", "x.PNG"], None),
        (["x.png", "x.tif", "x.gif", "x.webp"], ["x.gif.png", "x.png", "x.tif.png", "x.webp.png"]),
        (["ß.jpg", "SS.jpg"], None),  # one name where case makes no difference
    ],
)
@pytest.mark.parametrize("way", ["folder", "files", "files the other way", "pattern"])
def test_two_inputs_never_have_one_output(
    here: Path, translate: Command, names: list[str], outputs: list[str] | None, way: str
) -> None:
    for number, name in enumerate(names):
        put(here / "in" / name, number)
    words = {"folder": ["in"], "pattern": ["in/*"]}.get(way, sorted((f"in/{n}" for n in names), reverse="way" in way))
    assert translate(*words, "--out", "out").counts == (len(names), 0, 0)
    written = sorted(path.name for path in (here / "out").iterdir())
    assert len({(here / "out" / name).read_bytes() for name in written}) == len(names)
    assert len(set(map(str.casefold, written))) == len(names)
    assert outputs is None or written == outputs


# Links and --out

Plan = tuple[list[str], tuple[int, int, int]]


def out_is_the_input_folder(here: Path) -> Plan:
    return ["in", "--out", "in"], (1, 0, 1)  # y.jpg becomes y.png; x.png stays


def out_is_a_link_to_the_input_folder(here: Path) -> Plan:
    (here / "out").symlink_to("in")
    return ["in", "--out", "out"], (1, 0, 1)


def out_leads_round_about_to_the_input_folder(here: Path) -> Plan:
    return ["in", "--out", "missing/../in"], (1, 0, 1)


def out_has_the_inputs_own_format(here: Path) -> Plan:
    return ["in", "--out", "in", "--format", "same"], (0, 0, 2)


def out_is_an_input(here: Path) -> Plan:
    return ["in/y.jpg", "in/x.png", "--out", "in"], (1, 0, 1)


def out_is_the_file(here: Path) -> Plan:
    return ["in/x.png", "--out", "in/x.png"], (0, 0, 1)


def out_is_a_link_to_the_file(here: Path) -> Plan:
    (here / "link.png").symlink_to("in/x.png")
    return ["in/x.png", "--out", "link.png"], (0, 0, 1)


def an_output_is_a_link_to_an_input(here: Path) -> Plan:
    (here / "out").mkdir()
    (here / "out/x.png").symlink_to("../in/y.jpg")
    return ["in", "--out", "out"], (1, 0, 1)


def an_output_is_an_input_by_another_name(here: Path) -> Plan:
    (here / "out").mkdir()
    os.link(here / "in/y.jpg", here / "out/x.png")
    return ["in", "--out", "out"], (1, 0, 1)


def an_output_is_a_link_out(here: Path) -> Plan:
    (here / "out").mkdir()
    (here / "out/x.png").symlink_to("../mine/precious.png")
    return ["in", "--out", "out"], (2, 0, 0)


def an_output_is_outside_by_another_name(here: Path) -> Plan:
    (here / "out").mkdir()
    os.link(here / "mine/precious.png", here / "out/x.png")
    return ["in", "--out", "out"], (2, 0, 0)


def an_output_is_a_link_to_nowhere(here: Path) -> Plan:
    (here / "out").mkdir()
    (here / "out/x.png").symlink_to("../mine/new.png")
    return ["in", "--out", "out"], (2, 0, 0)


def a_folder_in_out_leads_out(here: Path) -> Plan:
    put(here / "in/new\nline/z.png")
    (here / "out").mkdir()
    (here / "out/new\nline").symlink_to("../mine")
    return ["in", "--out", "out"], (2, 0, 1)


def a_folder_in_out_leads_to_the_input(here: Path) -> Plan:
    put(here / "in/sub/z.jpg")
    (here / "out").mkdir()
    (here / "out/sub").symlink_to("../in/sub")
    return ["in", "--out", "out"], (2, 0, 1)


def a_folder_deep_in_out_leads_out(here: Path) -> Plan:
    put(here / "in/sub/deep/more/z.png")
    (here / "out/sub").mkdir(parents=True)
    (here / "out/sub/deep").symlink_to(here / "mine")
    return ["in", "--out", "out"], (2, 0, 1)


def a_folder_in_out_leads_nowhere(here: Path) -> Plan:
    put(here / "in/sub/z.png")
    (here / "out").mkdir()
    (here / "out/sub").symlink_to("../mine/new")
    return ["in", "--out", "out"], (2, 0, 1)


def a_folder_in_out_is_a_loop(here: Path) -> Plan:
    put(here / "in/sub/z.png")
    (here / "out").mkdir()
    (here / "out/sub").symlink_to("sub")
    return ["in", "--out", "out"], (2, 0, 1)


def an_input_leads_out(here: Path) -> Plan:
    (here / "in/link.png").symlink_to("../mine/precious.png")
    (here / "in/linked").symlink_to("../mine")
    return ["in", "--out", "out"], (4, 0, 0)


def an_input_leads_to_an_output(here: Path) -> Plan:
    put(here / "out/y.png")
    (here / "in/a.png").symlink_to("../out/y.png")
    return ["in", "--out", "out"], (2, 0, 1)


def samples_take_an_inputs_place(here: Path) -> Plan:
    put(here / "in/x-1.png")
    return ["in/x.png", "in/x-1.png", "--out", "in", "--samples", "2"], (1, 0, 1)


PLANS = [
    *(out_is_the_input_folder, out_is_a_link_to_the_input_folder, out_leads_round_about_to_the_input_folder),
    *(out_has_the_inputs_own_format, out_is_an_input, out_is_the_file, out_is_a_link_to_the_file),
    *(an_output_is_a_link_to_an_input, an_output_is_an_input_by_another_name, an_output_is_a_link_out),
    *(an_output_is_outside_by_another_name, an_output_is_a_link_to_nowhere, a_folder_in_out_leads_out),
    *(a_folder_in_out_leads_to_the_input, a_folder_deep_in_out_leads_out, a_folder_in_out_leads_nowhere),
    *(a_folder_in_out_is_a_loop, an_input_leads_out, an_input_leads_to_an_output, samples_take_an_inputs_place),
]


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("overwrite", [True, False])
def test_nothing_but_out_is_written(
    here: Path, translate: Command, plan: Callable[[Path], Plan], overwrite: bool
) -> None:
    put(here / "in/x.png")
    put(here / "in/y.jpg", 1)
    put(here / "mine/precious.png", 2)
    words, counts = plan(here)
    before = snapshot(here)
    result = translate(*words, *(["--overwrite"] if overwrite else []))
    if overwrite:
        assert result.counts == counts, result.lines
        assert result.status == (1 if counts[2] else 0)
    assert len(result.lines) == 1 + sum(result.counts[1:])
    after = snapshot(here)
    after.pop(f"{here}/missing", None)  # made on the way to --out, as `mkdir -p` does
    out = Path(words[words.index("--out") + 1])
    assert_only_below(Path(os.path.realpath(out)), before, after)
    inputs = [path for path in before if f"{here}/in/" in path]
    assert not changed({path: before[path] for path in inputs}, {path: after[path] for path in inputs})


def test_a_link_in_the_place_of_the_file_beside(here: Path, translate: Command) -> None:
    """It has the same name each time, so who made the folder could know it."""
    put(here / "in/x.png")
    put(here / "mine/precious.png", 2)
    (here / "out").mkdir()
    beside = hashlib.blake2b(b"x.png", digest_size=8).hexdigest()
    (here / f"out/.{beside}-0.partial").symlink_to("../mine/precious.png")
    before = snapshot(here)
    translate("in", "--out", "out")
    assert_only_below(here / "out", before, snapshot(here))
    assert not (here / "out/x.png").is_symlink()


def test_out_may_itself_be_a_link(here: Path, translate: Command) -> None:
    """Who names it means where it leads."""
    put(here / "in/x.png")
    (here / "elsewhere").mkdir()
    (here / "out").symlink_to("elsewhere")
    assert translate("in", "--out", "out").counts == (1, 0, 0)
    assert (here / "elsewhere/x.png").is_file()


FILES = ["x.png", "x.jpg", "X.png", "x-1.png", "sub/x.png", "sub/y.gif", "sub/deep/x.png", "y.png"]
LINKS = ["x.png", "sub", "out", "in", "link.png", "sub/link.png", "link", "sub/deep", "sub/up", "x.jpg"]
TARGETS = [
    "in",
    "in/sub",
    "out",
    "out/sub",
    "mine",
    "mine/precious.png",
    "in/x.png",
    "in/sub/x.png",
    "nowhere",
    "in/link",
]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    files=st.lists(st.sampled_from(FILES), min_size=1, max_size=5, unique=True),
    links=st.lists(
        st.tuples(st.sampled_from(["in", "out", "."]), st.sampled_from(LINKS), st.sampled_from(TARGETS)), max_size=4
    ),
    inputs=st.sampled_from([["in"], ["in/*"], ["in/**/*"], ["in/x.png", "in/sub"], ["."], ["in/sub", "in"], ["link"]]),
    out=st.sampled_from(["out", "in", "in/sub", "link", "new/out", "out/sub", "in/out", ".", "out/x.png", "x.png"]),
    flags=st.lists(st.sampled_from([("--overwrite",), ("--samples", "2"), ("--format", "same")]), unique=True),
)
def test_any_tree(
    translate: Command,
    files: list[str],
    links: list[tuple[str, str, str]],
    inputs: Sequence[str],
    out: str,
    flags: list[tuple[str, ...]],
) -> None:
    """Whatever leads wherever: what was there outside --out stays as it was, and so does every input."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        here = Path.cwd()
        for number, name in enumerate(files):
            put(here / "in" / name, number)
        put(here / "mine/precious.png", 9)
        (here / "out").mkdir()
        for top, name, target in links:
            path = here / top / name
            with suppress(OSError):  # something is there
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(here / target)
        found, _ = find_images(inputs, Path(out))
        read = {os.path.realpath(path) for path, _ in found if path.exists()}
        is_file = out.endswith(".png") and not Path(out).is_dir()
        allowed = Path(os.path.realpath(Path(out).parent), Path(out).name) if is_file else Path(os.path.realpath(out))
        before = snapshot(here)
        status = translate(*inputs, "--out", out, *(word for flag in flags for word in flag)).status
        after = snapshot(here)
    assert status in (0, 1, 2)
    differ = changed(before, after)
    assert status != 2 or not differ
    outside = {path for path in differ if Path(path) != allowed and allowed not in Path(path).parents}
    assert all(Path(path) in allowed.parents and path not in before for path in outside)  # folders on the way to --out
    assert not differ & read
    if ("--overwrite",) not in flags:
        assert not any(stat.S_ISREG(before[path][0]) for path in differ & before.keys())


# Permissions


@contextmanager
def nobody() -> Iterator[None]:
    """As one who may not read everything, also where root runs the tests."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def open_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where nobody may write; pytest's own are shut to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        monkeypatch.chdir(folder)
        yield Path(folder)
        for top, folders, _ in os.walk(folder):  # noqa: B007
            Path(top).chmod(0o777)


@pytest.fixture
def open_translate(open_folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    (open_folder / "m.safetensors").write_bytes(model.read_bytes())

    def go(*words: str) -> Result:
        with nobody():
            return run(capsys, "translate", "m.safetensors", "--direction", "a2b", "--device", "cpu", *words)

    return go


@pytest.mark.parametrize("way", ["file", "folder", "pattern"])
def test_a_file_that_may_not_be_read(open_folder: Path, open_translate: Command, way: str) -> None:
    put("in/x.png").chmod(0)
    put("in/y.png")
    words = {"file": ["in/x.png", "in/y.png"], "folder": ["in"], "pattern": ["in/*"]}[way]
    result = open_translate(*words, "--out", "out")
    assert (result.status, result.counts) == (1, (1, 0, 1))
    assert result.lines[0] == "in/x.png: no permission to read it"


@pytest.mark.parametrize("mode", [0, 0o300, 0o600, 0o444])
@pytest.mark.parametrize("way", ["folder", "folder above", "file", "pattern", "deep pattern", "training"])
def test_a_folder_that_may_not_be_read(open_folder: Path, open_translate: Command, mode: int, way: str) -> None:
    put("in/shut/x.png")
    Path("in/shut").chmod(mode)
    if way == "training":
        with nobody(), pytest.raises(DataError, match="in") as caught:
            ImageFolder.open(Path("in/shut")).image(0)
        assert str(caught.value).isprintable()
        return
    words = {"folder above": "in", "file": "in/shut/x.png", "pattern": "in/shut/*.png", "deep pattern": "in/**/*.png"}
    result = open_translate(words.get(way, "in/shut"), "--out", "out")
    assert (result.status, result.counts) == (1, (0, 0, 1))
    assert len(result.lines) == 2
    assert result.lines[0].startswith("in")


@pytest.mark.parametrize("out", ["shut", "shut/new", "shut/x.png", "sealed"])
def test_an_out_that_may_not_be_written(open_folder: Path, open_translate: Command, out: str) -> None:
    put("in/x.png")
    Path("shut").mkdir(mode=0o555)
    Path("shut").chmod(0o555)
    Path("sealed").mkdir()
    Path("sealed").chmod(0)
    before = snapshot(open_folder)
    result = open_translate("in", "--out", out)
    assert (result.status, result.counts) == (1, (0, 0, 1))
    assert result.lines[0].startswith(out)
    assert "ermission denied" in result.lines[0]
    assert snapshot(open_folder) == before


def test_a_model_that_may_not_be_read(open_folder: Path, open_translate: Command) -> None:
    put("in/x.png")
    Path("m.safetensors").chmod(0)
    result = open_translate("in", "--out", "out")
    assert (result.status, len(result.lines)) == (2, 1)
    assert "no permission to read it" in result.lines[0]


def test_names_too_long_for_a_file_system_are_one_short_line(tmp_path: Path) -> None:
    folders = {i: str(put(tmp_path / i / "1.png").parent) for i in ("a", "b")}
    names = {"name_a": "x" * 130, "name_b": "y" * 130, **folders}
    with pytest.raises(ConfigError, match=r"^--out .{1,220}: is too long a name; give another$"):
        resolve(tiny(data=names), None)
    assert resolve(tiny(data=names), tmp_path / "run").datasets.names.a == "x" * 130
    below = Path("i" * 200, "j" * 100)
    with pytest.raises(DataError, match=r"set data\.name_a and data\.name_b"):
        default_names(tmp_path / "x" / below, tmp_path / "y" / below)
