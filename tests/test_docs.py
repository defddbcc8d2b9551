"""Every command in docs/translating.md works as it stands there.

A section's ```sh blocks run in order, in a folder of its own that holds what the page says: runs/sunny-rainy, photos/
and so on. A block marked ```sh interrupt runs until it has said something, and is then ended by Ctrl-C.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import unit
from tests.tiny import TINY
from unit.streets.source import write_streets
from unit.training.loop import train

ROOT = Path(unit.__file__).parents[1]
PAGE = ROOT / "docs" / "translating.md"
BLOCK = re.compile(r"^```sh( interrupt)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTIONS = {
    section.partition("\n")[0]: BLOCK.findall(section) for section in re.split(r"^## ", PAGE.read_text(), flags=re.M)
}
MODEL_STEPS = 2


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    train(replace(TINY, train=replace(TINY.train, steps=MODEL_STEPS)), folder / "runs" / "sunny-rainy")
    write_streets(folder / "streets", size=64, train=0, test=3, seed=0)
    shutil.move(folder / "streets" / "testA", folder / "photos")
    shutil.rmtree(folder / "streets")
    command = folder / "bin" / "unit"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m unit "$@"\n')
    command.chmod(0o755)
    return folder


def test_the_page_has_commands() -> None:
    assert sum(map(len, SECTIONS.values())) >= 3


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the commands are for a POSIX shell")
@pytest.mark.parametrize("section", [title for title, blocks in SECTIONS.items() if blocks])
def test_the_commands_work(section: str, prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(prepared, folder)
    environment = os.environ | {
        "PATH": f"{folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    for interrupt, commands in SECTIONS[section]:
        process = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        said = ""
        if interrupt:
            assert process.stdout is not None
            said = process.stdout.readline()
            os.killpg(process.pid, signal.SIGINT)
        said += process.communicate(timeout=300)[0]
        assert process.returncode in ((0, 130) if interrupt else (0,)), f"{commands}\n{said}"
