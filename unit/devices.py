"""Devices and precisions, and the choice of "auto" on this machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import numpy
import PIL
import psutil
import torch
import torchvision

from unit.errors import ConfigError
from unit.machine import memory_limits


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
    return min(total for total, _ in memory_limits())
