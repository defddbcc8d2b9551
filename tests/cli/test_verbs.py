"""The command line as a user sees it: exit statuses, one line per error, results on standard output."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.tiny import TINY
from unit.__main__ import VERBS, main
from unit.cli.train import choose_preset, summary
from unit.config import Config, DataConfig, TrainConfig
from unit.config_file import PRESETS, read_config, write_config
from unit.domains import PerDomain
from unit.errors import ConfigError
from unit.evaluation.metric_table import NAMES, PAIRED
from unit.evaluation.st_lpips import load_st_lpips
from unit.images import read_image
from unit.model.networks import build_autoencoders
from unit.streets import NIGHT, Streets
from unit.training.loop import TrainResult
from unit.translation.translator import Translator


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    networks = build_autoencoders(TINY.model).requires_grad_(False).eval()
    Translator(networks, TINY, PerDomain("sunny", "rainy"), 7, "cpu", "fp32").save(path)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("program", [["train.py"], ["translate.py"], *(["-m", "unit", verb] for verb in VERBS)])
def test_every_command_has_a_help(program: list[str]) -> None:
    done = subprocess.run([sys.executable, *program, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: ")
    assert "example" in done.stdout


def test_help_and_mistakes_do_not_wait_for_torch(model: Path, tmp_path: Path) -> None:
    for folder in ("a", "b", "empty"):
        (tmp_path / folder).mkdir()
    for name in ("a/1.png", "b/2.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    two = ["--data.a", "a", "--data.b", "b"]
    mistakes = [
        *([verb, flag] for verb in VERBS for flag in ("--help", "--nosuch")),
        ["train", *two, "--train.device", "cpu", "--help"],
        ["train", "--data.a", "a", "--data.b", "nowhere"],
        ["train", "--data.a", "a", "--data.b", "empty"],
        ["train", "--data.a", "a", "--data.b", "a"],
        ["train", "--data.root", "nowhere"],
        ["train", "--data.a", "a", "--data.b", "shards-{0..3}.tar"],
        ["train", *two, "--data.test_a", "nowhere", "--data.test_b", "b", "--train.device", "cpu"],
        ["train", *two, "--config", str(PRESETS / "paper.yaml"), "--data.test_a", "nowhere", "--data.test_b", "b"],
        ["train", *two, "--train.stepz", "1"],
        ["adapt", "--source", "usps", "--target", "mnist", "--root", "nowhere"],
        ["adapt", "--source", "usps", "--target", "usps", "--root", "a"],
        ["check", "--a", "a", "--b", "nowhere"],
        ["check", "--config", "nowhere.yaml"],
        ["translate", "nowhere", "--direction", "a2b", "a", "--out", "x"],
        ["translate", str(model), "--direction", "suny2rainy", "a", "--out", "x"],
        ["translate", str(model), "--direction", "a2b", "nowhere", "--out", "x"],
        ["translate", str(model), "--direction", "a2b", "a", "b", "--out", "x.png"],
        ["interpolate", str(model), "a/1.png", "nowhere", "--domain", "a", "--out", "x.gif"],
        ["interpolate", str(model), "a/1.png", "b/2.png", "--domain", "snowy", "--out", "x.gif"],
        ["interpolate", str(model), "a/1.png", "b/2.png", "--domain", "a", "--out", "a/1.png"],
        ["evaluate", "nowhere"],
        ["evaluate", str(model), "--a", "a"],
        ["evaluate", str(model), "--a", "a", "--b", "nowhere"],
        ["report", "nowhere"],
        ["importance", "nowhere"],
        ["importance", str(model)],
        ["serve", "nowhere"],
        ["serve", str(model), "--port", "70000"],
        ["shards", "nowhere", "x"],
        ["streets", "a/1.png"],
    ]
    code = """import json, sys
from unit.__main__ import main
for arguments in json.loads(sys.argv[1]):
    try:
        status = main(arguments)
    except SystemExit as exit:
        status = exit.code
    assert bool(status) == ("--help" not in arguments), arguments
    assert "torch" not in sys.modules, arguments
"""
    environment = os.environ | {"PYTHONPATH": str(PRESETS.parent)}
    command = [sys.executable, "-c", code, json.dumps(mistakes)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are always Unicode there")
@pytest.mark.parametrize("program", [["train.py"], ["-m", "unit", "train"]])
def test_the_locale_does_not_change_what_folders_are_called(program: list[str], tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("日", "本")]
    for folder in folders:
        folder.mkdir()
        Image.new("RGB", (8, 8)).save(folder / "1.png")
    command = [sys.executable, *program, "--data.a", folders[0], "--data.b", folders[1], "--print_config"]
    ascii_locale = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(command, check=False, capture_output=True, env=ascii_locale)
    assert done.returncode == 0, done.stderr.decode()  # read as ASCII, neither folder has a name
    assert f"a: {folders[0]}\n" in done.stdout.decode()


def test_the_verbs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert all(verb in out for verb in VERBS)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["paint"], 2, "no such verb"),
        (["train", "--train.step", "3"], 2, "train.steps"),
        (["train", "--data.a", "/nowhere/sunny", "--data.b", "/nowhere/rainy"], 3, "/nowhere"),
        (["train", "--data.a", "/nowhere/sunny"], 2, "data.b"),
        (["train", "--config", "/nowhere.yaml"], 2, "/nowhere.yaml"),
        (["train", "--train.device", "cuda:99"], 2, "cuda:99"),
        (["streets"], 2, "OUT"),
        (["streets", "x", "--size", "four"], 2, "--size"),
        (["evaluate", "/nowhere"], 2, "/nowhere"),
        (["evaluate", "/nowhere", "--sise"], 2, "--sise"),
        (["evaluate", "/nowhere", "--features", "vgg"], 2, "--features"),
    ],
)
def test_an_error_is_one_line_with_its_exit_status(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, words: str
) -> None:
    given, out, err = run(capsys, *arguments)
    assert given == status
    assert out == ""
    (line,) = [line for line in err.splitlines() if not line.startswith(("no folders", "two folders"))]
    assert words in line


def test_streets_are_written_as_a_root_that_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "streets"
    status, printed, _ = run(capsys, "streets", out, "--size", 16, "--train", 3, "--test", 2)
    assert (status, printed) == (0, f"{out}\n")
    counts = {folder.name: len(list(folder.iterdir())) for folder in out.iterdir()}
    assert counts == {"trainA": 3, "trainB": 3, "testA": 2, "testB": 2}
    assert read_image(out / "testA" / "scene-00000.png").size == (16, 16)
    night = tmp_path / "night"
    assert run(capsys, "streets", night, "--size", 16, "--train", 1, "--test", 1, "--night")[0] == 0
    for letter, weather in zip("AB", NIGHT, strict=True):
        expected = Streets(weather, "test", 1, 16).image(0)
        assert read_image(night / f"test{letter}" / "scene-00000.png").tobytes() == expected.tobytes()


def test_evaluate_prints_a_table_and_json_and_a_sheet(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, "evaluate", model)
    assert status == 0
    assert "sunny to rainy" in out
    assert "KID x 1000, Lite0" in out
    status, out, _ = run(capsys, "evaluate", model, "--json", "--sheet", tmp_path / "sheet.png")
    metrics = json.loads(out)
    assert metrics.keys() == {"a2b", "b2a", "features"}
    assert metrics.pop("features") == "Lite0"
    for groups in metrics.values():
        assert groups.keys() == {"translated", "identity", "do_nothing", "real"}
        assert groups["do_nothing"] == groups["identity"]  # its old name
        assert all(values.keys() == set(NAMES) for values in groups.values())
    a2b, b2a = (metrics[direction]["identity"] for direction in ("a2b", "b2a"))
    assert (a2b["psnr"], a2b["ssim"]) == (b2a["psnr"], b2a["ssim"])  # the same pairs, either way round
    assert read_image(tmp_path / "sheet.png").size == (2 * (3 * 20 + 2 * 2) + 12, 3 * 20 + 2 * 2)


@pytest.mark.parametrize("paired", [True, False])
def test_evaluate_takes_folders(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], paired: bool) -> None:
    run(capsys, "streets", tmp_path, "--size", 24, "--train", 0, "--test", 4)
    if not paired:
        (tmp_path / "testA" / "scene-00003.png").unlink()
    folders = ["--a", tmp_path / "testA", "--b", tmp_path / "testB", *(["--paired"] if paired else [])]
    status, out, _ = run(capsys, "evaluate", model, *folders, "--json", "--features", "lite0")
    assert status == 0
    translated, real = (json.loads(out)["a2b"][guess] for guess in ("translated", "real"))
    assert (translated["images"], translated["reference_images"]) == (4 if paired else 3, 4)
    for name in PAIRED:
        assert (translated[name] is not None) == paired
        assert real[name] is None
    assert None not in (translated["kid"], real["kid"])
    status, out, _ = run(capsys, "evaluate", model, *folders, "--sheet", tmp_path / "sheet.png")
    assert status == 0
    assert ("SSIM" in out) == paired
    columns = 3 if paired else 2
    assert read_image(tmp_path / "sheet.png").width == 2 * (columns * 24 + (columns - 1) * 2) + 12


def test_evaluate_skips_kid_without_features_unless_they_were_requested(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(kind: str, device: object) -> None:
        raise ConfigError(f"{kind} needs a package")

    monkeypatch.setattr("unit.evaluation.features.load_features", missing)
    monkeypatch.setattr("unit.evaluation.features.load_features", missing)
    status, out, _ = run(capsys, "evaluate", model, "--json")
    assert status == 0
    assert json.loads(out)["features"] is None
    assert json.loads(out)["a2b"]["translated"]["kid"] is None
    status, out, err = run(capsys, "evaluate", model, "--features", "inception")
    assert (status, out) == (2, "")
    assert "inception needs a package" in err


def test_evaluate_without_the_second_judge_says_so_in_one_line(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    words = ("KID-VGG", "ST-LPIPS")
    _, complete, _ = run(capsys, "evaluate", model)
    assert all(word in complete for word in words)
    load_st_lpips.cache_clear()
    monkeypatch.setattr("unit.evaluation.st_lpips.find_spec", lambda name: None)
    caplog.set_level("INFO")
    status, out, _ = run(capsys, "evaluate", model)
    assert status == 0
    assert [message for message in caplog.messages if "pip install stlpips-pytorch" in message] == caplog.messages[-1:]
    lines = complete.splitlines()
    dropped = {k for k, line in enumerate(lines) if any(word in line for word in words)}
    dropped |= {k + 1 for k in dropped if "KID-VGG" in lines[k]}  # its interval
    assert out.splitlines() == [line for k, line in enumerate(lines) if k not in dropped]


def test_print_config_prints_what_reads_back_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_config(TINY, tmp_path / "tiny.yaml")
    status, out, _ = run(capsys, "train", "--train.steps", 9, "--config", tmp_path / "tiny.yaml", "--print_config")
    assert status == 0
    (tmp_path / "printed.yaml").write_text(out)
    printed = read_config(tmp_path / "printed.yaml")
    assert printed.train.steps == 9
    assert printed.model == TINY.model


def test_a_dry_run_reports_the_run_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_config(TINY, tmp_path / "tiny.yaml")
    command = [sys.executable, "train.py", "--config", tmp_path / "tiny.yaml", "--out", tmp_path / "run", "--dry_run"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "6 steps on cpu" in done.stdout
    assert "parameters in encoders and generators" in done.stdout
    assert "channels: 4" not in done.stdout, "the estimate alone; the YAML on request, after it"
    both = subprocess.run([*command, "--print_config"], capture_output=True, text=True, check=True).stdout
    assert 0 < both.index("6 steps on cpu") < both.index("channels: 4")
    assert not (tmp_path / "run").exists()


def test_training_prints_only_the_result_on_standard_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_config(TINY, tmp_path / "tiny.yaml")
    status, out, _ = run(capsys, "train", "--config", tmp_path / "tiny.yaml", "--out", tmp_path / "run")
    assert status == 0
    first, *_, last = out.splitlines()
    assert first == f"{tmp_path / 'run'}: ended at step 6"
    assert "identity: the input, unchanged" in out
    assert "--direction sunny2rainy" in out
    assert last == f"TensorBoard: tensorboard --logdir {tmp_path / 'run'}"


def test_the_best_model_is_named_only_where_it_is_another(tmp_path: Path) -> None:
    result = TrainResult(tmp_path, PerDomain("a", "b"), 6, 0, None, best=(3, 100.0))
    assert "best model" not in summary(result), "the file is missing"
    (tmp_path / "best.safetensors").touch()
    assert "best.safetensors, from step 3 (mean KID 100.0" in summary(result)
    assert "best model" not in summary(replace(result, best=(6, 100.0)))


def test_evaluate_goes_on_without_what_it_can_not_read(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run(capsys, "streets", tmp_path, "--size", 24, "--train", 0, "--test", 4)
    folders = ["--a", tmp_path / "testA", "--b", tmp_path / "testB"]
    (tmp_path / "testA" / "scene-00001.png").write_text("no image")
    status, out, _ = run(capsys, "evaluate", model, *folders, "--sheet", tmp_path / "sheet.png", "--json")
    assert status == 1
    assert json.loads(out)["a2b"]["translated"]["images"] == 3
    assert "scene-00001.png" in caplog.text
    assert "1 of the 4 images of a domain were left out" in caplog.text
    assert read_image(tmp_path / "sheet.png").height == 3 * 24 + 2 * 2


def test_no_output_takes_the_place_of_an_input(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before any time is spent."""
    monkeypatch.setattr("unit.translation.translator.Translator.load", None)
    run(capsys, "streets", tmp_path, "--size", 24, "--train", 0, "--test", 2)
    image = tmp_path / "testA" / "scene-00001.png"
    before = [file.read_bytes() for file in (image, model)]
    evaluate = ("evaluate", model, "--a", tmp_path / "testA", "--b", tmp_path / "testB", "--sheet")
    export = ("export", model, "--direction", "a2b", "--out")
    card = ("card", model, "--overwrite", "--out")
    mistakes = [(*evaluate, image), (*evaluate, tmp_path / "x.mp4"), (*export, model), (*export, image)]
    for arguments in (*mistakes, (*card, model), (*card, image)):
        status, _, err = run(capsys, *arguments)
        assert (status, len(err.splitlines())) == (2, 1)
    assert before == [file.read_bytes() for file in (image, model)]


@pytest.mark.parametrize("words", [["train", "--out"], ["streets"], ["earth"], ["shards", "."]])
def test_a_folder_that_would_look_like_a_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    status, _, err = run(capsys, *words, tmp_path / "x.mp4")
    assert (status, list(tmp_path.iterdir())) == (2, [])
    assert "x.mp4' looks like a file; give a folder" in err


@pytest.mark.skipif(sys.platform == "win32", reason="the current directory can't be deleted there")
def test_a_deleted_current_directory_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for words in (["check", "--a", "x", "--b", "y"], ["streets", "x"]):
        status, _, err = run(capsys, *words)
        assert (status, err) == (1, "error: the current directory was deleted or can't be read; cd to another one\n")


def test_too_little_memory_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("unit.cli.streets.write_streets", fail)
    status, _, err = run(capsys, "streets", "x")
    assert (status, err) == (1, "error: out of memory; end other programs, or lower sizes and batches\n")


@pytest.mark.parametrize("pattern", ["{a,b}" * 800 + ".tar", "{a," * 1000 + ".tar", "x" * 5000 + ".tar", "x" * 5000])
def test_a_path_of_any_length_is_one_short_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pattern: str
) -> None:
    status, _, err = run(capsys, "train", "--data.a", pattern, "--data.b", tmp_path)
    assert (status, len(err.splitlines())) == (3, 1)


@pytest.mark.parametrize(
    ("device", "root", "side", "preset", "size"),
    [
        ("cpu", False, 300, "laptop", 128),
        ("cpu", True, 300, "laptop", 128),
        ("cuda", False, 300, "photos", 256),
        ("cpu", False, 100, "laptop", 96),
    ],
)
def test_the_preset_depends_on_the_device_and_on_the_photos(
    device: str, root: bool, side: int, preset: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    for name in ("trainA", "trainB"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (2 * side, side)).save(tmp_path / name / "1.png")
    folders = {"root": str(tmp_path)} if root else {"a": str(tmp_path / "trainA"), "b": str(tmp_path / "trainB")}
    choice = choose_preset(Config(data=DataConfig(**folders), train=TrainConfig(device=device)))
    assert choice.path == PRESETS / f"{preset}.yaml"
    assert read_config(choice.path, choice.keys).data.crop_size == size
    assert choice.reason.startswith(f"two folders (1 and 1 photos, {side} px) and ")


def test_without_folders_it_is_the_streets() -> None:
    choice = choose_preset(Config())
    assert (choice.path, choice.keys) == (PRESETS / "streets.yaml", {})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(("reader", "status", "said"), [("| true", 141, ""), ("> /dev/full", 1, "error: ")])
def test_output_that_nobody_takes_is_a_status_and_at_most_a_line(reader: str, status: int, said: str) -> None:
    """With buffered output, as in a pipe, where it fails only when it is flushed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = f"{shlex.quote(sys.executable)} -m unit --help {reader}; exit ${{PIPESTATUS[0]}}"
    process = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True)
    assert process.returncode == status
    assert process.stderr.startswith(said)
    assert process.stderr.count("\n") == bool(said)
