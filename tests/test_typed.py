"""Programs that use `Translator` are type-checked with the kinds that go in and come out."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import unit

PROGRAM = """
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unit import Translator

translator = Translator.load("runs/streets")
assert_type(translator, Translator)
assert_type(Translator.from_pretrained("user/model", revision="v1"), Translator)


def check(image: Image.Image, array: NDArray[Any], tensor: Tensor) -> None:
    assert_type(translator(image, "a2b"), Image.Image)
    assert_type(translator(array, "a2b", strength=0.5), NDArray[Any])
    assert_type(translator(tensor, "a2b"), Tensor)
    assert_type(translator([image, image], "a2b"), list[Image.Image])
    assert_type(translator((tensor, tensor), "a2b"), list[Tensor])
    assert_type(translator.reconstruct(image, "a"), Image.Image)
    assert_type(translator.reconstruct([array], "a"), list[NDArray[Any]])
    assert_type(translator.sample(image, "a2b", 3, seed=7), list[Image.Image])
    assert_type(translator.sample([tensor], "a2b", 3), list[list[Tensor]])
    assert_type(translator.encode(image, "a"), Tensor)
    assert_type(translator.encode([image, array], "a"), list[Tensor])
    assert_type(translator.decode(tensor, "b", size=(9, 7)), Tensor)


translator("photo.jpg", "a2b")  # wrong
translator(np.zeros((9, 7)), 3)  # wrong
translator.sample(np.zeros((9, 7)), "a2b")  # wrong
translator.decode(np.zeros((9, 7)), "a")  # wrong
"""


def test_the_package_says_that_it_is_typed() -> None:
    package = Path(unit.__file__).parent
    assert (package / "py.typed").is_file()
    project = tomllib.loads((package.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["unit"]


@pytest.mark.slow
def test_the_kinds_that_come_out_are_known_and_mistakes_are_found(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--show-absolute-path", str(program)]
    root = Path(unit.__file__).parents[1]  # with its configuration and cache: torch alone takes minutes
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    wrong = {number for number, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# wrong")}
    errors = re.findall(rf"^{re.escape(str(program))}:(\d+): error:", done.stdout, re.MULTILINE)
    assert set(map(int, errors)) == wrong, done.stdout + done.stderr
