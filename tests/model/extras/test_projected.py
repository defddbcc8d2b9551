"""The projected discriminator: Lite0's own features, terms by hand, and what is trained, saved and left alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.model.affine import autoencoders, discriminators
from tests.tiny import tiny
from unit.domains import Domain, PerDomain
from unit.model.extras.projected import INTERVAL, Extra
from unit.model.noise import Noise
from unit.model.objective import Microbatch
from unit.model.pretrained import CHANNELS, Lite0Features, load_lite0
from unit.training.trainer import Trainer

CPU = torch.device("cpu")


def images(seed: int, size: int = 32, count: int = 2) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def seen(step: int = INTERVAL) -> Microbatch:
    """A batch as the discriminators see it."""
    zero = torch.zeros(1)
    batch = Microbatch(PerDomain(zero, zero), lambda *_: [], Noise(PerDomain(zero, zero), PerDomain(zero, zero)))
    batch.step, batch.d_real = step, PerDomain(images(1), images(2))
    batch.d_fake = PerDomain(images(3).requires_grad_(), images(4).requires_grad_())
    return batch


def make_extra(weight: float = 0.5) -> Extra:
    torch.manual_seed(0)
    return Extra(weight, autoencoders())


def make_trainer() -> Trainer:
    return Trainer(tiny(loss={"projected": 0.1, "adversarial": "least_squares"}), CPU, "fp32")


def test_features_are_lite0s_own() -> None:
    """Against the package's network, with its batch normalization, up to a constant for each depth."""
    x, features, network = images(0, 128), Lite0Features(), load_lite0(CPU)
    blocks: Any = network._blocks
    with torch.no_grad():
        h = functional.relu6(network._bn0(network._conv_stem((x * 127.5 + 0.5) / 128)))  # type: ignore[operator]
        outputs = [h := block(h) for block in blocks]
        expected = [outputs[k] for k in (2, 4, 10)]
        actual = features(x)
    assert [f.shape[1] for f in actual] == list(CHANNELS)
    assert [128 // f.shape[2] for f in actual] == [4, 8, 16]
    for a, b, magnitude in zip(actual, expected, (8, 7, 5.5), strict=True):
        assert torch.allclose(magnitude * a, b, atol=1e-3)
    assert all(not p.requires_grad for p in features.parameters())


def test_small_images_are_enlarged_and_large_ones_are_not() -> None:
    features = Lite0Features()
    x = images(0, 64)
    enlarged = functional.interpolate(x, (128, 128), mode="bilinear")
    for a, b in zip(features(x), features(enlarged), strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    assert features(images(0, 160))[0].shape[2] == 40
    assert features(torch.zeros(1, 3, 64, 128))[0].shape[2:] == (32, 64)


def test_the_terms_by_hand() -> None:
    """Every second step, twice the weight times the hinge, over all depths."""
    extra, batch = make_extra(), seen()
    assert batch.d_real
    assert batch.d_fake
    extra.eval()  # no power iteration, so that logits repeat
    d_terms = extra.discriminator_terms(discriminators(), batch)
    g_terms = extra.generator_terms(autoencoders(), discriminators(), batch)
    for i in Domain:
        discriminator, features = extra.by_domain[i.value], Lite0Features()
        real, fake = discriminator(features(batch.d_real[i])), discriminator(features(batch.d_fake[i]))
        assert len(real) == len(CHANNELS)
        parts = [(1 - x).relu().mean() + (1 + y).relu().mean() for x, y in zip(real, fake, strict=True)]
        hinge = torch.stack(parts).sum()
        assert d_terms[f"projected_discriminator_{i}"].item() == pytest.approx(2 * 0.5 * hinge.item(), rel=1e-4)
        expected = -sum(y.mean().item() for y in fake)
        assert g_terms[f"projected_{i}"].item() == pytest.approx(2 * 0.5 * expected, rel=1e-4)


def test_terms_come_in_every_second_step_only() -> None:
    extra = make_extra()
    for step in range(1, 5):
        wanted = step % 2 == 0
        assert bool(extra.discriminator_terms(discriminators(), seen(step))) == wanted
        assert bool(extra.generator_terms(autoencoders(), discriminators(), seen(step))) == wanted


def test_it_learns_to_tell_real_from_fake_and_its_gradient_leads_to_real() -> None:
    """Smooth images are real, noise is fake; afterwards a step along the gradient lowers G's term."""
    extra, batch = make_extra(1.0), seen()
    batch.d_real = PerDomain.of(lambda i: functional.interpolate(images(5 + (i is Domain.A), 4), 32, mode="bilinear"))
    optimizer = torch.optim.Adam(extra.parameters(), 2e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = torch.stack([*extra.discriminator_terms(discriminators(), batch).values()]).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    extra.eval().requires_grad_(False)
    assert batch.d_fake
    fake = batch.d_fake.map(lambda x: x.detach().requires_grad_())

    def g_loss() -> Tensor:
        batch.d_fake = fake
        return torch.stack([*extra.generator_terms(autoencoders(), discriminators(), batch).values()]).sum()

    before = g_loss()
    before.backward()
    fake = fake.map(lambda x: (x - 0.05 * x.grad.sign()).detach())  # type: ignore[union-attr]
    assert g_loss() < before


def test_the_discriminators_optimizer_trains_the_heads_alone() -> None:
    trainer = make_trainer()
    heads = {name for name, _ in trainer.extras.named_parameters()}
    assert heads
    assert all(".heads." in name for name in heads)
    trained = {id(p) for group in trainer.optimizer_discriminator.param_groups for p in group["params"]}
    assert {id(p) for p in trainer.extras.parameters()} <= trained
    assert not trained & {id(p) for p in trainer.generator_modules.parameters()}
    before = copy.deepcopy(trainer.extras.state_dict())
    trainer.step(PerDomain(images(1, 16), images(2, 16)))
    record = trainer.step(PerDomain(images(1, 16), images(2, 16)))
    assert {"projected_a", "projected_b"} <= record.generator.keys()
    after = trainer.extras.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name for name, _ in trainer.extras.named_parameters()} <= changed
    assert not any("mix" in name for name in changed)


def test_the_pretrained_network_is_in_no_checkpoint() -> None:
    state = make_trainer().state_dict()
    assert sum(t.numel() for t in state["extras"].values()) < 1_000_000
    assert not any("blocks" in name or "stem" in name for name in state["extras"])


def test_a_trainer_with_a_loaded_state_continues_bit_for_bit() -> None:
    x = PerDomain(images(1, 16), images(2, 16))
    first = make_trainer()
    for _ in range(3):
        first.step(x)
    second = make_trainer()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for trainer in (first, second):
        trainer.step(x)
    assert first.digest() == second.digest()
