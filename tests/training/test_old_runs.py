"""Runs of version 0.1, whose files call things by other names, are resumed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.tiny import TINY, assert_same_run, tiny
from tests.training.test_old_checkpoints import old_state, old_tensors
from unit.errors import ConfigError
from unit.training import checkpoint
from unit.training.loop import train
from unit.training.trainer import Trainer
from unit.translation.translator import Translator

OLD_KEYS = {
    ("model", "ema_decay"): "average_decay",
    ("model", "downsamples"): "halvings",
    ("model", "same_init"): "equal_start",
    ("train", "grad_accum_steps"): "accumulation",
}


def old_config(config: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """With the old names of the keys, and one that is gone."""
    old = {
        section: {OLD_KEYS.get((section, key), key): value for key, value in values.items()}
        for section, values in config.items()
    }
    old["train"]["check_sync_every"] = 1000
    return old


def make_old(run: Path) -> None:
    """Rewrite what a run has stored as version 0.1 did."""
    for _, path in checkpoint.available(run / "checkpoints"):
        state = checkpoint.load(path)
        trainer = Trainer(TINY, torch.device("cpu"), "fp32")
        trainer.load_state_dict(state["trainer"])
        checkpoint.save(state | {"trainer": old_state(trainer), "config": old_config(state["config"])}, path)
    model = run / "model.safetensors"
    with safe_open(model, "pt") as file:
        metadata = file.metadata() | {"format_version": "1"}
    metadata["config"] = json.dumps(old_config(json.loads(metadata["config"])))
    tensors = {name: t for name, t in old_tensors(load_file(model)).items() if ".b.shared." not in name}
    save_file(tensors, model, metadata)
    text = (run / "config.yaml").read_text()
    for (_, key), old in OLD_KEYS.items():
        assert f"  {key}:" in text
        text = text.replace(f"  {key}:", f"  {old}:")
    (run / "config.yaml").write_text(text)
    (run / "run.log").unlink()


def with_removed_keys(config: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """With keys that this version has no more, at values that changed what was trained."""
    changed = old_config(config)
    changed["model"]["dropout"] = 0.5
    changed["optimizer"] |= {"schedule": "step", "decay_every": 5}
    return changed


def test_an_old_run_with_removed_keys_is_not_called_damaged_and_its_model_translates(tmp_path: Path) -> None:
    train(tiny(train={"steps": 3}), tmp_path / "run")
    ((_, newest), *_) = checkpoint.available(tmp_path / "run" / "checkpoints")
    state = checkpoint.load(newest)
    checkpoint.save(state | {"config": with_removed_keys(state["config"])}, newest)
    with pytest.raises(ConfigError, match=r"step-00000003\.pt: model\.dropout: was removed; .* can't be resumed"):
        train(TINY, tmp_path / "run")
    model = tmp_path / "run" / "model.safetensors"
    with safe_open(model, "pt") as file:
        metadata = file.metadata()
    metadata["config"] = json.dumps(with_removed_keys(json.loads(metadata["config"])))
    before, image = Translator.load(model), torch.rand(3, 16, 16) * 2 - 1
    save_file(load_file(model), tmp_path / "old.safetensors", metadata)
    assert torch.equal(Translator.load(tmp_path / "old.safetensors")(image, "a2b"), before(image, "a2b"))


def test_an_old_run_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    train(tiny(train={"steps": 3}), tmp_path / "run")
    make_old(tmp_path / "run")
    shutil.copy(tmp_path / "run" / "model.safetensors", tmp_path / "old.safetensors")
    assert Translator.load(tmp_path / "old.safetensors").step == 3
    assert train(TINY, tmp_path / "run").step == 6
    train(TINY, tmp_path / "uninterrupted")
    assert_same_run(tmp_path / "run", tmp_path / "uninterrupted")
