"""The machine a benchmark runs on, and its rates for matrix products and convolutions."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from unit.devices import synchronize


def facts(device: torch.device) -> dict[str, object]:
    """Return the machine's name, cores and threads, and the versions of Python and torch."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "machine": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    names = [line for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def show(metrics: dict[str, object], as_json: bool) -> None:
    """Print metrics by name, as text or as one JSON object."""
    print(json.dumps(metrics) if as_json else "\n".join(f"{name:<31} {_text(x)}" for name, x in metrics.items()))


def _text(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Time `work`, including everything it started on the device."""
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


class Rate:
    """FLOP/s of a function, measured repeatedly between other measurements."""

    def __init__(self, work: Callable[[], object], flop: float, device: torch.device) -> None:
        self._work, self._flop, self._device = work, flop, device
        self._seconds: list[float] = []
        for _ in range(2):
            work()

    def measure(self) -> None:
        """Time one more call."""
        self._seconds.append(seconds(self._work, self._device))

    @property
    def gflops(self) -> float:
        """The median, in GFLOP/s."""
        return self._flop / statistics.median(self._seconds) / 1e9


def matrix_rate(device: torch.device, dtype: torch.dtype) -> Rate:
    """Return the rate of a large square matrix product."""
    size = 8192 if device.type == "cuda" else 3072
    x, y = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return Rate(lambda: x @ y, 2.0 * size**3, device)


def convolution_rate(device: torch.device, dtype: torch.dtype, channels: int, size: int, batch: int) -> Rate:
    """Return the rate of a 3×3 convolution (forward only) of (batch, channels, size, size) to the same shape."""
    layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False, device=device).to(dtype)
    layer = layer.to(memory_format=torch.channels_last).requires_grad_(False)
    x = torch.randn(batch, channels, size, size, device=device).to(dtype).contiguous(memory_format=torch.channels_last)

    def work() -> Tensor:
        out: Tensor = layer(x)
        return out

    return Rate(work, 2.0 * 9 * channels**2 * batch * size**2, device)
