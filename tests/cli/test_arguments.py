"""What a command line may name as its output: no file of another kind, no input, no folder that looks like a file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from unit.cli.arguments import output_file, output_folder, path, refuse_input
from unit.errors import ConfigError


def test_a_home_directory_that_no_shell_expands(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in --out=~/x."""
    monkeypatch.setenv("HOME", "/home/me")
    assert path("~/x") == Path("/home/me/x")
    assert path("a~/x") == Path("a~/x")
    assert output_folder("~/x") == Path("/home/me/x")
    assert output_file(".png")("~/x.png") == Path("/home/me/x.png")
    assert path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


@pytest.mark.parametrize("name", ["x.mp4", "x.PNG", "x.heic", "model.safetensors", "x.onnx", "report.html", "x.tar"])
def test_what_looks_like_a_file_is_a_folder_only_if_it_is_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="looks like a file; give a folder"):
        output_folder(str(tmp_path / name))
    (tmp_path / name).mkdir()
    assert output_folder(str(tmp_path / name)) == tmp_path / name


@pytest.mark.parametrize("name", ["runs", "exp1.5", "sunny.rainy", "v1.2-final", ".hidden", "x" * 5000])
def test_other_names_are_folders(name: str) -> None:
    assert output_folder(name) == Path(name)


@pytest.mark.parametrize("name", ["x", "x.png", "x.safetensors", "x" * 5000, ".onnx", "folder.onnx"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.onnx").mkdir()
    with pytest.raises(argparse.ArgumentTypeError, match=r"must be a \.onnx file, is "):
        output_file(".onnx")(name)
    assert output_file(".onnx")("rainy.ONNX") == Path("rainy.ONNX")


def test_an_input_is_no_output_however_its_path_is_written(tmp_path: Path) -> None:
    image, copy = tmp_path / "x.png", tmp_path / "copy.png"
    image.write_text("x")
    copy.write_text("x")
    (tmp_path / "link.png").symlink_to(image)
    os.link(image, tmp_path / "hard.png")
    for out in (image, tmp_path / "link.png", tmp_path / "hard.png"):
        with pytest.raises(ConfigError, match="is an input; give another"):
            refuse_input(out, [tmp_path / "missing.png", str(image)])
    refuse_input(copy, [image])
    refuse_input(tmp_path / "new.png", [image])
    refuse_input(Path("x" * 5000), [image])
