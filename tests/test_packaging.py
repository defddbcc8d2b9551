"""The package as a user installs it: `pip install .`, then `unit` from any folder."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import unit
from unit.config_file import PRESETS

ROOT = Path(unit.__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # A copy: setuptools leaves build/ and *.egg-info beside what it builds.
    listing = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True)
    for name in filter(None, listing.stdout.decode().split("\0")):
        if name.startswith(("unit/", "configs/")) or "/" not in name:
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, folder / "source"],
        check=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_has_every_module_and_preset_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = (path for path in (ROOT / "unit").rglob("*") if path.is_file() and path.suffix != ".pyc")
    expected = {path.relative_to(ROOT).as_posix() for path in files if "presets" not in path.parts}
    assert names == expected | {f"unit/presets/{preset.name}" for preset in PRESETS.glob("*.yaml")}


@pytest.mark.slow
def test_the_installed_command_trains_and_translates_elsewhere(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run([scripts / "python", "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    # The dependencies, gigabytes of them, are those of the interpreter that runs the tests.
    paths = {"base": str(environment), "platbase": str(environment)}
    (Path(sysconfig.get_path("purelib", "venv", paths)) / "tests.pth").write_text(sysconfig.get_path("purelib"))
    work = tmp_path / "elsewhere"
    work.mkdir()

    def run(*arguments: str) -> str:
        variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [scripts / "unit", *arguments]
        done = subprocess.run(command, cwd=work, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    small = ["--data.streets_train", "4", "--data.streets_test", "2", "--model.channels", "4", "--train.device", "cpu"]
    assert "the preset streets" in run("train", "--train.steps", "2", *small, "--model.discriminator_channels", "4")
    Image.new("RGB", (20, 12), "olive").save(work / "photo.png")
    run("translate", "runs/streets", "--direction", "sunny2rainy", "photo.png", "--out", "rainy")
    with Image.open(work / "rainy" / "photo.png") as translation:
        assert translation.size == (20, 12)
    assert "unit/presets" in run("train", "--help")
