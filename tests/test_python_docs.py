"""The ```python blocks of docs/python.md run in order as one program, and print what the comments behind them say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import unit
from tests.tiny import TINY
from tests.translation.test_hub import cached_model
from unit.domains import PerDomain
from unit.model.networks import build_autoencoders
from unit.streets.source import write_streets
from unit.translation.translator import MODEL_FILE, Translator

ROOT = Path(unit.__file__).parents[1]
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
PROGRAM = "\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
PRINTED = re.findall(r"^ *print\(.*\)  # (.+)$", PROGRAM, re.MULTILINE)


def test_what_the_page_prints_is_said_there() -> None:
    assert len(PRINTED) == PROGRAM.count("print(") >= 5
    assert PAGE.count("```python") >= 7
    for method in ("load", "from_pretrained", "sample", "reconstruct", "encode", "decode"):
        assert f".{method}(" in PROGRAM


@pytest.mark.slow
def test_the_examples_run(tmp_path: Path) -> None:
    write_streets(tmp_path / "streets", size=64, train=0, test=2, seed=0)
    (tmp_path / "streets" / "testA").rename(tmp_path / "photos")
    model = replace(TINY.model, downsamples=2)
    translator = Translator(
        build_autoencoders(model), replace(TINY, model=model), PerDomain("sunny", "rainy"), 7, "cpu"
    )
    translator.save(tmp_path / "runs" / "sunny-rainy" / MODEL_FILE)
    cached_model(tmp_path / "hub", "someone/sunny-rainy")
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    environment |= {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == PRINTED
    assert (tmp_path / "rainy.png").is_file()
