"""The cores and the memory that this process may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

if sys.platform == "win32":
    resource = None
else:
    import resource

_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def core_count() -> int:
    """Count the cores that this process may use, by its affinity and its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _own_cgroups("cpu"):
        for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            with suppress(OSError, ValueError):  # no such file, or "max": no quota
                quota, period = (int(word) for file in files for word in (folder / file).read_text().split())
                if quota > 0 and period > 0:  # -1: no quota
                    cores = min(cores, -(-quota // period))
    return cores


def available_memory() -> int:
    """Return how many bytes this process can still use before the system refuses more or kills it."""
    return max(0, min(available for _, available in memory_limits()))


def memory_limits() -> Iterator[tuple[int, int]]:
    """Yield (size, free part) of each thing that limits this process's memory."""
    machine = psutil.virtual_memory()
    yield int(machine.total), int(machine.available)
    for folder in _own_cgroups("memory"):
        for names in (("max", "current", ""), ("limit_in_bytes", "usage_in_bytes", "total_")):
            with suppress(OSError, ValueError):  # no such file, or "max"
                yield _cgroup_memory(folder, *names)
    if resource:  # ulimit -v
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            yield limit, limit - int(psutil.Process().memory_info().vms)


def _own_cgroups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's cgroups of both versions, and of their parents.

    In a container, the path that the process is told may be the host's: then only the root is there.
    """
    roots = {_CGROUPS: "/"}  # where the process is told nothing
    with suppress(OSError):
        for line in _OWN_CGROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                roots |= {_CGROUPS: path, _CGROUPS / "unified": path}
            elif controller in controllers.split(","):
                roots |= {_CGROUPS / controller: path, _CGROUPS / controllers: path}
    for root, path in roots.items():
        group = Path(f"{root}{os.path.normpath(path)}")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))


def _cgroup_memory(folder: Path, limit: str, usage: str, prefix: str) -> tuple[int, int]:
    """Return a cgroup's limit and what of it is free."""
    total, used = (int((folder / f"memory.{name}").read_text()) for name in (limit, usage))
    words = (folder / "memory.stat").read_text().split()
    stat = dict(zip(words[::2], words[1::2], strict=True))
    cache = sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
    return total, total - used + cache
