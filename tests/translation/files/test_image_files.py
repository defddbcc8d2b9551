"""Every image goes where it should, nothing else is touched, and what goes wrong with one image stays with it."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from torch import Tensor

from tests.tiny import TINY
from unit.domains import Domain, PerDomain
from unit.errors import ConfigError, UserError
from unit.images import DecodedImage, Frame, is_marked, read_image
from unit.model.networks import build_autoencoders
from unit.translation import frames
from unit.translation.files import image_files
from unit.translation.files.image_files import Settings, translate_images
from unit.translation.files.jobs import Job, Outcome, find_images, plan_jobs
from unit.translation.translator import Translator


class Copier(Translator):
    """Returns its input, and records it."""

    def __init__(self) -> None:
        super().__init__(build_autoencoders(TINY.model), TINY, PerDomain("sunny", "rainy"), 0, "cpu", "fp32")
        self.calls: list[tuple[tuple[int, ...], Domain, int | None]] = []

    def translate(self, images: Tensor, source: Domain, seed: int | None = None, *, strength: float = 1.0) -> Tensor:
        self.calls.append((tuple(images.shape), source, seed))
        return images


def make_image(width: int = 9, height: int = 7, seed: int = 0, low: int = 0, high: int = 256) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(low, high, (height, width, 3), dtype=np.uint8))


def put(path: Path, image: Image.Image | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or make_image()).save(path, **options)
    return path


def decoded(image: Image.Image | None = None) -> DecodedImage:
    return DecodedImage("PNG", (Frame(image or make_image()),))


def below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def found(*inputs: str | Path, out: Path | None = None) -> list[str]:
    images, failed = find_images([str(text) for text in inputs], out)
    assert not failed
    return [str(target) for _, target in images]


def planned(names: Sequence[str], suffix: str | None = ".png", samples: int | None = None) -> list[list[str]]:
    images = [(Path("in", name), PurePosixPath(name)) for name in names]
    jobs = plan_jobs(images, Path("out"), suffix, samples)
    assert [job.input for job in jobs] == [path for path, _ in images]
    return [[path.relative_to("out").as_posix() for path in job.outputs] for job in jobs]


def names(*inputs: str) -> list[str]:
    return [name for (name,) in planned(inputs)]


def go(
    inputs: Sequence[str | Path],
    out: Path,
    *,
    suffix: str | None = ".png",
    translator: Translator | None = None,
    **settings: Any,
) -> list[Outcome]:
    images, failed = find_images([str(text) for text in inputs], out)
    jobs = plan_jobs(images, out, suffix, settings.get("samples"))
    outcomes = [*failed, *translate_images(translator or Copier(), jobs, Settings(Domain.A, **settings))]
    assert len(outcomes) == len(images) + len(failed)
    for outcome in outcomes:
        assert outcome.status != "failed" or (outcome.reason and outcome.reason.isprintable())
        assert outcome.status != "done" or all(path.is_file() for path in outcome.outputs)
    return outcomes


def statuses(outcomes: Sequence[Outcome]) -> dict[str, str]:
    return {Path(outcome.input).name: outcome.status for outcome in outcomes}


def same(path: Path, image: Image.Image) -> bool:
    return np.array_equal(np.asarray(Image.open(path)), np.asarray(image))


# Finding


def test_the_structure_of_a_folder_is_kept(tmp_path: Path) -> None:
    for name in ("b.png", "a/c.JPG", "a/deep/d.webp", ".hidden.png", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert found(tmp_path) == ["a/c.JPG", "a/deep/d.webp", "b.png"]


def test_several_folders_go_below_their_names(tmp_path: Path) -> None:
    put(tmp_path / "one/x.png")
    put(tmp_path / "two/x.png")
    assert found(tmp_path / "one", tmp_path / "two") == ["one/x.png", "two/x.png"]
    assert found(tmp_path / "one", f"{tmp_path}/one/") == ["x.png"]
    assert found(tmp_path / "one", tmp_path / "two/x.png") == ["x.png", "x.png"]


def test_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "one/x.png")
    put(tmp_path / "two/x.png")
    monkeypatch.chdir(tmp_path / "one")
    assert found(".") == ["x.png"]
    assert found(".", "../two") == ["one/x.png", "two/x.png"]
    assert found("x.png", "./x.png", "../one/x.png", tmp_path / "one/x.png", "*.png", ".") == ["x.png"]


def test_a_file_given_twice_is_translated_once(tmp_path: Path) -> None:
    file = put(tmp_path / "sub/x.png")
    assert found(file, file, f"{tmp_path}/./sub//x.png") == ["x.png"]
    assert found(tmp_path, file) == ["sub/x.png"]
    (tmp_path / "y.png").symlink_to(file)  # another name is another image
    assert found(tmp_path) == ["sub/x.png", "y.png"]


def test_patterns(tmp_path: Path) -> None:
    for name in ("x1.png", "x2.png", "sub/x3.png", "sub/deep/x4.png", "sub/y.jpg"):
        put(tmp_path / name)
    assert found(tmp_path / "*.png") == ["x1.png", "x2.png"]
    assert found(tmp_path / "x[2-9].png") == ["x2.png"]
    assert sorted(found(tmp_path / "**/*.png")) == ["x1.png", "x2.png", "x3.png", "x4.png"]
    images, failed = find_images([f"{tmp_path}/*.gif", f"{tmp_path}/**/y.jpg", f"{tmp_path}/s*"])
    assert [path.name for path, _ in images] == ["y.jpg"]
    assert [outcome.status for outcome in failed] == ["failed"] * 2
    assert all("no file matches it as a pattern" in str(outcome.reason) for outcome in failed)


def test_many_wildcards_match_the_same_in_no_time(tmp_path: Path) -> None:
    deep = "/".join("ab" * 12)
    for name in (f"{deep}/x.png", "y.png"):
        put(tmp_path / name)
    assert found(tmp_path / "/".join(["**"] * 30) / "*.png") == ["x.png", "y.png"]
    assert found(tmp_path / "/".join(["**", "a"] * 11) / "**/x.png") == ["x.png"]
    _, failed = find_images([f"{tmp_path}/{'/'.join(['**', 'a'] * 13)}/x.png"])
    assert len(failed) == 1
    _, failed = find_images([f"{tmp_path}/{'/'.join(['**', '*'] * 13)}/nothing.png"])
    assert len(failed) == 1


def test_partial_files_of_killed_programs_are_no_inputs(tmp_path: Path) -> None:
    put(tmp_path / "x.png")
    left = put(tmp_path / "y.png").rename(tmp_path / ".0123456789abcdef-0.partial")
    assert found(tmp_path, f"{tmp_path}/.*", f"{tmp_path}/**", f"{tmp_path}/*", left) == ["x.png"]


def test_a_file_whose_name_is_a_pattern_is_that_file(tmp_path: Path) -> None:
    for name in ("[1].png", "1.png", "x*.png", "xy.png"):
        put(tmp_path / name)
    assert found(tmp_path / "[1].png", tmp_path / "x*.png") == ["[1].png", "x*.png"]


@pytest.mark.parametrize("text", ["", "missing.png", "x" * 300, "*" * 300, "new\nline", "[", "\udcff", "a/../b"])
def test_a_missing_input_is_one_line(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "folder/z.png")
    monkeypatch.chdir(tmp_path)
    images, failed = find_images([text, "folder"])
    assert [str(target) for _, target in images] == ["z.png"]
    assert [outcome.input for outcome in failed] == [text]
    assert str(failed[0].reason).isprintable()


def test_an_empty_folder_is_one_line(tmp_path: Path) -> None:
    _, failed = find_images([str(tmp_path)])
    assert "put images there" in str(failed[0].reason)


def test_earlier_outputs_below_the_input_folder_are_not_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "x.png")
    put(tmp_path / "outside/y.png")
    put(tmp_path / "out/x.png")
    monkeypatch.chdir(tmp_path)
    assert found(".", out=Path("out")) == ["outside/y.png", "x.png"]
    assert found(tmp_path, out=Path("out")) == ["outside/y.png", "x.png"]
    assert found("out", out=Path("out")) == ["x.png"]
    assert found("out", out=Path()) == ["x.png"]
    (tmp_path / "x.png").unlink()
    _, failed = find_images([".", "outside"], Path("outside"))
    assert len(failed) == 0
    (tmp_path / "outside/y.png").unlink()
    _, failed = find_images(["."], Path("out"))
    assert "except earlier outputs in --out" in str(failed[0].reason)


# Naming


def test_outputs_get_distinct_names() -> None:
    assert names("x.png", "y.jpg") == ["x.png", "y.png"]
    assert names("x.png", "x.jpg") == ["x.png", "x.jpg.png"]
    assert names("x.jpg", "x.png") == ["x.jpg.png", "x.png"]
    assert names("x.jpg", "x.webp") == ["x.jpg.png", "x.webp.png"]
    assert names("a/x.jpg", "b/x.webp") == ["a/x.png", "b/x.png"]
    assert names("a/x.jpg", "a/x.png") == ["a/x.jpg.png", "a/x.png"]


def test_names_that_differ_in_case_alone_get_distinct_outputs() -> None:
    assert names("IMG.JPG", "img.png") == ["IMG.JPG.png", "img.png"]
    assert names("x.PNG", "x.jpg") == ["x.png", "x.jpg.png"]
    assert names("X.jpg", "x.jpg") == ["X.jpg.png", "x.jpg-2.png"]
    assert names("X.png", "x.png") == ["X.png", "x.png.png"]
    assert names("e\u0301.jpg", "\u00e9.webp") == ["e\u0301.jpg.png", "\u00e9.webp.png"]


def test_a_name_that_another_image_has_taken() -> None:
    assert names("x.jpg", "x.jpg.png", "x.png") == ["x.jpg-2.png", "x.jpg.png", "x.png"]
    assert names("x", "x.png") == ["x-2.png", "x.png"]


def test_suffixes_and_samples() -> None:
    assert planned(["x.png", "x.JPG"], None) == [["x.png"], ["x.JPG"]]
    assert planned(["x.png", "y.bmp"], ".webp") == [["x.webp"], ["y.webp"]]
    assert planned(["a/x.jpg"], samples=1) == [["a/x-1.png"]]
    assert planned(["x.jpg", "x.png"], samples=2) == [["x.jpg-1.png", "x.jpg-2.png"], ["x.png-1.png", "x.png-2.png"]]
    assert planned(["x.png", "x-1.png"], samples=2) == [["x-1.png", "x-2.png"], ["x-1-1.png", "x-1-2.png"]]


TREES = st.lists(
    st.from_regex(r"([aA]/)?[xX](-[12])?(\.(png|PNG|jpg|webp|jpg\.png))?", fullmatch=True), unique=True, max_size=12
)


@given(TREES, st.sampled_from([".png", ".jpg", None]), st.sampled_from([None, 1, 2]))
def test_no_two_outputs_are_alike_even_where_case_makes_no_difference(
    tree: list[str], suffix: str | None, samples: int | None
) -> None:
    outputs = [name.casefold() for names in planned(tree, suffix, samples) for name in names]
    assert len(outputs) == len(tree) * (samples or 1) == len(set(outputs))


def test_many_similar_names_take_no_time() -> None:
    tree = [f"{n}.{ending}" for n in range(2000) for ending in ("jpg", "png")]
    assert len({name for (name,) in planned(tree)}) == len(tree)


def test_the_same_name_from_two_folders_is_refused() -> None:
    images = [(Path(folder, "x\n.png"), PurePosixPath("x\n.png")) for folder in ("a", "b")]
    with pytest.raises(ConfigError, match="one name") as caught:
        plan_jobs(images, Path("out"), ".png", None)
    assert str(caught.value).isprintable()
    assert r"a/x\n.png" in str(caught.value)
    assert r"b/x\n.png" in str(caught.value)


def test_out_may_be_a_file_for_one_image(tmp_path: Path) -> None:
    one, two = (Path("in/x.jpg"), PurePosixPath("x.jpg")), (Path("in/y.jpg"), PurePosixPath("y.jpg"))
    out = tmp_path / "z.WebP"
    assert plan_jobs([one], out, ".png", None) == [Job(Path("in/x.jpg"), (out,))]
    assert plan_jobs([], out, ".png", None) == []
    for several, samples in (([one, two], None), ([one], 2)):
        with pytest.raises(ConfigError, match="give a folder"):
            plan_jobs(several, out, ".png", samples)
    out.mkdir()
    assert plan_jobs([one], out, ".png", None) == [Job(Path("in/x.jpg"), (out / "x.png",), out)]


def test_out_may_not_be_another_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("out", "loop"):
        with pytest.raises(ConfigError, match="not a folder"):
            plan_jobs([(Path("x.png"), PurePosixPath("x.png"))], tmp_path / name, ".png", None)


# Translating


def test_colours_and_sizes_are_preserved(tmp_path: Path) -> None:
    """Also of an image that has little contrast: nothing is stretched."""
    images = {"full": make_image(31, 17), "dull": make_image(8, 8, low=100, high=110), "dot": make_image(1, 1)}
    for name, image in images.items():
        put(tmp_path / f"in/{name}.png", image)
    outcomes = go([tmp_path / "in"], tmp_path / "out")
    assert {Path(outcome.input).stem: outcome.size for outcome in outcomes} == {n: i.size for n, i in images.items()}
    assert all(same(tmp_path / f"out/{name}.png", image) for name, image in images.items())
    assert below(tmp_path / "out") == ["dot.png", "dull.png", "full.png"]


def test_the_direction_reaches_the_model(tmp_path: Path) -> None:
    translator = Copier()
    jobs = plan_jobs(find_images([str(put(tmp_path / "x.png"))])[0], tmp_path / "out", ".png", None)
    for source in Domain:
        list(translate_images(translator, jobs, Settings(source, overwrite=True)))
    assert translator.calls == [((1, 3, 7, 9), Domain.A, None), ((1, 3, 7, 9), Domain.B, None)]


def test_files_match_a_translation_in_memory(tmp_path: Path) -> None:
    translator = Translator(build_autoencoders(TINY.model), TINY, PerDomain("a", "b"), 0, "cpu", "fp32")
    go([put(tmp_path / "x.png", make_image(65, 63))], tmp_path / "out", translator=translator)
    expected = translator(make_image(65, 63), "a2b")
    assert same(tmp_path / "out/x.png", expected)
    assert not np.array_equal(np.asarray(expected), np.asarray(translator(make_image(65, 63), "b2a")))


def test_every_kind_of_file_is_translated(tmp_path: Path) -> None:
    rgb, folder = make_image(12, 8), tmp_path / "in"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    put(folder / "turned.jpg", rgb, exif=exif)
    put(folder / "gray.png", rgb.convert("L"))
    put(folder / "palette.gif", rgb.convert("P"))
    put(folder / "cmyk.jpg", rgb.convert("CMYK"))
    put(folder / "alpha.webp", rgb.convert("RGBA"))
    put(folder / "deep.png", Image.fromarray(np.linspace(0, 65535, 96).astype(np.uint16).reshape(8, 12)))
    put(folder / "moving.gif", rgb, save_all=True, append_images=[make_image(12, 8, 1)])
    put(folder / "UPPER.TIFF", rgb, exif=exif)
    outcomes = go([folder], tmp_path / "out")
    assert {outcome.status for outcome in outcomes} == {"done"}
    for outcome in outcomes:
        assert is_marked(outcome.outputs[0])
        with Image.open(outcome.outputs[0]) as image:
            assert (image.mode, image.format, image.size) == ("RGB", "PNG", outcome.size)
            assert [*image.getexif()] == [ExifTags.Base.Software]
        before, after = (np.asarray(read_image(Path(file))).astype(int) for file in (outcome.input, outcome.outputs[0]))
        assert np.abs(after - before).max() <= ("deep" in outcome.input)  # Pillow cuts 16 bits of RGB off at 8
    with Image.open(tmp_path / "out/turned.png") as image:
        assert image.size == (8, 12)


def test_a_bad_image_is_reported_by_name_and_the_others_are_done(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    put(folder / "good.png")
    content = put(folder / "cut.png", make_image(50, 50)).read_bytes()
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("text")
    (folder / "folder.jpg").mkdir()
    put(folder / "folder.jpg/inside.png")
    (folder / "broken.png").symlink_to("nowhere")
    (folder / "loop.png").symlink_to("loop.png")
    os.mkfifo(folder / "pipe.png")
    outcomes = go([folder], tmp_path / "out", batch_size=3)
    good = {"good.png": "done", "inside.png": "done"}
    bad = ("cut.png", "empty.jpg", "text.jpg", "broken.png", "loop.png", "pipe.png")
    assert statuses(outcomes) == good | dict.fromkeys(bad, "failed")
    assert all(outcome.input in str(outcome.reason) for outcome in outcomes if outcome.status == "failed")
    assert below(tmp_path / "out") == ["folder.jpg/inside.png", "good.png"]


@pytest.mark.parametrize(
    "name", ["a b.png", "-x.png", "☂🌧.png", "new\nline.png", "'\".png", os.fsdecode(b"\xff.png"), "%s{}.png", "..x.png"]
)
def test_odd_names_work(tmp_path: Path, name: str) -> None:
    file = put(tmp_path / "sub" / name)
    assert statuses(go([file], tmp_path / "out")) == {name: "done"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    assert statuses(go([file], tmp_path / "out")) == {name: "skipped"}


def test_a_name_too_long_for_its_output_fails_alone(tmp_path: Path) -> None:
    fits, grows = "x" * 251 + ".png", "y" * 251 + ".jpg"
    for name in (fits, grows, grows.replace(".jpg", ".png"), "z.png"):
        put(tmp_path / "in" / name)
    outcomes = go([tmp_path / "in"], tmp_path / "out", batch_size=4)
    assert [status for name, status in sorted(statuses(outcomes).items())] == ["done", "failed", "done", "done"]
    assert any("File name too long" in str(outcome.reason) for outcome in outcomes)
    assert statuses(go([tmp_path / "in"], tmp_path / "out"))[grows] == "failed"


# What is there already


def test_existing_outputs_are_left_alone(tmp_path: Path) -> None:
    file, out = put(tmp_path / "in/x.png"), tmp_path / "out"
    put(out / "x.png", make_image(seed=5))
    translator = Copier()
    (skipped,) = go([file], out, translator=translator)
    assert (skipped.status, skipped.outputs, translator.calls) == ("skipped", (out / "x.png",), [])
    assert "--overwrite" in str(skipped.reason)
    assert same(out / "x.png", make_image(seed=5))
    (done,) = go([file], out, overwrite=True)
    assert done.status == "done"
    assert same(out / "x.png", make_image())


@pytest.mark.parametrize("first", ["x.png", "x.jpg"])
def test_an_image_that_came_after_the_output_of_its_name_is_not_passed_over(tmp_path: Path, first: str) -> None:
    second = {"x.png": "x.jpg", "x.jpg": "x.png"}[first]
    out = tmp_path / "out"
    put(tmp_path / "in" / first)
    assert statuses(go([tmp_path / "in"], out)) == {first: "done"}
    before = (out / "x.png").read_bytes()
    time.sleep(0.05)
    put(tmp_path / "in" / second, make_image(seed=1))
    outcomes = go([tmp_path / "in"], out)
    assert statuses(outcomes) == {"x.jpg": "done", "x.png": "skipped" if first == "x.png" else "failed"}
    if first == "x.jpg":
        assert re.search(
            r"x\.png: was written before .*x\.png was there, probably for .*x\.jpg", str(outcomes[1].reason)
        )
    assert (out / "x.png").read_bytes() == before
    assert statuses(go([tmp_path / "in"], out, overwrite=True)) == {"x.jpg": "done", "x.png": "done"}
    assert same(out / "x.png", Image.open(tmp_path / "in/x.png"))
    assert set(statuses(go([tmp_path / "in"], out)).values()) == {"skipped"}


def test_existing_samples_are_left_alone_and_the_missing_ones_made(tmp_path: Path) -> None:
    file, out = put(tmp_path / "in/x.png"), tmp_path / "out"
    put(out / "x-1.png", make_image(seed=5))
    assert statuses(go([file], out, samples=2)) == {"x.png": "done"}
    assert same(out / "x-1.png", make_image(seed=5))
    assert same(out / "x-2.png", make_image())


@pytest.mark.parametrize("overwrite", [False, True])
def test_inputs_are_never_overwritten(tmp_path: Path, overwrite: bool) -> None:
    """Neither where --out is their folder, nor through links."""
    png, jpg = put(tmp_path / "in/x.png"), put(tmp_path / "in/y.jpg")
    before = png.read_bytes(), jpg.read_bytes()
    (tmp_path / "link").symlink_to("in")
    for out in (tmp_path / "in", tmp_path / "link", tmp_path / "not there/../in"):
        outcomes = go([tmp_path / "in"], out, overwrite=overwrite)
        assert statuses(outcomes)["x.png"] == "failed"
        assert "is an input" in str(outcomes[0].reason)
        assert statuses(go([png], out / "x.png", overwrite=overwrite)) == {"x.png": "failed"}
        assert statuses(go([png, jpg], out, suffix=None, overwrite=overwrite)) == dict.fromkeys(
            ("x.png", "y.jpg"), "failed"
        )
        assert (png.read_bytes(), jpg.read_bytes()) == before
    assert "y.png" in below(tmp_path / "in")


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_nor_through_links_to_the_files(tmp_path: Path, link: Any) -> None:
    file = put(tmp_path / "in/x.png")
    other = put(tmp_path / "in/other.png", make_image(seed=3))
    before = file.read_bytes()
    (tmp_path / "out").mkdir()
    link(file, tmp_path / "out/other.png")  # the output of the one is the other
    outcomes = go([file, other], tmp_path / "out", overwrite=True, batch_size=2)
    assert statuses(outcomes) == {"x.png": "done", "other.png": "failed"}
    assert file.read_bytes() == before


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    file = put(tmp_path / "in/x.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "out/x.png").symlink_to(tmp_path / "precious")
    assert statuses(go([file], tmp_path / "out")) == {"x.png": "skipped"}
    assert statuses(go([file], tmp_path / "out", overwrite=True)) == {"x.png": "done"}
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "out/x.png").is_symlink()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_in_place_of_the_output_fails_alone(tmp_path: Path, overwrite: bool) -> None:
    for name in ("x.png", "y.png"):
        put(tmp_path / "in" / name)
    (tmp_path / "out/x.png").mkdir(parents=True)
    outcomes = go([tmp_path / "in"], tmp_path / "out", overwrite=overwrite, batch_size=2)
    assert statuses(outcomes) == {"x.png": "failed", "y.png": "done"}
    assert "is a folder" in str(outcomes[0].reason)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_image_that_cannot_be_written_fails_alone(tmp_path: Path, batch_size: int) -> None:
    for name in ("a/x.png", "b/x.png", "c/x.png", "y.png"):
        put(tmp_path / "in" / name)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b").write_text("a file in the folder's place")
    outcomes = go([tmp_path / "in"], tmp_path / "out", batch_size=batch_size, samples=2)
    assert [outcome.status for outcome in outcomes] == ["done", "failed", "done", "done"]
    assert "out/b/x-" in str(outcomes[1].reason)
    assert below(tmp_path / "out") == ["a/x-1.png", "a/x-2.png", "b", "c/x-1.png", "c/x-2.png", "y-1.png", "y-2.png"]


# Formats


def test_same_keeps_the_suffix(tmp_path: Path) -> None:
    for name in ("x.png", "x.jpg", "X.TIFF", "x.bmp", "x.webp"):
        put(tmp_path / "in" / name)
    put(tmp_path / "in/x.cur.png").rename(tmp_path / "in/x.cur")
    outcomes = go([tmp_path / "in"], tmp_path / "out", suffix=None)
    assert below(tmp_path / "out") == ["X.TIFF", "x.bmp", "x.jpg", "x.png", "x.webp"]
    (bad,) = [outcome for outcome in outcomes if outcome.status == "failed"]
    assert "x.cur: can't write .cur; use .png, .jpg, .webp, .tif or .avif" in str(bad.reason)
    with Image.open(tmp_path / "out/x.webp") as image:
        assert image.format == "WEBP"


def test_quality_changes_the_size(tmp_path: Path) -> None:
    file = put(tmp_path / "x.png", make_image(64, 64))
    for suffix in (".jpg", ".webp"):
        sizes = []
        for quality in (5, None):
            go([file], tmp_path / f"{quality}", suffix=suffix, quality=quality)
            sizes.append((tmp_path / f"{quality}/x{suffix}").stat().st_size)
        assert sizes[0] < sizes[1]


# Sizes, samples, batches


def test_the_network_works_at_the_given_size_and_the_output_has_the_inputs(tmp_path: Path) -> None:
    for width, height in ((40, 20), (20, 41), (7, 9)):
        put(tmp_path / f"in/{width}x{height}.png", Image.new("RGB", (width, height), (10, 120, 240)))
    translator = Copier()
    outcomes = go([tmp_path / "in"], tmp_path / "out", translator=translator, size=16)
    assert sorted(shape for shape, *_ in translator.calls) == [(1, 3, 16, 32), (1, 3, 21, 16), (1, 3, 33, 16)]
    for outcome in outcomes:
        with Image.open(outcome.outputs[0]) as image:
            assert f"{image.width}x{image.height}" == Path(outcome.input).stem
            assert image.size == outcome.size
            assert image.getcolors() == [(image.width * image.height, (10, 120, 240))]


def test_an_image_too_thin_for_the_size_fails_alone(tmp_path: Path) -> None:
    put(tmp_path / "in/thin.png", Image.new("RGB", (60_000, 1)))
    put(tmp_path / "in/x.png")
    outcomes = go([tmp_path / "in"], tmp_path / "out", size=64)
    assert statuses(outcomes) == {"thin.png": "failed", "x.png": "done"}
    assert "thin.png: an image of 60000x1 is too thin" in str(outcomes[0].reason)


def test_each_sample_has_its_own_seed(tmp_path: Path) -> None:
    translator = Translator(build_autoencoders(TINY.model), TINY, PerDomain("a", "b"), 0, "cpu", "fp32")
    file = put(tmp_path / "x.png", make_image(16, 16))
    for folder, seed, samples in (("one", 0, 3), ("again", 0, 3), ("later", 1, 1)):
        go([file], tmp_path / folder, translator=translator, samples=samples, seed=seed)
    assert below(tmp_path / "one") == ["x-1.png", "x-2.png", "x-3.png"]
    first = [(tmp_path / f"one/x-{n}.png").read_bytes() for n in (1, 2, 3)]
    assert len(set(first)) == 3
    assert [(tmp_path / f"again/x-{n}.png").read_bytes() for n in (1, 2, 3)] == first
    assert (tmp_path / "later/x-1.png").read_bytes() == first[1]


def test_the_batch_size_does_not_change_the_outputs(tmp_path: Path) -> None:
    sizes = [(16, 12)] * 4 + [(9, 7), (16, 12), (9, 7), (9, 7)]
    for number, (width, height) in enumerate(sizes):
        put(tmp_path / f"in/{number}.png", make_image(width, height, number))
    (tmp_path / "in/5b.png").write_text("bad")
    translator = Translator(build_autoencoders(TINY.model), TINY, PerDomain("a", "b"), 0, "cpu", "fp32")
    for batch_size in (1, 3):
        outcomes = go([tmp_path / "in"], tmp_path / f"{batch_size}", translator=translator, batch_size=batch_size)
        assert [outcome.status for outcome in outcomes].count("done") == 8
    for number in range(8):
        one, three = (np.asarray(Image.open(tmp_path / f"{n}/{number}.png")).astype(int) for n in (1, 3))
        assert np.abs(one - three).max() <= 1  # sums in another order may round another way
    counter = Copier()
    go([tmp_path / "in"], tmp_path / "out", translator=counter, batch_size=3)
    assert [shape[0] for shape, *_ in counter.calls] == [3, 1, 1, 1, 2]


# Limits


def test_a_batch_too_large_for_the_memory_fails_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "in/large.png", make_image(40, 40))
    put(tmp_path / "in/small.png", make_image(8, 8))

    def require(self: Translator, batch: int, height: int, width: int) -> None:
        if height > 20:
            raise UserError(f"{width}x{height} pixels are too many")

    monkeypatch.setattr(Translator, "require_memory", require)
    outcomes = go([tmp_path / "in"], tmp_path / "out")
    assert statuses(outcomes) == {"large.png": "failed", "small.png": "done"}
    assert str(outcomes[0].reason) == f"{tmp_path}/in/large.png: 40x40 pixels are too many; {image_files.SMALLER}"


def test_what_is_read_ahead_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large the batches may be, an image that takes much of the memory goes through alone."""
    for k in range(9):
        put(tmp_path / f"in/{k}.png", make_image(*((8, 8) if k in (3, 4) else (90, 80)), seed=k))
    reading, writing, events = image_files.read_image_file, image_files.write_image_file, list[str]()

    def read(path: Path, max_pixels: int) -> DecodedImage:
        events.append(f"r{path.stem}")
        return reading(path, max_pixels)

    def write(image: DecodedImage, path: Path, *rest: Any, **options: Any) -> list[str]:
        lost = writing(image, path, *rest, **options)
        events.append(f"w{path.stem}")
        return lost

    monkeypatch.setattr(image_files, "read_image_file", read)
    monkeypatch.setattr(image_files, "write_image_file", write)
    monkeypatch.setattr(image_files, "available_memory", lambda: 3_000_000)
    translator = Copier()
    outcomes = go([tmp_path / "in"], tmp_path / "out", translator=translator, batch_size=32)
    assert [outcome.status for outcome in outcomes] == ["done"] * 9
    large = [event for event in events if event[1] not in "34"]
    assert large == [f"{what}{k}" for k in (0, 1, 2, 5, 6, 7, 8) for what in "rw"]
    assert [shape[0] for shape, *_ in translator.calls] == [1, 1, 1, 2, 1, 1, 1, 1]


def test_an_image_too_large_to_be_read_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "in/large.png", Image.new("RGB", (4000, 3000)))
    put(tmp_path / "in/small.png")
    monkeypatch.setattr("unit.images.reading.available_memory", lambda: 140_000_000)
    outcomes = go([tmp_path / "in"], tmp_path / "out", size=16, batch_size=2)
    assert statuses(outcomes) == {"large.png": "failed", "small.png": "done"}
    assert str(outcomes[0].reason) == (
        f"{tmp_path}/in/large.png: 4000x3000 pixels take 144 MB of memory, but 140 MB are free; make it smaller"
    )


@pytest.mark.parametrize("stage", ["resize_short_side", "to_tensor", "to_image"])
def test_running_out_of_memory_at_any_stage_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    for name in ("a", "b"):
        put(tmp_path / f"in/{name}.png", make_image())
    calls, good = [], getattr(frames, stage)

    def fail_once(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return good(*args)

    monkeypatch.setattr(frames, stage, fail_once)
    monkeypatch.setattr(image_files, "_THREADS", 1)
    outcomes = go([tmp_path / "in"], tmp_path / "out", size=16)
    assert [outcome.status for outcome in outcomes] == ["failed", "done"]
    assert "in/a.png: out of memory" in str(outcomes[0].reason)


def test_nan_from_the_model_fails_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(
        self: Copier, images: Tensor, source: Domain, seed: int | None = None, *, strength: float = 1.0
    ) -> Tensor:
        return torch.where(images[:, :, :1, :1] > 0.9, torch.nan, images)

    monkeypatch.setattr(Copier, "translate", broken)
    put(tmp_path / "in/bad.png", Image.new("RGB", (5, 5), "white"))
    put(tmp_path / "in/good.png", Image.new("RGB", (5, 5), "black"))
    outcomes = go([tmp_path / "in"], tmp_path / "out", batch_size=2)
    assert statuses(outcomes) == {"bad.png": "failed", "good.png": "done"}
    assert "bad.png: the model's output contains NaN or Inf" in str(outcomes[0].reason)


def test_a_size_beyond_the_models_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    twice = 2 * TINY.data.load_size
    for name, size in {"a": (90, twice), "b\n": (90, twice + 1), "c": (99, 99)}.items():
        put(tmp_path / f"in/{name}.png", make_image(*size))
    go([tmp_path / "in"], tmp_path / "out")
    (line,) = [record.getMessage() for record in caplog.records]
    assert rf"in/b\n.png: 90x{twice + 1}" in line
    assert f"trained at a short side of {TINY.data.load_size}" in line
    caplog.clear()
    go([tmp_path / "in"], tmp_path / "other", size=99)
    go([tmp_path / "in/a.png"], tmp_path / "another")
    assert not caplog.records


def test_outcomes_are_yielded_early_and_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(image_files, "read_image_file", lambda path, _: read.append(path) or decoded())
    jobs = [Job(tmp_path / f"{k}.png", (tmp_path / f"out/{k}.png",)) for k in range(100)]
    translator = Copier()
    outcomes = translate_images(translator, jobs, Settings(Domain.A))
    assert next(outcomes).input == str(jobs[0].input)
    assert len(translator.calls) <= 2 * image_files._THREADS + 1
    assert len(read) <= 3 * image_files._THREADS + 3
    outcomes.close()
    assert below(tmp_path / "out") == sorted(f"{k}.png" for k in range(len(translator.calls)))  # complete files only


def test_images_are_read_and_written_while_the_network_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the network asks for the next but one to be read already, and no file is written before it goes on."""
    count = 6
    begun = {what: [threading.Event() for _ in range(count)] for what in ("reading", "network")}

    def reading(path: Path, max_pixels: int) -> DecodedImage:
        begun["reading"][int(path.stem)].set()
        return decoded()

    def writing(image: DecodedImage, path: Path, quality: int | None, **options: Any) -> list[str]:
        assert begun["network"][min(int(path.stem) + 1, count - 1)].wait(10)
        put(path)
        return []

    class Waiting(Copier):
        def translate(
            self, images: Tensor, source: Domain, seed: int | None = None, *, strength: float = 1.0
        ) -> Tensor:
            k = len(self.calls)
            begun["network"][k].set()
            assert begun["reading"][min(k + 2, count - 1)].wait(10)
            return super().translate(images, source, seed)

    monkeypatch.setattr(image_files, "read_image_file", reading)
    monkeypatch.setattr(image_files, "write_image_file", writing)
    monkeypatch.setattr(image_files, "_THREADS", 4)
    jobs = [Job(Path(f"{k}.png"), (tmp_path / f"{k}.png",)) for k in range(count)]
    outcomes = translate_images(Waiting(), jobs, Settings(Domain.A))
    assert [outcome.status for outcome in outcomes] == ["done"] * count


def test_an_image_is_done_when_all_its_samples_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def writing(image: DecodedImage, path: Path, quality: int | None, **options: Any) -> list[str]:
        time.sleep(0.05 * path.stem.endswith("-3"))
        if path.name == "bad-1.png":
            raise UserError("no room for bad-1.png")
        put(path)
        return []

    monkeypatch.setattr(image_files, "write_image_file", writing)
    jobs = [Job(put(tmp_path / f"{n}.png"), tuple(tmp_path / f"{n}-{k}.png" for k in (1, 2, 3))) for n in ("bad", "ok")]
    bad, ok = [
        (outcome, [path.exists() for path in job.outputs])
        for job, outcome in zip(
            jobs, translate_images(Copier(), jobs, Settings(Domain.A, samples=3, batch_size=2)), strict=True
        )
    ]
    assert (bad[0].status, bad[0].reason, bad[1]) == ("failed", "no room for bad-1.png", [False, True, True])
    assert (ok[0].status, ok[1]) == ("done", [True] * 3)


def test_outcomes_are_in_order_however_long_each_image_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(function: Any) -> Any:
        def work(*arguments: Any, **options: Any) -> Any:
            time.sleep(next(delays))
            return function(*arguments, **options)

        delays = iter([0.2, 0, 0, 0.1] + [0] * 99)
        return work

    for name in ("read_image_file", "write_image_file"):
        monkeypatch.setattr(image_files, name, slowly(getattr(image_files, name)))
    for k in range(9):
        put(tmp_path / f"in/{k}.png", make_image(seed=k))
    (tmp_path / "in/4.png").write_text("bad")
    for batch_size in (1, 3):
        outcomes = go([tmp_path / "in"], tmp_path / f"{batch_size}", batch_size=batch_size, samples=2)
        done = [outcome for outcome in outcomes if outcome.status == "done"]
        assert [Path(outcome.input).name for outcome in done] == [f"{k}.png" for k in range(9) if k != 4]
        for outcome in done:
            assert all(same(path, Image.open(outcome.input)) for path in outcome.outputs)


def test_two_images_are_not_written_to_one_file_through_a_link(tmp_path: Path) -> None:
    one, two = put(tmp_path / "in/a/x.png", make_image(seed=1)), put(tmp_path / "in/b/x.png", make_image(seed=2))
    (tmp_path / "out/a").mkdir(parents=True)
    (tmp_path / "out/b").symlink_to("a")
    for _ in range(2):
        outcomes = {o.input: o for o in go([tmp_path / "in"], tmp_path / "out", overwrite=True)}
        assert [outcomes[str(path)].status for path in (one, two)] == ["done", "failed"]
        assert "another image's output" in str(outcomes[str(two)].reason)
        assert same(tmp_path / "out/a/x.png", make_image(seed=1))


def test_samples_that_could_not_be_told_from_inputs_fail_by_name(tmp_path: Path) -> None:
    """The format holds no mark, so that the next run would take them for inputs."""
    for name in ("x.bmp", "y.png"):
        put(tmp_path / "in" / name)
    for _ in range(2):
        outcomes = go([tmp_path / "in"], tmp_path / "in", suffix=None, samples=1)
        assert statuses(outcomes)["x.bmp"] == "failed"
        assert "x-1.bmp could not be told from an input" in str(outcomes[0].reason)
        assert below(tmp_path / "in") == ["x.bmp", "y-1.png", "y.png"]
    assert statuses(go([tmp_path / "in"], tmp_path / "out", suffix=None)) == {
        "x.bmp": "done",
        "y-1.png": "done",
        "y.png": "done",
    }
