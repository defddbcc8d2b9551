import pytest
import torch

from tests.tiny import TINY
from tests.training.test_trainer import batch
from unit.domains import PerDomain
from unit.training.finite import FiniteWatch, NonFiniteError
from unit.training.trainer import Trainer

ONE, NAN, INFINITE = (torch.tensor(value) for value in (1.0, float("nan"), float("-inf")))


@pytest.mark.parametrize("bad", [NAN, INFINITE, -INFINITE])
def test_the_step_and_the_value_are_named_at_once(bad: torch.Tensor) -> None:
    watch = FiniteWatch(torch.device("cpu"))
    watch.record(1, {"x": ONE, "y": ONE})
    with pytest.raises(NonFiniteError, match="step 2: y is NaN or Inf"):
        watch.record(2, {"x": ONE, "y": bad})


class Deferred(FiniteWatch):
    """As on a GPU: `look` does not check."""

    def check(self) -> None:
        pass


def test_on_a_device_that_no_step_waits_for_the_first_is_recorded() -> None:
    watch = Deferred(torch.device("cpu"))
    watch.record(1, {"x": ONE, "y": ONE})
    watch.record(1, {"z": ONE})
    FiniteWatch.check(watch)
    watch.record(2, {"x": ONE, "y": ONE})
    watch.record(2, {"z": NAN})
    for step in (3, 4):
        watch.record(step, {"x": NAN, "y": NAN})
        watch.record(step, {"z": ONE})
    with pytest.raises(NonFiniteError, match="step 2: z is NaN or Inf") as found:
        FiniteWatch.check(watch)
    assert (found.value.step, found.value.name) == (2, "z")
    FiniteWatch.check(watch)  # which starts over


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    state = trainer.networks.state_dict() | trainer.discriminators.state_dict()
    return {name: tensor.clone() for name, tensor in state.items()}


@pytest.mark.parametrize("domain", ["a", "b"])
def test_images_of_nan_change_nothing(domain: str) -> None:
    trainer = Trainer(TINY, torch.device("cpu"), "fp32")
    trainer.step(batch(0))
    before, good = weights(trainer), batch(1)
    spoiled = PerDomain.of(lambda i: good[i] * (torch.nan if i == domain else 1))
    with pytest.raises(NonFiniteError, match=rf"step 2: the loss term \w+_{domain} is NaN or Inf"):
        trainer.step(spoiled)
    assert trainer.steps_done == 1
    assert not trainer.mid_step
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(trainer).items())


@pytest.mark.parametrize("part", ["networks", "discriminators"])
def test_a_gradient_of_nan_is_named_and_not_applied(part: str) -> None:
    trainer = Trainer(TINY, torch.device("cpu"), "fp32")
    network = getattr(trainer, part)
    name, parameter = list(network.named_parameters())[-1]
    parameter.register_hook(lambda gradient: gradient * torch.nan)
    before = weights(trainer)
    with pytest.raises(NonFiniteError, match=f"step 1: the gradient of {part}.{name} is NaN or Inf"):
        trainer.step(batch(0))
    same = {name: torch.equal(tensor, before[name]) for name, tensor in weights(trainer).items()}
    assert all(same[name] for name in network.state_dict())
    assert trainer.mid_step == (part == "networks")
    assert all(same.values()) == (part == "discriminators")  # D goes first, so it has moved when E and G fail


def test_an_infinite_weight_is_named() -> None:
    trainer = Trainer(TINY, torch.device("cpu"), "fp32")
    trainer.require_finite_weights()
    name, parameter = next(trainer.discriminators.named_parameters())
    parameter.data[0] = torch.inf
    with pytest.raises(NonFiniteError, match=f"the weight discriminators.{name} is NaN or Inf"):
        trainer.require_finite_weights()
