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
    with suppress(OSError, ValueError):  # no container, or "max": no quota
        quota, period = map(int, (_CGROUPS / "cpu.max").read_text().split())
        cores = min(cores, -(-quota // period))
    return cores


def available_memory() -> int:
    """Return how many bytes this process can still use before the system refuses more or kills it."""
    return max(0, min(available for _, available in memory_limits()))


def memory_limits() -> Iterator[tuple[int, int]]:
    """Yield (size, free part) of each thing that limits this process's memory."""
    machine = psutil.virtual_memory()
    yield int(machine.total), int(machine.available)
    with suppress(OSError):
        for line in _OWN_CGROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                for root in (_CGROUPS, _CGROUPS / "unified"):
                    yield from _cgroup_limits(root, path, "max", "current", "")
            elif "memory" in controllers.split(","):
                yield from _cgroup_limits(_CGROUPS / "memory", path, "limit_in_bytes", "usage_in_bytes", "total_")
    if resource:  # ulimit -v
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            yield limit, limit - int(psutil.Process().memory_info().vms)


def _cgroup_limits(root: Path, path: str, limit: str, usage: str, prefix: str) -> Iterator[tuple[int, int]]:
    """Yield the limits of a cgroup and its parents. In a container, `path` may be the host's: then the root's."""
    group = Path(f"{root}{os.path.normpath(path)}")
    for folder in (group, *group.parents):
        if folder.is_relative_to(root):
            with suppress(OSError, ValueError):  # no such group, or "max"
                total = int((folder / f"memory.{limit}").read_text())
                used = int((folder / f"memory.{usage}").read_text())
                words = (folder / "memory.stat").read_text().split()
                stat = dict(zip(words[::2], words[1::2], strict=True))
                cache = sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
                yield total, total - used + cache
