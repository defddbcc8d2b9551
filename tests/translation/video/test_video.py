"""A translated video is the input with other pixels: times, sound, subtitles, colours and orientation stay."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from tests.tiny import TINY
from tests.translation.video.clips import Copier, go, images, make_clip, noise, packets, plain, read, times
from unit.__main__ import main
from unit.domains import Domain, PerDomain
from unit.errors import ConfigError, UserError
from unit.images import is_marked, read_image_file
from unit.model.networks import build_autoencoders
from unit.translation.files.image_files import Settings, translate_images
from unit.translation.files.jobs import Job
from unit.translation.provenance.marking import Marker
from unit.translation.provenance.marks import Provenance
from unit.translation.translator import Translator
from unit.translation.video.jobs import plan_videos, split_videos
from unit.translation.video.marks import read_xmp
from unit.translation.video.reading import VideoReader

UNEVEN = [0, 3, 4, 9, 20, 21, 40]
MARK = Provenance("sunny", "rainy", "a2b", "0" * 64, 7)


@pytest.fixture(scope="module")
def model() -> Translator:
    return Translator(build_autoencoders(TINY.model), TINY, PerDomain("sunny", "rainy"), 0, "cpu", "fp32")


# times


@pytest.mark.parametrize(
    ("name", "out", "time_base"),
    [("in.mp4", "out.mp4", (1, 600)), ("in.mp4", "out.mp4", (1001, 30000)), ("in.mkv", "out.mkv", (1, 1000)),
     ("in.mov", "out.mp4", (1, 90000)), ("in.mkv", "out.mp4", (1, 1000))],
)  # fmt: skip
def test_uneven_times_stay_exactly(tmp_path: Path, name: str, out: str, time_base: tuple[int, int]) -> None:
    clip = make_clip(
        tmp_path / name, noise(7), UNEVEN, codec="libx264", pix_fmt="yuv420p", time_base=Fraction(*time_base)
    )
    outcome = go(clip, tmp_path / out)
    assert times(tmp_path / out) == times(clip)
    assert len(set(np.diff([float(time) for time in times(clip)]))) > 2  # uneven indeed
    assert (outcome.status, outcome.frames, outcome.size) == ("done", 7, (16, 12))
    assert outcome.seconds == pytest.approx(float(times(clip)[-1] - times(clip)[0]))


def test_the_last_frame_is_shown_as_long(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mp4", noise(3), [0, 40, 80], codec="libx264", pix_fmt="yuv420p", last=500)
    go(clip, tmp_path / "out.mp4")
    with av.open(str(clip)) as before, av.open(str(tmp_path / "out.mp4")) as after:
        assert before.duration == after.duration == 580_000


def test_the_clock_of_a_recording_starts_at_zero(tmp_path: Path) -> None:
    clip = make_clip(
        tmp_path / "in.ts", noise(7), codec="libx264", pix_fmt="yuv420p", time_base=Fraction(1, 90000), sound="aac",
        sound_start=5, pts=[450_000 + 3600 * k for k in range(7)],
    )  # fmt: skip
    assert times(clip)[0] > 1
    go(clip, tmp_path / "out.mp4")
    start = min(times(clip)[0], Fraction(packets(clip, "audio")[0][0]))
    assert start > 4
    assert [float(time) for time in times(tmp_path / "out.mp4")] == pytest.approx(
        [float(time - start) for time in times(clip)], abs=2e-5
    )
    first = packets(tmp_path / "out.mp4", "audio")[0][0]
    assert first == pytest.approx(packets(clip, "audio")[0][0] - float(start), abs=2e-5)


def test_a_container_without_times_gets_even_ones(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.avi", noise(6), range(6), codec="mpeg4", pix_fmt="yuv420p",
                     time_base=Fraction(1, 25))  # fmt: skip
    go(clip, tmp_path / "out.mp4")
    assert np.diff([float(time) for time in times(tmp_path / "out.mp4")]) == pytest.approx([0.04] * 5)


# other streams


def subtitles(path: Path) -> Path:
    path.write_text("1\n00:00:00,000 --> 00:00:00,050\nHello\n\n2\n00:00:00,060 --> 00:00:00,100\nBye\n\n")
    return path


def test_sound_and_subtitles_are_copied_untouched(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mkv", noise(12), sound="aac", subtitle=subtitles(tmp_path / "s.srt"))
    outcome = go(clip, tmp_path / "out.mkv")
    for kind in ("audio", "subtitle"):
        assert packets(tmp_path / "out.mkv", kind) == packets(clip, kind)
        assert len(packets(clip, kind)) > 1
    assert outcome.lost == ()
    with av.open(str(tmp_path / "out.mkv")) as after:
        assert after.streams.audio[0].metadata["language"] == "fra"


def test_what_the_container_cannot_hold_is_said(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mkv", noise(12), sound="aac", subtitle=subtitles(tmp_path / "s.srt"))
    assert go(clip, tmp_path / "out.mp4").lost == ("subtitle 2 (srt)",)
    assert [data for _, data in packets(tmp_path / "out.mp4", "audio")] == [data for _, data in packets(clip, "audio")]
    assert go(clip, tmp_path / "out.gif").lost == ("audio 1 (aac)", "subtitle 2 (srt)")
    assert go(clip, tmp_path / "frames").lost == ("audio 1 (aac)", "subtitle 2 (srt)")


def test_metadata_and_chapters_stay(tmp_path: Path) -> None:
    def setup(container: Any, stream: Any) -> None:
        container.metadata.update({"title": "A drive", "comment": "in spring"})
        container.set_chapters(
            [{"id": 1, "start": 0, "end": 80, "time_base": Fraction(1, 1000), "metadata": {"title": "Start"}}]
        )

    clip = make_clip(tmp_path / "in.mkv", setup=setup)
    for name in ("out.mkv", "out.mp4"):
        go(clip, tmp_path / name, marker=Marker(MARK))
        with av.open(str(tmp_path / name)) as after:
            metadata = {key.lower(): value for key, value in after.metadata.items()}
            assert metadata["title"] == "A drive"
            assert metadata["comment"] == f"in spring; {MARK.software}"
            assert [chapter["metadata"]["title"] for chapter in after.chapters()] == ["Start"]


# orientation and shape


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_frames_are_turned_and_mirrored_as_players_do(tmp_path: Path, degrees: int, flip: bool) -> None:
    def setup(_: Any, stream: Any) -> None:
        stream.set_display_rotation(degrees, hflip=flip)
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    originals = noise(2)
    clip = make_clip(tmp_path / "in.mov", originals, codec="libx264rgb", pix_fmt="rgb24", setup=setup,
                     options={"qp": "0"})  # fmt: skip
    outcome = go(clip, tmp_path / "out.mkv", quality=100)
    expected = [np.rot90(image, degrees // 90)[:, :: -1 if flip else 1] for image in originals]
    assert (images(tmp_path / "out.mkv") == np.stack(expected)).all()
    aspect = Fraction(3, 4) if degrees % 180 else Fraction(4, 3)
    assert outcome.lost == (f"pixel aspect {aspect}",)
    go(clip, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as after:
        assert next(after.decode(video=0)).rotation == 0  # not turned twice
        assert after.streams.video[0].sample_aspect_ratio == aspect


@pytest.mark.parametrize("size", [(12, 16), (13, 17), (12, 17)])
def test_the_size_stays_even_an_odd_one(tmp_path: Path, size: tuple[int, int]) -> None:
    clip = make_clip(tmp_path / "in.mkv", plain((200, 90, 30), 3, *size))
    go(clip, tmp_path / "out.mp4")
    after = images(tmp_path / "out.mp4")
    assert after.shape == (3, *size, 3)
    assert np.abs(after.astype(int) - (200, 90, 30)).max() <= 4


# colours

WEIGHTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}  # of red and blue, by matrix


def yuv_of(rgb: tuple[int, int, int], matrix: int, full: bool) -> tuple[int, int, int]:
    """Convert as the standards say: BT.709, BT.601 and BT.2020."""
    (kr, kb), (r, g, b) = WEIGHTS[matrix], (value / 255 for value in rgb)
    y = kr * r + (1 - kr - kb) * g + kb * b
    u, v = (b - y) / (2 - 2 * kb), (r - y) / (2 - 2 * kr)
    low, luma, chroma = (0, 255, 255) if full else (16, 219, 224)
    return round(low + luma * y), round(128 + chroma * u), round(128 + chroma * v)


def planes(rgb: tuple[int, int, int], matrix: int, full: bool, height: int, width: int) -> np.ndarray[Any, Any]:
    y, u, v = yuv_of(rgb, matrix, full)
    return np.concatenate([np.full((height, width), y), np.full((height // 4, width), u),
                           np.full((height // 4, width), v)]).astype(np.uint8)  # fmt: skip


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [1, 6, 9])
def test_matrix_and_range_are_respected_both_ways(tmp_path: Path, matrix: int, full: bool) -> None:
    rgb = (200, 60, 90)
    tags = (matrix, 2 if full else 1, matrix, 1)
    clip = make_clip(tmp_path / "in.mp4", [planes(rgb, matrix, full, 16, 16)] * 3, codec="libx264", color=tags,
                     pix_fmt="yuv420p", frame_format="yuv420p", convert=lambda frame: frame,
                     setup=lambda _, stream: setattr(stream, "height", 16), options={"crf": "1"})  # fmt: skip
    assert np.abs(images(clip).astype(int) - rgb).max() <= 3
    go(clip, tmp_path / "out.mp4", quality=100)
    with av.open(str(tmp_path / "out.mp4")) as after:
        frame: Any = next(after.decode(video=0))
        assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == tags
        values = [frame.to_ndarray(format="yuv420p")[row].mean() for row in (0, 17, 21)]
    assert values == pytest.approx(yuv_of(rgb, matrix, full), abs=2)


@pytest.mark.parametrize(("height", "matrix"), [(48, 6), (720, 1)])
def test_untagged_colours_are_taken_as_players_take_them(tmp_path: Path, height: int, matrix: int) -> None:
    clip = make_clip(tmp_path / "in.mkv", [planes((200, 60, 90), matrix, False, height, 720)], codec="mpeg4",
                     pix_fmt="yuv420p", frame_format="yuv420p", convert=lambda frame: frame,
                     setup=lambda _, stream: setattr(stream, "height", height))  # fmt: skip
    assert np.abs(images(clip).astype(int) - (200, 60, 90)).max() <= 4


def test_ten_bits_stay_ten_bits(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 1024).astype(np.uint16)
    image = np.broadcast_to(ramp[None, :, None], (16, 1024, 3)).copy()
    clip = make_clip(tmp_path / "in.mkv", [image] * 2, codec="ffv1", pix_fmt="yuv444p10le", frame_format="rgb48le")
    for name in ("out.mkv", "out.mp4"):
        assert go(clip, tmp_path / name, quality=100).reason is None
        after = images(tmp_path / name)
        assert after.dtype == np.uint16
        assert len(np.unique(after[0, 0])) > 800
        assert np.abs(after[0, 8, :, 1].astype(int) - ramp).max() < 65535 / 100
    go(clip, tmp_path / "frames")
    frame = read_image_file(tmp_path / "frames/000001.png")
    assert frame.deep
    assert np.abs(np.asarray(frame.frames[0].colors)[8, :, 1].astype(int) - ramp).max() < 65535 / 100


# pixels


def test_a_lossless_frame_equals_the_translated_image(tmp_path: Path, model: Translator) -> None:
    image = noise(1, 21, 30)[0]
    Image.fromarray(image).save(tmp_path / "in.png")
    clip = make_clip(tmp_path / "in.mkv", [image])
    list(translate_images(model, [Job(tmp_path / "in.png", (tmp_path / "out.png",))], Settings(source=Domain.A)))
    expected = np.asarray(Image.open(tmp_path / "out.png"))
    assert (expected != image).mean() > 0.5
    go(clip, tmp_path / "out.mkv", translator=model, quality=100)
    assert (images(tmp_path / "out.mkv")[0] == expected).all()
    go(clip, tmp_path / "frames", translator=model)
    assert (np.asarray(Image.open(tmp_path / "frames/000001.png")) == expected).all()


def test_frames_are_translated_in_batches_with_the_same_result(tmp_path: Path, model: Translator) -> None:
    clip = make_clip(tmp_path / "in.mkv", noise(7))
    copier = Copier()
    go(clip, tmp_path / "copy.mkv", translator=copier, batch_size=3)
    assert copier.batches == [3, 3, 1]
    for size in (1, 4):
        go(clip, tmp_path / f"{size}.mkv", translator=model, batch_size=size, quality=100)
    assert np.abs(images(tmp_path / "1.mkv").astype(int) - images(tmp_path / "4.mkv")).max() <= 1


def test_a_seed_gives_every_frame_the_same_noise(tmp_path: Path, model: Translator) -> None:
    clip = make_clip(tmp_path / "in.mkv", noise(1) * 3)
    go(clip, tmp_path / "a.mkv", translator=model, quality=100, samples=1, seed=3)
    go(clip, tmp_path / "b.mkv", translator=model, quality=100)
    sampled = images(tmp_path / "a.mkv")
    assert (sampled == sampled[0]).all()
    assert (sampled != images(tmp_path / "b.mkv")).any()


def test_a_smaller_working_size_keeps_the_size_of_frames(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mkv", plain((9, 200, 60), 1, 48, 64))
    go(clip, tmp_path / "out.mkv", size=16, quality=100)
    assert (images(tmp_path / "out.mkv") == (9, 200, 60)).all()


def test_a_gif_is_a_video_too(tmp_path: Path) -> None:
    frames = plain((250, 40, 40), 5) + plain((20, 60, 240), 5)
    clip = make_clip(tmp_path / "in.mkv", frames, [17 * k for k in range(10)])
    go(clip, tmp_path / "out.gif", marker=Marker(MARK))
    with Image.open(tmp_path / "out.gif") as gif:
        assert gif.size == (16, 12)
        assert gif.info["comment"] == MARK.software.encode()
        assert b"compositeWithTrainedAlgorithmicMedia" in (tmp_path / "out.gif").read_bytes()
        durations = []
        for k in range(gif.n_frames):
            gif.seek(k)
            durations.append(gif.info["duration"])
            nearest = (250, 40, 40) if sum(durations[:-1]) < 80 else (20, 60, 240)
            assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - nearest).max() <= 8
        assert min(durations) >= 20
        assert sum(durations[:-1]) == pytest.approx(153, abs=20)
    go(tmp_path / "out.gif", tmp_path / "back.mp4")
    assert len(read(tmp_path / "back.mp4")) == len(durations)


def test_a_folder_of_frames_has_their_times(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mkv", noise(7), UNEVEN)
    go(clip, tmp_path / "frames", image_suffix=".webp", marker=Marker(MARK))
    names = [f"{k:06d}.webp" for k in range(1, 8)]
    assert sorted(path.name for path in (tmp_path / "frames").iterdir()) == [*names, "timestamps.txt"]
    lines = (tmp_path / "frames/timestamps.txt").read_text().splitlines()
    assert lines[0] == "# timestamp format v2"
    assert [float(line) for line in lines[1:]] == UNEVEN
    assert is_marked(tmp_path / "frames/000001.webp")
    assert go(clip, tmp_path / "frames").status == "skipped"
    shorter = make_clip(tmp_path / "shorter.mkv", noise(2))
    go(shorter, tmp_path / "frames", image_suffix=".webp", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "frames").iterdir()) == [*names[:2], "timestamps.txt"]


def test_a_folder_of_frames_that_is_not_whole_is_not_taken_for_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, frames = make_clip(tmp_path / "in.mkv", noise(3)), tmp_path / "frames"
    assert go(clip, frames).status == "done"
    with monkeypatch.context() as patch:  # a disk that fills up while they are replaced

        def fail(*_: object, **__: object) -> None:
            raise UserError("full")

        patch.setattr("unit.translation.video.writing.write_image_file", fail)
        assert go(clip, frames, overwrite=True).status == "failed"
    outcome = go(clip, frames)
    assert outcome.status == "failed"
    assert "frames: is not whole, as it has no timestamps.txt" in str(outcome.reason)
    assert go(clip, frames, overwrite=True).status == "done"
    assert go(clip, frames).status == "skipped"


# marks


def test_an_mp4_says_in_xmp_and_in_a_comment_what_it_is(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mkv")
    go(clip, tmp_path / "once.mp4", marker=Marker(MARK))
    first = read_xmp(tmp_path / "once.mp4")
    assert first is not None
    assert b"compositeWithTrainedAlgorithmicMedia" in first
    later = Provenance("rainy", "sunny", "b2a", "f" * 64, 9)
    go(tmp_path / "once.mp4", tmp_path / "twice.mp4", marker=Marker(later))
    second = read_xmp(tmp_path / "twice.mp4")
    assert second is not None
    assert b"0" * 64 in second  # what the input said stays
    assert b"f" * 64 in second
    with av.open(str(tmp_path / "twice.mp4")) as after:
        assert after.metadata["comment"] == f"{MARK.software}; {later.software}"
    assert len(read(tmp_path / "twice.mp4")) == 5
    go(clip, tmp_path / "plain.mp4")
    assert read_xmp(tmp_path / "plain.mp4") is None
    assert b"UNIT" not in (tmp_path / "plain.mp4").read_bytes()


# what goes wrong


def test_a_video_stopped_early_is_whole_so_far(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mkv", noise(30), sound="aac")
    copier = Copier()
    outcome = go(clip, tmp_path / "out.mp4", translator=copier, batch_size=4, stop=lambda: len(copier.batches) == 3)
    assert (outcome.frames, outcome.interrupted) == (12, True)
    assert times(tmp_path / "out.mp4") == times(clip)[:12]
    assert len(packets(tmp_path / "out.mp4", "audio")) > 5


class Broken(Copier):
    def translate(self, images: Tensor, source: Domain, seed: int | None = None, **_: Any) -> Tensor:
        if len(self.batches) == 2:
            images = images * float("nan")
        return super().translate(images, source, seed)


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv", "out.gif"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, name: str) -> None:
    clip = make_clip(tmp_path / "in" / "in.mkv" if (tmp_path / "in").mkdir() else tmp_path / "in/in.mkv", noise(9))
    (tmp_path / name).write_bytes(b"old")
    outcome = go(clip, tmp_path / name, translator=Broken(), batch_size=2, overwrite=True)
    assert outcome.status == "failed"
    assert (
        outcome.reason
        == f"{clip}: the model's output contains NaN or Inf; try --precision fp32, or a model of an earlier step"
    )
    assert (tmp_path / name).read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in", name])


def test_existing_outputs_and_inputs_are_left_alone(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mkv")
    content = clip.read_bytes()
    assert go(clip, tmp_path / "out.mkv").status == "done"
    assert go(clip, tmp_path / "out.mkv").status == "skipped"
    outcome = go(clip, clip, overwrite=True)
    assert (outcome.status, outcome.reason) == ("failed", f"{clip} is an input; give another --out")
    assert clip.read_bytes() == content
    (tmp_path / "folder.mkv").mkdir()
    assert go(clip, tmp_path / "folder.mkv").status == "failed"


def test_files_that_are_no_videos_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    Image.new("RGB", (8, 8)).save(tmp_path / "empty.mp4", "PNG")
    whole = make_clip(tmp_path / "whole.mp4", noise(20), codec="libx264", pix_fmt="yuv420p").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        container.mux(stream.encode())
    for name in ("text.mp4", "cut.mp4", "missing.mp4", "sound.mp4"):
        outcome = go(tmp_path / name, tmp_path / "out.mp4")
        assert outcome.status == "failed"
        assert outcome.reason is not None
        assert outcome.reason.startswith(f"{tmp_path / name}: ")
        assert "\n" not in outcome.reason
    assert not (tmp_path / "out.mp4").exists()


def test_damaged_frames_are_counted(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mkv", noise(20, 24, 32), options={"slicecrc": "1"})
    content = bytearray(clip.read_bytes())
    start = content.find(b"\xa3", len(content) // 2)
    content[start + 40 : start + 900] = bytes(860)
    (tmp_path / "bad.mkv").write_bytes(content)
    outcome = go(tmp_path / "bad.mkv", tmp_path / "out.mp4")
    assert outcome.status == "done"
    assert outcome.frames + outcome.damaged <= 20
    assert len(read(tmp_path / "out.mp4")) == outcome.frames


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"^the package av is not installed, which videos need; pip install av$"):
        VideoReader(tmp_path / "in.mp4")


# names


def test_videos_are_told_from_images_by_their_suffix() -> None:
    files = [(Path(name), PurePosixPath(name)) for name in ("a.MP4", "b.png", "c.gif", "d.mov", "e.ts")]
    assert [[str(path) for path, _ in half] for half in split_videos(files, Path("out"))] == [
        ["b.png", "c.gif"],
        ["a.MP4", "d.mov", "e.ts"],
    ]
    assert [str(path) for path, _ in split_videos(files[2:3], Path("out.mp4"))[1]] == ["c.gif"]
    assert split_videos(files[2:3], Path("out.gif"))[1] == []


def test_outputs_are_named_after_their_inputs() -> None:
    videos = [(Path("in/a.mov"), PurePosixPath("a.mov")), (Path("in/b.avi"), PurePosixPath("b.avi"))]

    def planned(kind: str | None, samples: int | None = None) -> list[str]:
        jobs = plan_videos(videos, Path("out"), kind, samples)
        return [path.as_posix() for job in jobs for path in job.outputs]

    assert planned(None) == ["out/a.mp4", "out/b.mp4"]
    assert planned("gif") == ["out/a.gif", "out/b.gif"]
    assert planned("webp") == ["out/a", "out/b"]
    assert planned("mkv", 2) == ["out/a-1.mkv", "out/a-2.mkv", "out/b-1.mkv", "out/b-2.mkv"]
    assert plan_videos(videos[:1], Path("x.GIF"), None, None) == [Job(Path("in/a.mov"), (Path("x.GIF"),))]
    same = [videos[0], (Path("in/a.avi"), PurePosixPath("a.avi"))]
    for args in ((videos, Path("x.mp4"), None, None), (videos[:1], Path("x.mp4"), None, 1),
                 (videos, Path("x.webm"), None, None), (same, Path("out"), None, None)):  # fmt: skip
        with pytest.raises(ConfigError):
            plan_videos(*args)


# whole processes


@pytest.fixture
def long_clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "in.mp4", noise(400, 96, 128), codec="libx264", pix_fmt="yuv420p", sound="aac")


@pytest.mark.slow
def test_ctrl_c_leaves_a_file_that_plays(tmp_path: Path, long_clip: Path, model: Translator) -> None:
    model.save(tmp_path / "model.safetensors")
    command = [sys.executable, "translate.py", str(tmp_path / "model.safetensors"), "--direction", "a2b",
               str(long_clip), "--out", str(tmp_path / "out.mp4"), "--size", "96"]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        while not any(path.suffix == ".partial" for path in tmp_path.iterdir()):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=300)
    assert process.returncode == 130
    count = len(read(tmp_path / "out.mp4"))
    assert 0 < count < 400
    assert out.startswith(f"{tmp_path / 'out.mp4'}: {count} frames, ")
    assert "stopped early" in error
    assert "Traceback" not in error
    assert not any(path.suffix == ".partial" for path in tmp_path.iterdir())


PEAK = """
import resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.translation.video.clips import go
assert go(Path(sys.argv[1]), Path(sys.argv[2]), deflicker=True).frames == int(sys.argv[3])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_a_clip_ten_times_longer_has_the_same_peak(tmp_path: Path) -> None:
    peaks = {}
    for count in (300, 3000):  # decoders and allocators need some hundred frames to reach their size
        images = plain((200, 90, 30), 5, 96, 128) + plain((20, 60, 240), 5, 96, 128)
        clip = make_clip(
            tmp_path / f"{count}.mkv", images * (count // 10), codec="libx264", pix_fmt="yuv420p", sound="aac",
            options={"preset": "ultrafast"},
        )  # fmt: skip
        command = [sys.executable, "-c", PEAK, str(clip), str(tmp_path / f"{count}.mp4"), str(count)]
        peaks[count] = int(subprocess.run(command, check=True, capture_output=True).stdout)
    assert peaks[3000] < peaks[300] + 25_000  # KB; 2,700 more frames take 100 MB, and 398 MB as tensors


# the command


@pytest.fixture
def command(
    tmp_path: Path, model: Translator, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Callable[..., tuple[int, str, str]]:
    model.save(tmp_path / "model.safetensors")

    def run(*words: object) -> tuple[int, str, str]:
        status = main(["translate", str(tmp_path / "model.safetensors"), "--direction", "a2b", *map(str, words)])
        out, error = capsys.readouterr()
        return status, out, caplog.text + error

    return run


def test_the_command_prints_the_flicker(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "in.mkv", sound="aac")
    status, out, _ = command(clip, "--out", tmp_path / "out.mp4")
    assert status == 0
    assert re.fullmatch(
        rf"{tmp_path}/out\.mp4: 5 frames, 0\.2 s, flicker \d\.\d\d \(1: as steady as the input\)\n", out
    )
    assert times(tmp_path / "out.mp4") == times(clip)
    status, out, error = command(clip, "--out", tmp_path / "gifs", "--format", "gif", "--json", "--deflicker")
    assert status == 0
    record = json.loads(out)
    assert (record["status"], record["frames"], record["size"]) == ("done", 5, [16, 12])
    assert record["flicker"] > 0
    assert record["lost"] == ["audio 1 (aac)"]
    assert "not kept: audio 1 (aac)" in error
    assert command(clip, "--out", tmp_path / "frames", "--format", "tiff")[0] == 0
    assert (tmp_path / "frames/in/000005.tif").exists()
    with av.open(str(tmp_path / "gifs/in.gif")) as gif:
        assert gif.format.name == "gif"


def test_images_and_videos_in_one_command(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    make_clip(tmp_path / "clip.mkv")
    make_clip(tmp_path / "folder.mkv")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.mkv").rename(tmp_path / "folder/inside.mkv")
    Image.fromarray(noise(1)[0]).save(tmp_path / "folder/image.png")
    status, _, error = command(tmp_path / "*.mkv", tmp_path / "folder", "--out", tmp_path / "out")
    assert status == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clip.mp4", "image.png"]
    assert "inside.mkv" in error  # videos in folders are named, but not translated
    status, _, error = command(tmp_path / "folder", "--out", tmp_path / "other", "--format", "mp4")
    assert status == 2
    assert "--format mp4: is for videos" in error


def test_one_bad_video_does_not_stop_the_others(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("bad")
    clip = make_clip(tmp_path / "good.mkv")
    status, out, error = command(tmp_path / "bad.mp4", clip, "--out", tmp_path / "out")
    assert status == 1
    assert out.startswith(f"{tmp_path}/out/good.mp4: 5 frames")
    assert f"{tmp_path}/bad.mp4: can't be read" in error


def test_the_command_says_which_package_is_missing(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "in.mkv")
    monkeypatch.setitem(sys.modules, "av", None)
    status, out, error = command(clip, "--out", tmp_path / "out.mp4")
    assert (status, out) == (2, "")
    assert error == "error: the package av is not installed, which videos need; pip install av\n"
    assert not (tmp_path / "out.mp4").exists()
