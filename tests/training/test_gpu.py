"""What only a CUDA device can show."""

import logging

import pytest
import torch

from tests.tiny import tiny
from tests.training.test_loop import state_of
from tests.training.test_trainer import batch
from unit.devices import configure
from unit.training.loop import train
from unit.training.trainer import Trainer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def test_a_step_on_cuda_computes_what_the_cpu_does() -> None:
    """All but the noise, which comes from the device's own generator; so without its share of the loss: the KL of x."""
    config = tiny(loss={"lambda2": 0.0, "lambda3": 0.0, "lambda4": 0.0, "lambda0": 0.0})
    records = [
        Trainer(config, torch.device(d), "fp32").step(batch(0).map(lambda x, d=d: x.to(d))) for d in ("cpu", "cuda")
    ]
    for name, term in records[0].generator.items():
        assert records[1].generator[name].item() == pytest.approx(term.item(), rel=1e-4)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_step_never_waits_for_the_device(compiled: bool) -> None:
    trainer, x = on_cuda(compiled), batch(0).map(torch.Tensor.cuda)
    for _ in range(5):  # the first allocate, compile and record
        trainer.step(x)
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.step(x)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_compiled_steps_follow_the_others() -> None:
    """Loss by loss over 30 steps, within what fp32 rounding makes of them through Adam."""
    trainers = [on_cuda(compiled) for compiled in (False, True)]
    for step in range(30):
        x = batch(step).map(torch.Tensor.cuda)
        plain, compiled = (trainer.step(x).generator for trainer in trainers)
        for name, term in plain.items():
            assert compiled[name].item() == pytest.approx(term.item(), rel=0.02, abs=1e-3), (step, name)


def on_cuda(compiled: bool) -> Trainer:
    slow = {"learning_rate_generator": 1e-5, "learning_rate_discriminator": 1e-5}
    trainer = Trainer(tiny(optimizer=slow), torch.device("cuda"), "fp32")
    if compiled:
        trainer.compile()
    return trainer


def test_compiling_is_tried_at_the_start_of_a_run(tmp_path, caplog: pytest.LogCaptureFixture) -> None:  # type: ignore[no-untyped-def]
    caplog.set_level(logging.INFO)
    result = train(tiny(train={"device": "cuda", "steps": 10}), tmp_path / "run")
    assert result.step == 10
    assert "a step, compiled" in caplog.text  # and not that it can't be


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_parts_equal_the_whole_bit_for_bit_when_deterministic(tmp_path, precision: str) -> None:  # type: ignore[no-untyped-def]
    def keys(steps: int) -> dict[str, object]:
        return {"steps": steps, "device": "cuda", "precision": precision, "deterministic": True}

    try:
        train(tiny(train=keys(6)), tmp_path / "one")
        for steps in (3, 6):
            train(tiny(train=keys(steps)), tmp_path / "two")
    finally:
        configure(torch.device("cpu"), False)
    one, two = state_of(tmp_path / "one"), state_of(tmp_path / "two")
    assert all(torch.equal(one[place], two[place]) for place in one)
