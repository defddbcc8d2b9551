import os
import sys
from pathlib import Path

import psutil
import pytest
import torch

from unit import machine
from unit.devices import total_memory


@pytest.mark.parametrize(("quota", "expected"), [("max 100000", 8), ("150000 100000", 2), ("20000 100000", 1), ("", 8)])
def test_cores_are_those_that_affinity_and_container_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    assert machine.core_count() == 8
    (tmp_path / "cpu.max").write_text(quota)
    assert machine.core_count() == expected


@pytest.mark.parametrize(
    ("own", "quotas", "expected"),
    [
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "250000 100000"}, 3),
        ("0::/not/here", {"cpu.max": "100000 100000"}, 1),
        (
            "4:cpu,cpuacct:/a",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "200000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
            2,
        ),
        ("4:cpuacct,cpu:/docker/12", {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ("4:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, 8),
        ("4:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "200000"}, 8),
        ("4:memory:/a", {"memory/a/cpu.cfs_quota_us": "1", "memory/a/cpu.cfs_period_us": "1"}, 8),
    ],
)
def test_cgroups_limit_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, quotas: dict[str, str], expected: int
) -> None:
    """Of both versions, and those of the parents."""
    for name, content in quotas.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{content}\n")
    (tmp_path / "own").write_text(f"{own}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "_OWN_CGROUPS", tmp_path / "own")
    assert machine.core_count() == expected


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
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "_OWN_CGROUPS", tmp_path / "own")
    assert (total_memory(torch.device("cpu")), machine.available_memory()) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_a_limit_on_the_address_space_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    used = psutil.Process().memory_info().vms
    monkeypatch.setattr(resource, "getrlimit", lambda _: (used + 50_000_000, -1))
    assert 0 < machine.available_memory() <= 51_000_000
