"""The ablation trains what its study says, for an equal time, goes on where it stopped, and tells of what failed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks import ablation, ablation_study
from benchmarks.ablation import Bench, alarms, average_seconds, seconds_a_step, steps_for
from benchmarks.ablation_results import Results, speed_keys, tables
from benchmarks.ablation_study import REPORT_TOWN, REPOSITORY, Run, changed_keys, held_out, make_images, read_study
from tests.tiny import TINY, tiny
from unit.config_file import read_config, write_config
from unit.data.datasets import open_datasets
from unit.domains import Domain
from unit.errors import ConfigError

STUDIES = sorted((REPOSITORY / "benchmarks" / "studies").glob("*.yaml"))
CPU = torch.device("cpu")


def study_file(folder: Path, **keys: Any) -> Path:
    """A study of two settings at 16 px, with some keys changed."""
    write_config(TINY, folder / "base.yaml")
    content = {
        "base": str(folder / "base.yaml"),
        "data": ["streets"],
        "seeds": [0, 1],
        "steps": 2,
        "size": 16,
        "settings": {"plain": {}, "broken": {"optimizer.learning_rate_generator": "1e15"}},
    }
    content = {key: value for key, value in (content | keys).items() if value is not None}
    path = folder / "small.yaml"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def bench_of(path: Path, jobs: int = 2) -> Bench:
    study = read_study(path)
    return Bench(study, path.parent, Results(path.parent / f"{study.name}.jsonl"), CPU, jobs)


def run_line(setting: str, seed: int, **facts: Any) -> dict[str, Any]:
    return {"kind": "run", "setting": setting, "data": "streets", "size": 16, "seed": seed, "steps": 2, **facts}


def group(kid: float | None, psnr: float | None, ssim: float | None) -> dict[str, float | None]:
    return {"kid": kid, "psnr": psnr, "ssim": ssim, "pixel_accuracy": None}


def finished(setting: str, seed: int, kid: float, psnr: float, alarms: dict[str, int] | None = None) -> dict[str, Any]:
    """A line of the results; from rain to sun everything is worse by one."""

    def ways(worse: float) -> dict[str, Any]:
        return {
            "translated": group(kid + worse, psnr - worse, 0.5),
            "do_nothing": group(90, 10, 0.4),
            "real": group(0, 30, 0.9),
        }

    metrics = {"a2b": ways(0), "b2a": ways(1)}
    return run_line(setting, seed, metrics={"report": metrics, "select": metrics}, alarms=alarms or {})


# Studies


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_shipped_studies_are_valid(path: Path) -> None:
    study = read_study(path)
    for setting in study.settings:
        for data in study.data:
            config = study.config(Run(setting, data, study.size, 0, 1000))
            assert (config.data.crop_size, config.train.steps, config.train.max_minutes) == (64, 1000, None)
            assert config.data.synthetic == (data == "streets")
    shipped = {"paper": "paper.yaml", "shared_1": "paper.yaml", "before": "streets.yaml"}
    if path.stem != "two_halvings":
        shipped["modern"] = "streets.yaml"
    for setting, file in shipped.items():
        if setting in study.settings:
            ours = study.config(Run(setting, "streets", 64, 0, 1000))
            theirs = read_config(REPOSITORY / "configs" / file)
            assert (ours.loss, ours.optimizer) == (theirs.loss, theirs.optimizer)
    assert shipped.keys() & study.settings.keys()


def test_a_setting_changes_only_its_keys(tmp_path: Path) -> None:
    settings = {"plain": {}, "hinge": {"loss.adversarial": "hinge", "loss.lambda4": 5}}
    common = {"loss.lambda0": 3, "loss.lambda4": 4, "data.flip": False}
    study = read_study(study_file(tmp_path, settings=settings, common=common))
    plain, hinge = (study.config(Run(name, "streets", 20, 5, 7)) for name in settings)
    assert changed_keys(hinge) == changed_keys(plain) | {"loss.adversarial": "hinge", "loss.lambda4": 5.0}
    assert (plain.loss.lambda0, plain.loss.lambda4, plain.data.flip) == (3.0, 4.0, False)
    assert (plain.data.load_size, plain.data.crop_size, plain.train.seed, plain.train.steps) == (20, 20, 5, 7)


def test_the_learning_rate_may_end_with_the_run(tmp_path: Path) -> None:
    keys = {"optimizer.schedule": "linear", "optimizer.decay_start": "50%", "optimizer.decay_end": "100%"}
    study = read_study(study_file(tmp_path, settings={"plain": {}, "falling": keys}))
    short, long = (Run("falling", "streets", 16, 0, steps) for steps in (10, 30))
    assert [(c.decay_start, c.decay_end) for c in (study.config(run).optimizer for run in (short, long))] == [
        (5, 10),
        (15, 30),
    ]
    assert study.folder(short) != study.folder(long)  # the one is no beginning of the other
    assert study.folder(Run("plain", "streets", 16, 0, 10)) == study.folder(Run("plain", "streets", 16, 0, 30))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"settings": {"plain": {"loss.lambda7": 1}}}, "did you mean"),
        ({"settings": {"a/b": {}}}, "settings.a/b"),
        ({"settings": {"plain": {"train.seed": 1}}}, "the benchmark's own"),
        ({"settings": {"plain": [1]}}, "mapping"),
        ({"data": ["mars"]}, "mars"),
        ({"minutes": 1}, "either minutes or steps"),
        ({"steps": None}, "either minutes or steps"),
        ({"steps": "many"}, "steps"),
        ({"seeds": [REPORT_TOWN]}, "report"),
        ({"table": "train"}, "table"),
        ({"epochs": 1}, "epochs: no such key"),
        ({"base": None}, "base"),
    ],
)
def test_an_invalid_study_is_refused_in_one_line(tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as error:
        bench_of(study_file(tmp_path, **keys))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_test_scenes_are_never_validation_scenes() -> None:
    seen = {
        (scenes, seed): {
            test.images.a.scene(k)  # type: ignore[attr-defined]
            for test in [held_out(scenes, tiny(train={"seed": seed}), Path())]
            for k in range(len(test.images.a))
        }
        for scenes in ("select", "report")
        for seed in (0, 1)
    }
    assert seen["report", 0] == seen["report", 1]
    assert not seen["report", 0] & (seen["select", 0] | seen["select", 1])
    assert not seen["select", 0] & seen["select", 1]


def test_the_earth_is_cut_once_and_its_bands_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut: list[int] = []

    def write(out: Path, size: int) -> None:
        cut.append(size)
        for name in ("trainA", "trainB", "testA", "testB", "selectA", "selectB"):
            (out / name).mkdir(parents=True)
            Image.new("RGB", (size, size)).save(out / name / f"{name[:-1]}.png")

    monkeypatch.setattr(ablation_study, "write_earth", write)
    study = read_study(study_file(tmp_path, data=["earth"]))
    config = study.config(Run("plain", "earth", 16, 0, 2))
    (tmp_path / "images" / "earth-16.partial" / "trainA").mkdir(parents=True)  # cut short
    for _ in range(2):
        make_images(config, tmp_path)
    assert cut == [16]
    for scenes, name in (("select", "select.png"), ("report", "test.png")):
        test = held_out(scenes, config, tmp_path)
        assert [test.images[i].name(0) for i in Domain] == [name, name]
        assert test.paired
    assert (
        open_datasets(replace(config.data, root=str(tmp_path / "images" / "earth-16"))).train.a.name(0) == "train.png"
    )


# Equal time


def test_equal_time_is_converted_to_steps() -> None:
    assert steps_for(2, 0.12) == 1000
    assert steps_for(2, 0.24) == 500
    assert steps_for(0.001, 5) == 1


def test_a_lazy_penalty_is_weighted_by_its_share() -> None:
    config = tiny(loss={"r1": 1.0})  # in every 16th step
    assert average_seconds(config, {False: [1.0, 1.0, 9.0], True: [3.0, 2.0, 3.0]}) == pytest.approx((15 * 1 + 3) / 16)
    assert average_seconds(TINY, {False: [1.0, 2.0, 9.0]}) == pytest.approx(2)


def test_each_setting_is_measured_with_its_own_configuration() -> None:
    wide = {"channels": 24, "discriminator_channels": 24}
    config = tiny(data={"crop_size": 32, "load_size": 32}, model={"discriminator_layers": 4})
    model = {**vars(config.model), **wide}
    seconds = seconds_a_step({"narrow": config, "wide": tiny(data=vars(config.data), model=model)}, threads=1)
    assert seconds["wide"] > 1.5 * seconds["narrow"] > 0


def test_parallel_runs_share_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class InProcessPool:
        """A process pool in this process."""

        def __init__(self, *_: object, **__: object) -> None: ...
        def __enter__(self) -> InProcessPool:
            return self

        def __exit__(self, *_: object) -> None: ...
        def submit(self, *_: object) -> InProcessPool:
            return self

        def result(self) -> dict[str, float]:
            return {"plain": 0.6, "broken": 1.2}

    monkeypatch.setattr(ablation, "ProcessPoolExecutor", InProcessPool)
    bench = bench_of(study_file(tmp_path, steps=None, minutes=3))
    assert {run.steps for run in bench.runs()} == {0}
    bench.measure_speed(again=False)
    assert {run.setting: run.steps for run in bench.runs()} == {"plain": 600, "broken": 300}
    monkeypatch.setattr(InProcessPool, "result", lambda _: {"plain": 1.2, "broken": 1.2})
    bench_of(tmp_path / "small.yaml").measure_speed(again=False)  # is already known
    assert {run.setting: run.steps for run in bench_of(tmp_path / "small.yaml").runs()} == {"plain": 600, "broken": 300}
    bench.measure_speed(again=True)
    assert {run.setting: run.steps for run in bench_of(tmp_path / "small.yaml").runs()} == {"plain": 300, "broken": 300}
    assert "12 min" in bench.plan()


# Results


def test_a_later_line_replaces_an_earlier_one(tmp_path: Path) -> None:
    results = Results(tmp_path / "r.jsonl")
    results.add(run_line("plain", 0, failed="once"), run_line("plain", 1, failed="twice"))
    results.add(finished("plain", 0, 50, 20))
    again = Results(tmp_path / "r.jsonl")
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 2
    assert "metrics" in (again.of(Run("plain", "streets", 16, 0, 2)) or {})
    assert again.of(Run("plain", "streets", 16, 0, 3)) is None
    (tmp_path / "r.jsonl").write_text('{"kind": "cake"}\n')
    with pytest.raises(ConfigError, match="line 1"):
        Results(tmp_path / "r.jsonl")


def test_a_name_stands_for_one_setting(tmp_path: Path) -> None:
    study = read_study(study_file(tmp_path, settings={"plain": {"loss.lambda0": 2}}))
    run, results = Run("plain", "streets", 16, 0, 2), Results(tmp_path / "r.jsonl")
    config = changed_keys(study.config(run))
    results.add(run_line("plain", 0, config=config, failed=""))
    results.add({"kind": "speed", "setting": "plain", "size": 16, "config": speed_keys(config)})
    results.require_same(study, run)
    for other in ({"loss.lambda0": 3}, {"loss.lambda0": 2, "optimizer.beta1": 0.1}):
        changed = read_study(study_file(tmp_path, settings={"plain": other}))
        with pytest.raises(ConfigError, match=list(other)[-1]):
            results.require_same(changed, run)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_shipped_results_with_old_names_are_still_readable(path: Path) -> None:
    file = REPOSITORY / "benchmarks" / "results" / f"{path.stem}.jsonl"
    if not file.exists():
        pytest.skip("a study without results")
    bench = Bench(read_study(path), REPOSITORY, Results(file), CPU, 1)
    bench.require_same()
    lines = tables(bench.study, bench.runs(), bench.results).splitlines()
    baselines = [line for line in lines if line.startswith("| *identity*")]
    assert baselines
    assert all("." in line for line in baselines)  # it has numbers


# Tables


def test_the_table_has_mean_deviation_share_and_the_best(tmp_path: Path) -> None:
    settings = {"plain": {}, "hinge": {"loss.adversarial": "hinge"}, "broken": {}, "new": {}}
    bench = bench_of(study_file(tmp_path, settings=settings))
    bench.results.add(finished("plain", 0, 60, 20), finished("plain", 1, 40, 22), finished("hinge", 0, 45, 19))
    bench.results.add(finished("hinge", 1, 45, 19, alarms={"identity_collapse": 40}))
    bench.results.add(run_line("broken", 0, failed="step 3: the loss term kl_a is NaN or Inf"))
    text = tables(bench.study, bench.runs(), bench.results)
    rows = {line.split(" | ")[0].removeprefix("| "): line.strip("| ").split(" | ") for line in text.splitlines()}
    heading = rows["setting"]
    assert heading[4:9] == ["KID x 1000 a2b", "KID x 1000 b2a", "KID x 1000 mean", "PSNR, dB a2b", "PSNR, dB b2a"]
    assert "pixels" not in text
    plain, hinge = (dict(zip(heading, rows[name], strict=True)) for name in ("plain", "hinge"))
    assert plain["seeds"] == "2"
    assert plain["KID x 1000 a2b"] == "50.0 ± 14.1 (44%)"
    assert plain["PSNR, dB a2b"] == "**21.00 ± 1.41 (55%)**"
    assert plain["PSNR, dB b2a"] == "**20.00 ± 1.41 (50%)**"
    assert hinge["KID x 1000 mean"] == "**45.5 ± 0.0 (49%)**"
    assert rows["*identity*"][4:] == ["90.0", "90.0", "90.0", "10.00", "10.00", "0.400", "0.400"]
    assert rows["*ceiling*"][7] == "30.00"
    assert rows["new"][1:5] == ["0", "2", "–", "–"]
    assert "- broken, seed 0: failed: step 3: the loss term kl_a is NaN or Inf" in text
    assert "- broken, seed 1: not finished" in text
    assert "- hinge, seed 1: the alarm identity_collapse from step 40" in text


def test_the_table_has_the_columns_that_results_have(tmp_path: Path) -> None:
    bench = bench_of(study_file(tmp_path, settings={"soft": {}, "noisy": {}}))
    bench.results.add(finished("soft", 0, 60, 20), finished("noisy", 0, 40, 22))
    assert not any(word in tables(bench.study, bench.runs(), bench.results) for word in ("VGG", "LPIPS", "sharpness"))
    for setting, value in (("soft", 0.7), ("noisy", 1.4)):
        line = finished(setting, 0, 60, 20)
        for groups in line["metrics"]["report"].values():
            for group, number in (("translated", value), ("do_nothing", 2.0), ("real", 1.0)):
                groups[group] |= {"kid_vgg": 100 * number, "st_lpips": number / 10, "sharpness": number}
        bench.results.add(line)
    text = tables(bench.study, bench.runs(), bench.results)
    rows = {line.split(" | ")[0].removeprefix("| "): line.strip("| ").split(" | ") for line in text.splitlines()}
    soft, noisy, identity = (
        dict(zip(rows["setting"], rows[name], strict=True)) for name in ("soft", "noisy", "*identity*")
    )
    assert soft["KID-VGG x 1000 mean"] == "**70.0 (130%)**"
    assert (soft["ST-LPIPS a2b"], noisy["ST-LPIPS a2b"]) == ("**0.070 (130%)**", "0.140 (60%)")
    assert (soft["sharpness b2a"], noisy["sharpness b2a"], identity["sharpness b2a"]) == ("**0.70**", "1.40", "2.00")


def test_alarms_are_found_with_their_first_step(tmp_path: Path) -> None:
    lines = [{"step": k, "alarm/dead": float(k >= 20), "alarm/other": 0.0} for k in (10, 20, 30)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert alarms(tmp_path) == {"dead": 20}


# The whole


@pytest.fixture
def _same_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("_same_threads")
def test_an_ablation_trains_resumes_and_reports_failures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    study, out = study_file(tmp_path), tmp_path / "out"
    results = out / "small.jsonl"

    def run(*options: str) -> int:
        caplog.clear()
        return ablation.main([str(study), "--out", str(out), "--jobs", "2", *options])

    def found() -> dict[tuple[str, int], dict[str, Any]]:
        lines = map(json.loads, results.read_text(encoding="utf-8").splitlines())
        return {(line["setting"], line["seed"]): line for line in lines}

    caplog.set_level("INFO")
    assert run() == 1
    table, lines = capsys.readouterr().out, found()
    assert lines.keys() == {(setting, seed) for setting in ("plain", "broken") for seed in (0, 1)}
    assert "NaN or Inf" in lines["broken", 0]["failed"]
    plain, other = (lines["plain", seed]["metrics"] for seed in (0, 1))
    assert plain["report"]["a2b"]["translated"] != other["report"]["a2b"]["translated"]
    assert plain["report"]["a2b"]["identity"] == other["report"]["a2b"]["identity"]
    assert plain["select"]["a2b"]["identity"] != other["select"]["a2b"]["identity"]

    results.write_text("".join(json.dumps(line) + "\n" for key, line in lines.items() if key != ("plain", 1)))
    shutil.rmtree(out / "small")
    assert run("--only", "plain") == 0
    assert "plain, seed 1: 2 steps" in caplog.text
    assert "plain, seed 0: 2 steps" not in caplog.text
    assert found()["plain", 1]["metrics"] == other

    shutil.rmtree(out / "small")
    capsys.readouterr()
    assert ablation.main([str(study), "--results", str(results), "--table"]) == 0
    assert capsys.readouterr().out == table
