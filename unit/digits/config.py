"""The configuration of domain adaptation: classify the digits of a target without one of its labels."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field
from pydantic.dataclasses import dataclass

from unit.config import STRICT, Count, Decay, Folder, OptimizerConfig, RunConfig, Section, TrainConfig, Weight
from unit.errors import ConfigError, UserError
from unit.files import read_file

SETS = ("mnist", "usps", "svhn")
DigitSet = Literal["mnist", "usps", "svhn"]
CLASSES = 10
_MAX_BYTES = 100_000
"""Of config.yaml."""


@dataclass(frozen=True, config=STRICT)
class DigitsConfig(Section):
    """The two sets of digits."""

    root: Folder
    """folder in torchvision's layout: MNIST/raw, USPS, SVHN"""
    source: DigitSet
    """domain A, with labels"""
    target: DigitSet
    """domain B"""
    labels: Literal["source", "target"] = "source"
    """the domain whose training labels are used; the other's are dropped when its files are read"""

    def __post_init__(self) -> None:
        if self.source == self.target:
            raise ConfigError(f"--target {self.target}: is the source too; give another")

    @property
    def size(self) -> int:
        """Side in pixels of all images: 32 with SVHN (the release's), else 28 (CoGAN's)."""
        return 32 if "svhn" in (self.source, self.target) else 28

    def channels(self, name: str) -> int:
        """Return the number of channels of a set's images."""
        return 3 if name == "svhn" else 1

    def inverted_too(self, name: str) -> bool:
        """True if training sees each image also with black and white exchanged: beside SVHN, as in the release."""
        return name != "svhn" and "svhn" in (self.source, self.target)


@dataclass(frozen=True, config=STRICT)
class DigitModelConfig(Section):
    """The networks of the release's domain adaptation, in the sizes of CoGAN where images have 28 pixels."""

    channels: Count = 16
    """width of the encoders' first convolution and the generators' last; deeper layers have 2, 4 and 8 times as many"""
    head_dropout: Decay = 0.0
    """of the features before the discriminators' two heads"""
    same_init: bool = False
    """initialize the private layers of both domains with the same weights, so that a translation starts as a
    reconstruction, and the target's classifier as the source's; not between gray and color images"""
    ema_decay: Decay = 0.0
    """decay of the EMA of the classifier, which is what is measured; 0: its latest weights"""


@dataclass(frozen=True, config=STRICT)
class AdaptationLossConfig(Section):
    """Weights of the objective; 0 turns a term off."""

    adversarial: Weight = 1.0
    """mean over both domains of the cross-entropy of real and generated images"""
    judge_reconstructions: bool = True
    """the discriminators judge reconstructions too (the release), or translations only (equation 4 of the paper)"""
    reconstruction: Weight = 1e-3
    """squared error, summed over an image"""
    kl: Weight = 1e-4
    """KL of the code, summed over its elements"""
    classes: Weight = 10.0
    """cross-entropy of the classes of labelled images"""
    feature_matching: Weight = 1e-4
    """squared distance of the discriminators' features between an image's two decodings"""
    translated_classes: Weight = 0.0
    """cross-entropy of the classes of translated source images, for the classifier and for the generators"""
    consistency: Weight = 0.0
    """cross-entropy of distorted target images against the class that the EMA sees in the undistorted ones"""
    confidence: Annotated[float, Field(ge=0, le=1)] = 0.95
    """probability from which `consistency` believes the EMA"""
    distortion: Weight = 0.0
    """standard deviation of the elements of a random affine map of the images that the classifier learns from; shifts
    are relative to half a side"""


@dataclass(frozen=True, config=STRICT)
class AdaptationConfig(RunConfig):
    """Everything that a run of `unit adapt` depends on."""

    data: DigitsConfig
    model: DigitModelConfig = DigitModelConfig()
    loss: AdaptationLossConfig = AdaptationLossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()

    def __post_init__(self) -> None:
        if self.model.same_init and self.data.channels(self.data.source) != self.data.channels(self.data.target):
            raise ConfigError("model.same_init: not between gray and color images; set it to false")


_CLASSIFIER_ALONE = {f"loss.{term}": 0.0 for term in ("adversarial", "reconstruction", "kl", "feature_matching")}
RECIPES: dict[str, dict[str, Any]] = {
    "paper": {},
    "modern": {
        "model.ema_decay": 0.999,
        "loss.classes": 1.0,
        "loss.translated_classes": 1.0,
        "loss.consistency": 1.0,
        "loss.distortion": 0.1,
        "optimizer.learning_rate_generator": 1e-3,
        "optimizer.learning_rate_discriminator": 1e-3,
    },
    "source_only": _CLASSIFIER_ALONE,
    "supervised": _CLASSIFIER_ALONE | {"data.labels": "target"},
}
"""What differs from the paper's recipe, by name; the last two are the floor and the ceiling."""
_ALL_SIZES = {
    "optimizer.learning_rate_generator": 2e-4,
    "optimizer.learning_rate_discriminator": 2e-4,
    "optimizer.weight_decay": 5e-4,
    "train.batch_size": 64,
    "train.compile": "off",
    "train.sample_every": 1000,
    "train.validate_every": 500,
    "train.checkpoint_every": 500,
    "train.keep_last": 2,
}
_BY_SIZE: dict[int, dict[str, Any]] = {
    28: {
        "train.steps": 10_000,  # CoGAN's, as the next
        "loss.feature_matching": 0.01,
        "loss.reconstruction": 0.02,  # beside the adversarial term what the paper's λ2 is beside its λ0
        "loss.judge_reconstructions": False,
    },
    32: {"train.steps": 200_000, "model.channels": 96, "model.head_dropout": 0.5},  # the release's
}


def make_config(data: DigitsConfig, recipe: str, **keys: Any) -> AdaptationConfig:
    """Return the configuration of a recipe; `keys` are of the section `train` and win over it, unless they are None."""
    given = {f"train.{key}": value for key, value in keys.items() if value is not None}
    values = {f"data.{key}": value for key, value in asdict(data).items()}
    start = {"model.same_init": recipe == "modern" and data.channels(data.source) == data.channels(data.target)}
    return AdaptationConfig.from_flat_dict(values | _ALL_SIZES | _BY_SIZE[data.size] | start | RECIPES[recipe] | given)


def read_adaptation_config(file: Path) -> AdaptationConfig | None:
    """Read config.yaml of a run of `unit adapt`; None: it is missing, damaged, or that of another kind of run."""
    try:
        return AdaptationConfig.from_dict(yaml.safe_load(read_file(file, _MAX_BYTES)))
    except (OSError, yaml.YAMLError, UserError, TypeError, ValueError, RecursionError):
        return None
