"""A run that starts from another: what it takes over, what it refuses, and that it does not need the other any more."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.tiny import TINY, metrics, state_of, tiny
from tests.training.test_trainer import CPU, batch
from unit.__main__ import main
from unit.config import Config, ModelConfig
from unit.config_file import read_config, write_config
from unit.data.batches import held_out_image
from unit.data.datasets import open_datasets
from unit.domains import Domain
from unit.errors import ConfigError, ModelError, UserError
from unit.model.extras.memory import Importance
from unit.training import checkpoint
from unit.training.dry_run import plan_run
from unit.training.importance import measure_importance
from unit.training.initial_weights import initialize
from unit.training.loop import train
from unit.training.trainer import Trainer
from unit.translation.model_file import load_model

FILE = "importance.safetensors"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with its importance."""
    run = tmp_path_factory.mktemp("original") / "first"
    train(TINY, run)
    assert main(["importance", str(run), "--images", "3", "--device", "cpu"]) == 0
    return run


@pytest.fixture
def source(original: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    shutil.copytree(original, tmp_path / "first")
    return tmp_path / "first"


def config(source: Path, steps: int = 2, memory: float = 0.0, **sections: dict[str, Any]) -> Config:
    """A run on other streets that starts from `source`."""
    train_keys = {"init_from": str(source), "seed": 1, "steps": steps} | sections.pop("train", {})
    loss = {"memory": memory} | sections.pop("loss", {})
    return tiny(train=train_keys, loss=loss, **sections)


def settings_from(settings: Config, source: Path) -> Config:
    return replace(settings, train=replace(settings.train, init_from=str(source)))


def initialized(config: Config) -> Trainer:
    trainer = Trainer(config, CPU, "fp32")
    initialize(trainer)
    return trainer


def newest(run: Path) -> dict[str, Any]:
    state = checkpoint.load_newest(run / "checkpoints")
    assert state
    trainer: dict[str, Any] = state["trainer"]
    return trainer


def assert_equal(one: Any, two: Any) -> None:
    assert str(one) == str(two)  # of long tensors only a part
    if isinstance(one, dict):
        for key in one:
            assert_equal(one[key], two[key])
    elif isinstance(one, Tensor):
        assert torch.equal(one, two)


# -- what is taken over ------------------------------------------------------------------------------------------------


def test_a_run_gives_weights_ema_discriminators_and_optimizers_but_not_its_steps(source: Path) -> None:
    trainer, saved = initialized(config(source)), newest(source)
    assert (trainer.steps_done, saved["steps_done"]) == (0, 6)
    now = trainer.state_dict()
    for part in ("networks", "ema", "discriminators"):
        assert_equal(now[part], saved[part])
    for part in ("optimizer_generator", "optimizer_discriminator"):
        assert now[part]["state"]
        assert_equal(now[part]["state"], saved[part]["state"])


def test_the_learning_rates_are_the_new_runs(source: Path) -> None:
    trainer = initialized(config(source, optimizer={"learning_rate_generator": 0.125, "weight_decay": 0.5}))
    (group,) = trainer.optimizer_generator.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.125, 0.5)


@pytest.mark.parametrize("without", ["file", "checkpoints"])
def test_a_model_gives_its_ema_weights_and_the_rest_is_new(source: Path, without: str) -> None:
    """A model file, and a run whose checkpoints are gone."""
    if without == "checkpoints":
        shutil.rmtree(source / "checkpoints")
    settings = config(source / "model.safetensors" if without == "file" else source)
    trainer, fresh, model = initialized(settings), Trainer(settings, CPU, "fp32"), load_model(source)[0]
    assert_equal(trainer.networks.state_dict(), model.state_dict())
    assert_equal(trainer.ema.state_dict(), model.state_dict())
    assert_equal(trainer.discriminators.state_dict(), fresh.discriminators.state_dict())
    assert trainer.optimizer_generator.state_dict() == fresh.optimizer_generator.state_dict()


def test_extras_may_differ(source: Path, tmp_path: Path) -> None:
    """Their parameters come last in the optimizer, and are new; those of both go on."""
    settings = config(source, loss={"patch_nce": 1.0})
    trainer = initialized(settings)
    trainer.step(batch(0))
    train(replace(settings, train=replace(settings.train, steps=1)), tmp_path / "second")
    both, saved = initialized(settings_from(settings, tmp_path / "second")), newest(tmp_path / "second")
    assert_equal(both.extras.state_dict(), saved["extras"])
    assert_equal(both.state_dict()["optimizer_generator"]["state"], saved["optimizer_generator"]["state"])
    again = initialized(config(tmp_path / "second"))
    again.step(batch(0))
    assert len(again.optimizer_generator.state) == len(list(again.networks.parameters()))


def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(source: Path) -> None:
    (source / "checkpoints" / "step-00000006.pt").write_bytes(b"cut short")
    trainer = initialized(config(source))
    expected = checkpoint.load(source / "checkpoints" / "step-00000004.pt")["trainer"]
    assert_equal(trainer.networks.state_dict(), expected["networks"])


def test_the_ema_needs_no_warm_up(source: Path) -> None:
    trainer = initialized(config(source))
    name = "encoder.private.a.0.0.weight"
    before = trainer.ema.state_dict()[name].clone()
    trainer.step(batch(0))
    expected = 0.999 * before + 0.001 * trainer.networks.state_dict()[name]
    torch.testing.assert_close(trainer.ema.state_dict()[name], expected, rtol=0, atol=1e-6)


# -- a run of its own --------------------------------------------------------------------------------------------------


def test_it_is_a_run_of_its_own_that_does_not_need_the_other_any_more(source: Path, tmp_path: Path) -> None:
    """In two parts, the second without the other run, it is bit for bit the uninterrupted one."""
    train(config(source, 4, memory=10.0), tmp_path / "once")
    train(config(source, 2, memory=10.0), tmp_path / "parts")
    shutil.rmtree(source)
    assert train(config(source, 4, memory=10.0), tmp_path / "parts").step == 4
    once, parts = state_of(tmp_path / "once"), state_of(tmp_path / "parts")
    assert once.keys() == parts.keys()
    assert all(torch.equal(once[place], parts[place]) for place in once)
    assert read_config(tmp_path / "once" / "config.yaml").train.init_from == str(source)
    penalties = {line["step"]: line["loss/memory"] for line in metrics(tmp_path / "once") if "loss/kl_a" in line}
    assert list(penalties) == [1, 2, 3, 4]
    assert all(penalty > 0 for penalty in penalties.values())


def test_the_model_does_not_tell_the_path(source: Path, tmp_path: Path) -> None:
    train(config(source, 0, memory=10.0), tmp_path / "second")
    with safe_open(tmp_path / "second" / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["config"])["train"]["init_from"] == "first"
    assert load_model(tmp_path / "second")[1].loss.memory == 10


def test_it_may_be_moved_together_with_the_other(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(config(Path("first"), 1), Path("second"))
    (tmp_path / "moved").mkdir()
    for run in ("first", "second"):
        (tmp_path / run).rename(tmp_path / "moved" / run)
    monkeypatch.chdir(tmp_path / "moved")
    assert train(config(Path("first"), 2), Path("second")).step == 2


@pytest.mark.parametrize("init_from", [None, "elsewhere"])
def test_a_run_is_not_resumed_with_another_origin(source: Path, tmp_path: Path, init_from: str | None) -> None:
    train(config(source, 1), tmp_path / "second")
    other = config(source, 2, train={"init_from": init_from})
    with pytest.raises(ConfigError, match=r"train\.init_from: .*first before, .* now"):
        train(other, tmp_path / "second")


def test_memory_keeps_the_weights_near(source: Path, tmp_path: Path) -> None:
    moved = {}
    start = load_model(source)[0].state_dict()
    for weight in (0.0, 1e6):
        train(config(source, 6, memory=weight), tmp_path / f"second-{weight}")
        now = load_model(tmp_path / f"second-{weight}")[0].state_dict()
        moved[weight] = sum(float((now[name] - start[name]).square().sum()) for name in start)
    assert moved[1e6] < 0.2 * moved[0.0]


def test_the_dry_run_starts_from_it_too(source: Path, tmp_path: Path) -> None:
    assert "steps" in plan_run(config(source, memory=1.0), tmp_path / "second").description
    with pytest.raises(ConfigError, match=r"model\.channels"):
        plan_run(config(source, model={"channels": 8}), tmp_path / "second")
    assert not (tmp_path / "second").exists()


# -- importance --------------------------------------------------------------------------------------------------------


def test_the_file_holds_the_importance_on_the_runs_own_images(original: Path) -> None:
    """Images 0, 1 and 3 of 5, as training sees them: the middle of each."""
    networks = load_model(original)[0].requires_grad_(True)
    importance = Importance(networks)
    datasets = open_datasets(TINY.data)
    for i in Domain:
        for index in (0, 1, 3):
            importance.add(held_out_image(datasets.train[i], index, TINY.data)[None], i)
    saved = load_file(original / FILE)
    for name, expected in importance.mean().items():
        torch.testing.assert_close(saved[name], expected, msg=name)
    with safe_open(original / FILE, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["images"]) == {"a": 3, "b": 3}
    assert (metadata["step"], metadata["format_version"]) == ("6", "1")
    assert "mean over images of |d mean(map(x)^2) / d weight|" in metadata["definition"]


def test_the_importance_of_several_runs_adds_up(source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A run that had to remember another one adds that one's; one that had not, does not."""
    caplog.set_level("INFO")
    first, second = load_file(source / FILE), {}
    for weight in (0.0, 1e-9):
        run = tmp_path / f"second-{weight}"
        train(config(source, 0, memory=weight), run)  # 0 steps: the same model, so its own importance is known
        shutil.rmtree(run / "checkpoints") if weight == 0 else None
        assert main(["importance", str(run), "--images", "2", "--device", "cpu"]) == 0
        second[weight] = load_file(run / FILE)
    assert caplog.text.count("with what this run had to remember itself") == 1
    for name, own in second[0.0].items():
        torch.testing.assert_close(second[1e-9][name], own + first[name], msg=name)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(UserError, match="what this run itself had to remember was in its checkpoints"):
        measure_importance(run, open_datasets(TINY.data), 2, CPU)


def test_images_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    assert main(["streets", str(tmp_path / "streets"), "--size", "16", "--train", "4", "--test", "1"]) == 0
    data = {"root": str(tmp_path / "streets"), "load_size": 16}
    train(tiny(data=data, train={"steps": 0}), tmp_path / "run")
    (tmp_path / "streets" / "trainA" / "scene-00002.png").write_bytes(b"no image")
    assert main(["importance", str(tmp_path / "run"), "--device", "cpu"]) == 0
    with safe_open(tmp_path / "run" / FILE, "pt") as file:
        assert json.loads(file.metadata()["images"]) == {"a": 3, "b": 3}


# -- what is refused, in one line --------------------------------------------------------------------------------------


def refusal(capsys: pytest.CaptureFixture[str], settings: Config, *flags: str, out: Path) -> str:
    """Train by the command line, and return its one line of error; the exit status is 2."""
    write_config(settings, out.parent / "settings.yaml")
    capsys.readouterr()
    assert main(["train", "--config", str(out.parent / "settings.yaml"), "--out", str(out), *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in captured.err
    return lines[0]


OTHER_NETWORKS = {
    "channels": 8,
    "downsamples": 1,
    "residual_blocks": 1,
    "shared_blocks": 2,
    "normalization": "group",
    "upsampling": "nearest",
    "downsampling": "blurred",
    "pixel_skip": True,
}
OTHER_DISCRIMINATORS = {
    "discriminator_channels": 8,
    "discriminator_scales": 1,
    "discriminator_layers": 1,
    "spectral_norm": True,
}


@pytest.mark.parametrize("key", OTHER_NETWORKS)
def test_other_networks_are_refused_by_the_key(source: Path, key: str) -> None:
    for origin in (source, source / "model.safetensors"):
        with pytest.raises(ConfigError, match=rf"^model\.{key}: is .*set it to ") as refused:
            initialized(config(origin, model={key: OTHER_NETWORKS[key]}))
        assert str(refused.value).isprintable()


@pytest.mark.parametrize("key", OTHER_DISCRIMINATORS)
def test_other_discriminators_are_refused_but_not_with_a_model_file(source: Path, key: str) -> None:
    other = {key: OTHER_DISCRIMINATORS[key]}
    with pytest.raises(ConfigError, match=rf"^model\.{key}: is .* or give model\.safetensors of it"):
        initialized(config(source, model=other))
    initialized(config(source / "model.safetensors", model=other))
    initialized(config(source, model={"discriminator_channels": 4}))  # which is the default's value


def test_networks_that_differ_only_in_training_are_the_same(source: Path) -> None:
    others = {"initialization": "normal", "same_init": True, "noise": False, "ema_decay": 0.5}
    initialized(config(source, model=others))
    assert asdict(ModelConfig()).keys() == OTHER_NETWORKS.keys() | OTHER_DISCRIMINATORS.keys() | others.keys()


def test_mistakes_on_the_command_line_get_one_line(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "second"
    line = refusal(capsys, tiny(), "--init_from", str(source), "--model.channels", "8", out=out)
    assert "model.channels: is 8, but the weights of" in line
    line = refusal(capsys, tiny(), "--init_from", str(tmp_path / "nowhere"), out=out)
    assert "nowhere" in line
    assert "no such file" in line
    assert "--train.init_from" in refusal(capsys, tiny(), "--init_from=", out=out)
    line = refusal(capsys, tiny(), "--init_from", str(source), out=source)
    assert line == f"error: --out {source}: is the run of --init_from; give another"
    line = refusal(capsys, tiny(), "--init_from", str(source / "best.safetensors"), "--restart", out=source)
    assert "is the run of --init_from" in line
    assert "give --init_from RUN too" in refusal(capsys, tiny(), "--loss.memory", "1", out=out)
    (source / FILE).unlink()
    line = refusal(capsys, tiny(), "--init_from", str(source), "--loss.memory", "1", out=out)
    assert line == (
        f"error: {source / FILE}: is missing, and loss.memory needs it; measure it: python -m unit importance {source}"
    )
    assert not (out / "config.yaml").exists()
    assert main(["train", "--config", str(tmp_path / "settings.yaml"), "--out", str(out), "--train.steps", "1"]) == 0


def test_an_importance_file_of_another_model_is_refused(source: Path, tmp_path: Path) -> None:
    settings = config(source, memory=1.0)
    initialized(settings)
    another = tiny(train={"seed": 5, "steps": 1})
    train(another, tmp_path / "another")
    assert main(["importance", str(tmp_path / "another"), "--images", "1", "--device", "cpu"]) == 0
    shutil.copy(tmp_path / "another" / FILE, source / FILE)  # of equal networks
    with pytest.raises(ModelError, match="measured on another model"):
        initialized(settings)
    with pytest.raises(ModelError, match="measured on another model"):  # not the file's own step
        initialized(config(tmp_path / "another", memory=1.0, train={"init_from": str(source / "best.safetensors")}))


def changed(file: Path, change: dict[str, Tensor] | None = None, metadata: dict[str, str] | None = None) -> None:
    with safe_open(file, "pt") as tensors:
        before = tensors.metadata()
    save_file(load_file(file) | (change or {}), file, before | (metadata or {}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: file.write_bytes(b"no such thing"), "not a safetensors file, or damaged"),
        (lambda file: file.unlink() or file.mkdir(), "not a safetensors file, or damaged"),
        (lambda file: shutil.copy(file.with_name("model.safetensors"), file), "not an importance file"),
        (lambda file: changed(file, metadata={"format_version": "9"}), "not an importance file"),
        (lambda file: changed(file, {"more": torch.zeros(3)}), "measured on another model"),
        (lambda file: changed(file, {"encoder.private.a.0.0.bias": torch.zeros(3)}), "measured on another model"),
        (lambda file: changed(file, {"encoder.private.a.0.0.bias": torch.full((4,), -1.0)}), "is negative, NaN"),
        (lambda file: changed(file, {"encoder.private.a.0.0.bias": torch.full((4,), torch.nan)}), "is negative, NaN"),
    ],
)
def test_a_bad_importance_file_is_refused(source: Path, change: Any, words: str) -> None:
    change(source / FILE)
    with pytest.raises(ModelError, match=words) as refused:
        initialized(config(source, memory=1.0))
    assert str(refused.value).isprintable()
    assert str(source / FILE) in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["nowhere"], 2, "nowhere"),
        (["model"], 2, "a model file has no images; give the directory of its run"),
        (["run", "--images", "0"], 2, "--images"),
        (["run", "--device", "cuda:99"], 2, "cuda:99"),
        (["gone"], 3, "gone-images"),
    ],
)
def test_importance_refuses_what_it_cannot_measure(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, words: str
) -> None:
    run, *rest = arguments
    places = {"run": source, "model": source / "model.safetensors", "nowhere": tmp_path / "nowhere", "gone": source}
    if run == "gone":
        folders = {key: str(tmp_path / "gone-images" / key) for key in ("a", "b")}
        write_config(tiny(data=folders), source / "config.yaml")
    (source / FILE).unlink()
    assert main(["importance", str(places[run]), *rest]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err.splitlines()[-1]
    assert captured.err.splitlines()[-1].startswith("error: ")
    assert not (source / FILE).exists()
