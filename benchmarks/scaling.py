"""What a second process costs: weak scaling, each rank with a batch of its own.

    OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node 2 benchmarks/scaling.py --config configs/photos.yaml

In turn, in the same processes: rank 0 makes a step alone while the others wait; all make a step, each for itself, which
is what the machine allows; all make a step of one training. `efficiency` is the first time through the third, of 1 at
best, and `efficiency_of_communication` the second through the third: what the gradients and agreements cost.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import torch
from torch import distributed

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
    """The metrics by name; the slowest rank's times."""
    device = ranks.device(config.train.device)
    precision = resolve_precision(config.train.precision, device)
    configure(device, config.train.deterministic)
    size, batch = config.data.crop_size, config.train.batch_size
    images = PerDomain.of(lambda _: torch.rand(batch, 3, size, size, device=device) * 2 - 1)
    alone, together = (Trainer(config, device, precision, who) for who in (SINGLE_PROCESS, ranks))
    seconds: dict[str, list[float]] = {"alone": [], "each_for_itself": [], "together": []}
    for number in range(1 + rounds):
        for what, trainer in (("alone", alone), ("each_for_itself", alone), ("together", together)):
            taken = _slowest(trainer, images, ranks, idle=what == "alone" and not ranks.is_main)
            if number:  # the first of each warms up
                seconds[what].append(taken)
    medians = {what: statistics.median(values) for what, values in seconds.items()}
    parameters = [p for part in (together.networks, together.discriminators) for p in part.parameters()]
    return {
        "ranks": ranks.world_size,
        **{f"{what}_seconds": value for what, value in medians.items()},
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
    """Seconds that a step takes on the slowest rank, all having begun together."""
    if ranks.world_size > 1:
        distributed.barrier()
    start = time.perf_counter()
    if not idle:
        trainer.step(images)
        trainer.ranks.all_reduce_max(0, 0)  # as the loop asks whether to stop
        synchronize(trainer.device)
    return max(ranks.all_gather(0.0 if idle else time.perf_counter() - start))


if __name__ == "__main__":
    main()
