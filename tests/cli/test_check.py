"""The verb that looks through the folders: what it prints, and its exit status."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unit.__main__ import main
from unit.cli.train import choose_preset
from unit.config import Config, DataConfig
from unit.config_file import PRESETS, read_config
from unit.data.check import CHECKS


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """sunny and rainy: four images of 64x48 each, no two alike."""
    for seed in range(8):
        folder = tmp_path / ("sunny", "rainy")[seed % 2]
        folder.mkdir(exist_ok=True)
        patches = np.random.default_rng(seed).integers(20, 236, (6, 8, 3), np.uint8)
        Image.fromarray(patches).resize((64, 48)).save(folder / f"{seed}.png")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["check", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def of(folders: Path) -> list[object]:
    return ["--a", folders / "sunny", "--b", folders / "rainy", "--load_size", 40, "--crop_size", 32]


def test_warnings_leave_the_folders_usable(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, *of(folders))
    first, *lines, last = out.splitlines()
    assert status == 0
    assert first == "for training at 40 px, in crops of 32 px"
    assert f"trainA  3 images in {folders / 'sunny'}, short side 48 px (median), brightness" in lines[0]
    assert f"warning: few images to learn from: {CHECKS['too-few'].advice}" in lines
    assert last == "usable, with 1 kind of warning"


def test_nothing_found_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_streets = ["streets", str(tmp_path / "x"), "--size", "16", "--train", "100", "--test", "1"]
    assert main(run_streets) == 0
    status, out, _ = run(capsys, "--root", tmp_path / "x", "--load_size", 16, "--crop_size", 16)
    assert status == 0
    assert out.splitlines()[-1] == "no problems found"


def test_what_no_program_sees_is_asked_until_the_configuration_answers(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(capsys, *of(folders))
    assert "data.licence" in out
    assert "Translating faces needs their consent" in out
    (tmp_path / "answers.yaml").write_text("data: {licence: CC0-1.0, people: none}")
    answered = ["--config", tmp_path / "answers.yaml", *of(folders)]
    _, out, _ = run(capsys, *answered)
    assert "data.licence" not in out
    assert "consent" not in out
    report = json.loads(run(capsys, *answered, "--json")[1])
    assert (report["licence"], report["people"]) == ("CC0-1.0", "none")


@pytest.mark.parametrize("headers", [True, False])
def test_a_file_that_would_stop_training_is_status_3(
    folders: Path, capsys: pytest.CaptureFixture[str], headers: bool
) -> None:
    broken = folders / "sunny" / "new\nline.jpg"
    broken.write_text("no image")
    status, out, _ = run(capsys, *of(folders), *(["--headers"] if headers else []))
    assert status == 3
    assert "error: can't be read (1 file): " in out
    assert rf"    {folders}/sunny/new\nline.jpg: is not an image" in out
    assert out.splitlines()[-1].startswith("unusable: training would stop at 1 file")
    assert ("brightness" in out) != headers
    assert out.splitlines()[-1].endswith("(by headers alone)") == headers


def test_json_is_one_object_with_every_finding(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k in range(9):
        (folders / "rainy" / f"x{k}\n.png").touch()
    status, out, _ = run(capsys, *of(folders), "--json")
    assert status == 3
    (line,) = out.splitlines()
    report = json.loads(line)
    assert report.keys() == {"images", "short_side", "brightness", "findings", "licence", "people", "usable"}
    assert sum(report["images"].values()) == 8 + 9
    assert report["usable"] is False
    unreadable = [finding for finding in report["findings"] if finding["class"] == "unreadable"]
    assert {finding["file"] for finding in unreadable} == {f"{folders}/rainy/x{k}\n.png" for k in range(9)}
    assert unreadable[0].items() >= {"level": "error", "advice": CHECKS["unreadable"].advice}.items()
    assert "empty" in unreadable[0]["detail"]
    assert run(capsys, *of(folders), "--json")[1] == out


def test_the_settings_are_those_of_training(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = folders / "sunny", folders / "rainy"
    _, out, _ = run(capsys, "--a", a, "--b", b)
    choice = choose_preset(Config(data=DataConfig(a=str(a), b=str(b))))
    assert f"in crops of {read_config(choice.path, choice.keys).data.crop_size} px" in out
    assert "smaller than the crop (8 files)" in out
    mine = folders / "mine.yaml"
    mine.write_text(f"data:\n  a: {a}\n  b: {b}\n  load_size: 48\n  crop_size: 48\n  max_pixels: 3000\n")
    status, out, _ = run(capsys, "--config", mine)
    assert status == 3
    assert "for training at 48 px, in crops of 48 px" in out
    assert "more pixels than data.max_pixels (8 files)" in out
    assert "in crops of 40 px" in run(capsys, "--config", mine, "--crop_size", 40)[1]
    assert run(capsys, "--config", mine, "--test_a", b, "--test_b", a)[0] == 3  # the other domain's images
    (folders / "test").mkdir()
    (folders / "test" / "0.png").write_bytes((a / "0.png").read_bytes())
    out = run(capsys, "--config", mine, "--test_a", folders / "test", "--test_b", folders / "test", "--json")[1]
    assert json.loads(out)["images"] == {"trainA": 4, "trainB": 4, "testA": 1, "testB": 1}


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "nothing to check"),
        (["--a", "x"], 2, "data.b"),
        (["--a", "/nowhere/x", "--b", "/nowhere/y"], 3, "/nowhere/x"),
        (["--root", "/nowhere"], 3, "/nowhere"),
        (["--root", "x", "--a", "x", "--b", "y"], 2, "data.root"),
        (["--a", "x", "--b", "y", "--test_a", "z"], 2, "data.test_a"),
        (["--a", "sunny", "--b", "rainy", "--load_size", "16"], 2, "data.crop_size"),
        (["--a", "x", "--b", "y", "--crop_size", "0"], 2, "--crop_size"),
        (["--a", ""], 2, "empty"),
        (["--config", "/nowhere.yaml"], 2, "/nowhere.yaml"),
        (["--config", PRESETS / "streets.yaml"], 2, "names no folders"),
        (["folder"], 2, "folder"),
    ],
)
def test_mistakes_are_one_line(
    folders: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[object],
    status: int,
    words: str,
) -> None:
    monkeypatch.chdir(folders)
    given, out, err = run(capsys, *arguments)
    assert (given, out) == (status, "")
    (line,) = [line for line in err.splitlines() if not line.startswith("two folders")]
    assert line.startswith("error: ")
    assert words in line
