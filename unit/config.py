"""The configuration: frozen dataclasses with the paper's defaults, which refuse bad values and contradictions.

Pydantic checks types and ranges, because its validators belong to the dataclasses: the same checks hold in Python, in
files, for flags and in saved models, and it reads a text as the type of its key. tyro knows no ranges, reads no YAML
and frames errors in boxes; jsonargparse checks only command lines (`TrainConfig(batch_size=0)` passes), lets a file win
over the flags that precede ``--config``, and takes ``name_a: off`` for False.
"""

from __future__ import annotations

import logging
import os
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar, get_type_hints

from pydantic import ConfigDict, Field, PlainValidator, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from unit.errors import ConfigError

log = logging.getLogger(__name__)
_Value = TypeVar("_Value")
_Data = TypeVar("_Data")

DEVICE_NAMES = r"auto|cpu|mps|cuda(:[0-9]{1,2})?"
"""The device names a user may give; `unit.devices` says whether the device exists."""
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

_RENAMED = {
    "start_anew": "restart",
    "model.average_decay": "model.ema_decay",
    "model.halvings": "model.downsamples",
    "model.equal_start": "model.same_init",
    "train.accumulation": "train.grad_accum_steps",
}
_REMOVED = {
    "model.dropout": 0.0,
    "loss.r1_every": 16,
    "optimizer.decay_factor": 0.5,
    "optimizer.decay_every": 100_000,
    "train.check_sync_every": None,
    "data.cache": None,
}
"""Keys of earlier versions and the value they may still have; None: any, since the key never changed a result."""
OLD_KEYS = frozenset(_RENAMED | _REMOVED)


class RemovedKeyError(ConfigError):
    """A key of an earlier version with a value that made a difference."""


def rename_old_keys(values: Mapping[str, _Value], source: str) -> dict[str, _Value]:
    """Give the dotted keys of earlier versions their present names, and say so in one line that names `source`.

    Raises:
        RemovedKeyError: a removed key with a value that made a difference.
        ConfigError: a key under both its names.
    """
    for key, value in values.items():
        if key in _REMOVED and not _was_default(value, _REMOVED[key]):
            raise RemovedKeyError(f"{key}: was removed; only its default, {_REMOVED[key]}, is still accepted")
        if _RENAMED.get(key) in values:
            raise ConfigError(f"{key}: is the old name of {_RENAMED[key]}, given too; leave it out")
    renamed = {key: _RENAMED[key] for key in values if key in _RENAMED}
    if renamed:
        notices = ", ".join(f"{old} is now {new}" for old, new in renamed.items())
        _notice_once(f"{source}: {notices}; the next version will not accept the old names")
    return {renamed.get(key, key): value for key, value in values.items() if key not in _REMOVED}


def without_removed_keys(sections: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Drop removed keys whatever their value: they concern training, and a finished model translates all the same."""
    kept = {
        section: {key: value for key, value in keys.items() if f"{section}.{key}" not in _REMOVED}
        for section, keys in sections.items()
    }
    if kept.get("optimizer", {}).get("schedule") == "step":
        del kept["optimizer"]["schedule"]
    return kept


@cache
def _notice_once(notice: str) -> None:
    log.warning("%s", notice)


def _was_default(value: object, default: float | None) -> bool:
    try:
        return default is None or float(value) == default  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False


def explain(error: ValidationError) -> str:
    """Return the first error in a few words, e.g. ``must be a valid integer, is 'four'``."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    message = first["msg"].replace("Input should be", "must be").partition(", unable to")[0]
    try:
        return f"{message}, is {reprlib.repr(first['input'])}"
    except ValueError:  # an integer of thousands of digits
        return message


def _refuse_if(condition: object, key: str, message: str) -> None:
    if condition:
        raise ConfigError(f"{key}: {message}")


def _text(is_valid: Callable[[str], object], requirement: str) -> PlainValidator:
    """Accept valid texts only; unlike pydantic's own str, also those that are not UTF-8, as file names can be."""

    def validate(value: object) -> str:
        if isinstance(value, str) and is_valid(value):
            return value
        raise ValueError(f"must be {requirement}, is {reprlib.repr(value)}")

    return PlainValidator(validate)


MAX_DOMAIN_NAME = 250
"""Characters; a model with longer names would be refused."""


def _is_domain_name(name: str) -> bool:
    return bool(name.strip()) and name.isprintable() and not set(name) & set("/\\") and len(name) <= MAX_DOMAIN_NAME


_SHORT = "a line of at most 200 printable characters"
Folder = Annotated[str, _text(lambda name: name and "\0" not in name, "a folder's name, not empty, without zero bytes")]
ModelPath = Annotated[
    str, _text(lambda name: name and "\0" not in name, "a run directory or a model file, not empty, without zero bytes")
]
DomainName = Annotated[
    str, _text(_is_domain_name, f"a visible, printable name of at most {MAX_DOMAIN_NAME} characters without slashes")
]
Text = Annotated[str, _text(lambda text: text.strip() and text.isprintable() and len(text) <= 200, _SHORT)]
Device = Annotated[str, _text(re.compile(DEVICE_NAMES).fullmatch, "auto, cpu, cuda, cuda:N or mps")]
_AUGMENTATIONS = re.compile("none|color(,translation)?(,cutout)?|translation(,cutout)?|cutout")
_SUBSET = "none or a comma-separated subset of color,translation,cutout, in this order"
Augmentation = Annotated[str, _text(_AUGMENTATIONS.fullmatch, _SUBSET)]
Pixels = Annotated[int, Field(ge=8, le=2**13)]
Count = Annotated[int, Field(ge=1, le=10**15)]
Step = Annotated[int, Field(ge=0, le=10**15)]
Weight = Annotated[float, Field(ge=0, le=1e15)]
Decay = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, config=STRICT)
class Section:
    """Keys that are checked when it is made, with errors of one line."""

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_in_one_line(cls, values: Any, validate: Any) -> Any:
        try:
            return validate(values)
        except ValidationError as error:
            section = cls.__name__.removesuffix("Config").lower()
            location = [str(part) for part in error.errors(include_url=False)[0]["loc"]]
            raise ConfigError(f"{'.'.join([section, *location]).strip('.')}: {explain(error)}") from None


@dataclass(frozen=True, config=STRICT)
class DataConfig(Section):
    """The two folders and how their images reach the networks."""

    a: Folder | None = None
    """folder of domain A, or its WebDataset shards ('sunny-{0000..0999}.tar'); without A and B: synthetic streets"""
    b: Folder | None = None
    """folder or shards of domain B"""
    root: Folder | None = None
    """instead of a and b: one folder with trainA, trainB and optionally testA, testB"""
    test_a: Folder | None = None
    """folder or shards of held-out images of A; by default testA of the root, else 5 % of A"""
    test_b: Folder | None = None
    """folder or shards of held-out images of B"""
    paired_test: bool = False
    """the test folders hold aligned pairs, matched by sorted name"""
    name_a: DomainName | None = None
    """display name of domain A, e.g. sunny; by default the name of its folder or shards"""
    name_b: DomainName | None = None
    """display name of domain B, e.g. rainy"""
    load_size: Pixels = 256
    """short side in pixels after resizing"""
    crop_size: Pixels = 256
    """side in pixels of the random square crop, a multiple of 2**model.downsamples"""
    flip: bool = True
    """mirror half of the images"""
    workers: Annotated[int, Field(ge=0, le=1000)] | None = None
    """processes that read images; by default chosen by the device"""
    max_pixels: Count = 200_000_000
    """refuse images with more pixels than this, before decoding them"""
    verify: bool = False
    """hash the contents of all images at the start, and refuse to resume if they changed; reads every file once"""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """stop at an image that can't be read, or skip it (and stop if more than 1 % can't be read)"""
    licence: Text | None = None
    """licence of the images, or the terms under which they may be used, e.g. CC-BY-4.0; for the model card"""
    people: Literal["none", "consented", "unknown"] = "unknown"
    """people who can be recognised in the images: none, all of them consented to this use, or unknown"""
    streets_train: Annotated[int, Field(ge=1, le=10**6)] = 1000
    """synthetic streets: training scenes in each weather"""
    streets_test: Annotated[int, Field(ge=1, le=10**6)] = 100
    """synthetic streets: test scenes, each drawn in both weathers"""

    def __post_init__(self) -> None:
        _refuse_if(bool(self.a) != bool(self.b), "data.b" if self.a else "data.a", "give both folders, or neither")
        _refuse_if(self.root and self.a, "data.root", "give either one root or the folders a and b, not both")
        _refuse_if(bool(self.test_a) != bool(self.test_b), "data.test_a", "give both test folders, or neither")
        _refuse_if(self.synthetic and self.test_a, "data.test_a", "needs training folders: give data.a and data.b too")
        message = "needs test folders: give data.test_a and data.test_b, or a root with testA and testB"
        _refuse_if(self.paired_test and not (self.test_a or self.root), "data.paired_test", message)
        message = f"the crop ({self.crop_size}) is larger than data.load_size ({self.load_size}); change one"
        _refuse_if(self.crop_size > self.load_size, "data.crop_size", message)
        equal = self.name_a and self.name_a == self.name_b
        _refuse_if(equal, "data.name_b", f"must differ from name_a ({self.name_a!r})")

    @property
    def synthetic(self) -> bool:
        """True if no folders are given: the built-in synthetic streets."""
        return self.a is None and self.root is None


@dataclass(frozen=True, config=STRICT)
class ModelConfig(Section):
    """The networks (NIPS 2017, section 3, as in the authors' street experiments)."""

    channels: Annotated[int, Field(ge=1, le=2048)] = 64
    """width of the first convolution; each downsample doubles it"""
    downsamples: Annotated[int, Field(ge=1, le=6)] = 2
    """stride-2 convolutions in each encoder, and upsamples in each generator; the paper has 2, 1 suits small images"""
    residual_blocks: Annotated[int, Field(ge=0, le=256)] = 4
    """residual blocks in each encoder and each generator"""
    shared_blocks: Annotated[int, Field(ge=0, le=1000)] = 1
    """residual blocks that both domains share: the encoders' last, the generators' first"""
    normalization: Literal["instance", "group"] = "instance"
    """in the residual blocks: instance (the paper's) or group (8 groups; keeps the image's overall brightness)"""
    upsampling: Literal["transposed", "nearest", "bilinear"] = "transposed"
    """in the generators: transposed convolutions (the paper's), or nearest or bilinear resizing followed by a
    convolution, which avoid checkerboard artifacts"""
    pixel_skip: bool = False
    """the code holds the image's own pixels beside the features, and generators change these: a translation begins as
    the image itself, and is sharp from the start; in no preset, as long runs are not stable yet (docs/results.md)"""
    downsampling: Literal["strided", "blurred"] = "strided"
    """in encoders and discriminators: stride-2 convolutions (the paper's), or stride-1 convolutions followed by a blur
    and subsampling (Zhang 2019), which are less sensitive to shifts and cost several times as much"""
    initialization: Literal["normal", "kaiming"] = "normal"
    """initial weights: normal N(0, 0.02) (the paper's) or kaiming (better for narrow networks)"""
    same_init: bool = False
    """initialize both encoders with the same weights, and both generators: a translation then starts as a
    reconstruction, and keeps what the discriminators do not penalize, above all which areas are dark and light"""
    discriminator_channels: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """width of the discriminators' first convolution; by default that of channels"""
    discriminator_scales: Annotated[int, Field(ge=1, le=12)] = 3
    """resolutions at which each discriminator sees the image, each half the one before"""
    discriminator_layers: Annotated[int, Field(ge=1, le=12)] = 4
    """stride-2 convolutions at each resolution"""
    noise: bool = True
    """sample the latent code from q(z|x) in training; false: take its mean, as translating always does (ablation)"""
    spectral_norm: bool = False
    """spectral normalization of the discriminators' convolutions"""
    ema_decay: Decay = 0.999
    """decay of the EMA of encoders and generators, used for samples and export; 0: no EMA"""

    def __post_init__(self) -> None:
        message = f"is {self.shared_blocks}, but model.residual_blocks is only {self.residual_blocks}"
        _refuse_if(self.shared_blocks > self.residual_blocks, "model.shared_blocks", message)
        factor = 2**self.downsamples
        message = f"times {factor} must be a multiple of 8 for normalization: group, is {self.channels}"
        _refuse_if(self.normalization == "group" and self.channels * factor % 8, "model.channels", message)


@dataclass(frozen=True, config=STRICT)
class LossConfig(Section):
    """Weights of the objective (equations 2 to 5 of the paper) and of later ingredients; 0 turns a term off."""

    lambda0: Weight = 10.0
    """adversarial"""
    lambda1: Weight = 0.1
    """KL of the VAE"""
    lambda2: Weight = 100.0
    """reconstruction (L1)"""
    lambda3: Weight = 0.1
    """KL of the cycle"""
    lambda4: Weight = 100.0
    """cycle consistency (L1)"""
    adversarial: Literal["bce", "least_squares", "hinge", "relativistic"] = "bce"
    """binary cross-entropy (the paper's), least squares (LSGAN), hinge, or relativistic (each real patch against the
    translated patch at the same place, as in R3GAN; needs r1)"""
    r1: Weight = 0.0
    """weight of the R1 penalty ½‖∇D(x)‖² at real images; lambda0 does not multiply it"""
    augmentation: Augmentation = "none"
    """none, or a comma-separated subset of color,translation,cutout, in this order: random changes to all that the
    discriminators see (DiffAugment), meant for small folders; not studied on real photos here yet, so no preset has
    it; leave out color if color is the only difference between the domains"""
    projected: Weight = 0.0
    """weight of a projected discriminator beside the others, which sees features of a network trained on ImageNet:
    more thorough translations after fewer steps; its network is the one behind KID, which it therefore flatters"""
    feature_matching: Weight = 0.0
    """weight of the difference between translated and real images in the discriminators' mean activations"""
    low_frequency: Weight = 0.0
    """weight of the L1 difference between an image and its translation, both averaged down to about 32 x 32: for
    weather and time of day; too strong where shapes change"""
    patch_nce: Weight = 0.0
    """weight of PatchNCE (CUT): in the encoders' features, each patch of a translation should be closer to the same
    patch of its input than to other patches"""
    cycle_noise: Weight = 0.0
    """standard deviation of the noise added to a translation before the cycle encodes it, e.g. 0.05 for images in
    [-1, 1], so that nothing can be hidden in the translation"""
    memory: Weight = 0.0
    """weight of Memory Aware Synapses: keeps each weight near its value in the model of train.init_from, the more
    strongly the more that model's importance.safetensors (python -m unit importance RUN) says it matters"""

    def __post_init__(self) -> None:
        weights = (self.lambda0, self.lambda1, self.lambda2, self.lambda3, self.lambda4)
        _refuse_if(not any(weights), "loss", "all of lambda0 to lambda4 are 0, so there is nothing to learn; set one")
        for name in ("r1", "projected", "feature_matching", "augmentation"):
            without_discriminators = getattr(self, name) not in (0, "none") and not self.lambda0
            message = "needs discriminators, but loss.lambda0 is 0; change one"
            _refuse_if(without_discriminators, f"loss.{name}", message)
        acyclic = self.cycle_noise and not self.lambda3 and not self.lambda4
        _refuse_if(acyclic, "loss.cycle_noise", "needs a cycle, but loss.lambda3 and loss.lambda4 are 0; change one")


@dataclass(frozen=True, config=STRICT)
class OptimizerConfig(Section):
    """Adam and the schedule of its learning rates."""

    learning_rate_generator: Weight = 1e-4
    """learning rate of encoders and generators"""
    learning_rate_discriminator: Weight = 1e-4
    """learning rate of the discriminators"""
    beta1: Decay = 0.5
    """Adam's decay of the first moment"""
    beta2: Decay = 0.999
    """Adam's decay of the second moment"""
    weight_decay: Weight = 1e-4
    """L2 penalty, added to the gradient"""
    schedule: Literal["constant", "linear"] = "constant"
    """constant, or linear: from decay_start down to 0 at decay_end"""
    decay_start: Step = 0
    """linear: the step at which the rates begin to fall"""
    decay_end: Step | None = None
    """linear: the step at which they reach 0"""

    def __post_init__(self) -> None:
        endless = self.schedule == "linear" and self.decay_end is None
        _refuse_if(endless, "optimizer.decay_end", "schedule: linear needs the step at which the rates reach 0")
        ends_early = self.decay_end is not None and self.decay_end <= self.decay_start
        message = f"({self.decay_end}) must lie after optimizer.decay_start ({self.decay_start})"
        _refuse_if(ends_early, "optimizer.decay_end", message)

    def rate_factor(self, step: int) -> float:
        """Return the factor on both learning rates for the update from `step` to `step` + 1."""
        if self.schedule == "constant" or self.decay_end is None:
            return 1.0
        return min(1.0, max(0.0, (self.decay_end - step) / (self.decay_end - self.decay_start)))


@dataclass(frozen=True, config=STRICT)
class TrainConfig(Section):
    """How long to train, on what, and when to log and save."""

    steps: Step = 500_000
    """train until this step"""
    max_minutes: Weight | None = None
    """stop cleanly, with a checkpoint, after this many minutes; a resumed run has them again"""
    batch_size: Annotated[int, Field(ge=1, le=10**6)] = 1
    """images of each domain in a microbatch of one process (torchrun starts several)"""
    grad_accum_steps: Annotated[int, Field(ge=1, le=10**6)] = 1
    """microbatches per update: the gradient of a large batch in the memory of a small one"""
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0
    """seed of the initial weights, the data order, the augmentation and the noise"""
    init_from: ModelPath | None = None
    """start from the weights of this run directory (its discriminators and optimizers too) or model file, whose
    networks must be the same; --init_from for short"""
    device: Device = "auto"
    """auto (CUDA if available, else the CPU), cpu, cuda, cuda:N or mps"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """precision of the convolutions; weights, losses and optimizer stay fp32. auto: bf16 if the hardware supports it"""
    deterministic: bool | None = None
    """bitwise repeatable kernels, slower on CUDA; by default only on the CPU"""
    checkpoint_activations: bool = False
    """recompute the activations of encoders and generators in the backward pass: less memory, more time, same result"""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile the step, on CUDA with CUDA graphs; auto: on CUDA, if a trial at the start shows it to be faster"""
    log_every: Count = 100
    """steps between two log entries"""
    sample_every: Count = 2500
    """steps between two sample grids and checks for failure modes (docs/alarms.md); from 100 on, a first grid is drawn
    after a tenth of them"""
    checkpoint_every: Count = 5000
    """steps between two checkpoints"""
    validate_every: Count = 10000
    """steps between two evaluations on the held-out images"""
    keep_last: Count = 3
    """number of newest checkpoints to keep"""
    keep_every: Count | None = None
    """also keep the checkpoints of steps that are multiples of this"""
    on_nonfinite: Literal["stop", "rollback"] = "stop"
    """at a NaN or Inf: stop, or go back to the last checkpoint and go on with other random numbers, up to 3 times"""

    def __post_init__(self) -> None:
        message = f"must be a multiple of train.checkpoint_every ({self.checkpoint_every}), is {self.keep_every}"
        _refuse_if(self.keep_every and self.keep_every % self.checkpoint_every, "train.keep_every", message)


@dataclass(frozen=True, config=STRICT)
class RunConfig(Section):
    """The configuration of a run, whatever it trains: sections of keys, to and from plain dictionaries."""

    if TYPE_CHECKING:  # each subclass has these fields, in the place where its files have them
        data: Any
        optimizer: OptimizerConfig
        train: TrainConfig

    def global_batch(self, world_size: int) -> int:
        """Return the number of images of each domain per update of `world_size` processes."""
        return self.train.batch_size * self.train.grad_accum_steps * world_size

    @classmethod
    def sections(cls) -> dict[str, Any]:
        """Map the names of the sections to their classes."""
        return get_type_hints(cls)

    @classmethod
    def from_dict(cls, sections: Mapping[str, Mapping[str, Any]]) -> Self:
        """Invert `to_dict`, safe for untrusted input; missing keys keep their defaults, old names are renamed.

        Raises:
            ConfigError: an unknown section or key, or a value of the wrong type or out of range.
        """
        _refuse_if(not isinstance(sections, dict), "config", "must be a mapping of sections")
        flat: dict[str, Any] = {}
        for section, values in sections.items():
            _refuse_if(section not in cls.sections(), reprlib.repr(section).strip("'"), "no such section")
            _refuse_if(not isinstance(values, dict), section, "must be a mapping of keys")
            flat |= {f"{section}.{key}": value for key, value in values.items()}
        return cls.from_flat_dict(rename_old_keys(flat, "saved configuration"))

    @classmethod
    def from_flat_dict(cls, values: Mapping[str, Any]) -> Self:
        """Invert `to_flat_dict`; missing keys keep their defaults."""
        sections = cls.sections()
        known = {f"{section}.{key}" for section, keys in sections.items() for key in get_type_hints(keys)}
        by_section: dict[str, dict[str, Any]] = {section: {} for section in sections}
        for dotted, value in values.items():
            _refuse_if(dotted not in known, reprlib.repr(dotted).strip("'"), "no such key")
            section, _, key = dotted.partition(".")
            by_section[section][key] = value
        return cls(**{section: sections[section](**keys) for section, keys in by_section.items()})

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Map sections to keys to values, all of plain types."""
        return asdict(self)

    def to_flat_dict(self) -> dict[str, Any]:
        """Map dotted keys, e.g. ``train.steps``, to values."""
        return {f"{section}.{key}": value for section, keys in self.to_dict().items() for key, value in keys.items()}


@dataclass(frozen=True, config=STRICT)
class Config(RunConfig):
    """Everything that a run of UNIT depends on."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()

    def __post_init__(self) -> None:
        factor, crop = 2**self.model.downsamples, self.data.crop_size
        message = f"must be a multiple of {factor} with model.downsamples: {self.model.downsamples}, is {crop}"
        _refuse_if(crop % factor, "data.crop_size", message)
        message = "needs the model that is to be remembered; give --init_from RUN too"
        _refuse_if(self.loss.memory and not self.train.init_from, "loss.memory", message)


SECTIONS: dict[str, Any] = Config.sections()
KEY_TYPES: dict[str, Any] = {
    f"{section}.{key}": kind
    for section, keys in SECTIONS.items()
    for key, kind in get_type_hints(keys, include_extras=True).items()
}
"""Dotted key to annotated type."""

FOLDER_KEYS = ("a", "b", "root", "test_a", "test_b")
_PATHS = (*(f"data.{key}" for key in FOLDER_KEYS), "train.init_from")
MACHINE_SPECIFIC = frozenset({*_PATHS, "data.workers", "train.device"})
"""Keys that may differ between the machines of one run."""
CHANGEABLE_ON_RESUME = frozenset(
    {"train.steps", "train.max_minutes", "train.device", "train.keep_last", "train.keep_every", "train.on_nonfinite"}
    | {"train.checkpoint_activations", "train.compile", "train.batch_size", "train.grad_accum_steps"}
    | {"data.workers", "data.verify", "data.name_a", "data.name_b", "data.on_bad_image", "data.licence", "data.people"}
    | {f"train.{event}_every" for event in ("log", "sample", "checkpoint", "validate")}
)
"""Keys that may change when a run is resumed: they decide how long and how it runs, not what is computed. The global
batch (batch_size × world size × grad_accum_steps) may not change; `differences` leaves that check to its caller."""


def differences(before: RunConfig, now: RunConfig) -> list[str]:
    """Describe each change that would change the result, e.g. ``model.channels: 64 before, 32 now``."""
    old, new = before.to_flat_dict(), now.to_flat_dict()

    def same(key: str) -> bool:
        if key in _PATHS and old[key] and new[key]:  # the same folder may be written in several ways
            return len({os.path.realpath(os.path.expanduser(values[key])) for values in (old, new)}) == 1  # noqa: PTH111
        return bool(old[key] == new[key])

    return [
        f"{key}: {old[key]} before, {new[key]} now" for key in new if key not in CHANGEABLE_ON_RESUME and not same(key)
    ]


def without_folders(config: Config, names: tuple[str, str]) -> Config:
    """Shorten paths to names, folders to the domains': they tell who trained the model, and are of no use elsewhere."""
    if config.train.init_from:
        name = os.path.basename(os.path.normpath(config.train.init_from)) or "model"  # noqa: PTH119 - any text
        config = replace(config, train=replace(config.train, init_from=name))
    if config.data.synthetic:
        return config
    folders: dict[str, Any] = dict.fromkeys(FOLDER_KEYS) | dict(zip("ab", names, strict=True))
    return replace(config, data=replace(config.data, **folders, paired_test=False))


def with_absolute_folders(data: _Data, locate: Callable[[str], str] = str) -> _Data:
    """Make a `data` section's folders absolute, so that they stay the same in another working directory; then apply
    `locate`."""
    folders = {key: path for key in FOLDER_KEYS if (path := getattr(data, key, None))}
    paths = {key: absolute_path(path) for key, path in folders.items()}
    located: dict[str, Any] = {key: locate(path) for key, path in paths.items()}
    return replace(data, **located)  # type: ignore[type-var]  # a dataclass


def absolute_path(path: str) -> str:
    """Expand "~", and make the path absolute, links and all; any text is a path."""
    return os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111 - pathlib raises for some
