"""Importance equals closed forms and numerical differences; the penalty and its weight decay pull towards θ*."""

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.model.affine import SMALL, discriminators, make_microbatch
from tests.tiny import tiny
from tests.training.test_trainer import batch, double_trainer
from unit.domains import Domain, PerDomain
from unit.model.extras.memory import Extra, Importance
from unit.model.networks import Autoencoders, Encoder, Generator, build_autoencoders
from unit.model.objective import Microbatch, Terms


class Scale(nn.Module):
    """factor · x, and the factor is a weight."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x


class Shift(nn.Module):
    """x + shift, and the shift is a weight."""

    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


def linear(e_a: nn.Module, e_b: nn.Module, g_a: nn.Module, g_b: nn.Module) -> Autoencoders:
    encoder = Encoder(PerDomain(nn.Sequential(e_a), nn.Sequential(e_b)), nn.Identity())
    return Autoencoders(encoder, Generator(nn.Identity(), PerDomain(g_a, g_b)), widths=[3], strides=[1])


def measured(networks: Autoencoders, images: PerDomain[list[Tensor]]) -> dict[str, Tensor]:
    importance = Importance(networks)
    for i in Domain:
        for image in images[i]:
            importance.add(image, i)
    return importance.mean()


E_A, E_B, G_A, G_B = "encoder.private.a.0", "encoder.private.b.0", "generator.private.a", "generator.private.b"


@pytest.mark.parametrize("size", [(2, 2), (8, 4)])
def test_of_linear_maps_it_is_the_closed_form_at_any_size(size: tuple[int, int]) -> None:
    """Of μ_i = e_i x and x_i^{i→j} = g_j e_i x: ∂ mean((g e x)²) / ∂e = 2 g² e m, with m = mean(x²) of an image."""
    networks = linear(Scale(2.0), Scale(-3.0), Scale(5.0), Scale(-7.0))
    images = PerDomain([torch.full((1, 3, *size), x) for x in (1.0, 3.0)], [torch.full((1, 3, *size), 2.0)])
    m_a, m_b = (1 + 9) / 2, 4
    omega = measured(networks, images)
    assert {name: value.item() for name, value in omega.items()} == {
        f"{E_A}.factor": 2 * 2 * m_a * (1 + 5**2 + 7**2),
        f"{E_B}.factor": 2 * 3 * m_b * (1 + 5**2 + 7**2),
        f"{G_A}.factor": 2 * 5 * (2**2 * m_a + 3**2 * m_b),
        f"{G_B}.factor": 2 * 7 * (2**2 * m_a + 3**2 * m_b),
    }


def test_images_do_not_cancel_each_other() -> None:
    """Of x + c, ∂ mean((x + c)²) / ∂c = 2 mean(x + c), which is 2.5 at 1 and -1.5 at -1: their mean is not 0.5."""
    networks = linear(Shift(0.25), Shift(0.0), Scale(0.0), Scale(0.0))
    omega = measured(networks, PerDomain([torch.full((1, 3, 2, 2), x) for x in (1.0, -1.0)], []))
    assert omega[f"{E_A}.shift"] == 2.0
    assert omega[f"{E_B}.shift"] == 0.0


def test_it_is_what_numerical_differences_give() -> None:
    """On real networks, of weights of every kind, from maps computed one by one."""
    networks = build_autoencoders(SMALL).double()
    images = PerDomain.of(lambda _: [torch.rand(1, 3, 8, 8, dtype=torch.float64) * 2 - 1 for _ in range(2)])
    omega = measured(networks, images)

    def norms() -> Tensor:
        """(domain, image, map) → mean of the map's squared outputs."""
        rows = []
        with torch.no_grad():
            for i in Domain:
                for x in images[i]:
                    mu = networks.encoder.shared(networks.encoder.private[i.value](x))
                    decoded = [networks.generator.private[j.value](networks.generator.shared(mu)) for j in Domain]
                    rows.append(torch.stack([y.square().mean() for y in (mu, *decoded)]))
        return torch.stack(rows).view(2, 2, 3)

    for name, weight in networks.named_parameters():
        place = tuple(n // 2 for n in weight.shape)
        with torch.no_grad():
            original, step = weight[place].item(), 1e-6
            weight[place] = original + step
            above = norms()
            weight[place] = original - step
            below = norms()
            weight[place] = original
        expected = ((above - below).abs() / (2 * step)).mean(1).sum()
        torch.testing.assert_close(omega[name][place], expected, rtol=1e-5, atol=1e-8, msg=name)
    assert all(value.any() for name, value in omega.items() if name.endswith("weight"))


def test_networks_are_in_evaluation_mode() -> None:
    networks = build_autoencoders(SMALL).train()
    Importance(networks)
    assert not any(module.training for module in networks.modules())


# -- the penalty -------------------------------------------------------------------------------------------------------


def remembering(networks: Autoencoders, weight: float = 3.0) -> tuple[Extra, dict[str, Tensor]]:
    extra = Extra(weight, networks)
    omega = {name: torch.rand_like(p) for name, p in networks.named_parameters()}
    extra.remember(networks, dict(reversed(omega.items())))  # by name, in whatever order
    return extra, omega


def penalty(extra: Extra, networks: Autoencoders) -> Tensor:
    return extra.generator_terms(networks, discriminators(), make_microbatch())["memory"]


def test_the_penalty_is_0_at_the_start_and_quadratic_in_each_weight() -> None:
    networks = build_autoencoders(SMALL)
    extra, omega = remembering(networks)
    assert penalty(extra, networks) == 0
    for number, (name, parameter) in enumerate(networks.named_parameters()):
        with torch.no_grad():
            parameter.flatten()[0] += 0.5
        expected = 3.0 * 0.25 * sum(value.flatten()[0].item() for value in list(omega.values())[: number + 1])
        assert penalty(extra, networks).item() == pytest.approx(expected, rel=1e-4), name


def test_its_gradient_is_2_lambda_omega_times_the_distance() -> None:
    networks = build_autoencoders(SMALL)
    extra, omega = remembering(networks)
    start = copy.deepcopy(networks)
    with torch.no_grad():
        for parameter in networks.parameters():
            parameter += torch.randn_like(parameter)
    penalty(extra, networks).backward()
    for (name, parameter), old in zip(networks.named_parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, 2 * 3.0 * omega[name] * (parameter - old).detach(), msg=name)


def test_its_state_is_all_that_it_needs() -> None:
    networks = build_autoencoders(SMALL)
    extra, _ = remembering(networks)
    other = Extra(3.0, networks)
    other.load_state_dict(extra.state_dict())
    with torch.no_grad():
        next(networks.parameters()).mul_(2)
    assert torch.equal(penalty(extra, networks), penalty(other, networks))
    assert penalty(extra, networks) > 0
    assert not list(extra.parameters())


def test_a_step_is_that_of_the_penalty_written_out_with_weight_decay_towards_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Equal to Adam without weight decay on the loss + Σ (λ Ω + decay / 2) (θ − θ*)²."""
    loss = {"lambda0": 0.0, "lambda4": 1.0}  # without discriminators, whose weight decay is another matter
    decay = 0.3
    trainer = double_trainer(
        tiny(loss=loss | {"memory": 2.0}, optimizer={"weight_decay": decay}, train={"init_from": "x"})
    )
    reference = double_trainer(tiny(loss=loss, optimizer={"weight_decay": 0.0}, train={"init_from": "x"}))
    start = copy.deepcopy(reference.networks)
    with torch.no_grad():
        for parameter in start.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    omega = {name: torch.rand_like(p) for name, p in start.named_parameters()}
    memory = trainer.extras["memory"]
    assert isinstance(memory, Extra)
    memory.remember(start, omega)

    def written_out(networks: Autoencoders, _: object, batch: Microbatch) -> Terms:
        terms = [
            ((2.0 * omega[name] + decay / 2) * (p - old.detach()).square()).sum()
            for (name, p), old in zip(networks.named_parameters(), start.parameters(), strict=True)
        ]
        return {"written out": torch.stack(terms).sum()}

    monkeypatch.setattr(reference.extras, "generator_terms", written_out)
    for step in range(3):
        x = batch(step).map(Tensor.double)
        record = trainer.step(x)
        reference.step(x)
    assert record.generator["memory"] > 0
    for (name, p), other in zip(trainer.networks.named_parameters(), reference.networks.parameters(), strict=True):
        torch.testing.assert_close(p, other, rtol=1e-7, atol=1e-9, msg=name)


def test_important_weights_stay_nearer() -> None:
    """Half of the weights are important: after some steps these have moved far less."""
    trainer = double_trainer(tiny(loss={"memory": 10.0}, train={"init_from": "x"}))
    start = copy.deepcopy(trainer.networks)
    masks = {name: torch.rand_like(p) < 0.5 for name, p in start.named_parameters()}
    memory = trainer.extras["memory"]
    assert isinstance(memory, Extra)
    memory.remember(start, {name: 100.0 * mask for name, mask in masks.items()})
    for step in range(20):
        trainer.step(batch(step).map(Tensor.double))
    moved = {
        name: (p - old).detach().abs()
        for (name, p), old in zip(trainer.networks.named_parameters(), start.parameters(), strict=True)
    }
    kept = torch.cat([moved[name][mask] for name, mask in masks.items()])
    free = torch.cat([moved[name][~mask] for name, mask in masks.items()])
    assert kept.mean() < 0.5 * free.mean()
