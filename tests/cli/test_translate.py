"""The command: options reach the translation, results go to stdout, and every mistake is one line and a status."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.tiny import TINY, tiny
from unit.__main__ import main
from unit.domains import PerDomain
from unit.model.networks import build_autoencoders
from unit.translation.translator import MODEL_FILE, Translator

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Result:
    status: int
    out: str
    lines: list[str]
    """of standard error"""


Command = Callable[..., Result]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run `translate` with these arguments."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level

    def run(*words: str | Path) -> Result:
        root.handlers = []  # those of pytest, which would keep `main` from logging to standard error
        status = main(["translate", *map(str, words)])
        captured = capsys.readouterr()
        lines = captured.err.splitlines()
        assert all(line.isprintable() for line in lines)
        assert not any(line.startswith("Traceback") for line in lines)
        return Result(status, captured.out, lines)

    yield run
    root.handlers = handlers
    root.setLevel(level)


@pytest.fixture
def refusal(command: Command) -> Callable[..., str]:
    """Run a command that is refused, and return the one line that says why."""

    def run(*words: str | Path) -> str:
        result = command(*words)
        assert (result.status, result.out, len(result.lines)) == (2, "", 1)
        assert result.lines[0].startswith("error: ")
        assert len(result.lines[0]) < 1000
        return result.lines[0]

    return run


@pytest.fixture(scope="module")
def translator() -> Translator:
    return Translator(build_autoencoders(TINY.model), TINY, PerDomain("sunny", "rainy"), 7, "cpu", "fp32")


@pytest.fixture
def here(tmp_path: Path, translator: Translator, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a run and two images."""
    monkeypatch.chdir(tmp_path)
    translator.save(tmp_path / "run" / MODEL_FILE)
    put(tmp_path / "in/x.png", 17, 13)
    put(tmp_path / "in/sub/y.jpg", 12, 16)
    return tmp_path


def put(path: Path, width: int = 9, height: int = 7) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def pixels(path: str | Path) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(path)).astype(int)


FP32 = ("--device", "cpu", "--precision", "fp32")
A2B = ("run", "--direction", "a2b", *FP32)

# Results


def test_a_folder_is_translated(here: Path, command: Command, translator: Translator) -> None:
    result = command(*A2B, "in", "--out", "out")
    assert (result.status, result.out) == (0, "")
    assert result.lines == ["out: 2 translated, 0 already there, 0 failed"]
    with Image.open("in/x.png") as image:
        assert np.array_equal(pixels("out/x.png"), np.asarray(translator(image, "a2b")))
    assert pixels("out/sub/y.png").shape == (16, 12, 3)
    assert sorted(path.name for path in here.iterdir()) == ["in", "out", "run"]


@pytest.mark.parametrize(("given", "meant"), [("b2a", "b2a"), ("sunny2rainy", "a2b"), ("rainy2sunny", "b2a")])
def test_directions(here: Path, command: Command, translator: Translator, given: str, meant: str) -> None:
    assert command("run/model.safetensors", "in/x.png", "--direction", given, *FP32, "--out", "x.png").status == 0
    with Image.open("in/x.png") as image:
        assert np.array_equal(pixels("x.png"), np.asarray(translator(image, meant)))
        other = {"a2b": "b2a", "b2a": "a2b"}[meant]
        assert not np.array_equal(pixels("x.png"), np.asarray(translator(image, other)))


@pytest.mark.parametrize("strength", [0, 0.4, 1])
def test_strength(here: Path, command: Command, translator: Translator, strength: float) -> None:
    assert command(*A2B, "in/x.png", "--out", "x.png", "--strength", str(strength)).status == 0
    with Image.open("in/x.png") as image:
        assert np.array_equal(pixels("x.png"), np.asarray(translator(image, "a2b", strength=strength)))
        ends = np.asarray(translator.reconstruct(image, "a")), np.asarray(translator(image, "a2b"))
    assert [np.array_equal(pixels("x.png"), end) for end in ends] == [strength == 0, strength == 1]


@pytest.mark.parametrize("strength", ["2", "-0.1", "nan", "half", ""])
def test_other_strengths_are_refused(refusal: Callable[..., str], here: Path, strength: str) -> None:
    assert "must be a number from 0 to 1" in refusal(*A2B, "in", "--out", "out", f"--strength={strength}")


def test_bad_images_are_reported_by_name_and_the_others_are_done(here: Path, command: Command) -> None:
    (here / "in/bad\n.jpg").write_text("no image")
    result = command(*A2B, "missing*.png", "in", "nowhere", "--out", "out", "--batch_size", "2")
    assert (result.status, result.out) == (1, "")
    missing, nowhere, bad, last = result.lines
    assert missing.startswith("missing*.png: ")
    assert nowhere.startswith("nowhere: ")
    assert bad.startswith(r"in/bad\n.jpg: ")
    assert last == "out: 2 translated, 0 already there, 3 failed"


def test_folders_with_a_dot(here: Path, command: Command) -> None:
    (here / "out.mp4").mkdir()
    for out in ("out.mp4", "rain.v2", "2026.11.28"):
        assert command(*A2B, "in", "--out", out).status == 0
        assert (here / out / "x.png").is_file()


def test_images_larger_than_the_models_max_pixels(here: Path, command: Command) -> None:
    config = tiny(data={"max_pixels": 17 * 13 - 1})
    names = PerDomain("sunny", "rainy")
    Translator(build_autoencoders(config.model), config, names, 1, "cpu").save(here / "run" / MODEL_FILE)
    result = command(*A2B, "in", "--out", "out")
    assert result.lines == [
        "in/x.png: 17x13 is more than 220 pixels; make it smaller",
        "out: 1 translated, 0 already there, 1 failed",
    ]


def test_nothing_to_do(here: Path, command: Command) -> None:
    result = command(*A2B, "nowhere", "--out", "x.png")
    assert result.status == 1
    assert result.lines[0].startswith("nowhere: ")
    assert not (here / "x.png").exists()


def test_existing_outputs_are_left_alone_without_overwrite(here: Path, command: Command) -> None:
    command(*A2B, "in", "--out", "out")
    before = (here / "out/x.png").stat()
    result = command(*A2B, "in", "--out", "out")
    assert result.status == 0
    assert "out/x.png: exists already; --overwrite replaces it" in result.lines
    assert result.lines[-1] == "out: 0 translated, 2 already there, 0 failed"
    assert (here / "out/x.png").stat() == before
    assert command(*A2B, "in", "--out", "out", "--overwrite").lines == ["out: 2 translated, 0 already there, 0 failed"]
    assert (here / "out/x.png").stat() != before


def test_the_same_command_again_with_out_below_the_input(here: Path, command: Command) -> None:
    for _ in range(2):
        assert command(*A2B, "in", "--out", "in/out").status == 0
    assert sorted(path.as_posix() for path in Path("in").rglob("*.*")) == [
        "in/out/sub/y.png",
        "in/out/x.png",
        "in/sub/y.jpg",
        "in/x.png",
    ]


@pytest.mark.parametrize("out", ["in", "in/sub", "link", "in/link"])
@pytest.mark.parametrize("inputs", [["in"], ["in/*", "in/sub/*"], ["link", "in/sub/y.jpg"]])
@pytest.mark.parametrize("options", [[], ["--format", "jpg", "--samples", "2"], ["--format", "webp"]])
def test_outputs_among_the_inputs_are_not_translated_again(
    here: Path, command: Command, out: str, inputs: list[str], options: list[str]
) -> None:
    (here / "link").symlink_to("in")
    (here / "in/link").symlink_to("sub")
    (here / "in/x.png").rename(here / "in/x.tif")
    first, second, third = (command(*A2B, *inputs, "--out", out, *options) for _ in range(3))
    listing = sorted(path for path in here.rglob("*") if path.is_file())
    assert not first.lines[-1].startswith(f"{out}: 0 translated")
    for again in (second, third):
        assert again.status == first.status
        assert re.search(r": 0 translated, [1-4] already there, \d failed", again.lines[-1])
    assert command(*A2B, *inputs, "--out", out, *options, "--overwrite").status == first.status
    assert sorted(path for path in here.rglob("*") if path.is_file()) == listing


def test_inputs_are_never_overwritten(here: Path, command: Command) -> None:
    before = (here / "in/x.png").read_bytes()
    result = command(*A2B, "in", "--out", "in", "--overwrite", "--format", "same")
    assert result.status == 1
    assert "in/x.png is an input; give another --out" in result.lines
    assert (here / "in/x.png").read_bytes() == before


def test_json_is_one_record_per_image_and_nothing_else(here: Path, command: Command) -> None:
    os.rename(put(here / "in/☂\n.png"), os.fsencode(here / "in") + b"/\xff\n.png")  # noqa: PTH104
    (here / "in/bad.png").touch()
    put(here / "out/x.png")
    result = command(*A2B, "in", "nowhere", "--out", "out", "--json")
    assert result.status == 1
    assert result.lines == ["out: 2 translated, 1 already there, 2 failed"]
    assert result.out.isascii()
    records = {record["input"]: record for record in map(json.loads, result.out.splitlines())}
    assert len(records) == 5
    assert records["in/sub/y.jpg"] == {
        "input": "in/sub/y.jpg",
        "status": "done",
        "outputs": ["out/sub/y.png"],
        "size": [12, 16],
        "reason": None,
        "lost": [],
    }
    assert records[os.fsdecode(b"in/\xff\n.png")]["status"] == "done"
    assert records["in/x.png"]["status"] == "skipped"
    assert {records[name]["status"] for name in ("nowhere", "in/bad.png")} == {"failed"}
    assert all(set(record) == {"input", "status", "outputs", "size", "reason", "lost"} for record in records.values())


def test_options_reach_the_translation(here: Path, command: Command) -> None:
    options = ("--format", "jpg", "--quality", "30", "--size", "20", "--samples", "2", "--seed", "4")
    assert command(*A2B, "in", "--out", "out", *options).status == 0
    outputs = sorted(path.as_posix() for path in Path("out").rglob("*.*"))
    assert outputs == ["out/sub/y-1.jpg", "out/sub/y-2.jpg", "out/x-1.jpg", "out/x-2.jpg"]
    assert pixels("out/x-1.jpg").shape == (13, 17, 3)
    assert not np.array_equal(pixels("out/x-1.jpg"), pixels("out/x-2.jpg"))
    again = ("--format", "jpg", "--quality", "30", "--size", "20", "--samples", "1", "--seed", "5")
    assert command(*A2B, "in", "--out", "again", *again).status == 0
    assert Path("again/x-1.jpg").read_bytes() == Path("out/x-2.jpg").read_bytes()
    better = (*options[:2], "--quality", "95", *options[4:])
    assert command(*A2B, "in", "--out", "better", *better).status == 0
    assert Path("better/x-1.jpg").stat().st_size > Path("out/x-1.jpg").stat().st_size


@pytest.mark.parametrize(("name", "ending"), [("same", "jpg"), ("webp", "webp"), ("png", "png"), ("jpg", "jpg")])
def test_formats(here: Path, command: Command, name: str, ending: str) -> None:
    assert command(*A2B, "in/sub", "--out", "out", "--format", name).status == 0
    with Image.open(f"out/y.{ending}") as image:
        assert image.format == {"jpg": "JPEG"}.get(ending, ending.upper())


def test_large_images_are_warned_of_once(here: Path, command: Command) -> None:
    for name in ("large1", "large2"):
        put(here / f"in/{name}.png", 50, 41)
    result = command(*A2B, "in", "--out", "out", "--json")
    assert [line for line in result.lines if "trained" in line] == [
        "in/large1.png: 50x41, but the model was trained at a short side of 20: such images stay sharp, but large "
        "structures change less than near that size; --detail guided changes them as at that size"
    ]
    assert "trained" not in result.out
    assert not any("--size" in line for line in result.lines)  # which blurs
    sized = command(*A2B, "in", "--out", "sized", "--size", "20")
    assert sized.lines == ["sized: 4 translated, 0 already there, 0 failed"]
    assert not np.array_equal(pixels("sized/large1.png"), pixels("out/large1.png"))


def test_detail(here: Path, command: Command, translator: Translator) -> None:
    image = Image.open(put(here / "in/large.png", 50, 41))
    result = command(*A2B, "in", "--out", "out", "--detail", "guided")
    assert result.lines == ["out: 3 translated, 0 already there, 0 failed"]
    guided = Translator(translator.networks, TINY, translator.names, 7, "cpu", "fp32", detail="guided")
    assert np.array_equal(pixels("out/large.png"), np.asarray(guided(image, "a2b")))
    assert not np.array_equal(pixels("out/large.png"), np.asarray(translator(image, "a2b")))


def test_out_of_memory(here: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = type("Memory", (), {"available": 1_000_000, "total": 10**9})
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    put(here / "in/x.png", 560, 38)
    put(here / "in/sub/y.jpg", 8, 8)
    put(here / "in/x1.png", 8, 8)
    result = command(*A2B, "in", "--out", "out")
    assert result.status == 1
    assert result.lines[0] == (
        "in/x.png: out of memory on cpu for 560x38 pixels: 2.4 MB are needed, and 1.0 MB are free; --size N works at a "
        "smaller short side of N pixels, and blurs"
    )
    assert result.lines[1:] == ["out: 2 translated, 0 already there, 1 failed"]


def test_no_progress_bar_without_a_terminal(here: Path, command: Command) -> None:
    assert len(command(*A2B, "in", "--out", "out").lines) == 1


def test_a_progress_bar_on_a_terminal(here: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    result = command(*A2B, "in", "--out", "out", "--json")
    assert any("image" in line for line in result.lines)
    assert len(result.out.splitlines()) == 2


# Command lines


@pytest.mark.parametrize(
    "words",
    [
        ("run", "in", "--direction", "a2b", "--out", "out"),
        ("--out", "out", "--direction=a2b", "run", "in"),
        ("run", "--direction", "a2b", "in/x.png", "--out", "out", "in/sub/y.jpg"),
        ("--direction", "a2b", "--out", "out", "--", "run", "in"),
    ],
)
def test_arguments_may_be_in_any_order(here: Path, command: Command, words: tuple[str, ...]) -> None:
    assert command(*FP32, *words).lines == ["out: 2 translated, 0 already there, 0 failed"]


def test_a_leading_dash(here: Path, command: Command) -> None:
    put(here / "-x.png")
    assert command(*A2B, "./-x.png", "--out", "out").status == 0
    assert command(*A2B, "--out", "other", "--", "-x.png").status == 0
    assert Path("other/-x.png").read_bytes() == Path("out/-x.png").read_bytes()


def test_missing_arguments(refusal: Callable[..., str]) -> None:
    assert "--direction, --out; see python -m unit translate --help" in refusal()
    assert "INPUT" in refusal("run", "--direction", "a2b", "--out", "out")
    assert "MODEL" in refusal("--direction", "a2b", "--out", "out")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--bogus",), "--bogus"),
        (("--bogus\n\x1b[31m",), r"--bogus\n"),
        (("--quality", "0"), "--quality"),
        (("--quality", "101"), "--quality"),
        (("--quality", "high"), "--quality"),
        (("--size", "15"), "--size"),
        (("--size", "-512"), "--size"),
        (("--size", "1e3"), "--size"),
        (("--size", "9" * 5000), "--size"),
        (("--size", "1000000000"), "--size"),
        (("--samples", "0"), "--samples"),
        (("--samples", "1000000000"), "--samples"),
        (("--seed", "-1"), "--seed"),
        (("--seed", str(2**64)), "--seed"),
        (("--batch_size", "0"), "--batch_size"),
        (("--batch_size", "1.5"), "--batch_size"),
        (("--batch_size",), "--batch_size"),
        (("--format", "heic"), "--format"),
        (("--precision", "fp8"), "--precision"),
        (("--device", "gpu"), "--device"),
        (("--device", "cuda:99"), "cuda:99"),
        (("--device", "cuda:999999"), "--device"),
        (("--device", "meta"), "--device"),
        (("--device", "\n"), "--device"),
        (("--direction", "sunny2snowy"), "sunny2rainy"),
        (("--direction", "x\ny"), r"x\ny"),
        (("--out", ""), "--out"),
        (("--out", "run/model.safetensors"), "not a folder"),
        (("--out", "x.mp4"), "looks like a file"),
        (("--out", "new/x.safetensors"), "looks like a file"),
        (("--out", "x.TXT"), "looks like a file"),
        (("--out", "x.png"), "one file can't take several images"),
    ],
)
def test_invalid_arguments(here: Path, refusal: Callable[..., str], words: tuple[str, ...], named: str) -> None:
    assert named in refusal(*A2B, "in", "--out", "out", *words)
    assert not (here / "out").exists()


def test_invalid_models(here: Path, refusal: Callable[..., str]) -> None:
    (here / "pickle.pt").write_bytes(b"\x80\x04N.")
    for model, words in {
        "nowhere": "no such file",
        "in": "no such file",
        "pickle.pt": "run code",
        "": "no such",
    }.items():
        message = refusal(model, "in", "--direction", "a2b", "--out", "out")
        assert words in message
        assert model in message


def test_the_same_name_from_two_folders(here: Path, refusal: Callable[..., str]) -> None:
    put(here / "other/x.png")
    message = refusal(*A2B, "in/x.png", "other/x.png", "--out", "out")
    assert "in/x.png and other/x.png" in message


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["translate", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(f"--{name}" in text for name in ("direction", "out", "size", "samples", "json", "overwrite", "device"))


def test_the_script_itself(tmp_path: Path) -> None:
    """In a process of its own: the exit status, and what goes to which stream."""
    config = tiny(data={"name_a": "x", "name_b": "y"})
    Translator(build_autoencoders(config.model), config, PerDomain("x", "y"), 1, "cpu").save(tmp_path / "m.safetensors")
    put(tmp_path / "in.png")
    (tmp_path / os.fsdecode(b"bad\xff\n.png")).touch()
    script = Path(__file__).resolve().parents[2] / "translate.py"
    words = [script, "m.safetensors", "--direction", "x2y", "in.png", b"bad\xff\n.png", "--out", "out", "--json"]
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, timeout=100, check=False)
    assert done.returncode == 1
    assert [json.loads(line)["status"] for line in done.stdout.splitlines()] == ["done", "failed"]
    assert done.stderr.decode().splitlines() == ["out: 1 translated, 0 already there, 1 failed"]


# Standard input and output


def piped(*words: str | Path, content: bytes = b"", cwd: Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "unit", "translate", *map(str, words)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, input=content, capture_output=True, cwd=cwd, env=environment, timeout=300)


@pytest.mark.slow
def test_standard_input_is_translated_to_standard_output(here: Path, command: Command) -> None:
    assert command(*A2B, "in/x.png", "--out", "file.png").status == 0
    expected = (here / "file.png").read_bytes()
    content = (here / "in/x.png").read_bytes()
    both = piped(*A2B, "-", "--out", "-", content=content, cwd=here)
    assert (both.returncode, both.stdout) == (0, expected), both.stderr
    assert piped(*A2B, "in/x.png", "--out", "-", cwd=here).stdout == expected
    assert piped(*A2B, "-", "--out", "other.png", content=content, cwd=here).stdout == b""
    assert (here / "other.png").read_bytes() == expected
    jpeg = piped(*A2B, "-", "--out", "-", "--format", "same", content=(here / "in/sub/y.jpg").read_bytes(), cwd=here)
    assert jpeg.stdout.startswith(b"\xff\xd8\xff")
    bad = piped(*A2B, "-", "--out", "-", content=content[:60], cwd=here)
    assert (bad.returncode, bad.stdout) == (3, b"")
    assert re.fullmatch(rb"error: standard input: damaged or cut short .*\n", bad.stderr)


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize(("redirected", "reason"), [("<&-", "the file is empty"), ("0>/dev/null", "can't be read")])
def test_a_standard_input_that_can_not_be_read_is_one_line(here: Path, redirected: str, reason: str) -> None:
    command = shlex.join([sys.executable, "-m", "unit", "translate", *map(str, A2B), "-", "--out", "x.png"])
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    bash = ["bash", "-c", f"{command} {redirected}"]
    done = subprocess.run(bash, check=False, cwd=here, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (3, "", 1), done.stderr
    assert done.stderr.startswith(f"error: standard input: {reason}")


@pytest.mark.skipif(os.name == "nt", reason="pipes are always waited for there")
def test_a_standard_input_that_another_program_made_non_blocking_is_waited_for(here: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    command = [sys.executable, "-m", "unit", "translate", *map(str, A2B), "-", "--out", "x.png"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=here, env=environment, stdin=reader, stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(reader)
        time.sleep(3)  # in which it comes to read
        os.close(writer)
        assert process.communicate()[1] == "error: standard input: the file is empty; replace or remove it\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-", "in/x.png", "--out", "-"], "give one INPUT"),
        (["-", "--out", "-", "--samples", "2"], "--samples: standard input and output hold one image"),
        (["-", "--out", "-", "--json"], "--json: --out - takes standard output"),
        (["in", "--out", "-"], "in is a folder"),
        (["-", "--out", "in"], "has no name; give a file"),
        (["-", "--out", "new.txt"], "can't write .txt"),
        (["--out", "out"], "no INPUT"),
        (["in", "--watch", "in", "--out", "out"], "--watch: takes no INPUT"),
        (["--watch", "in", "--out", "one.png"], "--watch writes several images; give a folder"),
    ],
)
def test_mistakes_with_streams_and_watching_are_refused(
    here: Path, refusal: Callable[..., str], words: list[str], message: str
) -> None:
    assert message in refusal(*A2B, *words)


def test_watching_a_missing_folder_is_refused(here: Path, command: Command) -> None:
    result = command(*A2B, "--watch", "nowhere", "--out", "out")
    assert result.status == 3
    assert "nowhere: no such folder" in result.lines[-1]


def test_an_existing_file_is_left_alone_by_a_stream(here: Path, command: Command) -> None:
    put(here / "out.png")
    before = (here / "out.png").read_bytes()
    result = command(*A2B, "-", "--out", "out.png")
    assert (result.status, result.lines) == (0, ["out.png: exists already; --overwrite replaces it"])
    assert (here / "out.png").read_bytes() == before


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is another signal there")
def test_a_watched_folder_is_translated_until_ctrl_c(here: Path) -> None:
    command = [sys.executable, "-m", "unit", "translate", *map(str, A2B), "--watch", "in", "--out", "in"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    (here / "in/x.png").unlink()
    process = subprocess.Popen(command, cwd=here, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(here / "in/sub/y.png")
        put(here / "in/later.jpg")
        wait_for(here / "in/later.png")
        time.sleep(4)  # long enough to translate an output, if it were taken for an input
    finally:
        process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert said.splitlines()[-1] == "in: 2 translated, 0 already there, 0 failed"
    names = sorted(path.relative_to(here / "in").as_posix() for path in (here / "in").rglob("*") if path.is_file())
    assert names == ["later.jpg", "later.png", "sub/y.jpg", "sub/y.png"]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.1)


# What is not kept


def test_what_is_not_kept_is_said_once_per_kind(here: Path, command: Command) -> None:
    for k in range(3):
        image = Image.new("RGBA", (8, 8), (10, 20, 30, 128))
        image.save(here / f"in/a{k}.png")
    result = command(*A2B, "in", "--out", "out", "--format", "jpg")
    lost = [line for line in result.lines if line.startswith("not kept")]
    assert lost == ["not kept: transparency (it became white) (in/a0.png and 2 more)"]
    assert not [line for line in command(*A2B, "in", "--out", "png").lines if "not kept" in line]


@pytest.mark.parametrize("suffix", ["tiff", "avif"])
def test_tiff_and_avif_are_written(here: Path, command: Command, suffix: str) -> None:
    assert command(*A2B, "in/x.png", "--out", "out", "--format", suffix).status == 0
    with Image.open(next((here / "out").iterdir())) as image:
        assert image.format == suffix.upper()


def test_heic_needs_a_package(here: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(3):
        (here / f"in/{k}.heic").write_bytes(b"\0\0\0\x18ftypheic")
    monkeypatch.setattr("unit.translation.files.jobs.is_installed", lambda: False)
    result = command(*A2B, "in/*.heic", "--out", "out")
    message = "error: in/0.heic: the package pillow-heif is not installed; pip install pillow-heif"
    assert (result.status, result.lines) == (2, [message])
    folder = command(*A2B, "in", "--out", "out")
    assert folder.status == 0
    assert len([line for line in folder.lines if "pip install pillow-heif" in line]) == 1
