"""The defaults are the paper's, bad values and contradictions name their key, and the schedule follows its formula."""

import json
import pickle
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unit.config import Config, DataConfig, LossConfig, ModelConfig, OptimizerConfig, TrainConfig, differences
from unit.domains import PerDomain
from unit.errors import ConfigError
from unit.translation import model_file

PAPER = {
    "model.channels": 64,
    "model.residual_blocks": 4,
    "model.shared_blocks": 1,
    "model.normalization": "instance",
    "loss.lambda0": 10,
    "loss.lambda1": 0.1,
    "loss.lambda2": 100,
    "loss.lambda3": 0.1,
    "loss.lambda4": 100,
    "loss.adversarial": "bce",
    "optimizer.beta1": 0.5,
    "optimizer.beta2": 0.999,
    "optimizer.weight_decay": 1e-4,
    "optimizer.learning_rate_generator": 1e-4,
    "optimizer.learning_rate_discriminator": 1e-4,
    "optimizer.schedule": "constant",
    "train.batch_size": 1,
    "train.steps": 500_000,
    "data.load_size": 256,
    "data.crop_size": 256,
    "data.flip": True,
    "data.max_pixels": 200_000_000,
    "model.discriminator_scales": 3,
    "model.discriminator_layers": 4,
    "model.ema_decay": 0.999,
}
PAPER |= {"loss.augmentation": "none", "model.downsampling": "strided", "model.spectral_norm": False}
PAPER |= {"model.same_init": False}
LATER_WEIGHTS = ("r1", "projected", "feature_matching", "low_frequency", "patch_nce", "cycle_noise")
PAPER |= {f"loss.{key}": 0 for key in LATER_WEIGHTS}
FOLDERS = {"a": "x", "b": "y"}


def config(**flat: Any) -> Config:
    """From keys written with two underscores for the dot."""
    sections: dict[str, dict[str, Any]] = {}
    for name, value in flat.items():
        section, _, key = name.partition("__")
        sections.setdefault(section, {})[key] = value
    return Config.from_dict(sections)


def test_the_defaults_are_the_papers() -> None:
    defaults = Config().to_flat_dict()
    assert {key: defaults[key] for key in PAPER} == PAPER
    assert Config().data.synthetic


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        *[(f"data.{key}", 0) for key in ("crop_size", "max_pixels", "streets_train", "streets_test")],
        *[("data.crop_size", bad) for bad in (2, 254, 260, -4)],
        ("data.load_size", 255),
        *[(f"data.{key}", "") for key in ("a", "b", "root", "test_a", "test_b")],
        ("data.workers", -1),
        *[
            (f"data.{key}", bad)
            for key in ("name_a", "name_b")
            for bad in ("", "  ", "a/b", "a\\b", "a\nb", "\x1b[31m")
        ],
        *[(f"model.{key}", 0) for key in ("channels", "discriminator_channels")],
        *[(f"model.discriminator_{key}", 0) for key in ("scales", "layers")],
        *[(f"model.{key}", -1) for key in ("residual_blocks", "shared_blocks")],
        *[("model.ema_decay", bad) for bad in (-0.1, 1.0, float("nan"))],
        ("model.shared_blocks", 5),
        *[(f"loss.lambda{i}", bad) for i in range(5) for bad in (-0.1, float("nan"), float("inf"))],
        *[(f"loss.{key}", bad) for key in LATER_WEIGHTS for bad in (-0.1, float("nan"), float("inf"))],
        *[("loss.augmentation", bad) for bad in ("colour", "cutout,color", "", "none,color", 1)],
        *[("loss.adversarial", "wgan"), ("model.downsampling", "blur"), ("model.spectral_norm", 1)],
        *[(f"optimizer.learning_rate_{of}", -1e-9) for of in ("generator", "discriminator")],
        *[(f"optimizer.{key}", bad) for key in ("beta1", "beta2") for bad in (-0.1, 1.0, float("nan"))],
        *[(f"optimizer.{key}", -1) for key in ("weight_decay", "decay_start")],
        *[("optimizer.decay_end", bad) for bad in (0, -1)],
        *[("optimizer.schedule", bad) for bad in ("step", "", None)],
        *[(f"train.{key}", -1) for key in ("steps", "seed", "max_minutes")],
        *[(f"train.{key}", 0) for key in ("batch_size", "keep_last", "keep_every")],
        *[("train.keep_every", 7), ("train.seed", 2**63)],
        *[(f"data.{key}", "x\0y") for key in ("a", "b", "root", "test_a", "test_b")],
        *[(f"train.{key}", 10**400) for key in ("steps", "batch_size", "seed", "log_every")],
        *[("data.load_size", 2**16), ("data.streets_train", 10**12), ("model.channels", 10**9)],
        *[("model.residual_blocks", 10**9), ("model.discriminator_scales", 10**6), ("model.discriminator_layers", 99)],
        *[("optimizer.decay_end", 10**400), ("optimizer.decay_start", 10**400)],
        *[(f"train.{key}_every", 0) for key in ("log", "sample", "checkpoint", "validate")],
        *[("train.device", bad) for bad in ("gpu", "cuda:x", "cpu:0", "cuda:", "mps:1", "auto:", "", "CPU")],
    ],
)
def test_a_value_out_of_range_is_refused_and_its_key_named(key: str, bad: Any) -> None:
    section, name = key.split(".")
    at_fault = "data.crop_size" if (key, bad) == ("data.load_size", 255) else key
    with pytest.raises(ConfigError, match=f"^{at_fault}: ") as refused:
        Config.from_dict({section: {name: bad}})
    assert str(refused.value).isprintable(), "one line"


@pytest.mark.parametrize(
    ("flat", "key"),
    [
        ({"data__a": "x"}, "data.b"),
        ({"data__b": "x"}, "data.a"),
        ({"data__a": "x", "data__b": "y", "data__root": "r"}, "data.root"),
        ({"data__a": "x", "data__b": "y", "data__test_a": "t"}, "data.test_a"),
        ({"data__test_a": "x", "data__test_b": "y"}, "data.test_a"),
        ({"data__paired_test": True}, "data.paired_test"),
        ({"data__a": "x", "data__b": "y", "data__paired_test": True}, "data.paired_test"),
        ({"data__name_a": "sun", "data__name_b": "sun"}, "data.name_b"),
        ({"data__crop_size": 128, "data__load_size": 127}, "data.crop_size"),
        ({"model__residual_blocks": 2, "model__shared_blocks": 3}, "model.shared_blocks"),
        ({"model__normalization": "group", "model__channels": 7}, "model.channels"),
        ({"model__normalization": "group", "model__channels": 6, "model__downsamples": 1}, "model.channels"),
        ({"model__downsamples": 0}, "model.downsamples"),
        ({"model__downsamples": 3, "data__crop_size": 132, "data__load_size": 140}, "data.crop_size"),
        *[({"loss__lambda0": 0.0, f"loss__{key}": 1.0}, f"loss.{key}") for key in ("r1", "feature_matching")],
        ({"loss__lambda0": 0.0, "loss__augmentation": "cutout"}, "loss.augmentation"),
        ({"loss__lambda3": 0.0, "loss__lambda4": 0.0, "loss__cycle_noise": 0.1}, "loss.cycle_noise"),
        ({"optimizer__schedule": "linear"}, "optimizer.decay_end"),
        ({"optimizer__decay_start": 10, "optimizer__decay_end": 10}, "optimizer.decay_end"),
    ],
)
def test_a_contradiction_is_refused_and_a_key_named(flat: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key}: "):
        config(**flat)


def test_the_bounds_themselves_are_accepted() -> None:
    DataConfig(**FOLDERS, load_size=8, crop_size=8, workers=0, max_pixels=1, streets_train=1, streets_test=1)
    DataConfig(root="r", paired_test=True)
    DataConfig(**FOLDERS, test_a="t", test_b="u", paired_test=True)
    ModelConfig(channels=1, residual_blocks=0, shared_blocks=0, ema_decay=0.0)
    ModelConfig(residual_blocks=3, shared_blocks=3)
    OptimizerConfig(learning_rate_generator=0.0, beta1=0.0, decay_start=1, decay_end=2)
    for device in ("auto", "cpu", "cuda", "cuda:0", "cuda:12", "mps"):
        TrainConfig(steps=0, max_minutes=0.0, device=device, keep_last=1)


def test_a_weight_is_accepted_with_what_it_needs() -> None:
    LossConfig(lambda0=0.0, low_frequency=1.0, patch_nce=1.0, cycle_noise=0.1)
    LossConfig(lambda3=0.0, cycle_noise=0.1)
    LossConfig(lambda4=0.0, cycle_noise=0.1)
    LossConfig(lambda1=0.0, lambda2=0.0, lambda3=0.0, lambda4=0.0, r1=1.0, augmentation="color")


@pytest.mark.parametrize("step", [0, 1, 10**9])
def test_a_constant_rate_never_changes(step: int) -> None:
    assert OptimizerConfig(decay_start=0, decay_end=1).rate_factor(step) == 1.0


@pytest.mark.parametrize(
    ("step", "factor"), [(0, 1), (100, 1), (101, 0.995), (150, 0.75), (200, 0.5), (299, 0.005), (300, 0), (10**9, 0)]
)
def test_a_linear_rate_falls_from_start_to_end(step: int, factor: float) -> None:
    linear = OptimizerConfig(schedule="linear", decay_start=100, decay_end=300)
    assert linear.rate_factor(step) == pytest.approx(factor)


@given(
    schedule=st.sampled_from(["constant", "linear"]),
    start=st.integers(0, 1000),
    length=st.integers(1, 1000),
    step=st.integers(0, 3000),
)
def test_a_rate_never_rises_and_stays_within_0_and_1(schedule: Any, start: int, length: int, step: int) -> None:
    optimizer = OptimizerConfig(schedule=schedule, decay_start=start, decay_end=start + length)
    assert 1 >= optimizer.rate_factor(step) >= optimizer.rate_factor(step + 1) >= 0


IGNORED = ["train.steps", "train.max_minutes", "train.device", "train.keep_last", "data.workers", "train.log_every"]
IGNORED += ["train.keep_every", "train.on_nonfinite", "data.on_bad_image", "data.verify", "data.licence", "data.people"]
IGNORED += ["train.checkpoint_activations", "train.batch_size", "train.grad_accum_steps", "train.compile"]
IGNORED += ["data.name_a", "data.name_b", "train.sample_every", "train.checkpoint_every", "train.validate_every"]
CHANGED: dict[str, Any] = {
    "data.crop_size": 128,
    "data.root": str(Path("r").absolute()),
    "model.upsampling": "nearest",
    "data.name_a": "sun",
    "data.name_b": "rain",
}
CHANGED |= {"model.normalization": "group", "model.initialization": "kaiming", "model.discriminator_channels": 8}
CHANGED |= {"loss.adversarial": "least_squares", "optimizer.decay_end": 10}
CHANGED |= {"data.on_bad_image": "skip", "train.keep_every": 5000, "train.on_nonfinite": "rollback"}
CHANGED |= {"train.max_minutes": 5, "train.device": "cpu", "train.precision": "fp32", "train.deterministic": True}
CHANGED |= {"train.init_from": "runs/x"}
CHANGED |= {"train.compile": "off", "data.licence": "CC-BY-4.0", "data.people": "consented"}
CHANGED |= {f"loss.{key}": 0.5 for key in LATER_WEIGHTS}
CHANGED |= {"loss.augmentation": "color,translation", "model.downsampling": "blurred"}
CHANGED |= {"data.workers": 3, "data.load_size": 512, "train.seed": 1, "optimizer.decay_start": 1}
ALONE_CONTRADICTORY = {"data.a", "data.b", "data.test_a", "data.test_b", "data.paired_test", "optimizer.schedule"}
ALONE_CONTRADICTORY |= {"loss.memory"}


@pytest.mark.parametrize("key", [key for key in Config().to_flat_dict() if key not in ALONE_CONTRADICTORY])
def test_keys_that_do_not_change_the_result_are_no_difference(key: str) -> None:
    before, (section, name) = Config(), key.split(".")
    old = before.to_flat_dict()[key]
    if key in CHANGED:
        new = CHANGED[key]
    else:
        new = not old if isinstance(old, bool) else old + 1 if isinstance(old, int) else old / 2
    lines = differences(before, Config.from_dict({section: {name: new}}))
    assert lines == ([] if key in IGNORED else [f"{key}: {old} before, {new} now"])


def test_changed_folders_are_differences() -> None:
    before, now = Config(data=DataConfig(**FOLDERS)), Config(data=DataConfig(a="x2", b="y2", test_a="t", test_b="u"))
    assert [line.partition(":")[0] for line in differences(before, now)] == [
        *["data.a", "data.b", "data.test_a", "data.test_b"]
    ]
    assert differences(before, before) == []
    written_otherwise = {key: f"{Path().absolute()}/z/../{value}" for key, value in FOLDERS.items()}
    assert differences(before, Config(data=DataConfig(**written_otherwise))) == []


def test_from_dict_is_the_inverse_of_to_dict() -> None:
    for made in (Config(), config(data__a="x", data__b="y", train__seed=3, model__ema_decay=0.5, loss__lambda0=1)):
        assert Config.from_dict(made.to_dict()) == made
        assert made.to_flat_dict() == {f"{s}.{k}": v for s, keys in made.to_dict().items() for k, v in keys.items()}
    assert Config.from_dict({}) == Config()


def test_from_dict_refuses_unknown_sections_and_keys() -> None:
    with pytest.raises(ConfigError, match=r"^training: no such section$"):
        Config.from_dict({"training": {}})
    with pytest.raises(ConfigError, match=r"^train\.stepz: no such key$"):
        Config.from_dict({"train": {"stepz": 1}})


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("train", {"steps": "x"}),
        ("train", {"steps": 1.5}),
        ("train", {"steps": True}),
        ("train", None),
        ("data", {"flip": 1}),
        ("data", {"a": 7}),
        ("model", {"normalization": "batch"}),
        ("model", {"normalization": ["instance"]}),
        ("loss", {"lambda0": "1e-4"}),
        ("loss", dict.fromkeys(("lambda0", "lambda1", "lambda2", "lambda3", "lambda4"), 0.0)),
    ],
)
def test_from_dict_refuses_values_of_the_wrong_type(section: str, values: object) -> None:
    with pytest.raises(ConfigError, match=section) as refused:
        Config.from_dict({section: values})  # type: ignore[dict-item]
    assert str(refused.value).isprintable()


def test_a_bad_value_is_refused_when_a_config_is_made_or_changed_in_python() -> None:
    with pytest.raises(ConfigError, match=r"^train\.batch_size: must be greater than or equal to 1, is 0$"):
        TrainConfig(batch_size=0)
    with pytest.raises(ConfigError, match=r"^train\.steps: must be a valid integer, is '5'$"):
        replace(TrainConfig(), steps="5")
    with pytest.raises(ConfigError, match=r"^train: must be an instance of TrainConfig, is 3$"):
        Config(train=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^model\.chanels: "):
        ModelConfig(chanels=3)  # type: ignore[call-arg]
    with pytest.raises(FrozenInstanceError):
        TrainConfig().steps = 5  # type: ignore[misc]


def test_a_config_is_a_value() -> None:
    one, same = (Config(loss=LossConfig(lambda0=1)) for _ in range(2))
    assert {one: 1}[same] == 1
    assert pickle.loads(pickle.dumps(one)) == one


def test_an_old_saved_config_is_read_with_a_notice(caplog: pytest.LogCaptureFixture) -> None:
    old = Config().to_dict()
    for section, now, before in (("model", "downsamples", "halvings"), ("train", "grad_accum_steps", "accumulation")):
        old[section][before] = old[section].pop(now)
    old["model"] |= {"dropout": 0.0, "average_decay": old["model"].pop("ema_decay")}
    old["loss"]["r1_every"] = 16
    old["data"]["cache"] = "memory"
    old["train"]["check_sync_every"] = 1000
    old["optimizer"] |= {"decay_factor": 0.5, "decay_every": 100_000}
    assert Config.from_dict(old) == Config()
    (record,) = caplog.records
    assert record.getMessage().startswith("saved configuration: ")
    with pytest.raises(ConfigError, match=r"^model\.dropout: was removed; only its default, 0\.0, is still accepted$"):
        Config.from_dict({"model": {"dropout": 0.5}})


NESTED: dict[str, Any] = {}
NESTED["train"] = NESTED


@pytest.mark.parametrize(
    "hostile",
    [
        *[{"train": {"steps": value}} for value in (10**5000, "9" * 10**6, [[[]]] * 10**5, NESTED, object)],
        *[{"model": {"dropout": value}} for value in (10**5000, "9" * 10**6, NESTED, None)],
        *[
            {"x" * 10**6: {}},
            {"train": {"x" * 10**6: 1}},
            {"train": dict.fromkeys(map(str, range(10**5)), 1)},
            {3: {}},
            NESTED,
        ],
        *[[], None, "train", {"train": []}, {"data": {"a": "x" * 10**6, "b": "\0" * 10**6}}, {"data": {"a": NESTED}}],
    ],
)
def test_from_dict_of_hostile_metadata_is_a_short_error(hostile: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        Config.from_dict(hostile)
    assert len(str(refused.value)) < 300
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "section",
    [
        {"data": {"load_size": 8192}},
        {"model": {"residual_blocks": 256}},
        {"model": {"channels": 2048}},
        {"data": {"name_a": "x" * 250, "name_b": "y" * 250}},
    ],
)
def test_a_model_file_takes_whatever_training_does(section: dict[str, dict[str, Any]]) -> None:
    """A run whose model can't be loaded again would be lost; one step beyond, training refuses."""
    config = Config.from_dict(section)
    names = PerDomain(config.data.name_a or "a", config.data.name_b or "b")
    metadata = {"config": json.dumps(config.to_dict()), "name_a": names.a, "name_b": names.b, "step": "1"}
    assert model_file._parse(metadata) == (config, names, 1)
    ((name, values),) = section.items()
    beyond = {key: value + ("x" if isinstance(value, str) else 1) for key, value in values.items()}
    with pytest.raises(ConfigError, match=f"{name}\\."):
        Config.from_dict({name: beyond})
