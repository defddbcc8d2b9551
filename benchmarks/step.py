"""Measure a training step against the machine's own rates for a matrix product and a convolution.

    python benchmarks/step.py --config configs/paper.yaml --size 128 --batch_size 4

All three are interleaved in one process, so that other load on the machine affects them alike. `gflop` is the work of
one step as torch's FlopCounterMode counts it (a multiply-add is two).
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import machine
from unit.config import Config
from unit.config_file import read_config
from unit.devices import configure, peak_memory, resolve_device, resolve_precision
from unit.domains import PerDomain
from unit.training.compilation import compile_as_configured
from unit.training.trainer import Trainer

WARM_UP = 3


def main() -> None:
    arguments = parser(__doc__.splitlines()[0], rounds=12).parse_args()
    machine.show(measure(configured(arguments), arguments.rounds), arguments.json)


def measure(config: Config, rounds: int) -> dict[str, object]:
    """Return the metrics by name."""
    device = resolve_device(config.train.device)
    precision = resolve_precision(config.train.precision, device)
    configure(device, config.train.deterministic)
    size, batch = config.data.crop_size, config.train.batch_size
    trainer = Trainer(config, device, precision)
    images = PerDomain.of(lambda _: torch.rand(batch, 3, size, size, device=device) * 2 - 1)
    with FlopCounterMode(display=False) as counter:
        trainer.step(images)
    compile_as_configured(trainer)  # after counting, which does not see fused operations
    for _ in range(WARM_UP):
        trainer.step(images)
    dtype, latent = torch.bfloat16 if precision == "bf16" else torch.float32, config.model.channels * 4
    matrix = machine.matrix_rate(device, dtype)
    convolution = machine.convolution_rate(device, dtype, latent, size // 4, 2 * batch)
    steps = []
    for _ in range(rounds):
        steps.append(machine.seconds(lambda: trainer.step(images), device))
        matrix.measure()
        convolution.measure()
    step, gflop = statistics.median(steps), counter.get_total_flops() / 1e9
    return {
        "step_seconds": step,
        "step_seconds_min": min(steps),
        "pairs_per_second": batch / step,
        "gflop": gflop,
        "matrix_gflops": matrix.gflops,
        "conv_gflops": convolution.gflops,
        "matrix_ratio": gflop / step / matrix.gflops,
        "peak_memory_bytes": peak_memory(device),
        "size": size,
        "batch_size": batch,
        "device": str(device),
        "precision": precision,
        "compiled": trainer.compiled,
        "rounds": rounds,
        **machine.facts(device),
    }


def configured(arguments: argparse.Namespace) -> Config:
    """Return the configuration for the arguments of `parser`."""
    config = read_config(arguments.config)
    size, batch = arguments.size or config.data.crop_size, arguments.batch_size or config.train.batch_size
    return replace(
        config,
        data=replace(config.data, load_size=size, crop_size=size),
        train=replace(
            config.train,
            batch_size=batch,
            device=arguments.device,
            precision=arguments.precision,
            compile=arguments.compile,
        ),
    )


def parser(description: str, rounds: int) -> argparse.ArgumentParser:
    """Return the argument parser shared by the benchmarks of training steps."""
    parser = argparse.ArgumentParser(description=description)
    preset = Path(__file__).resolve().parents[1] / "configs" / "paper.yaml"
    parser.add_argument(
        "--config", type=Path, default=preset, help="a preset, or a run's config.yaml (default: configs/paper.yaml)"
    )
    parser.add_argument("--size", type=int, help="image size in pixels (default: the configuration's)")
    parser.add_argument("--batch_size", type=int, help="images of each domain per step (default: the configuration's)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--compile", default="auto", choices=("auto", "on", "off"))
    parser.add_argument("--rounds", type=int, default=rounds, help="timed steps (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    main()
