"""Alarms: stub networks with one failure mode each, through the code that measures real networks; and healthy ones."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.tiny import tiny
from unit.data.bad_images import BadImages
from unit.domains import Domain, PerDomain
from unit.model.networks import Autoencoders, Discriminators, Encoder, Generator
from unit.training.alarms import ALARMS, Alarms
from unit.training.diagnostics import diagnostics, probe_batch
from unit.training.resolve import resolve
from unit.translation.translator import Translator

SIZE = 32
CONFIG = tiny(data={"load_size": SIZE, "crop_size": SIZE, "streets_train": 40, "streets_test": 16})
NAMES = PerDomain("sunny", "rainy")
CHECKS = 50


@dataclass(frozen=True)
class Images:
    held_out: PerDomain[Tensor]
    training: PerDomain[Tensor]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    datasets = resolve(CONFIG, tmp_path_factory.mktemp("alarms") / "run").datasets
    return Images(probe_batch(datasets.test.images, CONFIG.data), probe_batch(datasets.train, CONFIG.data))


class Apply(nn.Sequential):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def same(x: Tensor) -> Tensor:
    return x


def networks(
    to_b: Callable[[Tensor], Tensor], from_b: Callable[[Tensor], Tensor], to_a: Callable[[Tensor], Tensor] = same
) -> Autoencoders:
    """The code is the image of domain a, its pixels put behind each other."""

    encoders = PerDomain(same, from_b).map(lambda read: Apply(lambda x: functional.pixel_unshuffle(read(x), 4)))
    generators = PerDomain(to_a, to_b).map(lambda draw: Apply(lambda z: draw(functional.pixel_shuffle(z, 4))))
    return Autoencoders(Encoder(encoders, nn.Identity()), Generator(nn.Identity(), generators), (3, 12, 48), (1, 2, 4))


def judging(judge: Callable[[Domain, Tensor], Tensor]) -> Discriminators:
    return Discriminators(PerDomain.of(lambda i: Apply(lambda x: [judge(i, x)])))  # type: ignore[arg-type, return-value]


def by_brightness(_: Domain, x: Tensor) -> Tensor:
    """Neither certain nor constant."""
    return functional.avg_pool2d(x, 8).mean(dim=1, keepdim=True)


def knowing(known: PerDomain[Tensor]) -> Discriminators:
    """Certain that known images are real and all others are not."""

    def judge(i: Domain, x: Tensor) -> Tensor:
        seen = (x[:, None] == known[i][None]).flatten(2).all(dim=2).any(dim=1)
        return torch.where(seen, 100.0, -100.0)[:, None, None, None].expand(-1, 1, 4, 4)

    return judging(judge)


# The healthy pair: rain is darker, and paler in its colours.


def darken(x: Tensor) -> Tensor:
    return 0.6 * x - 0.25 + 0.1 * x.mean(dim=1, keepdim=True)


def brighten(y: Tensor) -> Tensor:
    y = y + 0.25
    return (y - y.mean(dim=1, keepdim=True) * 0.1 / 0.7) / 0.6


def plain(x: Tensor) -> Tensor:
    return x.new_tensor([0.2, -0.3, 0.1])[:, None, None].expand_as(x)


def coarse(x: Tensor) -> Tensor:
    return functional.interpolate(functional.avg_pool2d(x, 4), scale_factor=4.0)


def hide(x: Tensor) -> Tensor:
    """The coarse image, darker; what else there is in x, is there at four levels of 255."""
    return 0.7 * coarse(x) - 0.2 + 0.03 * (x - coarse(x))


def unhide(y: Tensor) -> Tensor:
    low = coarse(y)
    return ((low + 0.2) / 0.7 + (y - low) / 0.03).clamp(-1, 1)


def measure(
    images: Images, autoencoders: Autoencoders | None = None, discriminators: Discriminators | None = None
) -> dict[str, float]:
    translator = Translator(autoencoders or networks(darken, brighten), CONFIG, NAMES, 0, "cpu", "fp32")
    return diagnostics(translator, discriminators or judging(by_brightness), images.held_out, images.training)


def fired(run: Path, seen: dict[str, float], checks: int = CHECKS) -> set[str]:
    alarms = Alarms(NAMES, run)
    raised = [alarms.check(step, seen) for step in range(checks)]
    assert {value for check in raised for value in check.values()} <= {0.0, 1.0}
    assert all(check.keys() == raised[0].keys() for check in raised)
    return {tag.removeprefix("alarm/") for check in raised for tag, value in check.items() if value}


def test_a_healthy_pair_raises_no_alarm(tmp_path: Path, images: Images) -> None:
    assert fired(tmp_path, measure(images)) == set()


FAILURES: dict[str, tuple[Autoencoders, set[str]]] = {
    "identity": (networks(same, same), {"identity_collapse_a2b", "identity_collapse_b2a"}),
    "identity, blurred": (networks(coarse, same, coarse), {"identity_collapse_a2b", "identity_collapse_b2a"}),
    "identity, where reconstructions are worse": (networks(same, same, coarse), {"identity_collapse_a2b"}),
    "one image": (networks(plain, brighten), {"mode_collapse_a2b"}),
    "inverted": (networks(lambda x: -x, lambda y: -y), {"inverted_colours_a2b", "inverted_colours_b2a"}),
    "no code": (networks(darken, torch.zeros_like), {"posterior_collapse_b"}),
    "hidden": (networks(hide, unhide), {"hidden_code_a2b"}),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failing_translator_raises_its_alarm_and_no_other(tmp_path: Path, images: Images, failure: str) -> None:
    autoencoders, expected = FAILURES[failure]
    assert fired(tmp_path, measure(images, autoencoders)) == expected


def test_distances_are_in_levels_and_nothing_where_nothing_changes(images: Images) -> None:
    nothing = measure(images, networks(same, same))
    lighter = measure(images, networks(lambda x: (x + 2 / 127.5).clamp(max=1), same))
    for name in ("identity", "reconstruction"):
        assert nothing[f"vital/{name}_distance_a2b"] == 0
    assert 1.5 < lighter["vital/identity_distance_a2b"] <= 2.01
    assert lighter["vital/identity_distance_b2a"] == lighter["vital/reconstruction_distance_a2b"] == 0
    assert 1.5 < lighter["vital/reconstruction_distance_b2a"] <= 2.01


def test_jpeg_costs_an_image_some_levels_and_no_more(images: Images) -> None:
    """From a plain image nothing comes back, so it can lose nothing; a reconstruction loses what JPEG takes."""
    assert 0.05 < measure(images, networks(plain, brighten))["vital/hidden_code_a2b"] < 0.3


def test_a_discriminator_that_is_never_wrong_raises_its_alarm_and_no_other(tmp_path: Path, images: Images) -> None:
    known = PerDomain.of(lambda i: torch.cat([images.held_out[i], images.training[i]]))
    expected = {"discriminator_saturated_a", "discriminator_saturated_b"}
    assert fired(tmp_path, measure(images, discriminators=knowing(known))) == expected


def test_a_discriminator_that_has_memorized_the_training_images_raises_its_alarm_and_no_other(
    tmp_path: Path, images: Images
) -> None:
    found = measure(images, discriminators=knowing(images.training))
    assert fired(tmp_path, found) == {"overfitting_a", "overfitting_b"}


def test_each_discriminator_is_shown_the_translations_into_its_domain(images: Images) -> None:
    """Only the translation into b is plain."""
    judges = judging(lambda _, x: (x.flatten(2).std(dim=2) < 1e-6).all(dim=1).float()[:, None, None, None])
    found = measure(images, networks(plain, brighten), judges)
    assert found["vital/discriminator_accuracy_b"] == 0
    assert found["vital/discriminator_accuracy_a"] == 0.5


@pytest.mark.parametrize("logit", [0.0, -3.0, 100.0])
def test_a_constant_discriminator_raises_its_alarm_and_no_other(tmp_path: Path, images: Images, logit: float) -> None:
    dead = judging(lambda i, x: torch.full_like(by_brightness(i, x), logit) if i is Domain.A else by_brightness(i, x))
    assert fired(tmp_path, measure(images, discriminators=dead)) == {"discriminator_dead_a"}


def test_a_failure_mode_has_to_last(tmp_path: Path, images: Images) -> None:
    healthy, failing = measure(images), measure(images, networks(same, same))
    alarms = Alarms(NAMES, tmp_path)
    needed = next(alarm.checks for alarm in ALARMS if alarm.name == "identity_collapse")
    course = [failing] * (needed - 1) + [healthy] + [failing] * (needed + 2) + [healthy]
    raised = [alarms.check(step, seen)["alarm/identity_collapse_a2b"] for step, seen in enumerate(course)]
    assert raised == [0] * needed + [0] * (needed - 1) + [1] * 3 + [0]


BLURRED = {"identity_distance": 25.0, "reconstruction_distance": 24.0, "colour_correlation": 0.95, "spread": 0.8}


@pytest.mark.parametrize(
    ("other", "collapsed"),
    [({}, True), ({"spread": 0.2}, False), ({"colour_correlation": 0.7}, False), ({"identity_distance": 40.0}, False)],
)
def test_images_that_are_as_grey_there_as_here_are_no_identity_yet(
    tmp_path: Path, other: dict[str, float], collapsed: bool
) -> None:
    seen = {f"vital/{name}_b2a": value for name, value in (BLURRED | other).items()}
    assert fired(tmp_path, seen) == ({"identity_collapse_b2a"} if collapsed else set())


def test_what_is_not_measured_triggers_nothing(tmp_path: Path) -> None:
    assert fired(tmp_path, {}) == set()
    assert fired(tmp_path, {f"vital/{name}_a": float("nan") for name in ("active_units", "overfitting")}) == set()


def test_an_alarm_is_said_once_with_the_users_names_the_symptom_and_advice(
    tmp_path: Path, images: Images, caplog: pytest.LogCaptureFixture
) -> None:
    alarms = Alarms(NAMES, tmp_path)
    with caplog.at_level(logging.WARNING):
        for check in range(20):
            alarms.check(check * 250, measure(images, networks(plain, brighten)) if check else measure(images))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("step 2500, sunny to rainy: mode collapse. ")
    assert "0.000 of the inputs' diversity" in line
    assert "loss.r1" in line
    assert "\n" not in line


@pytest.mark.parametrize("alarm", ALARMS, ids=lambda alarm: alarm.name)
def test_advice_names_keys_that_exist(alarm) -> None:  # type: ignore[no-untyped-def]
    keys = {word.strip(",.;()") for word in alarm.advice.split() if "." in word.strip(",.;()") and word[0].isalpha()}
    keys = {key for key in keys if key.split(".")[0] in CONFIG.to_dict()}
    assert keys
    assert keys <= CONFIG.to_flat_dict().keys()
    assert alarm.checks <= CHECKS


@pytest.mark.parametrize("every", [1, 3, 7])
def test_a_resumed_run_has_the_alarms_of_an_uninterrupted_one(
    tmp_path: Path, images: Images, every: int, caplog: pytest.LogCaptureFixture
) -> None:
    healthy, failing = measure(images), measure(images, networks(plain, lambda y: -y))
    course = [healthy] * 2 + [failing] * 14 + [healthy] + [failing] * 12
    raised_by_run, said = [], []
    for part in (len(course), every):
        run, raised = tmp_path / str(part), []
        run.mkdir()
        caplog.clear()
        for step, seen in enumerate(course):
            if step % part == 0:
                alarms = Alarms(NAMES, run)
            raised.append(alarms.check(step, seen))
            with (run / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, "loss/kl_a": 1.0}) + "\n")
                file.write(json.dumps({"step": step, **seen, **raised[-1]}) + "\n")
        raised_by_run.append(raised)
        said.append([record.getMessage() for record in caplog.records])
    assert raised_by_run[0] == raised_by_run[1]
    assert said[0] == said[1]
    assert {value for check in raised_by_run[0] for value in check.values()} == {0.0, 1.0}


@pytest.mark.slow
def test_a_healthy_run_raises_no_alarm(tmp_path: Path) -> None:
    config = replace(CONFIG, train=replace(CONFIG.train, steps=150, batch_size=4))
    resolved = resolve(config, tmp_path / "run")
    trainer, alarms, raised = resolved.build_trainer(), Alarms(NAMES, tmp_path), set()
    test, train = (
        probe_batch(resolved.datasets.test.images, config.data),
        probe_batch(resolved.datasets.train, config.data),
    )
    for images in resolved.batches(range(config.train.steps), BadImages(resolved.datasets.train.map(len))):
        trainer.step(images)
        if trainer.steps_done % 6 == 0:
            seen = diagnostics(resolved.translator(trainer), trainer.discriminators, test, train)
            raised |= {tag for tag, value in alarms.check(trainer.steps_done, seen).items() if value}
    assert raised == set()
