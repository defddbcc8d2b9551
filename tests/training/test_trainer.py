"""The step: equal to the paper's written out, a function of state and data alone, and what it leaves untouched."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.tiny import TINY, tiny
from unit.config import Config
from unit.domains import Domain, PerDomain
from unit.model.extras.r1 import INTERVAL
from unit.model.noise import Noise
from unit.model.objective import forward_pass, translate
from unit.training.finite import NonFiniteError
from unit.training.trainer import Trainer

CPU = torch.device("cpu")


ALL = {
    "adversarial": "relativistic",
    "augmentation": "color,translation,cutout",
    "cycle_noise": 0.1,
    **dict.fromkeys(("r1", "projected", "patch_nce", "low_frequency", "feature_matching"), 1.0),
}
"""All ingredients that came after the paper."""


def make(config: Config, precision: str = "fp32") -> Trainer:
    return Trainer(config, CPU, precision)


def batch(step: int, size: int = 2) -> PerDomain[Tensor]:
    generator = torch.Generator().manual_seed(step)
    return PerDomain.of(lambda _: torch.rand(size, 3, 16, 16, generator=generator) * 2 - 1)


def noise_of(trainer: Trainer, images: PerDomain[Tensor]) -> Noise:
    """The noise of the next step's only microbatch."""
    (microbatch,) = trainer.split_into_microbatches(images)
    return microbatch.noise


def weights(trainer: Trainer) -> dict[str, Tensor]:
    parts = (trainer.networks, trainer.discriminators, trainer.ema)
    return {f"{n}.{name}": t.clone() for n, part in enumerate(parts) for name, t in part.state_dict().items()}


def plain_step(trainer: Trainer, x_a: Tensor, x_b: Tensor) -> None:
    """The paper's step written out for two domains, each network on its own: what `Trainer.step` must equal."""
    c, n = trainer.config.loss, noise_of(trainer, PerDomain(x_a, x_b))
    encoder, generator = trainer.networks.encoder, trainer.networks.generator

    def e(i: str) -> Callable[[Tensor], Tensor]:
        return lambda x: encoder.shared(encoder.private[i](x))

    def g(i: str) -> Callable[[Tensor], Tensor]:
        return lambda z: generator.private[i](generator.shared(z))

    e_a, e_b, g_a, g_b = e("a"), e("b"), g("a"), g("b")
    d_a, d_b = (trainer.discriminators.by_domain[i.value] for i in Domain)
    mu_a, mu_b = e_a(x_a), e_b(x_b)
    z_a, z_b = mu_a + n.code.a, mu_b + n.code.b
    x_aa, x_ab, x_ba, x_bb = g_a(z_a), g_b(z_a), g_a(z_b), g_b(z_b)
    mu_ab, mu_ba = e_b(x_ab), e_a(x_ba)
    x_aba, x_bab = g_a(mu_ab + n.cycle.a), g_b(mu_ba + n.cycle.b)

    def gan(logits: list[Tensor], target: float) -> Tensor:
        return sum(functional.mse_loss(scale, torch.full_like(scale, target)) for scale in logits)

    trainer.discriminators.requires_grad_(True)
    trainer.optimizer_discriminator.zero_grad()
    loss_d = gan(d_a(x_a), 1) + gan(d_a(x_ba.detach()), 0) + gan(d_b(x_b), 1) + gan(d_b(x_ab.detach()), 0)
    (c.lambda0 * loss_d).backward()
    trainer.optimizer_discriminator.step()

    trainer.optimizer_generator.zero_grad()
    kl: Callable[[Tensor], Tensor] = lambda mu: (mu**2).mean()  # noqa: E731
    loss_g = (
        c.lambda0 * (gan(d_a(x_ba), 1) + gan(d_b(x_ab), 1))
        + c.lambda1 * (kl(mu_a) + kl(mu_b))
        + c.lambda2 * (functional.l1_loss(x_aa, x_a) + functional.l1_loss(x_bb, x_b))
        + c.lambda3 * (kl(mu_a) + kl(mu_ab) + kl(mu_b) + kl(mu_ba))
        + c.lambda4 * (functional.l1_loss(x_aba, x_a) + functional.l1_loss(x_bab, x_b))
    )
    loss_g.backward()
    trainer.optimizer_generator.step()
    trainer.steps_done += 1


def test_steps_equal_the_papers_written_out() -> None:
    trainer = make(tiny())
    reference = make(tiny())
    for part in (trainer, reference):
        part.networks.double()
        part.discriminators.double()
        part.ema.double()
    for step in range(4):
        x = batch(step).map(torch.Tensor.double)
        trainer.step(x)
        plain_step(reference, x.a, x.b)
    for ours, theirs in ((trainer.networks, reference.networks), (trainer.discriminators, reference.discriminators)):
        for name, tensor in ours.state_dict().items():
            torch.testing.assert_close(tensor, theirs.state_dict()[name], rtol=1e-7, atol=1e-9, msg=name)


def test_golden_first_step() -> None:
    """The terms of one step from a fixed start, as they were when this was written.

    If this fails, training computes something else than before: other initial weights, noise, losses or weights of
    them. Where that was the aim, put the new numbers here and say so in the commit; runs then no longer resume alike.
    """
    record = make(tiny()).step(batch(0))
    terms = {name: round(term.item(), 3) for name, term in (record.generator | record.discriminator).items()}
    assert terms == pytest.approx(GOLDEN, rel=1e-3, abs=1e-3)


GOLDEN = {
    "kl_a": 0.219,
    "reconstruction_a": 66.678,
    "cycle_kl_a": 0.449,
    "cycle_a": 66.627,
    "kl_b": 0.209,
    "reconstruction_b": 73.119,
    "cycle_kl_b": 0.427,
    "cycle_b": 77.231,
    "adversarial_a": 37.862,
    "adversarial_b": 16.028,
    "discriminator_a": 43.384,
    "discriminator_b": 35.139,
}


def test_adam_gets_each_parameter_once() -> None:
    trainer = make(tiny(model={"shared_blocks": 2}))
    parameters = [p for group in trainer.optimizer_generator.param_groups for p in group["params"]]
    assert len(parameters) == len({id(p) for p in parameters})
    assert {id(p) for p in parameters} == {id(p) for p in trainer.networks.parameters()}


def test_the_optimizers_are_the_papers_adam() -> None:
    trainer = make(Config())
    for optimizer in (trainer.optimizer_generator, trainer.optimizer_discriminator):
        assert type(optimizer) is torch.optim.Adam
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-4, (0.5, 0.999), 1e-4)


def test_equal_seeds_give_equal_weights_bit_for_bit_and_others_do_not() -> None:
    def trained(seed: int) -> dict[str, Tensor]:
        trainer = make(tiny(train={"seed": seed}))
        torch.rand(seed + 1)  # the global generator has no say
        for step in range(2):
            trainer.step(batch(step))
        return weights(trainer)

    one, same, other = trained(1), trained(1), trained(2)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one if name.endswith("weight"))


def test_noise_follows_from_the_index_in_the_global_sequence() -> None:
    wide, narrow = make(tiny(train={"batch_size": 2})), make(tiny(train={"batch_size": 1}))
    wide.steps_done, narrow.steps_done = 3, 7
    two, one = noise_of(wide, batch(0)), noise_of(narrow, batch(0, size=1))
    for i in Domain:  # image 7 of the sequence is the second of batch 3 of size 2, and batch 7 of size 1
        assert torch.equal(two.code[i][1], one.code[i][0])
        assert torch.equal(two.cycle[i][1], one.cycle[i][0])
    draws = [tensor[k] for tensor in (*two.code, *two.cycle) for k in range(2)]
    assert len({draw.sum().item() for draw in draws}) == len(draws)
    assert torch.cat(draws).std().item() == pytest.approx(1, abs=0.1)


def assert_same_weights(first: Trainer, second: Trainer) -> None:
    other = weights(second)
    assert all(torch.equal(tensor, other[name]) for name, tensor in weights(first).items())


def test_a_trainer_with_a_loaded_state_continues_bit_for_bit() -> None:
    first, second = make(tiny(loss=ALL)), make(tiny(loss=ALL, train={"seed": 0}))
    first.step(batch(0))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for trainer in (first, second):
        trainer.step(batch(1))
        trainer.step(batch(2))
    assert_same_weights(first, second)


def test_ema_by_hand() -> None:
    trainer = make(tiny(model={"ema_decay": 0.25}))
    name = "encoder.private.a.0.0.weight"
    expected = trainer.networks.state_dict()[name].clone()
    for step in range(4):  # (1 + n) / (10 + n) is 2/11, 3/12, 4/13, 5/14: from the second on, 0.25 is less
        trainer.step(batch(step))
        decay = (2 / 11, 0.25, 0.25, 0.25)[step]
        expected = decay * expected + (1 - decay) * trainer.networks.state_dict()[name]
        torch.testing.assert_close(trainer.ema.state_dict()[name], expected, rtol=0, atol=1e-6)


def test_with_an_ema_decay_of_0_the_weights_themselves_are_kept() -> None:
    trainer = make(tiny(model={"ema_decay": 0.0}))
    trainer.step(batch(0))
    for name, tensor in trainer.networks.state_dict().items():
        torch.testing.assert_close(trainer.ema.state_dict()[name], tensor)


def test_discriminators_get_gradients_from_their_own_terms_only() -> None:
    """The update of E and G, which passes through D, leaves D's gradients as they were at D's own update."""
    trainer, at_update = make(tiny()), []

    def record(*_: object) -> None:
        at_update.extend(p.grad.clone() for p in trainer.discriminators.parameters() if p.grad is not None)

    trainer.optimizer_discriminator.register_step_pre_hook(record)
    trainer.step(batch(0))
    after = [p.grad for p in trainer.discriminators.parameters()]
    assert len(at_update) == len(after)
    assert all(torch.equal(one, two) for one, two in zip(at_update, after, strict=True) if two is not None)
    assert trainer.gradient_norms()[1] == pytest.approx(torch.stack([g.norm() for g in at_update]).norm().item())


def test_with_a_lambda0_of_0_discriminators_are_not_trained() -> None:
    trainer = make(tiny(loss={"lambda0": 0.0}))
    before = copy.deepcopy(trainer.discriminators.state_dict())
    record = trainer.step(batch(0))
    assert record.discriminator == {}
    assert record.real_logits == record.fake_logits == []
    assert not {"adversarial_a", "adversarial_b"} & record.generator.keys()
    assert all(torch.equal(before[name], t) for name, t in trainer.discriminators.state_dict().items())


def test_learning_rates_follow_the_schedule() -> None:
    trainer = make(tiny(optimizer={"schedule": "linear", "decay_start": 1, "decay_end": 3}))
    rates = []
    for step in range(4):
        trainer.step(batch(step))
        rates.append([o.param_groups[0]["lr"] for o in (trainer.optimizer_generator, trainer.optimizer_discriminator)])
    assert rates == [[1e-3, 2e-3], [1e-3, 2e-3], [0.5e-3, 1e-3], [0, 0]]


def test_bf16_is_used_in_networks_only() -> None:
    records = {precision: make(tiny(), precision).step(batch(0)) for precision in ("fp32", "bf16")}
    trainer = make(tiny(), "bf16")
    trainer.step(batch(0))
    assert {t.dtype for t in weights(trainer).values()} == {torch.float32}
    state = trainer.optimizer_generator.state_dict()["state"]
    assert {s["exp_avg"].dtype for s in state.values()} == {torch.float32}
    assert {term.dtype for term in records["bf16"].generator.values()} == {torch.float32}
    for name, term in records["fp32"].generator.items():
        assert records["bf16"].generator[name].item() == pytest.approx(term.item(), rel=0.05)
        assert not torch.equal(records["bf16"].generator[name], term)


@pytest.mark.slow
def test_training_overfits_one_pair_of_images() -> None:
    """Reconstruction and cycle fall to a third within 150 steps on a fixed batch."""
    trainer = make(tiny(loss={"lambda0": 0.1}))
    x = batch(0).map(lambda t: functional.interpolate(functional.avg_pool2d(t, 8), scale_factor=8.0, mode="bilinear"))
    first = trainer.step(x).generator
    for _ in range(150):
        last = trainer.step(x).generator
    for name in ("reconstruction_a", "reconstruction_b", "cycle_a", "cycle_b"):
        assert last[name] < first[name] / 3, name


def bytes_saved_for_backward(trainer: Trainer) -> int:
    """Return what the forward pass keeps, each tensor once."""
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    images = batch(0)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward_pass(trainer.networks, images, noise_of(trainer, images))
    return sum(saved.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activation_checkpointing_changes_nothing_but_the_memory(precision: str) -> None:
    config = tiny(loss=ALL)
    recompute = replace(config, train=replace(config.train, checkpoint_activations=True))
    trainers = [make(c, precision) for c in (config, recompute)]
    assert bytes_saved_for_backward(trainers[1]) < 0.5 * bytes_saved_for_backward(trainers[0])
    for trainer in trainers:
        for step in range(3):
            trainer.step(batch(step))
    assert_same_weights(*trainers)


def test_without_noise_codes_are_their_means() -> None:
    trainer = make(tiny(model={"noise": False}))
    noise = noise_of(trainer, batch(0))
    assert all(not eta.any() for pair in (noise.code, noise.cycle) for eta in pair)
    assert noise.code.a.shape == (2, 16, 4, 4)
    assert noise_of(make(TINY), batch(0)).code.a.std() > 0.5


# -- microbatches ------------------------------------------------------------------------------------------------------


def double_trainer(config: Config) -> Trainer:
    trainer = make(config)
    for network in (trainer.generator_modules, trainer.discriminators, trainer.ema):
        network.double()
    return trainer


@pytest.mark.parametrize("loss", [{}, ALL | {"projected": 0.0}], ids=["paper", "all ingredients"])
@pytest.mark.parametrize("grad_accum_steps", [2, 4])
def test_microbatches_compute_what_one_batch_does(loss: dict[str, Any], grad_accum_steps: int) -> None:
    """Weights, terms and gradient norms; over the step in which R1 is due, too.

    Not with spectral norm, which the projected discriminator has: it takes one power iteration for each microbatch.
    """
    sizes = {"batch_size": 4 // grad_accum_steps, "grad_accum_steps": grad_accum_steps}
    accumulated = double_trainer(tiny(loss=loss, train=sizes))
    reference = double_trainer(tiny(loss=loss, train={"batch_size": 4}))
    for trainer in (accumulated, reference):
        trainer.steps_done = INTERVAL - 2
    for step in range(3):
        x = batch(step, size=4).map(Tensor.double)
        records = [trainer.step(x) for trainer in (accumulated, reference)]
        for name in ("generator", "discriminator"):
            terms, expected = (getattr(record, name) for record in records)
            assert terms.keys() == expected.keys()
            for term in terms:
                assert terms[term].item() == pytest.approx(expected[term].item(), rel=1e-8), term
        assert len(records[0].real_logits) == len(records[0].fake_logits) == grad_accum_steps
        assert accumulated.gradient_norms() == pytest.approx(reference.gradient_norms(), rel=1e-8)
    for name, tensor in weights(accumulated).items():
        torch.testing.assert_close(tensor, weights(reference)[name], rtol=1e-7, atol=1e-9, msg=name)


def test_a_batch_is_split_in_order_with_the_noise_of_each_images_index() -> None:
    images = batch(0, size=6)
    trainer = make(tiny(train={"batch_size": 2, "grad_accum_steps": 3}))
    trainer.steps_done = 5
    parts = trainer.split_into_microbatches(images)
    assert len(parts) == 3
    reference = make(tiny(train={"batch_size": 6}))
    reference.steps_done = 5
    noise = noise_of(reference, images)
    for i in Domain:
        assert torch.equal(torch.cat([part.images[i] for part in parts]), images[i])
        assert torch.equal(torch.cat([part.noise.code[i] for part in parts]), noise.code[i])
        assert torch.equal(torch.cat([part.noise.cycle[i] for part in parts]), noise.cycle[i])
        (batch_of_6,) = reference.split_into_microbatches(images)
        assert [seed for part in parts for seed in part.seeds("patches", i)] == batch_of_6.seeds("patches", i)


def test_after_a_rollback_noise_is_another() -> None:
    trainer = make(tiny())
    before = noise_of(trainer, batch(0))
    trainer.rollbacks = 1
    assert not torch.equal(noise_of(trainer, batch(0)).code.a, before.code.a)


def test_one_forward_pass_serves_both_updates_and_microbatches_take_one_more() -> None:
    """With several, D's update translates without a graph, so memory holds the graph of one at a time."""
    for grad_accum_steps, per_microbatch in ((1, 2), (2, 3)):
        trainer = make(tiny(train={"batch_size": 2, "grad_accum_steps": grad_accum_steps}))
        runs: list[int] = []
        trainer.networks.encoder.shared.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        trainer.step(batch(0, size=2 * grad_accum_steps))
        assert len(runs) == per_microbatch * grad_accum_steps


# -- what D's update depends on ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("grad_accum_steps", [1, 2])
def test_d_update_leaves_no_gradient_in_encoders_and_generators(grad_accum_steps: int) -> None:
    trainer = make(tiny(train={"batch_size": 2, "grad_accum_steps": grad_accum_steps}))
    trainer.optimizer_generator.zero_grad()
    present: list[bool] = []
    trainer.optimizer_discriminator.register_step_pre_hook(
        lambda *_: present.extend(p.grad is not None for p in trainer.networks.parameters())
    )
    trainer.step(batch(0, size=2 * grad_accum_steps))
    assert present
    assert not any(present)


def test_d_judges_the_translations_of_the_step_and_its_logits_are_those_before_its_update() -> None:
    trainer = make(tiny())
    discriminators, x = copy.deepcopy(trainer.discriminators), batch(0)
    translation = translate(trainer.networks, x, noise_of(trainer, x))
    record = trainer.step(x)
    for logits, images in ((record.real_logits, x), (record.fake_logits, translation.swapped())):
        expected = discriminators(images)
        (actual,) = logits
        for i in Domain:
            for scale, expected_scale in zip(actual[i], expected[i], strict=True):
                torch.testing.assert_close(scale, expected_scale)


@pytest.mark.parametrize("network", ["networks", "discriminators"])
def test_a_step_after_nan_or_inf_is_as_if_there_had_been_none(network: str) -> None:
    """Also D's, which is frozen while E and G are updated."""
    trainer, reference = make(tiny()), make(tiny())
    state = copy.deepcopy(trainer.state_dict())
    parameter = next(getattr(trainer, network).parameters())
    hook = parameter.register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(NonFiniteError):
        trainer.step(batch(0))
    hook.remove()
    trainer.load_state_dict(state)
    for t in (trainer, reference):
        t.step(batch(0))
        t.step(batch(1))
    assert_same_weights(trainer, reference)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_with_all_ingredients_has_all_terms_and_trains_all_parameters(precision: str) -> None:
    trainer = make(tiny(loss=ALL), precision)
    trainer.steps_done = INTERVAL - 1
    before = {n: p.clone() for n, p in trainer.generator_modules.named_parameters()}
    record = trainer.step(batch(0))
    paper = ("kl", "reconstruction", "cycle_kl", "cycle", "adversarial")
    later = ("projected", "feature_matching", "low_frequency", "patch_nce")
    assert record.generator.keys() == {f"{name}_{i}" for name in paper + later for i in Domain}
    names = ("discriminator", "r1", "projected_discriminator")
    assert record.discriminator.keys() == {f"{name}_{i}" for name in names for i in Domain}
    trained = {n for n, p in trainer.generator_modules.named_parameters() if not torch.equal(p, before[n])}
    assert trained == before.keys()
    assert any(name.startswith("extras.patch_nce.heads.b.") for name in trained)


def test_cycle_noise_changes_the_cycles_terms_only() -> None:
    plain, noisy = make(tiny()).step(batch(0)), make(tiny(loss={"cycle_noise": 0.5})).step(batch(0))
    changed = {name for name, term in plain.generator.items() if not torch.equal(term, noisy.generator[name])}
    assert changed == {f"{name}_{i}" for name in ("cycle", "cycle_kl") for i in Domain}
