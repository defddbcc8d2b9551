import os
import sys
from pathlib import Path

import psutil
import pytest
import torch

from unit import devices
from unit.devices import autocast, configure, core_count, resolve_device, resolve_precision
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


@pytest.mark.parametrize(("quota", "expected"), [("max 100000", 8), ("150000 100000", 2), ("20000 100000", 1), ("", 8)])
def test_cores_are_those_that_affinity_and_container_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(devices, "_QUOTA", tmp_path / "cpu.max")
    assert core_count() == 8
    (tmp_path / "cpu.max").write_text(quota)
    assert core_count() == expected


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("0::/a/b", {"a/b": "max", "a": "1000000", ".": "max"}, (1_000_000, 700_000)),
        ("0::/a/b", {"a/b": "500000", "a": "1000000"}, (500_000, 200_000)),
        ("0::/not/here", {".": "600000"}, (600_000, 300_000)),
        ("0::/../..", {".": "600000"}, (600_000, 300_000)),
        ("5:cpu,memory:/a/b\n0::/", {"memory/a/b": "9223372036854771712", "memory/a": "800000"}, (800_000, 500_000)),
        ("5:memory:/docker/1234\n0::/", {"memory": "800000"}, (800_000, 500_000)),
        ("5:memory:/", {"memory": "100000"}, (100_000, 0)),
    ],
)
def test_cgroups_limit_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, limits: dict[str, str], expected: tuple[int, int]
) -> None:
    """Of both versions, and those of the parents; 400,000 bytes are used, 100,000 of them for files."""
    for name, limit in limits.items():
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        old = name.startswith("memory")
        files = {"limit_in_bytes": limit, "usage_in_bytes": "400000"} if old else {"max": limit, "current": "400000"}
        prefix = "total_" if old else ""
        files["stat"] = f"anon 5\n{prefix}inactive_file 60000\n{prefix}active_file 40000\n"
        for file, content in files.items():
            (tmp_path / name / f"memory.{file}").write_text(f"{content}\n")
    (tmp_path / "own").write_text(f"{own}\n")
    monkeypatch.setattr(devices, "_CGROUPS", tmp_path)
    monkeypatch.setattr(devices, "_OWN_CGROUPS", tmp_path / "own")
    assert (devices.total_memory(torch.device("cpu")), devices.available_memory()) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_a_limit_on_the_address_space_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    used = psutil.Process().memory_info().vms
    monkeypatch.setattr(resource, "getrlimit", lambda _: (used + 50_000_000, -1))
    assert 0 < devices.available_memory() <= 51_000_000
