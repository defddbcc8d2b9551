import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import Coarse, coarse_st_lpips
from tests.tiny import TINY, assert_same_run, metrics, state_of, tiny
from unit.config import Config
from unit.config_file import read_config, write_config
from unit.data.batches import training_batches
from unit.data.datasets import open_datasets
from unit.domains import Domain, PerDomain
from unit.errors import ConfigError, DataError, ImageError, UserError
from unit.evaluation.evaluate import Evaluator, evaluate
from unit.evaluation.report.write import write_report_or_warn
from unit.training import checkpoint
from unit.training.distributed import Ranks
from unit.training.hooks import samples_due, warn_if_uncertain
from unit.training.loop import train
from unit.training.resolve import resolve
from unit.training.trainer import Trainer
from unit.translation.translator import Translator

ENDS = {"low": -1, "high": 1}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of TINY."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert train(TINY, run).exit_status == 0
    return run


def test_a_run_leaves_what_the_interface_says(uninterrupted: Path) -> None:
    names = {path.relative_to(uninterrupted).as_posix() for path in uninterrupted.rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("tensorboard/")}
    assert len(events) == 1
    assert names - events == {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "run.log",
        "model.safetensors",
        "best.safetensors",
        ".lock",
        ".lock-holder",
        "checkpoints/step-00000002.pt",
        "checkpoints/step-00000004.pt",
        "checkpoints/step-00000006.pt",
        "samples/step-00000000.png",
        "samples/step-00000003.png",
        "samples/step-00000006.png",
    }
    assert read_config(uninterrupted / "config.yaml") == TINY
    assert [line["step"] for line in metrics(uninterrupted)] == [0, 1, 2, 3, 3, 3, 4, 5, 6, 6, 6]
    assert Translator.load(uninterrupted).step == 6


def test_the_best_model_is_kept_also_over_a_stop(tmp_path: Path, uninterrupted: Path) -> None:
    def mean_kid(line: dict[str, float]) -> float:
        return (line["val/kid_a2b"] + line["val/kid_b2a"]) / 2

    def logged(run: Path) -> dict[int, float]:
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return {line["step"]: mean_kid(line) for line in lines if "val/kid_a2b" in line}

    metrics = logged(uninterrupted)
    best = min(metrics, key=lambda step: metrics[step])
    assert Translator.load(uninterrupted / "best.safetensors").step == best
    often = tiny(train={"validate_every": 1})
    for steps in (3, 6):
        result = train(tiny(train={"validate_every": 1, "steps": steps}), tmp_path / "parts")
    train(often, tmp_path / "once")
    metrics = logged(tmp_path / "once")
    assert len(metrics) == 6
    assert result.best == min(metrics.items(), key=lambda item: item[1])
    ends = [load_file(tmp_path / run / "best.safetensors") for run in ("parts", "once")]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


def test_a_first_sample_grid_comes_early(tmp_path: Path) -> None:
    """After a tenth of the interval, whether or not the run was stopped before; without a check for failure modes."""
    config = tiny(train={"sample_every": 100, "steps": 12, "validate_every": 1000})
    train(replace(config, train=replace(config.train, steps=9)), tmp_path / "parts")
    for run in ("parts", "once"):
        train(config, tmp_path / run)
        samples = [path.name for path in sorted((tmp_path / run / "samples").iterdir())]
        assert samples == ["step-00000000.png", "step-00000010.png"]
        assert [line["step"] for line in metrics(tmp_path / run) if "vital/spread_a2b" in line] == [0]
    parts, once = ((tmp_path / run / "samples" / "step-00000010.png").read_bytes() for run in ("parts", "once"))
    assert parts == once
    assert [step for step in range(301) if samples_due(step, 250)] == [0, 25, 250]
    assert [step for step in range(101) if samples_due(step, 50)] == [0, 50, 100]


@pytest.mark.parametrize(("width", "warned"), [(30.0, True), (10.0, False)])
def test_an_uncertain_choice_of_the_best_model_is_told(
    caplog: pytest.LogCaptureFixture, width: float, warned: bool
) -> None:
    ends = {f"val/kid_{end}_{i.direction}": 100 + sign * width / 2 for end, sign in ENDS.items() for i in Domain}
    warn_if_uncertain(100.0, ends, 5)
    line = "with 5 held-out images KID is uncertain (95 % interval 85 to 115)"
    assert (line in caplog.text) == warned


def test_a_short_run_on_few_images_says_that_its_best_model_is_uncertain_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for steps in (2, 4):
        train(tiny(train={"validate_every": 1, "steps": steps}), tmp_path / "run")
    assert caplog.text.count("KID is uncertain") <= 1


def test_a_finished_run_leaves_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unit.training.hooks.write_report_or_warn", write_report_or_warn)
    train(tiny(train={"steps": 2}), tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "sunny" in page
    assert "Coarse" in page  # the metrics are the run's own


def test_the_metrics_at_the_end_are_of_what_translate_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    result = train(tiny(train={"steps": 2}), tmp_path / "run")  # crops of 16 px out of images of 20
    translator, test = Translator.load(tmp_path / "run", "cpu", "fp32"), open_datasets(TINY.data).test
    assert result.metrics == evaluate(translator, test, Coarse(), coarse_st_lpips)
    at_training_size = Evaluator(test, TINY.data, Coarse(), st_lpips=coarse_st_lpips).metrics(translator)
    assert result.metrics != at_training_size

    def refuse(*_: object) -> None:
        raise UserError("out of memory")

    monkeypatch.setattr("unit.evaluation.evaluate.run_as_translate", refuse)
    assert train(tiny(train={"steps": 2}), tmp_path / "run").metrics == at_training_size
    assert "out of memory; the metrics shown are those at the training size" in caplog.text


def test_train_returns_how_the_run_ended(tmp_path: Path) -> None:
    result = train(TINY, tmp_path / "run")
    assert (result.step, result.exit_status) == (6, 0)
    assert result.metrics is not None
    assert result.metrics["a2b"].keys() == {"translated", "identity", "do_nothing", "real"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("workers", [0, 2])
def test_two_parts_equal_the_uninterrupted_run_bit_for_bit(tmp_path: Path, precision: str, workers: int) -> None:
    def config(steps: int) -> Config:
        return tiny(train={"steps": steps, "precision": precision}, data={"workers": workers})

    train(config(6), tmp_path / "one")
    for steps in (3, 4, 6):
        train(config(steps), tmp_path / "two")
    one, two = state_of(tmp_path / "one"), state_of(tmp_path / "two")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[place], two[place]) for place in one)
    samples = [path.name for path in sorted((tmp_path / "one" / "samples").iterdir())]
    assert all((tmp_path / r / "samples" / samples[-1]).exists() for r in ("one", "two"))
    rows = [[row for row in metrics(tmp_path / r) if "loss/kl_a" in row] for r in ("one", "two")]
    assert rows[0] == rows[1]


def test_resuming_from_an_older_checkpoint_leaves_the_same_run(uninterrupted: Path, tmp_path: Path) -> None:
    """As after a crash: what was logged and drawn after the checkpoint is recomputed, not doubled."""
    run = tmp_path / "run"
    train(TINY, run)
    (run / "checkpoints" / "step-00000006.pt").write_bytes(b"cut short")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "loss/')
    assert train(TINY, run).step == 6
    assert_same_run(uninterrupted, run)


def test_a_finished_run_is_left_as_it_is(uninterrupted: Path) -> None:
    before = {path: path.read_bytes() for path in (uninterrupted / "checkpoints").iterdir()}
    result = train(TINY, uninterrupted)
    assert (result.step, result.exit_status) == (6, 0)
    assert {path: path.read_bytes() for path in (uninterrupted / "checkpoints").iterdir()} == before
    assert [line["step"] for line in metrics(uninterrupted)] == [0, 1, 2, 3, 3, 3, 4, 5, 6, 6, 6]


def test_another_configuration_is_refused_with_the_difference(uninterrupted: Path) -> None:
    with pytest.raises(ConfigError, match=r"loss\.lambda2: 100\.0 before, 50\.0 now"):
        train(tiny(loss={"lambda2": 50.0}), uninterrupted)


def test_with_no_good_checkpoint_left_the_run_stops_and_says_what_is_lost(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny(train={"steps": 2}), run)
    for _, path in checkpoint.available(run / "checkpoints"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="up to step 2 is lost"):
        train(TINY, run)


def test_max_minutes_ends_a_run_with_a_checkpoint(tmp_path: Path) -> None:
    result = train(tiny(train={"steps": 10_000, "max_minutes": 0.02}), tmp_path / "run")
    assert 0 < result.step < 10_000
    assert result.exit_status == 0
    assert checkpoint.available(tmp_path / "run" / "checkpoints")[0][0] == result.step


def test_a_resumed_run_says_that_its_minutes_count_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    first = train(tiny(train={"steps": 10_000, "max_minutes": 0.01}), tmp_path / "run")
    assert "train.max_minutes" not in caplog.text
    resumed = train(tiny(train={"steps": 10_000, "max_minutes": 0.02}), tmp_path / "run")
    assert resumed.step > first.step
    assert "train.max_minutes counts from each start: this part ends after 0.02 min, or at step 10000" in caplog.text


def test_a_run_that_diverges_stops_and_none_of_it_is_saved(tmp_path: Path) -> None:
    broken = tiny(optimizer={"learning_rate_generator": 1e14}, train={"steps": 50})
    with pytest.raises(UserError, match=r"step 2: the loss term \w+ is NaN or Inf"):
        train(broken, tmp_path / "run")
    for _, path in checkpoint.available(tmp_path / "run" / "checkpoints"):
        state = checkpoint.load(path)["trainer"]["networks"]
        assert all(torch.isfinite(tensor).all() for tensor in state.values())


def spoil(monkeypatch: pytest.MonkeyPatch, step: int, rollbacks: int) -> None:
    """Make the images of domain B NaN in one step, until the run has been rolled back `rollbacks` times."""
    good = Trainer.step

    def spoiled(self: Trainer, images: PerDomain[torch.Tensor]) -> object:
        if self.steps_done == step - 1 and self.rollbacks < rollbacks:
            images = PerDomain(images.a, images.b * torch.nan)
        return good(self, images)

    monkeypatch.setattr(Trainer, "step", spoiled)


def test_a_nan_is_named_and_the_state_before_it_is_kept(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        spoil(patch, step=6, rollbacks=1)
        message = r"step 6: the loss term \w+_b is NaN or Inf \(a: sunny, b: rainy\); the state after step 5 is kept"
        with pytest.raises(UserError, match=message) as refused:
            train(TINY, run)
    assert refused.value.exit_status == 1
    assert checkpoint.available(run / "checkpoints")[0][0] == 5
    train(TINY, run)  # as if nothing had been
    assert_same_run(uninterrupted, run)


@pytest.mark.parametrize("times", [1, 3])
def test_a_rollback_trains_on_with_other_noise_and_without_double_steps(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    spoil(monkeypatch, step=4, rollbacks=times)
    run = tmp_path / "run"
    assert train(tiny(train={"on_nonfinite": "rollback"}), run).step == 6
    (before, now), steps = (metrics(uninterrupted), metrics(run)), [0, 1, 2, 3, 3, 3, 4, 5, 6, 6, 6]
    assert [line["step"] for line in now] == steps
    assert now[:3] == before[:3]  # until the checkpoint that it goes back to
    assert now[3]["loss/kl_a"] == before[3]["loss/kl_a"]  # KL of step 3 comes before its noise
    assert now[3]["loss/reconstruction_a"] != before[3]["loss/reconstruction_a"]
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("loss/kl_a")] == [1, 2, 3, 4, 5, 6]
    assert checkpoint.load(checkpoint.path_of(run / "checkpoints", 6))["trainer"]["rollbacks"] == times


def test_a_run_is_rolled_back_three_times_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, step=4, rollbacks=4)
    with pytest.raises(UserError, match=r"step 4: .*, after 3 rollbacks; the state after step 3 is kept"):
        train(tiny(train={"on_nonfinite": "rollback"}), tmp_path / "run")


def folders(path: Path, count: int = 3) -> tuple[str, str]:
    for name in ("sunny", "rainy"):
        (path / name).mkdir()
        for k in range(count):
            pixels = np.random.default_rng(k).integers(0, 255, (30 + k % 20, 50 - k % 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path / name / f"{k}.jpg")
    return str(path / "sunny"), str(path / "rainy")


def test_two_folders_smaller_than_a_batch_train_and_translate(tmp_path: Path) -> None:
    a, b = folders(tmp_path)
    config = tiny(data={"a": a, "b": b}, train={"batch_size": 7, "steps": 2})
    result = train(config, tmp_path / "run")
    assert result.step == 2
    assert result.metrics is not None
    assert result.metrics["a2b"]["translated"]["psnr"] is None  # of one image each, which are no pair
    assert result.metrics["a2b"]["translated"]["images"] == 1
    image = Translator.load(tmp_path / "run")(Image.new("RGB", (65, 63)), "sunny2rainy")
    assert isinstance(image, Image.Image)
    assert image.size == (65, 63)


def test_a_changed_folder_is_said_and_training_resumes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    a, b = folders(tmp_path)
    train(tiny(data={"a": a, "b": b}, train={"steps": 1}), tmp_path / "run")
    Image.new("RGB", (40, 40)).save(Path(a) / "new.png")
    assert train(tiny(data={"a": a, "b": b}, train={"steps": 2}), tmp_path / "run").step == 2
    assert "names and sizes of the training a images changed; the result is no longer bit for bit" in caplog.text


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    a, _ = folders(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        train(tiny(data={"a": a, "b": str(tmp_path / "empty")}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_what_headers_reveal_is_said_before_the_first_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, policy: str
) -> None:
    a, b = folders(tmp_path, count=210)
    opened = open_datasets(tiny(data={"a": a, "b": b}).data)
    (Path(a) / opened.train.a.name(0)).write_bytes(b"no image")
    config = tiny(data={"a": a, "b": b, "on_bad_image": policy}, train={"steps": 1})
    if policy == "stop":
        with pytest.raises(DataError, match=rf"^{a}/.*: can't be read; replace or remove"):
            train(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()
    else:
        assert train(config, tmp_path / "run").step == 1
    assert "error: can't be read (1 file)" in caplog.text


def test_the_default_out_is_named_after_the_domains(tmp_path: Path) -> None:
    a, b = folders(tmp_path)
    config = tiny(data={"a": a, "b": b})
    assert resolve(config, None).out == Path("runs/sunny-rainy")
    assert resolve(TINY, None).out == Path("runs/streets")


def test_a_finished_run_gets_its_model_back(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny(train={"steps": 1}), run)
    before = load_file(run / "model.safetensors")
    (run / "model.safetensors").unlink()
    train(tiny(train={"steps": 1}), run)
    assert all(torch.equal(tensor, before[name]) for name, tensor in load_file(run / "model.safetensors").items())


def test_a_damaged_checkpoint_is_renamed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = tmp_path / "run"
    train(tiny(train={"steps": 4}), run)
    newest = checkpoint.path_of(run / "checkpoints", 4)
    newest.write_bytes(newest.read_bytes()[:-1])
    train(tiny(train={"steps": 5, "keep_last": 1}), run)
    assert "damaged" in caplog.text
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "step-00000004.damaged",
        "step-00000005.pt",
    ]


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tiny(train={"steps": 1}), tmp_path / "run")
    monkeypatch.setattr("unit.training.run_dir.FORMAT_VERSION", 99)
    with pytest.raises(UserError, match="another version"):
        train(TINY, tmp_path / "run")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_image_is_named_in_one_line_and_costs_no_steps(tmp_path: Path, workers: int) -> None:
    a, b = folders(tmp_path, count=5)
    config = tiny(data={"a": a, "b": b, "workers": workers}, train={"checkpoint_every": 1000, "batch_size": 1})
    train(replace(config, train=replace(config.train, steps=1)), tmp_path / "run")
    for path in Path(a).iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    with pytest.raises(ImageError) as refused:
        train(config, tmp_path / "run")
    assert str(refused.value).isprintable()
    assert str(refused.value).startswith(a)
    assert checkpoint.available(tmp_path / "run" / "checkpoints")[0][0] >= 1


def test_a_bad_image_late_in_the_run_costs_no_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def batches(*arguments: object) -> Iterator[PerDomain[torch.Tensor]]:
        for number, batch in enumerate(training_batches(*arguments)):  # type: ignore[arg-type]
            if number == 3:
                raise ImageError("x.jpg: damaged")
            yield batch

    monkeypatch.setattr("unit.training.resolve.training_batches", batches)
    with pytest.raises(ImageError):
        train(tiny(train={"checkpoint_every": 1000}), tmp_path / "run")
    assert checkpoint.available(tmp_path / "run" / "checkpoints")[0][0] == 3


def test_an_image_that_vanishes_is_skipped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = folders(tmp_path, count=250)
    config = tiny(data={"a": a, "b": b, "on_bad_image": "skip", "workers": 2}, train={"batch_size": 50})
    read = []
    opened = open_datasets(config.data)

    def vanish(*arguments: object) -> Iterator[PerDomain[torch.Tensor]]:
        (Path(a) / opened.train.a.name(0)).unlink()
        (Path(b) / opened.test.images.b.name(0)).unlink()  # and one of the sample images
        read.append(True)
        yield from training_batches(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("unit.training.resolve.training_batches", vanish)
    assert train(config, tmp_path / "run").step == 6  # an epoch and more
    assert read
    assert [line for line in metrics(tmp_path / "run") if "data/bad_images" in line][-1]["data/bad_images"] == 1


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX")
def test_a_loader_process_that_is_killed_ends_the_run_with_a_line(tmp_path: Path) -> None:
    """As the kernel does when memory runs out; the processes are found among the run's children."""
    config = tiny(train={"steps": 10**6, "checkpoint_every": 10}, data={"workers": 2})
    write_config(config, tmp_path / "config.yaml")
    run, environment = tmp_path / "run", os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "train.py", "--config", str(tmp_path / "config.yaml"), "--out", str(run)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    while not (run / "metrics.jsonl").exists() or len((run / "metrics.jsonl").read_text()) < 2000:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    loaders = psutil.Process(process.pid).children()
    assert len(loaders) == 2
    loaders[1].kill()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "Traceback" not in errors
    # "was killed" where torch sees the signal first, "died" where it sees the closed pipe first
    assert re.search(
        "error: a process that reads images (was killed|died), probably out of memory", errors.splitlines()[-1]
    )
    step = checkpoint.available(run / "checkpoints")[0][0]
    assert train(replace(config, train=replace(config.train, steps=step + 3)), run).step == step + 3


def test_out_of_memory_is_one_line_and_the_checkpoint_is_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("unit.training.trainer.Trainer.step", step)
    with pytest.raises(UserError, match=r"lower train\.batch_size") as refused:
        train(TINY, tmp_path / "run")
    assert str(refused.value).isprintable()
    assert checkpoint.load(checkpoint.path_of(tmp_path / "run" / "checkpoints", 0))


@pytest.mark.parametrize(
    ("broken_by", "message"), [(4, r"step 4: the weight networks\.encoder\..*"), (3, r"step 4: the loss term \w+")]
)
def test_broken_weights_are_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_by: int, message: str
) -> None:
    """A gradient may break the weights in a step whose losses are all finite: seen when saving, or one step later."""
    step = Trainer.step

    def breaking(self: Trainer, images: PerDomain[torch.Tensor]) -> object:
        record = step(self, images)
        if self.steps_done == broken_by:
            next(self.networks.parameters()).data.fill_(float("nan"))
        return record

    monkeypatch.setattr(Trainer, "step", breaking)
    with pytest.raises(UserError, match=message + " is NaN or Inf .* after step 2 is kept"):
        train(tiny(train={"log_every": 100, "sample_every": 100, "validate_every": 100}), tmp_path / "run")
    assert checkpoint.available(tmp_path / "run" / "checkpoints")[0][0] == 2


def test_a_run_killed_before_its_first_checkpoint_starts_over(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(tiny(train={"steps": 0}), run)
    checkpoint.path_of(run / "checkpoints", 0).unlink()
    train(tiny(train={"steps": 4}), run)
    assert [line["step"] for line in metrics(run) if "loss/kl_a" in line] == [1, 2, 3, 4]
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("loss/kl_a")] == [1, 2, 3, 4]
    assert [event.step for event in events.Images("samples/a2b")] == [0, 3]


@pytest.mark.parametrize("known_from", ["metrics.jsonl", "model.safetensors"])
def test_a_run_without_its_checkpoints_restarts_only_when_told_to(tmp_path: Path, known_from: str) -> None:
    run = tmp_path / "run"
    train(tiny(train={"steps": 4}), run)
    for path in [path for _, path in checkpoint.available(run / "checkpoints")]:
        path.unlink()
    for name in {"metrics.jsonl", "model.safetensors"} - {known_from}:
        (run / name).unlink()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="no checkpoint is left, so the training up to step 4 is lost") as refused:
        train(TINY, run)
    assert refused.value.exit_status == 1
    assert "--restart" in str(refused.value)
    assert {path: path.read_bytes() for path in run.rglob("*") if path in before and path.is_file()} == before
    assert train(TINY, run, restart=True).step == 6
    assert (tmp_path / "run.1" / known_from).exists()
    assert [line["step"] for line in metrics(run)] == [0, 1, 2, 3, 3, 3, 4, 5, 6, 6, 6]


def test_restarting_twice_keeps_both(tmp_path: Path) -> None:
    for steps in (1, 2, 3):
        train(tiny(train={"steps": steps}), tmp_path / "run", restart=True)
    assert [metrics(tmp_path / name)[-1]["step"] for name in ("run.1", "run.2", "run")] == [1, 2, 3]


def test_a_missing_newest_checkpoint_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    train(TINY, tmp_path / "run")
    checkpoint.path_of(tmp_path / "run" / "checkpoints", 6).unlink()
    train(TINY, tmp_path / "run")
    assert "resuming from step 4; steps up to 6, done before, are recomputed" in caplog.text


@pytest.mark.parametrize("content", [[], {"format_version": 2}, "foreign weights", "foreign optimizer"])
def test_a_valid_checkpoint_of_something_else_is_passed_over(
    uninterrupted: Path, tmp_path: Path, content: object
) -> None:
    run = tmp_path / "run"
    train(TINY, run)
    newest = checkpoint.path_of(run / "checkpoints", 6)
    if content == "foreign weights":
        content = checkpoint.load(newest)
        content["trainer"]["networks"] = {}
    if content == "foreign optimizer":
        content = checkpoint.load(newest)
        moments = content["trainer"]["optimizer_discriminator"]["state"][0]
        moments["exp_avg"] = moments["exp_avg"][:1]  # fused Adam would access memory beyond it
    checkpoint.save(content, newest)  # type: ignore[arg-type]
    train(TINY, run)
    assert_same_run(uninterrupted, run)


def test_the_last_and_every_m_th_checkpoint_are_kept(tmp_path: Path) -> None:
    train(tiny(train={"keep_last": 1, "keep_every": 4, "checkpoint_every": 1}), tmp_path / "run")
    assert [step for step, _ in checkpoint.available(tmp_path / "run" / "checkpoints")] == [6, 4]


def test_a_test_image_that_vanishes_costs_no_steps_and_what_was_due_is_backfilled(tmp_path: Path) -> None:
    a, b = folders(tmp_path, count=30)
    split = open_datasets(tiny(data={"a": a, "b": b}).data)
    test_a, test_b = (tmp_path / name for name in ("testA", "testB"))
    for source, folder in ((split.train.a, test_a), (split.train.b, test_b)):
        folder.mkdir()
        for number in range(4):
            shutil.copy(Path(source.root) / source.name(number), folder / f"{number}.jpg")  # type: ignore[attr-defined]
    config = tiny(
        data={"a": a, "b": b, "test_a": str(test_a), "test_b": str(test_b), "paired_test": True},
        train={"checkpoint_every": 100},
    )
    train(config, tmp_path / "uninterrupted")
    train(replace(config, train=replace(config.train, steps=1)), tmp_path / "run")
    image = (test_b / "2.jpg").read_bytes()
    (test_b / "2.jpg").write_bytes(image[: len(image) * 3 // 4])
    with pytest.raises(ImageError, match=r"2\.jpg"):
        train(config, tmp_path / "run")
    assert checkpoint.available(tmp_path / "run" / "checkpoints")[0][0] == 3
    (test_b / "2.jpg").write_bytes(image)
    train(config, tmp_path / "run")
    samples = [
        {p.name: p.read_bytes() for p in (tmp_path / run / "samples").iterdir()} for run in ("uninterrupted", "run")
    ]
    assert samples[0] == samples[1]
    assert [line for line in metrics(tmp_path / "run") if line["step"] != 1 or "loss/kl_a" in line] == metrics(
        tmp_path / "uninterrupted"
    )


@pytest.mark.parametrize("bad", [{16}, set(range(8)), set(range(16))])
def test_skip_passes_over_any_test_images(tmp_path: Path, bad: set[int]) -> None:
    a, b = folders(tmp_path, count=17)
    config = tiny(
        data={"a": a, "b": b, "test_a": a + "T", "test_b": b + "T", "paired_test": True, "on_bad_image": "skip"}
    )
    for folder in (a, b):
        shutil.copytree(folder, folder + "T")
    for number in bad:
        name = sorted(path.name for path in Path(a).iterdir())[number]
        (Path(a + "T") / name).write_bytes((Path(a) / name).read_bytes()[:-200])
    assert train(config, tmp_path / "run").metrics


def test_the_metrics_at_the_end_are_logged_whatever_else_is_due(tmp_path: Path) -> None:
    train(tiny(train={"steps": 4, "checkpoint_every": 2, "validate_every": 3}), tmp_path / "run")
    assert [line["step"] for line in metrics(tmp_path / "run") if "val/psnr_a2b" in line] == [3, 4]
    train(tiny(train={"steps": 4, "checkpoint_every": 2, "validate_every": 3}), tmp_path / "run")
    assert [line["step"] for line in metrics(tmp_path / "run") if "val/psnr_a2b" in line] == [3, 4]


def test_divergence_where_samples_are_due_is_one_line(tmp_path: Path) -> None:
    config = tiny(optimizer={"learning_rate_generator": 1e14}, train={"sample_every": 1, "on_nonfinite": "rollback"})
    with pytest.raises(UserError, match=r"is NaN or Inf .*, after 3 rollbacks; .* is kept: restart with"):
        train(config, tmp_path / "run")


def test_a_rollback_without_a_checkpoint_to_go_back_to_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, step=4, rollbacks=9)
    monkeypatch.setattr("unit.training.checkpoint.available", lambda _: [])
    monkeypatch.setattr("unit.training.run_dir.RunDir._last_logged_step", lambda _: 0)
    with pytest.raises(UserError, match=r"step 4: .* there is no checkpoint to go back to"):
        train(tiny(train={"on_nonfinite": "rollback"}), tmp_path / "run")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't allocate memory: you tried to allocate 9 bytes")])
def test_too_little_memory_while_resuming_discards_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    run = tmp_path / "run"
    train(tiny(train={"steps": 4}), run)
    before = sorted((run / "checkpoints").iterdir())

    def load(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("torch.load", load)
        with pytest.raises(UserError, match=r"step-00000004\.pt: out of memory \(.* of memory are free\)"):
            train(TINY, run)
    assert sorted((run / "checkpoints").iterdir()) == before
    assert train(TINY, run).step == 6


def test_a_checkpoint_under_the_wrong_name_is_passed_over(uninterrupted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(TINY, run)
    shutil.copy(checkpoint.path_of(run / "checkpoints", 2), checkpoint.path_of(run / "checkpoints", 6))
    train(TINY, run)
    assert_same_run(uninterrupted, run)


def test_a_run_may_not_lie_among_its_images(tmp_path: Path) -> None:
    a, b = folders(tmp_path)
    with pytest.raises(ConfigError, match="lies among the images"):
        train(tiny(data={"a": a, "b": b}), Path(a) / "run")
    assert not (Path(a) / "run").exists()


@pytest.mark.parametrize("link", ["to the runs", "to another run", "to the run's samples", "to a sample", "twice"])
def test_a_run_may_not_read_its_own_samples_through_links(tmp_path: Path, link: str) -> None:
    a, b = folders(tmp_path)
    run = tmp_path / "runs" / "run"
    (run / "samples").mkdir(parents=True)
    shutil.copy(Path(a) / "0.jpg", run / "samples" / "step-00000000.png")
    targets = {
        "to the runs": tmp_path / "runs",
        "to another run": run / "..",
        "to the run's samples": run / "samples",
        "to a sample": run / "samples" / "step-00000000.png",
        "twice": tmp_path / "link.png",
    }
    (tmp_path / "link.png").symlink_to(targets["to a sample"])
    (Path(a) / "more.png").symlink_to(targets[link])
    (tmp_path / "outside").symlink_to(run)  # the run, too, may be given through a link
    for out in (run, tmp_path / "outside"):
        with pytest.raises(ConfigError, match=r"--out .*: (lies among the|images are read from)"):
            train(tiny(data={"a": a, "b": b}, train={"steps": 1}), out)


@pytest.mark.parametrize("linked", [False, True])
def test_a_run_may_not_contain_its_images(tmp_path: Path, linked: bool) -> None:
    (tmp_path / "project").mkdir()
    a, b = folders(tmp_path / "project")
    out = tmp_path / "project"
    if linked:
        (out := tmp_path / "out").symlink_to(tmp_path / "project")
    (tmp_path / "project" / "config.yaml").touch()  # as a run directory has
    for restart in (False, True):
        with pytest.raises(ConfigError, match=r"images are read from .* in it"):
            train(tiny(data={"a": a, "b": b}, train={"steps": 1}), out, restart=restart)
    assert len(list(Path(a).iterdir())) == 3


def test_an_older_run_that_contains_its_images_resumes_but_does_not_restart(tmp_path: Path) -> None:
    a, b = folders(tmp_path)
    config = tiny(data={"a": a, "b": b}, train={"steps": 0})
    (tmp_path / "checkpoints").mkdir()
    assert train(config, tmp_path).step == 0
    with pytest.raises(ConfigError, match="images are read from"):
        train(config, tmp_path, restart=True)


def test_half_written_checkpoints_of_a_crash_are_deleted(tmp_path: Path) -> None:
    train(tiny(train={"steps": 1}), tmp_path / "run")
    left = tmp_path / "run" / "checkpoints" / ".0123456789abcdef.partial"
    left.write_bytes(b"half")
    train(tiny(train={"steps": 1}), tmp_path / "run")
    assert not left.exists()


@pytest.mark.parametrize("name", ["metrics.jsonl", "tensorboard", "samples", "run.log"])
def test_what_can_not_be_written_is_named(tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    if name in ("metrics.jsonl", "run.log"):
        (run / name).mkdir()
    else:
        (run / name).touch()
    with pytest.raises(UserError, match=name) as refused:
        train(TINY, run)
    # A folder with such a name is no run; a file that is in the way may well be in one.
    assert refused.value.exit_status == (2 if name == "metrics.jsonl" else 1)


SIGNALLED = tiny(
    train={"steps": 60, "checkpoint_every": 20, "sample_every": 20, "validate_every": 60}, data={"workers": 1}
)


@pytest.fixture(scope="module")
def unsignalled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run of SIGNALLED."""
    run = tmp_path_factory.mktemp("unsignalled") / "run"
    train(SIGNALLED, run)
    return run


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX")
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_at_a_random_moment_loses_nothing(
    tmp_path: Path, unsignalled: Path, number: signal.Signals, times: int
) -> None:
    write_config(SIGNALLED, tmp_path / "config.yaml")
    run, environment = tmp_path / "run", os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "train.py", "--config", str(tmp_path / "config.yaml"), "--out", str(run)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    while not (run / "metrics.jsonl").exists() or len((run / "metrics.jsonl").read_text()) < 2000:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    time.sleep(random.random())
    for _ in range(times):
        os.killpg(process.pid, number)  # as a terminal does: the loader process gets it too
        time.sleep(0.002)
    _, errors = process.communicate(timeout=60)
    step = checkpoint.available(run / "checkpoints")[0][0]
    if times == 1:
        assert process.returncode == (128 + number if step < 60 else 0), errors
        assert errors.count("finishing this step") == (step < 60)
    assert process.returncode in (0, 128 + number, -number), errors
    assert "Traceback" not in errors
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert_same_run(unsignalled, run)


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX")
def test_a_signal_while_the_ranks_agree_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    all_reduce_max = Ranks.all_reduce_max

    def meanwhile(ranks: Ranks, *numbers: int) -> list[int]:
        agreed = all_reduce_max(ranks, *numbers)
        if len(numbers) == 2:  # after a step
            monkeypatch.setattr(Ranks, "all_reduce_max", all_reduce_max)
            os.kill(os.getpid(), signal.SIGTERM)
        return agreed

    monkeypatch.setattr(Ranks, "all_reduce_max", meanwhile)
    result = train(tiny(), tmp_path / "run")
    assert (result.exit_status, result.step) == (128 + signal.SIGTERM, 2)


def test_processes_restarted_by_torchrun_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--restart does not apply to them."""
    train(tiny(train={"steps": 2}), tmp_path / "run")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert train(tiny(train={"steps": 3}), tmp_path / "run", restart=True).step == 3
    assert not (tmp_path / "run.1").exists()
