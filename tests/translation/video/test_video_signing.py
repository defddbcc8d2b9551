"""Signed videos: the same streams, a flipped bit is noticed, and what can't be signed is said before hours of work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.translation.provenance.test_content_credentials import home, own_settings, signer
from tests.translation.provenance.test_provenance import PROVENANCE
from tests.translation.video.clips import go, make_clip, read
from unit.errors import UserError
from unit.translation.provenance.content_credentials import Signer
from unit.translation.provenance.marking import Marker
from unit.translation.provenance.verification import verify

__all__ = ["home", "own_settings", "signer"]  # fixtures


@pytest.mark.parametrize("name", ["out.mp4", "out.gif"])
def test_a_signed_video_shows_the_same(tmp_path: Path, signer: Signer, name: str) -> None:
    clip = make_clip(tmp_path / "in.mkv")
    go(clip, tmp_path / f"unsigned-{name}", marker=Marker(PROVENANCE))
    go(clip, tmp_path / name, marker=Marker(PROVENANCE, signer))
    before, after = read(tmp_path / f"unsigned-{name}"), read(tmp_path / name)
    assert [frame.pts for frame in before] == [frame.pts for frame in after]
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(before, after, strict=True))
    assert verify(tmp_path / f"unsigned-{name}").credentials is None
    verification = verify(tmp_path / name)
    assert verification.marks.source_type == "compositeWithTrainedAlgorithmicMedia"
    assert verification.credentials is not None
    assert verification.credentials.state == "intact"
    assert verification.credentials.inputs == ("in.mkv",)
    content = bytearray((tmp_path / name).read_bytes())
    content[content.index(b"mdat") + 30 if name == "out.mp4" else -40] ^= 1
    (tmp_path / name).write_bytes(content)
    changed = verify(tmp_path / name).credentials
    assert changed is not None
    assert changed.state == "changed"


@pytest.mark.parametrize("name", ["out.mkv", "frames"])
def test_what_can_not_be_signed_is_said_at_once(tmp_path: Path, signer: Signer, name: str) -> None:
    outcome = go(make_clip(tmp_path / "in.mkv"), tmp_path / name, marker=Marker(PROVENANCE, signer))
    assert outcome.status == "failed"
    assert f"{name} can't be signed; .mp4 can" in str(outcome.reason)
    assert [file.name for file in tmp_path.iterdir()] == ["in.mkv"]


def test_a_video_that_could_not_be_signed_is_not_left_unsigned(
    tmp_path: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "in.mkv")

    def fail(*_: object) -> None:
        raise UserError("signing failed")

    monkeypatch.setattr(Signer, "_sign", fail)
    assert go(clip, tmp_path / "out.mp4", marker=Marker(PROVENANCE, signer)).status == "failed"
    assert [file.name for file in tmp_path.iterdir()] == ["in.mkv"]


def test_the_comment_of_an_mkv_is_read(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mkv")
    assert verify(clip).marks.software is None
    go(clip, tmp_path / "out.mkv", marker=Marker(PROVENANCE))
    assert verify(tmp_path / "out.mkv").marks.software == PROVENANCE.software


def test_unmarked_videos_say_nothing(tmp_path: Path) -> None:
    for name in ("out.mp4", "out.gif"):
        go(make_clip(tmp_path / "in.mkv"), tmp_path / name)
        assert b"UNIT" not in (tmp_path / name).read_bytes()
