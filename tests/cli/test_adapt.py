"""``unit adapt``: JSON on standard output, one line per mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.digits.small_sets import COUNTS, write_mnist, write_usps
from unit.__main__ import main


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["adapt", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_result_is_printed_as_json_and_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_mnist(tmp_path)
    write_usps(tmp_path)
    monkeypatch.chdir(tmp_path)
    command = ["--source", "usps", "--target", "mnist", "--root", ".", "--steps", "2", "--device", "cpu"]
    status, out, _ = run(capsys, *command, "--json")
    result = json.loads(out)
    assert status == 0
    expected = {
        "source": "usps",
        "target": "mnist",
        "recipe": "modern",
        "seed": 0,
        "step": 2,
        "test_images": COUNTS["test"],
    }
    assert {key: result[key] for key in expected} == expected
    assert result["run"] == "runs/usps-mnist-modern-0"
    assert 0 <= result["accuracy"] <= result["best_selected_on_test"]["accuracy"] <= 1
    assert "torch" in result["versions"]
    status, out, _ = run(capsys, *command)  # all is done already
    assert status == 0
    assert f"accuracy:    {result['accuracy']:.4f} (usps to mnist, last step, all 20 test images)" in out
    assert "selected on the test set, so not a result" in out
    for name in ("a2b", "b2a"):
        assert f"samples/{name}" in _tensorboard_tags(tmp_path / "runs" / "usps-mnist-modern-0")


def _tensorboard_tags(folder: Path) -> list[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    tags = board.Tags()
    assert "val/accuracy" in tags["scalars"]
    return list(tags["images"])


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--source", "usps", "--target", "mnist", "--root", "/nowhere"], 3, "/nowhere/USPS/usps.bz2: no such file; "),
        (["--source", "mnist", "--target", "mnist", "--root", "."], 2, "--target mnist: is the source too"),
        (["--source", "kanji", "--target", "mnist", "--root", "."], 2, "--source"),
        (["--source", "usps", "--target", "mnist"], 2, "--root"),
        (["--source", "usps", "--target", "mnist", "--root", ".", "--steps", "0"], 2, "--steps"),
        (["--source", "usps", "--target", "mnist", "--root", ".", "--recipe", "best"], 2, "--recipe"),
        (["--source", "usps", "--target", "mnist", "--root", ""], 2, "--root"),
        (["--source", "usps", "--target", "mnist", "--root", "a\nb"], 3, "no such file"),
        (["--source", "usps", "--target", "mnist", "--root", ".", "--seed", "1" * 30], 2, "--seed"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    status: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given, out, err = run(capsys, *arguments)
    assert (given, out) == (status, "")
    (line,) = err.splitlines()
    assert words in line
    assert not list(tmp_path.iterdir())
