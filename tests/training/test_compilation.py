"""Compiled steps compute the same; `auto` times them, and continues uncompiled where they fail."""

import logging
from pathlib import Path

import pytest
import torch

from tests.tiny import batch_indices, tiny
from tests.training.ranks import images
from unit.config import Config
from unit.domains import PerDomain
from unit.errors import UserError
from unit.model.extras.r1 import INTERVAL
from unit.training import compilation
from unit.training.compilation import compile_as_configured
from unit.training.loop import train
from unit.training.trainer import Trainer

CPU = torch.device("cpu")
ALL_LOSSES = {
    "adversarial": "relativistic",
    "augmentation": "translation",
    "cycle_noise": 0.1,
    **dict.fromkeys(("r1", "patch_nce", "low_frequency", "feature_matching"), 1.0),
}


def batches(steps: int) -> list[PerDomain[torch.Tensor]]:
    return [PerDomain.of(lambda i: images(at, 1 + (i == "b"), torch.float64)) for at in batch_indices(range(steps), 2)]  # noqa: B023


def weights(config: Config, backend: str | None) -> torch.Tensor:
    """Return all weights after four steps in double precision; in the second, R1 is due."""
    torch.set_default_dtype(torch.float64)
    try:
        trainer = Trainer(config, CPU, "fp32")
        trainer.steps_done = INTERVAL - 2
        if backend:
            trainer.compile(backend)
        for batch in batches(4):
            trainer.step(batch)
    finally:
        torch.set_default_dtype(torch.float32)
    return torch.cat(
        [p.detach().flatten() for part in (trainer.ema, trainer.discriminators) for p in part.parameters()]
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's compiler, about itself
@pytest.mark.parametrize(
    ("loss", "grad_accum_steps"), [({}, 1), (ALL_LOSSES, 2)], ids=["the paper's", "all ingredients"]
)
def test_compiled_steps_end_at_the_same_weights(loss: dict[str, object], grad_accum_steps: int) -> None:
    """Forward and backward graphs are captured, but run uncompiled; test_gpu.py compiles them."""
    config = tiny(loss=loss, train={"batch_size": 2 // grad_accum_steps, "grad_accum_steps": grad_accum_steps})
    compiled, plain = weights(config, "aot_eager"), weights(config, None)
    torch.compiler.reset()
    assert float((compiled - plain).norm() / plain.norm()) < 1e-9


@pytest.mark.parametrize(("setting", "compiled"), [("on", True), ("auto", False), ("off", False)])
def test_on_a_cpu_auto_does_not_compile(setting: str, compiled: bool) -> None:
    trainer = Trainer(tiny(train={"compile": setting}), CPU, "fp32")
    compile_as_configured(trainer)
    assert trainer.compiled == compiled


def test_steps_are_timed() -> None:
    trainer = Trainer(tiny(), CPU, "fp32")
    assert 0 < compilation._seconds_per_step(trainer) < 10
    assert trainer.steps_done > 8


class OnCuda(Trainer):
    """A trainer that claims to be on CUDA, but trains on the CPU."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(tiny(), CPU, "fp32")
        self.device = torch.device("cuda")


@pytest.mark.parametrize("faster", [True, False])
def test_auto_compiles_where_it_is_faster(monkeypatch: pytest.MonkeyPatch, faster: bool) -> None:
    monkeypatch.setattr(compilation, "Trainer", OnCuda)
    monkeypatch.setattr(compilation, "_seconds_per_step", lambda trial: 0.5 if trial.compiled == faster else 1.0)
    trainer = OnCuda()
    before = {name: value.clone() for name, value in trainer.networks.state_dict().items()}
    compile_as_configured(trainer)
    assert trainer.compiled == faster
    assert all(torch.equal(value, before[name]) for name, value in trainer.networks.state_dict().items())


def test_auto_continues_uncompiled_where_compiling_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def seconds(trial: Trainer) -> float:
        if trial.compiled:
            raise RuntimeError("Cannot find a working triton installation\nand more")
        return 1.0

    monkeypatch.setattr(compilation, "Trainer", OnCuda)
    monkeypatch.setattr(compilation, "_seconds_per_step", seconds)
    trainer = OnCuda()
    with caplog.at_level(logging.WARNING):
        compile_as_configured(trainer)
    assert not trainer.compiled
    assert "can't be compiled here (Cannot find a working triton installation); continuing without" in caplog.text


@pytest.mark.filterwarnings("ignore")
def test_a_step_that_cannot_be_compiled_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: object, **__: object) -> None:
        raise OSError("no C++ compiler\nand more")

    monkeypatch.setattr(Trainer, "compile", lambda self: real(self, no_compiler))
    with pytest.raises(UserError, match=r"^train\.compile: steps can't be compiled here \(.*\); set it to off$"):
        train(tiny(train={"compile": "on"}), tmp_path / "run")
    torch.compiler.reset()


real = Trainer.compile
