"""Devices and precisions, and the choice of "auto" on this machine."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy
import PIL
import psutil
import torch
import torchvision

from unit.errors import ConfigError

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Microseconds of CPU time per period, and the period."""
if sys.platform == "win32":
    resource = None
else:
    import resource

_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def resolve_device(name: str) -> torch.device:
    """Return the device of `train.device` or ``--device``; "auto" is CUDA when available, else the CPU.

    Raises:
        ConfigError: this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device {name}: this machine has {torch.cuda.device_count()} CUDA devices; use cpu or auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device mps: not available on this machine; use cpu or auto")
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """Return "fp32" or "bf16"; "auto" is bf16 where the device has instructions for it."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # torch has no public function for this; where it lacks the private one, bf16 must be requested explicitly.
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bf16" if device.type == "cpu" and has_bf16() else "fp32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Compute convolutions in bf16 if that is the precision; weights stay fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error means out of memory."""
    # those of the CPU, MPS and oneDNN have no type of their own
    texts = ("you tried to allocate", "out of memory", "bad_alloc")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in texts)


def describe(device: torch.device) -> str:
    """Describe the device, for logs."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def versions() -> dict[str, str]:
    """Return the versions of everything that results depend on bit for bit, and the CPU's instruction set."""
    packages = {"torch": torch, "torchvision": torchvision, "pillow": PIL, "numpy": numpy}
    found = {name: str(package.__version__) for name, package in packages.items()}
    return {"python": platform.python_version(), **found, "cpu_capability": torch.backends.cpu.get_cpu_capability()}


def configure(device: torch.device, deterministic: bool | None) -> None:
    """Configure torch for training; None is deterministic on the CPU only, where that costs nothing."""
    torch.set_flush_denormal(True)
    deterministic = device.type == "cpu" if deterministic is None else deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # slow
    torch.backends.cudnn.benchmark = not deterministic


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def core_count() -> int:
    """Count the cores that this process may use, by its affinity and its container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no container, or "max": no quota
        quota, period = map(int, _QUOTA.read_text().split())
        cores = min(cores, -(-quota // period))
    return cores


def peak_memory(device: torch.device) -> int:
    """Return the peak memory in bytes: of CUDA tensors, or of this process (not on Linux: its current memory)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")  # getrusage also counts what the parent had
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024
    return int(psutil.Process().memory_info().rss)


def total_memory(device: torch.device) -> int:
    """Return the size in bytes of the device's memory, or of that which this process may use."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return min(total for total, _ in _memory_limits())


def available_memory() -> int:
    """Return how many bytes this process can still use before the system refuses more or kills it."""
    return max(0, min(available for _, available in _memory_limits()))


def _memory_limits() -> Iterator[tuple[int, int]]:
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
