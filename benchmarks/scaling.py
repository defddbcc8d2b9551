"""Measure what a second process costs: weak scaling, each rank with a batch of its own.

    OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 benchmarks/scaling.py --config configs/photos.yaml

The same processes alternate between three kinds of steps: rank 0 alone while the others wait; all ranks, each for
itself, which is what the machine allows; and all ranks as one training. `efficiency` is the first time divided by the
third, 1 at best; `efficiency_of_communication` is the second divided by the third: what the collectives cost.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import machine, step
from unit.config import Config
from unit.devices import configure, resolve_precision, synchronize
from unit.domains import PerDomain
from unit.training.distributed import SINGLE_PROCESS, Ranks, init_distributed
from unit.training.trainer import Trainer


def main() -> None:
    arguments = step.parser(__doc__.splitlines()[0], rounds=4).parse_args()
    with init_distributed() as ranks:
        metrics = measure(step.configured(arguments), arguments.rounds, ranks)
        if ranks.is_main:
            machine.show(metrics, arguments.json)


def measure(config: Config, rounds: int, ranks: Ranks) -> dict[str, object]:
    """Return the metrics by name; times are those of the slowest rank."""
    device = ranks.device(config.train.device)
    precision = resolve_precision(config.train.precision, device)
    configure(device, config.train.deterministic)
    size, batch = config.data.crop_size, config.train.batch_size
    images = PerDomain.of(lambda _: torch.rand(batch, 3, size, size, device=device) * 2 - 1)
    alone, together = (Trainer(config, device, precision, group) for group in (SINGLE_PROCESS, ranks))
    seconds: dict[str, list[float]] = {"alone": [], "each_for_itself": [], "together": []}
    for _ in range(1 + rounds):
        for name, trainer in (("alone", alone), ("each_for_itself", alone), ("together", together)):
            seconds[name].append(_slowest(trainer, images, ranks, idle=name == "alone" and not ranks.is_main))
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}  # the first warms up
    parameters = [p for part in (together.networks, together.discriminators) for p in part.parameters()]
    return {
        "ranks": ranks.world_size,
        **{f"{name}_seconds": value for name, value in medians.items()},
        "efficiency": medians["alone"] / medians["together"],
        "efficiency_of_communication": medians["each_for_itself"] / medians["together"],
        "gradient_bytes": sum(p.nbytes for p in parameters),
        "size": size,
        "batch_size": batch,
        "device": str(device),
        "precision": precision,
        "rounds": rounds,
        **machine.facts(device),
    }


def _slowest(trainer: Trainer, images: PerDomain[torch.Tensor], ranks: Ranks, idle: bool) -> float:
    """Return the seconds that a step takes on the slowest rank, all having started together."""
    ranks.barrier()
    start = time.perf_counter()
    if not idle:
        trainer.step(images)
        trainer.ranks.all_reduce_max(0, 0)  # as the loop asks whether to stop
        synchronize(trainer.device)
    return max(ranks.all_gather(0.0 if idle else time.perf_counter() - start))


if __name__ == "__main__":
    main()
