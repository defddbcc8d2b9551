"""A run whose text files hold anything resumes, or is refused in one line; its report is written."""

import copy
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from tests.tiny import TINY, tiny
from unit.data.bad_images import BadImages
from unit.domains import PerDomain
from unit.errors import UserError
from unit.evaluation.report.run import Run
from unit.evaluation.report.sections import data, environment
from unit.evaluation.report.write import write_report
from unit.evaluation.run_log import MAX_LINE
from unit.training import checkpoint
from unit.training.loop import train
from unit.training.resolve import resolve
from unit.training.run_dir import RunDir
from unit.training.trainer import Trainer

VALUES = ["x", "1", None, True, [1, [2]], {"a": {}}, [], "9" * 4000, float("nan"), float("inf"), 1e300, -1, 10**300]
TEXTS = [
    b"",
    b"\0" * 1000,
    b"\xff\xfe",
    b"[" * 100_000,
    b"[]",
    b"1",
    b"null",
    b"9" * 5000,
    b'{"step": 1' + b" " * 10**7,
]
KEYS = ["val/kid_a2b", "val/kid_b2a", "vital/spread_a2b", "vital/active_units_a", "perf/images_per_second", "loss/kl_a"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("foreign") / "run"
    train(tiny(train={"steps": 1, "sample_every": 1000, "validate_every": 1}), path)
    return path


def resumes_or_is_refused(run: Path) -> None:
    with suppress(UserError):
        assert train(tiny(train={"steps": 1, "sample_every": 1000, "validate_every": 1}), run).step == 1


def test_any_values_in_the_metrics(run: Path) -> None:
    file = run / "metrics.jsonl"
    lines = [{"step": 1} | dict.fromkeys(KEYS, value) for value in VALUES]
    lines += [{"step": value} | dict.fromkeys(KEYS, 1.0) for value in VALUES]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    resumes_or_is_refused(run)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_report(run, "cpu")


def test_any_text_in_any_file(run: Path) -> None:
    config = (run / "config.yaml").read_bytes()
    for content in TEXTS:
        for name in ("metrics.jsonl", "environment.json", "config.yaml", "run.log", ".lock-holder"):
            (run / name).write_bytes(content)
        resumes_or_is_refused(run)
    (run / "config.yaml").write_bytes(TEXTS[-1])
    write_report(run, "cpu")
    (run / "config.yaml").write_bytes(config)


def test_any_values_in_the_environment(run: Path) -> None:
    file = run / "environment.json"
    content = json.loads(file.read_text())
    for value in VALUES:
        for foreign in (value, [value], {"a": value, "b": value}, [dict.fromkeys(content, value)]):
            file.write_text(json.dumps(dict.fromkeys(content, foreign)))
            environment(Run(run, "cpu"))
            data(Run(run, "cpu"))
    resumes_or_is_refused(run)


def test_a_line_longer_than_any_that_is_written_is_passed_over(run: Path) -> None:
    with (run / "metrics.jsonl").open("w") as file:
        file.write(json.dumps({"step": 10**6, "x": "y" * MAX_LINE}) + '\n{"step": 1}\n')
    resumes_or_is_refused(run)
    assert '"step": 1}' in (run / "metrics.jsonl").read_text()
    assert "1000000" not in (run / "metrics.jsonl").read_text()


TRAINER = Trainer(TINY, torch.device("cpu"), "fp32")


@pytest.mark.parametrize(
    "place", ["steps_done", "rollbacks", "lr", "betas", "eps", "bad_images", "facts", "global_batch"]
)
def test_any_values_in_a_checkpoint_with_a_valid_checksum(run: Path, place: str) -> None:
    path = checkpoint.path_of(run / "checkpoints", 1)
    good, resolved = checkpoint.load(path), resolve(TINY, run)
    for value in VALUES[::3]:
        state = copy.deepcopy(good)
        if place in ("lr", "betas", "eps"):
            state["trainer"]["optimizer_generator"]["param_groups"][0][place] = value
        elif place in state["trainer"]:
            state["trainer"][place] = value
        else:
            state[place] = {"a": value, "b": value} if place == "bad_images" else value
        checkpoint.save(state, path)
        with suppress(UserError):
            if RunDir(resolved, TRAINER, BadImages(PerDomain(1, 1))).resume():
                TRAINER.step(PerDomain(*torch.rand(2, 2, 3, 16, 16)))
        path.with_suffix(".damaged").unlink(missing_ok=True)
    checkpoint.save(good, path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize(
    "name",
    ["run.log", ".lock", ".lock-holder", "metrics.jsonl", "environment.json", "config.yaml", "model.safetensors"],
)
def test_a_pipe_in_the_place_of_any_file_is_not_waited_for(run: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "run" / name)
    resumes_or_is_refused(tmp_path / "run")


@pytest.mark.parametrize("size", ["8192", "32768"])
def test_a_configuration_of_absurd_sizes_does_not_fill_the_memory(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(f"data: {{load_size: {size}, crop_size: 16, streets_test: 2}}\n")
    monkeypatch.setattr("unit.images.reading.available_memory", lambda: 10**9)
    monkeypatch.setattr("unit.streets.source.render", None)
    assert "unavailable" in write_report(tmp_path / "run", "cpu").read_text()


def test_a_section_that_does_not_fit_into_the_memory_is_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("unit.evaluation.report.sections.extremes", fail)
    assert "unavailable: out of memory" in write_report(run, "cpu").read_text()
