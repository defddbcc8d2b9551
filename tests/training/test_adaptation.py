"""Domain adaptation: no label of the target is seen, runs resume exactly, and the result is the last step's."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.digits.small_sets import COUNTS, labels, write_mnist, write_svhn, write_usps
from tests.tiny import assert_same_run, metrics, state_of
from unit.digits.config import DigitsConfig, make_config
from unit.domains import Domain
from unit.errors import ConfigError
from unit.evaluation.classification import accuracy
from unit.evaluation.report.write import write_report
from unit.training.adaptation import AdaptationTrainer, accuracies, adapt, resolve_adaptation
from unit.training.distributed import SINGLE_PROCESS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_mnist(tmp_path / "digits")
    write_usps(tmp_path / "digits")
    return tmp_path / "digits"


def config(root: Path, recipe: str = "paper", source: str = "usps", target: str = "mnist", **train: Any) -> Any:
    made = make_config(DigitsConfig(str(root), source, target), recipe, steps=6, device="cpu", precision="fp32")  # type: ignore[arg-type]
    keys = {"batch_size": 4, "log_every": 1, "sample_every": 3, "validate_every": 3, "checkpoint_every": 2} | train
    small = replace(made.model, channels=2, head_dropout=0.2)
    return replace(made, model=small, train=replace(made.train, **keys))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in state_of(run).items() if name.startswith("/trainer/")}


def assert_equal_weights(one: Path, two: Path) -> None:
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def wrong(split: str = "train") -> Any:
    return (labels(COUNTS[split]) + 3) % 10


@pytest.mark.parametrize("recipe", ["paper", "modern", "source_only"])
def test_the_targets_training_labels_are_never_seen(root: Path, tmp_path: Path, recipe: str) -> None:
    one = adapt(config(root, recipe), tmp_path / "one")
    write_mnist(root, wrong())
    two = adapt(config(root, recipe), tmp_path / "two")
    assert_equal_weights(one.out, two.out)
    assert (one.accuracy, one.best_on_test) == (two.accuracy, two.best_on_test)
    write_usps(root, wrong())  # the test above could find a difference
    adapt(config(root, recipe), tmp_path / "three")
    assert not torch.equal(*(weights(tmp_path / run)["/trainer/ema/classes.bias"] for run in ("one", "three")))


def test_the_ceiling_sees_the_targets_labels_alone(root: Path, tmp_path: Path) -> None:
    adapt(config(root, "supervised"), tmp_path / "one")
    write_usps(root, wrong())
    adapt(config(root, "supervised"), tmp_path / "two")
    assert_equal_weights(tmp_path / "one", tmp_path / "two")
    write_mnist(root, wrong())
    adapt(config(root, "supervised"), tmp_path / "three")
    assert not torch.equal(*(weights(tmp_path / run)["/trainer/ema/classes.bias"] for run in ("one", "three")))


@pytest.mark.parametrize("recipe", ["paper", "modern", "source_only"])
def test_a_run_in_parts_is_the_same_run(root: Path, tmp_path: Path, recipe: str) -> None:
    whole = adapt(config(root, recipe), tmp_path / "whole")
    for steps in (2, 4, 6):
        part = adapt(config(root, recipe, steps=steps), tmp_path / "parts")
        assert (part.step, part.exit_status) == (steps, 0)
    if recipe == "source_only":
        assert_equal_weights(tmp_path / "whole", tmp_path / "parts")
        return
    samples = tmp_path / "whole" / "samples"
    assert sorted(path.name for path in samples.iterdir()) == [f"step-0000000{step}.png" for step in (0, 3, 6)]
    assert_equal_weights(tmp_path / "whole", tmp_path / "parts")
    assert part.accuracy == whole.accuracy


def test_a_stopped_run_has_no_result_and_resumes_to_the_same_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapt(config(root), tmp_path / "whole")
    step = AdaptationTrainer.step

    def interrupted(self: AdaptationTrainer, batch: Any) -> Any:
        if self.steps_done == 3:
            signal.raise_signal(signal.SIGTERM)
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(AdaptationTrainer, "step", interrupted)
        stopped = adapt(config(root), tmp_path / "parts")
    assert (stopped.step, stopped.exit_status, stopped.accuracy) == (4, 143, None)
    adapt(config(root), tmp_path / "parts")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def test_the_result_is_the_last_steps_on_the_whole_test_set(root: Path, tmp_path: Path) -> None:
    result = adapt(config(root, validate_every=1), tmp_path / "run")
    by_step = accuracies(tmp_path / "run")
    assert list(by_step) == [1, 2, 3, 4, 5, 6]
    assert result.accuracy == by_step[6]
    assert result.best_on_test == (max(by_step, key=lambda step: by_step[step]), max(by_step.values()))
    assert result.test_images == COUNTS["test"]
    resolved = resolve_adaptation(config(root), tmp_path / "run", SINGLE_PROCESS)
    trainer = resolved.build_trainer()
    trainer.ema.load_state_dict(
        {name.removeprefix("/trainer/ema/"): t for name, t in weights(result.out).items() if "/ema/" in name}
    )
    assert accuracy(trainer.ema, resolved.test_digits.b, Domain.B, 1) == result.accuracy


def test_the_best_is_never_the_result(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sinking = iter(range(100, 0, -1))
    monkeypatch.setattr("unit.training.adaptation.accuracy", lambda *_: next(sinking) / 100)
    result = adapt(config(root, validate_every=2, sample_every=100), tmp_path / "run")
    assert (result.accuracy, result.best_on_test) == (0.96, (2, 1.0))


def test_a_run_with_other_settings_is_refused(root: Path, tmp_path: Path) -> None:
    adapt(config(root), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"another configuration \(.*loss\.distortion: 0\.0 before, "):
        adapt(replace(config(root, "modern"), model=config(root).model), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"data\.source: usps before, mnist now"):
        adapt(config(root, source="mnist", target="usps"), tmp_path / "run")
    adapt(config(root, seed=0), tmp_path / "run", restart=True)
    assert (tmp_path / "run.1" / "config.yaml").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["source_only", "supervised"])  # the others do not reach it in so few steps yet
def test_bars_are_learned_across_the_sets(root: Path, tmp_path: Path, recipe: str) -> None:
    made = config(root, recipe, steps=150, batch_size=16, validate_every=50, log_every=50)
    rates = replace(made.optimizer, learning_rate_generator=1e-3, learning_rate_discriminator=1e-3)
    result = adapt(replace(made, optimizer=rates), tmp_path / "run")
    assert result.accuracy is not None
    assert result.accuracy > 0.7


def test_svhn_goes_all_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "digits"
    write_mnist(root)
    write_svhn(root, monkeypatch)
    for source, target in (("svhn", "mnist"), ("mnist", "svhn")):
        for recipe in ("paper", "source_only"):
            made = config(root, recipe, source, target, steps=2, sample_every=2, validate_every=2)
            result = adapt(made, tmp_path / f"{source}-{recipe}")
            assert result.accuracy is not None


def test_the_log_the_report_and_the_model_tell_of_it(root: Path, tmp_path: Path) -> None:
    adapt(config(root), tmp_path / "run")
    lines = metrics(tmp_path / "run")
    assert {"loss/classes_a", "loss/feature_matching_a", "loss/feature_matching_b"} <= lines[1].keys()
    assert not any("classes_b" in line for line in lines)
    page = write_report(tmp_path / "run").read_text()
    for words in ("usps", "mnist", "Accuracy", "step 6 (the last)", "selected on the test set", "train.batch_size"):
        assert words in page
    assert "unavailable" not in page
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["training_images"] == {
        "usps": COUNTS["train"],
        "mnist": COUNTS["train"],
    }
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_a_classifier_is_no_translator(root: Path, tmp_path: Path) -> None:
    from unit.errors import ModelError
    from unit.translation.translator import Translator

    adapt(config(root), tmp_path / "run")
    with pytest.raises(ModelError, match="not a model of this program"):
        Translator.load(tmp_path / "run", "cpu")
