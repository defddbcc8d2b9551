"""Tests that need a CUDA device."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import distributed, nn

from tests.tiny import state_of, tiny
from tests.training.test_distributed import run, torchrun, train_arguments
from tests.training.test_trainer import batch
from unit.devices import configure
from unit.training.distributed import Ranks
from unit.training.loop import train
from unit.training.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    # Torch warns of its prototypes (the sync debug mode), and its compiler of TF32 and of itself.
    pytest.mark.filterwarnings("ignore"),
]


@contextmanager
def syncs_are_errors() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_step_on_cuda_computes_what_the_cpu_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The KL of x alone: it has no noise, which differs because each kind of device has a generator of its own."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # it rounds to 10 bits
    config = tiny(loss={"lambda2": 0.0, "lambda3": 0.0, "lambda4": 0.0, "lambda0": 0.0})
    records = [
        Trainer(config, torch.device(d), "fp32").step(batch(0).map(lambda x, d=d: x.to(d))) for d in ("cpu", "cuda")
    ]
    assert records[0].generator
    for name, term in records[0].generator.items():
        assert records[1].generator[name].item() == pytest.approx(term.item(), rel=1e-4)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_step_never_waits_for_the_device(compiled: bool) -> None:
    trainer, x = on_cuda(compiled), batch(0).map(torch.Tensor.cuda)
    for _ in range(5):  # the first allocate, compile and record
        trainer.step(x)
    with syncs_are_errors():
        trainer.step(x)


def test_averaging_gradients_never_waits_for_the_device() -> None:
    """In a process group of this process alone, so that the mean over two ranks is half its own gradient."""
    store = distributed.HashStore()
    distributed.init_process_group("cpu:gloo,cuda:nccl", store=store, rank=0, world_size=1)
    try:
        parameter = nn.Parameter(torch.zeros(3, device="cuda"))
        parameter.grad = torch.full((3,), 4.0, device="cuda")
        Ranks(0, 2).average_gradients([parameter])  # the first connects
        with syncs_are_errors():
            Ranks(0, 2).average_gradients([parameter])
        assert parameter.grad.tolist() == [1.0, 1.0, 1.0]
    finally:
        distributed.destroy_process_group()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_gpus_train_together(tmp_path: Path) -> None:
    config = tiny(train={"batch_size": 1, "steps": 4, "device": "auto", "compile": "off"})
    process = run(torchrun(*train_arguments(config, tmp_path)))
    assert process.returncode == 0, process.stderr
    assert "ended at step 4" in process.stdout


def test_compiled_steps_compute_the_same() -> None:
    """Loss by loss over 30 steps, as far as Adam lets fp32 rounding diverge."""
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


def test_a_run_times_compiled_steps_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    result = train(tiny(train={"device": "cuda", "steps": 10}), tmp_path / "run")
    assert result.step == 10
    assert "s per step, compiled" in caplog.text  # rather than "steps can't be compiled here"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_equals_an_uninterrupted_one_when_deterministic(tmp_path: Path, precision: str) -> None:
    """Bit for bit."""

    def keys(steps: int) -> dict[str, object]:
        return {"steps": steps, "device": "cuda", "precision": precision, "deterministic": True}

    try:
        train(tiny(train=keys(6)), tmp_path / "uninterrupted")
        for steps in (3, 6):
            train(tiny(train=keys(steps)), tmp_path / "resumed")
    finally:
        configure(torch.device("cpu"), False)
    expected, actual = state_of(tmp_path / "uninterrupted"), state_of(tmp_path / "resumed")
    assert expected.keys() == actual.keys()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
