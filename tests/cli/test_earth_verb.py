"""``earth`` as a user meets it."""

from pathlib import Path

import pytest

from unit.__main__ import main
from unit.data.folders import split_root
from unit.earth.tiles import Earth
from unit.images import read_image


def test_earth_writes_a_root_and_says_what_is_in_it(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    every = Earth.tiles
    monkeypatch.setattr(Earth, "tiles", lambda *arguments: every(*arguments)[::8])  # PNG is slow
    out = tmp_path / "earth"
    with caplog.at_level("INFO"):
        status = main(["earth", str(out), "--size", "256"])
    assert (status, capsys.readouterr().out) == (0, f"{out}\n")
    assert [test is not None for _, test in split_root(out)] == [True, True]
    for name in ("trainA", "trainB", "testA", "testB", "selectA", "selectB"):
        files = list((out / name).iterdir())
        assert f"{name}: {len(files)}" in caplog.text
        assert min(read_image(files[0]).size) == 256
    assert main(["earth", str(out), "--size", "256"]) == 3
    assert "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"), [([], "OUT"), (["x", "--size", "31"], "--size"), (["x", "--size", "257"], "--size")]
)
def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    assert main(["earth", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
