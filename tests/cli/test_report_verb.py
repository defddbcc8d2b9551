from pathlib import Path

import pytest

from tests.conftest import Coarse
from tests.tiny import tiny
from unit.__main__ import main
from unit.training.loop import train


@pytest.fixture(autouse=True)
def _quick_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unit.evaluation.report.sections.features_if_installed", lambda _: Coarse())


def test_the_report_of_a_run_is_printed_by_its_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny(train={"steps": 3}), tmp_path / "run")
    capsys.readouterr()
    assert main(["report", str(tmp_path / "run"), "--device", "cpu", "--precision", "fp32"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'run' / 'report.html'}\n"
    content = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "unavailable" not in content
    assert "</strong>: 3 of 3 steps" in content


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["/nowhere"], "/nowhere: not a run directory"),
        ([""], "is empty"),
        ([], "RUN"),
        ([".", "--device", "quantum"], "quantum"),
        ([".", "--device", "cuda:77"], "cuda:77"),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samples").mkdir()
    assert main(["report", *arguments]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1
