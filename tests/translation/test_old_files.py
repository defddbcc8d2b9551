"""A model.safetensors from before the configuration's keys were renamed still translates, bitwise the same."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.tiny import TINY
from unit.domains import Domain
from unit.model.networks import build_autoencoders
from unit.model.old_names import current_name
from unit.translation.translator import Translator

OLD_CONFIG = """{
    "data": {
        "a": null, "b": null, "root": null, "test_a": null, "test_b": null, "paired_test": false, "name_a": null,
        "name_b": null, "load_size": 20, "crop_size": 16, "flip": true, "workers": 0, "cache": "none",
        "max_pixels": 200000000, "on_bad_image": "stop", "streets_train": 5, "streets_test": 3
    },
    "model": {
        "channels": 4, "halvings": 2, "residual_blocks": 2, "shared_blocks": 1, "normalization": "instance",
        "upsampling": "transposed", "downsampling": "strided", "dropout": 0.0, "initialization": "kaiming",
        "equal_start": false, "discriminator_channels": null, "discriminator_scales": 2, "discriminator_layers": 2,
        "noise": true, "spectral_norm": false, "average_decay": 0.999
    },
    "loss": {
        "lambda0": 10.0, "lambda1": 0.1, "lambda2": 100.0, "lambda3": 0.1, "lambda4": 100.0,
        "adversarial": "least_squares", "r1": 0.0, "r1_every": 16, "augmentation": "none", "feature_matching": 0.0,
        "low_frequency": 0.0, "patch_nce": 0.0, "cycle_noise": 0.0
    },
    "optimizer": {
        "learning_rate_generator": 0.001, "learning_rate_discriminator": 0.002, "beta1": 0.5, "beta2": 0.999,
        "weight_decay": 0.0001, "schedule": "constant", "decay_start": 0, "decay_end": null, "decay_factor": 0.5,
        "decay_every": 100000
    },
    "train": {
        "steps": 6, "max_minutes": null, "batch_size": 2, "accumulation": 1, "seed": 0, "device": "cpu",
        "precision": "fp32", "deterministic": null, "checkpoint_activations": false, "compile": "auto",
        "check_sync_every": 1000, "log_every": 1, "sample_every": 3, "checkpoint_every": 2, "validate_every": 3,
        "keep_last": 3, "keep_every": null, "on_nonfinite": "stop"
    }
}"""
"""Every key of that version."""


def old_shapes() -> dict[str, tuple[int, ...]]:
    """The names of convolutions in such a file → the shapes of their weights."""
    block = (16, 16, 3, 3)
    shapes: dict[str, tuple[int, ...]] = {}
    for i in "ab":
        shapes |= {f"encoders.{i}.private.0.0": (4, 3, 7, 7), f"encoders.{i}.private.1.0": (8, 4, 3, 3)}
        shapes |= {f"encoders.{i}.private.2.0": (16, 8, 3, 3)}
        shapes |= {f"encoders.{i}.private.3.0.body.{k}": block for k in (0, 3)}
        shapes |= {f"generators.{i}.private.0.0.body.{k}": block for k in (0, 3)}
        shapes |= {f"generators.{i}.private.1.0": (16, 8, 3, 3), f"generators.{i}.private.2.0": (8, 4, 3, 3)}
        shapes |= {f"generators.{i}.private.3.convolution": (3, 4, 1, 1)}
    return shapes | {f"{part}.a.shared.0.body.{k}": block for part in ("encoders", "generators") for k in (0, 3)}


def old_weights() -> dict[str, Tensor]:
    weights = {}
    for name, shape in old_shapes().items():
        outputs = shape[1] if ".private.1." in name or ".private.2." in name else shape[0]
        outputs = shape[0] if name.startswith("encoders") or "body" in name else outputs  # transposed in generators
        weights |= {f"{name}.weight": torch.randn(shape) / 10, f"{name}.bias": torch.randn(outputs) / 10}
    return weights


def test_a_model_file_with_the_old_keys_translates_bitwise_the_same(tmp_path: Path) -> None:
    weights, path = old_weights(), tmp_path / "model.safetensors"
    metadata = {"format_version": "1", "name_a": "sunny", "name_b": "rainy", "step": "7"}
    save_file(weights, path, metadata | {"config": OLD_CONFIG})
    loaded = Translator.load(path, "cpu", "fp32")
    assert loaded.config == TINY
    assert (*loaded.names, loaded.step) == ("sunny", "rainy", 7)
    networks = build_autoencoders(TINY.model)
    networks.load_state_dict({current_name(name): tensor for name, tensor in weights.items()})
    expected, x = Translator(networks, TINY, loaded.names, 7, "cpu", "fp32"), torch.rand(2, 3, 17, 22) * 2 - 1
    for i in Domain:
        assert torch.equal(loaded.translate(x, i), expected.translate(x, i))
        assert torch.equal(loaded.translate(x, i, seed=3), expected.translate(x, i, seed=3))
