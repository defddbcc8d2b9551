"""A run depends on its images, wherever the command is given, and says when they or the program changed."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.tiny import tiny
from tests.training.test_loop import folders
from unit.__main__ import main
from unit.config import Config
from unit.config_file import read_config
from unit.errors import ConfigError, DataError
from unit.evaluation.report.run import Run
from unit.evaluation.run_images import open_run_datasets
from unit.training.loop import train
from unit.translation.translator import Translator

RUN = Path("runs/run")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the folders sunny and rainy."""
    (tmp_path / "project").mkdir()
    folders(tmp_path / "project", count=4)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def config(steps: int = 1, folder: str = "", **keys: object) -> Config:
    data = {"a": f"{folder}sunny", "b": f"{folder}rainy"} | keys
    return tiny(data=data, train={"steps": steps, "validate_every": 1, "sample_every": 100, "batch_size": 1})


def other_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to another working directory with folders of the same names, whose images have other sizes."""
    folder.mkdir()
    a, b = folders(folder, count=4)
    Path(a).rename(folder / "x")
    Path(b).rename(a)
    (folder / "x").rename(b)
    for file in folder.rglob("*.jpg"):
        file.write_bytes(file.read_bytes() + b"\0")
    monkeypatch.chdir(folder)


def test_folders_are_stored_absolute_and_stay_the_same_anywhere(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = project / RUN
    train(config(), RUN)
    assert read_config(run / "config.yaml").data.a == str(project / "sunny")
    other_images(tmp_path / "other", monkeypatch)
    assert train(config(2, folder=f"{project}/"), run).step == 2  # the same folders, written otherwise
    (tmp_path / "link").symlink_to(project)
    assert train(config(3, folder=f"{tmp_path}/link/"), run).step == 3  # and through a link
    with pytest.raises(ConfigError, match=r"data\.a: .*/link/sunny before, .*/other/sunny now"):
        train(config(4), run)
    for model in (run, run / "model.safetensors"):
        folder = model if model.is_dir() else model.parent
        assert open_run_datasets(folder, Translator.load(model).config).test.images.a.folder == tmp_path / "link/sunny"
    assert Run(run).datasets.test.images.a.folder == tmp_path / "link/sunny"


def test_a_model_tells_no_folder_and_its_run_knows_its_images(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(config(licence="CC-BY-4.0"), RUN)
    content = (RUN / "model.safetensors").read_bytes()
    assert os.fsencode(tmp_path) not in content
    data = Translator.load(RUN).config.data
    assert (data.a, data.b, data.licence, data.synthetic) == ("sunny", "rainy", "CC-BY-4.0", False)
    for model in (RUN, RUN / "model.safetensors"):
        assert main(["evaluate", str(model), "--json", "--device", "cpu"]) == 0
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(content)
    capsys.readouterr()
    assert main(["evaluate", str(alone), "--device", "cpu"]) == 2  # though folders of these names are here
    assert "give folders" in capsys.readouterr().err
    with_folders = ["--a", "sunny", "--b", "rainy", "--json", "--device", "cpu"]
    assert main(["evaluate", str(alone), *with_folders]) == 0


def test_a_model_of_the_version_before_still_finds_its_images(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("unit.translation.model_file.without_folders", lambda config, names: config)
    train(config(), RUN)
    shutil.copy(RUN / "model.safetensors", tmp_path)
    model = Translator.load(tmp_path / "model.safetensors")
    assert model.config.data.a == str(project / "sunny")
    assert open_run_datasets(tmp_path, model.config).test.images.a.folder == project / "sunny"


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_moves_together_with_its_images(
    project: Path, tmp_path: Path, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(config(), RUN)
    for name in ("copy", "again"):
        shutil.copytree(Path.cwd(), tmp_path / name)  # with other times
        shutil.rmtree(Path.cwd())
        monkeypatch.chdir(tmp_path / name)
        if killed:  # a part that wrote no checkpoint
            environment = json.loads((RUN / "environment.json").read_text())
            environment["earlier_parts"].append({"run": environment["run"]})
            environment["run"] = str(Path.cwd() / RUN)
            (RUN / "environment.json").write_text(json.dumps(environment))
        assert open_run_datasets(RUN, Translator.load(RUN).config).test.images.a.folder == Path.cwd() / "sunny"
        assert main(["evaluate", str(RUN), "--json", "--device", "cpu"]) == 0
    assert train(config(2), RUN).step == 2
    assert train(read_config(RUN / "config.yaml"), RUN).step == 2


def test_a_moved_run_takes_no_other_images(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(config(), RUN)
    other_images(tmp_path / "other", monkeypatch)
    shutil.move(project / "runs", "runs")
    shutil.rmtree(project)
    with pytest.raises(DataError, match="was moved, and"):
        open_run_datasets(RUN, Translator.load(RUN).config)
    with pytest.raises(DataError, match=r"was moved, and it is not known .* \(sizes of the training a images changed"):
        train(config(2), RUN)


def test_images_that_are_copied_are_a_notice(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(config(), RUN)
    os.utime("sunny/0.jpg", (1, 1))
    assert train(config(2), RUN).step == 2
    assert "times of the images changed, not their names and sizes" in caplog.text
    assert "bit for bit" not in caplog.text


@pytest.mark.parametrize("verified", [(True, True), (False, True), (True, False)])
def test_contents_are_compared_where_both_parts_verify(project: Path, verified: tuple[bool, bool]) -> None:
    for content in (b"\0", b"\1"):
        for name in ("0.jpg", "1.jpg", "2.jpg", "3.jpg"):
            shutil.copy(f"rainy/{name}", "sunny")
            with Path("sunny", name).open("ab") as file:
                file.write(content)  # after the end of the image
            os.utime(f"sunny/{name}", (1, 1))
        if content == b"\0":
            train(config(verify=verified[0]), RUN)
    if all(verified):
        with pytest.raises(
            DataError, match=r"contents of the training a images changed; contents of the test a images"
        ):
            train(config(2, verify=True), RUN)
    else:
        assert train(config(2, verify=verified[1]), RUN).step == 2


def test_verified_images_may_lie_anywhere(project: Path, tmp_path: Path) -> None:
    train(config(verify=True), RUN)
    shutil.copytree("sunny", tmp_path / "disk" / "sunny")
    shutil.copytree("rainy", tmp_path / "disk" / "rainy")
    moved = f"{tmp_path}/disk/"
    with pytest.raises(ConfigError, match=r"data\.a: "):
        train(config(2, folder=moved), RUN)
    assert train(config(2, folder=moved, verify=True), RUN).step == 2
    with pytest.raises(ConfigError, match=r"data\.flip: "):
        train(config(3, folder=moved, verify=True, flip=False), RUN)


def test_changed_test_images_start_the_best_model_afresh(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("testA", "testB"):
        shutil.copytree("sunny", name)
    tests = {"test_a": "testA", "test_b": "testB"}
    train(config(2, **tests), RUN)
    lines = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line |= {tag: 0.0 for tag in line if tag.startswith("val/kid_")}  # better than any
    (RUN / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    best = train(config(3, **tests), RUN).best
    assert best is not None
    assert best[0] <= 2
    shutil.copy("testA/0.jpg", "testA/new.jpg")
    for steps in (4, 5):  # and it is remembered
        best = train(config(steps, **tests), RUN).best
        assert best is not None
        assert best[0] > 3
    assert caplog.text.count("of the test a images changed; metrics before and after do not compare") == 1
    assert "bit for bit" not in caplog.text


def test_other_versions_are_said_and_every_part_is_kept(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    train(config(), RUN)
    monkeypatch.setattr("PIL.__version__", "99.0")
    monkeypatch.setattr("numpy.__version__", "98.0")
    train(config(2), RUN)
    (line,) = [line for line in caplog.messages if "since the last part" in line]
    assert "pillow was " in line
    assert line.endswith("is 98.0; the result is no longer bit for bit that of an uninterrupted run")
    train(config(2), RUN)
    environment = json.loads((RUN / "environment.json").read_text())
    assert [part["pillow"] == "99.0" for part in (*environment["earlier_parts"], environment)] == [False, True, True]
    assert [part["step"] for part in (*environment["earlier_parts"], environment)] == [0, 1, 2]
    assert {"python", "torch", "torchvision", "numpy", "cpu_capability"} <= environment["earlier_parts"][0].keys()
