"""Which device and which precision: what "auto" means on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import torch

from unit.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """The device of `train.device` or ``--device``; "auto" is CUDA when available, else the CPU.

    Raises:
        ConfigError: the device is not there.
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
    """ "fp32" or "bf16"; "auto" is bf16 where the device has instructions for it."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # torch has no public question for this one; without it, ask for bf16 by name.
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bf16" if device.type == "cpu" and has_bf16() else "fp32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Convolutions in bf16 (or not); weights stay fp32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device's memory does not suffice."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # of the CPU, MPS and oneDNN, which have no type of their own
    return any(words in str(error) for words in ("you tried to allocate", "out of memory", "bad_alloc"))


def describe(device: torch.device) -> str:
    """The device in words, for logs."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)" if device.type == "cpu" else str(device)


def configure(device: torch.device, deterministic: bool | None) -> None:
    """Set torch up for training; None means repeatable on the CPU only, where it costs nothing."""
    torch.set_flush_denormal(True)
    repeatable = device.type == "cpu" if deterministic is None else deterministic
    if repeatable:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(repeatable)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # slow
    torch.backends.cudnn.benchmark = not repeatable


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """The most bytes held so far: by tensors on a CUDA device, elsewhere by this process (where not on Linux: now)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")  # getrusage also counts what the parent had
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) * 1024
    return int(psutil.Process().memory_info().rss)


def total_memory(device: torch.device) -> int:
    """Bytes of the device's memory, or the machine's."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return int(psutil.virtual_memory().total)
