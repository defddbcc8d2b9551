"""The photos are counted, and their size is the median of their headers."""

from pathlib import Path

import pytest
from PIL import Image

from unit.config import DataConfig
from unit.data.survey import Survey, survey_photos
from unit.domains import PerDomain
from unit.errors import DataError


def folder(path: Path, *sizes: tuple[int, int]) -> str:
    path.mkdir()
    for k, size in enumerate(sizes):
        Image.new("RGB", size).save(path / f"{k}.png")
    return str(path)


def test_both_folders_count(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", (300, 200), (100, 400))
    b = folder(tmp_path / "b", (50, 60))
    (tmp_path / "b" / "notes.txt").touch()
    survey = survey_photos(DataConfig(a=a, b=b))
    assert survey == Survey(PerDomain(2, 1), 100)
    assert str(survey) == "2 and 1 photos, 100 px"


def test_what_cannot_be_read_counts_but_has_no_size(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a"), folder(tmp_path / "b")
    (tmp_path / "a" / "x.png").touch()
    (tmp_path / "b" / "x.jpg").write_text("no image")
    survey = survey_photos(DataConfig(a=a, b=b))
    assert survey == Survey(PerDomain(1, 1), None)
    assert str(survey) == "1 and 1 photos"


def test_of_many_photos_only_some_headers_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def header(path: Path) -> object:
        read.append(path)
        return type("header", (), {"width": 10 * (1 + int(path.stem) // 500), "height": 90})

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for k in range(1000):
            (tmp_path / name / f"{k:03}.png").touch()
    monkeypatch.setattr("unit.data.survey.read_header", header)
    survey = survey_photos(DataConfig(a=str(tmp_path / "a"), b=str(tmp_path / "b")))
    assert survey == Survey(PerDomain(1000, 1000), 15)  # the first and the second half of each folder
    assert len(read) == 200


def test_shards_are_not_opened(tmp_path: Path) -> None:
    b = folder(tmp_path / "b", (50, 60))
    survey = survey_photos(DataConfig(a=str(tmp_path / "{0..3}.tar"), b=b))
    assert survey == Survey(PerDomain(None, 1), 50)
    assert str(survey) == "shards and 1, 50 px"


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        survey_photos(DataConfig(a=str(tmp_path / "nowhere"), b=str(tmp_path)))
