import pytest
import torch

from unit.devices import autocast, configure, resolve_device, resolve_precision
from unit.errors import ConfigError

CPU = torch.device("cpu")


def test_auto_is_cuda_when_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto").type == "cuda"


def test_a_missing_device_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("cuda:0").index == 0
    with pytest.raises(ConfigError, match="cuda:1: this machine has 1 CUDA device"):
        resolve_device("cuda:1")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="mps: not available"):
        resolve_device("mps")


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_where_the_device_is_made_for_it(
    monkeypatch: pytest.MonkeyPatch, supported: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert resolve_precision("auto", CPU) == expected
    assert resolve_precision("auto", torch.device("cuda")) == expected
    assert resolve_precision("fp32", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"


def test_autocast_is_for_convolutions() -> None:
    x, convolution = torch.rand(1, 3, 4, 4), torch.nn.Conv2d(3, 2, 1)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        with autocast(CPU, precision):
            assert convolution(x).dtype == dtype


@pytest.mark.parametrize(("asked", "repeatable"), [(None, True), (True, True), (False, False)])
def test_the_cpu_is_repeatable_unless_told_otherwise(asked: bool | None, repeatable: bool) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    try:
        configure(CPU, asked)
        assert torch.are_deterministic_algorithms_enabled() == repeatable
    finally:
        torch.use_deterministic_algorithms(before)
