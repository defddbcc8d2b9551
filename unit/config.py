"""The configuration: frozen dataclasses with the paper's defaults; contradictions are refused when one is made."""

from __future__ import annotations

import os
import re
import reprlib
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from unit.errors import ConfigError

DEVICE_NAMES = r"auto|cpu|mps|cuda(:[0-9]{1,2})?"
"""What a device may be called; whether it is there, `unit.devices` says."""


def _require(condition: bool, key: str, message: str) -> None:
    if not condition:
        raise ConfigError(f"{key}: {message}")


def _at_least(section: str, config: object, minimum: float, *names: str, at_most: float = 1e15) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None:
            key = f"{section}.{name}"
            _require(minimum <= value, key, f"must be at least {minimum}, is {value}")  # also what is no number
            _require(value <= at_most, key, f"must be at most {at_most:,.0f}, is {reprlib.repr(value)}")


def _fits(value: object, kind: Any) -> bool:
    """Whether a value is of a field's type: a whole number is a number too, but true is neither."""
    choices = get_args(kind)
    if get_origin(kind) is Literal:
        return value in choices
    if choices:  # a union
        return any(_fits(value, choice) for choice in choices)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


@dataclass(frozen=True)
class DataConfig:
    """The two folders and how their images reach the networks."""

    a: str | None = None
    """folder of domain A, or its WebDataset shards, e.g. 'sunny-{0000..0999}.tar'; nothing for A and B: the embedded
    streets"""
    b: str | None = None
    """folder or shards of domain B"""
    root: str | None = None
    """one folder with trainA, trainB and, if there are, testA, testB (instead of a and b)"""
    test_a: str | None = None
    """folder or shards of held-out images of A; nothing: testA of the root, else 5 % of A"""
    test_b: str | None = None
    """folder or shards of held-out images of B"""
    paired_test: bool = False
    """the test folders show the same scenes, in the order of their sorted names"""
    name_a: str | None = None
    """what A is called on screen, e.g. sunny; nothing: the folder's or shards' name"""
    name_b: str | None = None
    """what B is called on screen, e.g. rainy"""
    load_size: int = 256
    """short side in pixels after resizing"""
    crop_size: int = 256
    """side in pixels of the square that training cuts out, a multiple of 2ⁿ for n = model.downsamples"""
    flip: bool = True
    """mirror half of the images"""
    workers: int | None = None
    """processes that read images; nothing: as the device needs"""
    cache: Literal["none", "memory", "disk"] = "none"
    """keep training photos as resized to load_size, some 400 kB each at 286: in memory, which all processes share
    (Linux), or on disk, in the user's folder for caches, for later runs too; helps only where the GPU waits for data"""
    max_pixels: int = 200_000_000
    """refuse images of more pixels than this, before decoding"""
    on_bad_image: Literal["stop", "skip"] = "stop"
    """what to do with an image that can't be read: stop, or skip it (and stop when over 1 % can't be read)"""
    streets_train: int = 1000
    """embedded streets: scenes to train on, in each weather"""
    streets_test: int = 100
    """embedded streets: scenes to test on, drawn in both weathers"""

    def __post_init__(self) -> None:
        for key in ("a", "b", "root", "test_a", "test_b"):
            folder = getattr(self, key)
            _require(folder != "", f"data.{key}", "is empty; give a folder, or leave it out")
            _require("\0" not in (folder or ""), f"data.{key}", "holds a zero byte, as no folder's name does")
        _require(
            (self.a is None) == (self.b is None), "data.b" if self.a else "data.a", "give both folders, or neither"
        )
        _require(
            self.root is None or self.a is None, "data.root", "give either one root or the folders a and b, not both"
        )
        _require((self.test_a is None) == (self.test_b is None), "data.test_a", "give both test folders, or neither")
        embedded = self.root is None and self.a is None
        _require(not (embedded and self.test_a), "data.test_a", "needs training folders: give data.a and data.b too")
        _require(
            not self.paired_test or bool(self.test_a or self.root),
            "data.paired_test",
            "needs test folders: give data.test_a and data.test_b, or a root with testA and testB",
        )
        _at_least("data", self, 8, "crop_size", "load_size", at_most=2**15)
        _require(
            self.load_size >= self.crop_size,
            "data.crop_size",
            f"the crop ({self.crop_size}) is larger than data.load_size ({self.load_size}); change one",
        )
        _at_least("data", self, 0, "workers", at_most=1000)
        _at_least("data", self, 1, "streets_train", "streets_test", at_most=10**7)
        _at_least("data", self, 1, "max_pixels")
        for name in (self.name_a, self.name_b):
            if name is not None:
                key = "data.name_a" if name is self.name_a else "data.name_b"
                _require(bool(name.strip()) and name.isprintable(), key, "must be a visible, printable name")
                _require(not set(name) & set("/\\"), key, f"may hold no slash, is {name!r}")
        _require(
            self.name_a is None or self.name_a != self.name_b,
            "data.name_b",
            f"must differ from name_a ({self.name_a!r})",
        )

    @property
    def embedded(self) -> bool:
        """No folders: train on the embedded streets."""
        return self.a is None and self.root is None


@dataclass(frozen=True)
class ModelConfig:
    """The networks (method: NIPS 2017, section 3, as in the authors' street experiments)."""

    channels: int = 64
    """width of the first convolution; each halving doubles it"""
    downsamples: int = 2
    """stride-2 convolutions in each encoder, and as many upsamples in each generator: the latent space has 1/2ⁿ of the
    image's height and width and 2ⁿ times `channels`. Two are the paper's; one suits small images"""
    residual_blocks: int = 4
    """residual blocks in each encoder and each generator"""
    shared_blocks: int = 1
    """how many of them both domains share: the encoders' last, the generators' first"""
    normalization: Literal["instance", "group"] = "instance"
    """inside the residual blocks: instance (the paper's) or group (8 groups; keeps the image's overall brightness)"""
    upsampling: Literal["transposed", "nearest", "bilinear"] = "transposed"
    """in the generators: transposed convolutions (the paper's), or twice the size by nearest or bilinear, then a
    convolution, which leave no checkerboards"""
    downsampling: Literal["strided", "blurred"] = "strided"
    """in encoders and discriminators: convolutions of stride 2 (the paper's), or of stride 1, then blurred and every
    second pixel: what moves by a pixel changes the result less, at several times the work of these layers"""
    dropout: float = 0.0
    """after the second normalization of each residual block; the released street configurations had 0.5"""
    initialization: Literal["normal", "kaiming"] = "normal"
    """of the weights: normal N(0, 0.02) (the paper's) or kaiming (better for narrow networks)"""
    same_init: bool = False
    """the domains' encoders begin with the same weights, and so do their generators: a translation begins as a
    reconstruction, and keeps what the discriminators do not object to, above all what is dark and what is light"""
    discriminator_channels: int | None = None
    """width of the discriminators' first convolution; nothing: the same as channels"""
    discriminator_scales: int = 3
    """each domain's discriminator looks at the image at so many scales, halved each time"""
    discriminator_layers: int = 4
    """stride-2 convolutions of each scale"""
    noise: bool = True
    """draw codes from q(z|x) in training; without, take their mean, as translating always does (for ablations)"""
    spectral_norm: bool = False
    """divide the weights of each of the discriminators' convolutions by their largest singular value"""
    ema_decay: float = 0.999
    """decay of the running average of encoders and generators that is sampled and exported; 0: none"""

    def __post_init__(self) -> None:
        _at_least("model", self, 1, "channels", "discriminator_channels", at_most=10_000)
        _at_least("model", self, 1, "discriminator_scales", "discriminator_layers", at_most=12)
        _at_least("model", self, 1, "downsamples", at_most=6)
        _at_least("model", self, 0, "residual_blocks", "shared_blocks", at_most=1000)
        _require(
            self.shared_blocks <= self.residual_blocks,
            "model.shared_blocks",
            f"is {self.shared_blocks}, but model.residual_blocks is only {self.residual_blocks}",
        )
        _require(
            self.normalization != "group" or self.channels * 2**self.downsamples % 8 == 0,
            "model.channels",
            f"times {2**self.downsamples} must be a multiple of 8 for normalization: group, is {self.channels}",
        )
        _require(0 <= self.dropout < 1, "model.dropout", f"must be in [0, 1), is {self.dropout}")
        _require(0 <= self.ema_decay < 1, "model.ema_decay", f"must be in [0, 1), is {self.ema_decay}")


@dataclass(frozen=True)
class LossConfig:
    """The weights of the objective (equations 2 to 5 of the paper), and what came after it; a weight of 0: without."""

    lambda0: float = 10.0
    """adversarial"""
    lambda1: float = 0.1
    """KL of the VAE"""
    lambda2: float = 100.0
    """reconstruction (L1)"""
    lambda3: float = 0.1
    """KL of the cycle"""
    lambda4: float = 100.0
    """cycle consistency (L1)"""
    adversarial: Literal["bce", "least_squares", "hinge", "relativistic"] = "bce"
    """binary cross-entropy (the paper's), least squares (LSGAN), hinge, or relativistic (each real patch against the
    translated one at its place, R3GAN; wants r1)"""
    r1: float = 0.0
    """weight of the penalty on the discriminators' gradients at real images, ½‖∇D(x)‖², not multiplied by lambda0"""
    augmentation: Literal[
        "none",
        "color",
        "translation",
        "cutout",
        "color,translation",
        "color,cutout",
        "translation,cutout",
        "color,translation,cutout",
    ] = "none"
    """what is changed at random in all that the discriminators see, real and translated (DiffAugment), for folders of
    under some 5000 images; not color where the domains differ by it alone"""
    feature_matching: float = 0.0
    """weight of the difference between translated and real images in the means of the discriminators' layers"""
    low_frequency: float = 0.0
    """weight of the difference between an image and its translation, both averaged down to about 32 x 32 (L1): for
    weather and time of day; too strong where shapes change"""
    patch_nce: float = 0.0
    """weight of the contrast between patches: each patch of a translation is to be closer to its own patch of the
    image than to others of it, in the encoders' features (PatchNCE of CUT)"""
    cycle_noise: float = 0.0
    """deviation of the noise added to a translation before the cycle encodes it again, e.g. 0.05 for images in
    [-1, 1]: nothing can be hidden in a translation then"""

    def __post_init__(self) -> None:
        _at_least("loss", self, 0, "lambda0", "lambda1", "lambda2", "lambda3", "lambda4")
        _at_least("loss", self, 0, "r1", "feature_matching", "low_frequency", "patch_nce", "cycle_noise")
        weights = (self.lambda0, self.lambda1, self.lambda2, self.lambda3, self.lambda4)
        _require(any(weights), "loss", "all of lambda0 to lambda4 are 0, so there is nothing to learn")
        for name in ("r1", "feature_matching", "augmentation"):
            wanted = getattr(self, name) not in (0, "none")
            _require(
                bool(self.lambda0) or not wanted,
                f"loss.{name}",
                "needs discriminators, but loss.lambda0 is 0; change one",
            )
        _require(
            not self.cycle_noise or bool(self.lambda3 or self.lambda4),
            "loss.cycle_noise",
            "needs a cycle, but loss.lambda3 and loss.lambda4 are 0; change one",
        )

    @property
    def augmentations(self) -> frozenset[str]:
        """The parts of `augmentation`."""
        return frozenset(self.augmentation.split(",")) - {"none"}


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam, and how its learning rates change with the step."""

    learning_rate_generator: float = 1e-4
    """of encoders and generators"""
    learning_rate_discriminator: float = 1e-4
    """of the discriminators"""
    beta1: float = 0.5
    """Adam's decay of the first moment"""
    beta2: float = 0.999
    """Adam's decay of the second moment"""
    weight_decay: float = 1e-4
    """L2 penalty, added to the gradient"""
    schedule: Literal["constant", "linear", "step"] = "constant"
    """constant; linear: from decay_start down to 0 at decay_end; step: times decay_factor every decay_every steps"""
    decay_start: int = 0
    """the step from which the rates fall"""
    decay_end: int | None = None
    """linear: the step at which they are 0; step: the last step that may still lower them"""
    decay_factor: float = 0.5
    """step: the factor of each fall"""
    decay_every: int = 100_000
    """step: steps between two falls"""

    def __post_init__(self) -> None:
        _at_least(
            "optimizer",
            self,
            0,
            "learning_rate_generator",
            "learning_rate_discriminator",
            "weight_decay",
            "decay_start",
            "decay_end",
        )
        _at_least("optimizer", self, 1, "decay_every")
        for name in ("beta1", "beta2"):
            _require(0 <= getattr(self, name) < 1, f"optimizer.{name}", f"must be in [0, 1), is {getattr(self, name)}")
        _require(0 < self.decay_factor <= 1, "optimizer.decay_factor", f"must be in (0, 1], is {self.decay_factor}")
        _require(
            self.schedule != "linear" or self.decay_end is not None,
            "optimizer.decay_end",
            "schedule: linear needs the step at which the rates reach 0",
        )
        _require(
            self.decay_end is None or self.decay_end > self.decay_start,
            "optimizer.decay_end",
            f"({self.decay_end}) must lie after optimizer.decay_start ({self.decay_start})",
        )

    def rate_factor(self, step: int) -> float:
        """The factor on both learning rates for the update that makes step `step` + 1 out of `step`."""
        if self.schedule == "linear" and self.decay_end is not None:
            return min(1.0, max(0.0, (self.decay_end - step) / (self.decay_end - self.decay_start)))
        if self.schedule == "step":
            last = step if self.decay_end is None else min(step, self.decay_end)
            return float(self.decay_factor ** (max(0, last - self.decay_start) // self.decay_every))
        return 1.0


@dataclass(frozen=True)
class TrainConfig:
    """How long, on what, and what is written when."""

    steps: int = 500_000
    """train until this step"""
    max_minutes: float | None = None
    """stop cleanly, with a checkpoint, after so many minutes"""
    batch_size: int = 1
    """images of each domain that a process (of those that torchrun starts) computes at once"""
    grad_accum_steps: int = 1
    """add the gradients of so many batches before each update: one of a large batch, in the memory of a small one"""
    seed: int = 0
    """of the initial weights, the order, the augmentation and the noise"""
    device: str = "auto"
    """auto (CUDA when available, else the CPU), cpu, cuda, cuda:N or mps"""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """of the convolutions; weights, losses and optimizer are always fp32. auto: bf16 where the device is made for it"""
    deterministic: bool | None = None
    """bitwise repeatable kernels, on CUDA at some cost; nothing: on the CPU only"""
    checkpoint_activations: bool = False
    """compute encoders and generators again in the backward pass instead of keeping what they computed: less memory,
    more time, the same result"""
    compile: Literal["auto", "on", "off"] = "auto"
    """let torch compile the step, on CUDA for replay as graphs; auto: on CUDA, where a trial at the start shows that to
    be faster"""
    check_sync_every: int = 1000
    """with several processes: steps between two checks that all have the same weights"""
    log_every: int = 100
    """steps between two lines of metrics"""
    sample_every: int = 2500
    """steps between two grids of samples, and looks for what goes wrong (docs/alarms.md)"""
    checkpoint_every: int = 5000
    """steps between two checkpoints"""
    validate_every: int = 10000
    """steps between two evaluations on the held-out images"""
    keep_last: int = 3
    """how many of the newest checkpoints are kept"""
    keep_every: int | None = None
    """besides, keep the checkpoints of steps that are multiples of this; nothing: none"""
    on_nonfinite: Literal["stop", "rollback"] = "stop"
    """when a loss or gradient is not finite: stop, or go back to the last checkpoint with other noise, up to 3 times"""

    def __post_init__(self) -> None:
        _at_least("train", self, 0, "steps", "max_minutes")
        _at_least("train", self, 0, "seed", at_most=2**63 - 1)
        _at_least("train", self, 1, "batch_size", "grad_accum_steps", at_most=10**6)
        _at_least("train", self, 1, "log_every", "sample_every", "checkpoint_every", "validate_every")
        _at_least("train", self, 1, "keep_last", "keep_every", "check_sync_every")
        _require(
            not self.keep_every or self.keep_every % self.checkpoint_every == 0,
            "train.keep_every",
            f"must be a multiple of train.checkpoint_every ({self.checkpoint_every}), is {self.keep_every}",
        )
        known = re.fullmatch(DEVICE_NAMES, self.device)
        _require(known is not None, "train.device", f"must be auto, cpu, cuda, cuda:N or mps, is {self.device!r}")


@dataclass(frozen=True)
class Config:
    """Everything that a run depends on."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        scale, crop = 2**self.model.downsamples, self.data.crop_size
        why = f"must be a multiple of {scale} with model.downsamples: {self.model.downsamples}, is {crop}"
        _require(crop % scale == 0, "data.crop_size", why)

    def global_batch(self, ranks: int) -> int:
        """Images of each domain in a step of so many processes."""
        return self.train.batch_size * self.train.grad_accum_steps * ranks

    @classmethod
    def from_dict(cls, sections: dict[str, dict[str, Any]]) -> Config:
        """The inverse of `to_dict`; keys that are not there keep their defaults.

        Raises:
            ConfigError: an unknown section or key, a value of another type, or out of range.
        """
        _require(isinstance(sections, dict), "config", "must be a mapping of sections")
        kinds = get_type_hints(cls)
        for section, values in sections.items():
            _require(section in kinds, section, "no such section")
            _require(isinstance(values, dict), section, "must be a mapping of keys")
            types = get_type_hints(kinds[section])
            for key, value in values.items():
                _require(key in types, f"{section}.{key}", "no such key")
                _require(_fits(value, types[key]), f"{section}.{key}", f"may not be {value!r}")
        return cls(**{section: kinds[section](**values) for section, values in sections.items()})

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Section, then key, then value: all plain types."""
        return asdict(self)

    def to_flat_dict(self) -> dict[str, Any]:
        """Dotted key, e.g. ``train.steps``, to value."""
        return {f"{section}.{key}": value for section, keys in self.to_dict().items() for key, value in keys.items()}


NEVER_A_DIFFERENCE = frozenset(
    {"train.steps", "train.max_minutes", "train.device", "train.keep_last", "train.keep_every", "train.on_nonfinite"}
    | {"train.checkpoint_activations", "train.compile", "train.check_sync_every"}
    | {"train.batch_size", "train.grad_accum_steps"}
    | {"data.workers", "data.cache", "data.name_a", "data.name_b", "data.on_bad_image"}
    | {f"train.{what}_every" for what in ("log", "sample", "checkpoint", "validate")}
)
"""Keys that may change between two parts of one run: they say how long and how, not what is computed. The global batch,
batch_size × ranks × grad_accum_steps, may not, which `differences` does not know."""


_FOLDERS = ("data.a", "data.b", "data.root", "data.test_a", "data.test_b")
MACHINES_OWN = frozenset({*_FOLDERS, "data.workers", "data.cache", "train.device"})
"""Keys that may differ between the machines of one run."""


def differences(before: Config, now: Config) -> list[str]:
    """One line for each key whose change would change the result, e.g. ``model.channels: 64 before, 32 now``."""
    old, new = before.to_flat_dict(), now.to_flat_dict()
    for values in (old, new):
        for key in _FOLDERS:  # however they are written
            values[key] = values[key] and os.path.abspath(values[key])  # noqa: PTH100 - links are the user's own names
    return [
        f"{key}: {old[key]} before, {new[key]} now"
        for key in new
        if key not in NEVER_A_DIFFERENCE and old[key] != new[key]
    ]
