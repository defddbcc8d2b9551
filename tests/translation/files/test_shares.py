"""Several processes translate a list together: each image once, and a failure in one does not stop another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny import TINY
from unit.__main__ import main
from unit.domains import PerDomain
from unit.model.networks import build_autoencoders
from unit.translation.files.shares import ALL, Share
from unit.translation.translator import MODEL_FILE, Translator

COUNT = 5


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A command for five images, of which the second is damaged."""
    networks = build_autoencoders(TINY.model)
    Translator(networks, TINY, PerDomain("a", "b"), 0, "cpu", "fp32").save(tmp_path / "run" / MODEL_FILE)
    (tmp_path / "in").mkdir()
    for k in range(COUNT):
        Image.fromarray(np.full((8, 9, 3), 40 * k, np.uint8)).save(tmp_path / f"in/{k}.png")
    (tmp_path / "in/1.png").write_bytes(b"damaged")
    paths = [str(tmp_path / name) for name in ("run", "in", "out")]
    return [paths[0], paths[1], "--direction", "a2b", "--out", paths[2], "--device", "cpu", "--precision", "fp32"]


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.stem: Image.open(path).tobytes() for path in (folder / "out").glob("*.png")}


def test_each_process_writes_its_share(tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, status, names in (("1", 1, {"3"}), ("0", 0, {"0", "2", "3", "4"})):
        monkeypatch.setenv("RANK", rank)
        assert main(["translate", *words]) == status
        assert outputs(tmp_path).keys() == names


@pytest.mark.parametrize("environment", [{}, {"RANK": "1"}, {"RANK": "2", "WORLD_SIZE": "2"}, {"WORLD_SIZE": "x"}])
def test_without_torchrun_a_process_does_all(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Share.of_process() == ALL


def test_each_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    share = Share(rank=9, count=16, local_rank=1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert [share.device(name) for name in ("auto", "cuda", "cuda:3", "cpu")] == ["cuda:1", "cuda:1", "cuda:3", "cpu"]
    assert ALL.device("auto") == "auto"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert share.device("auto") == "auto"


@pytest.mark.slow
def test_torchrun(tmp_path: Path, words: list[str]) -> None:
    """The process with the damaged image has less to do, and waits for the other."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    root = Path(__file__).parents[3]
    command = [*torchrun, str(root / "translate.py"), *words]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert outputs(tmp_path).keys() == {"0", "2", "3", "4"}
    assert "out (process 1 of 2): 3 translated, 0 already there, 0 failed" in result.stderr
    assert "out (process 2 of 2): 1 translated, 0 already there, 1 failed" in result.stderr
