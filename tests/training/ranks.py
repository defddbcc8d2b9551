"""Run by torchrun for test_distributed.py: what each rank computes; rank 0 saves it to the file given."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from tests.tiny import tiny
from unit.config import Config
from unit.domains import PerDomain
from unit.errors import DataError, UserError
from unit.training.distributed import Ranks, init_distributed
from unit.training.heartbeat import PeerError
from unit.training.trainer import Trainer

CPU = torch.device("cpu")


def config(batch_size: int, grad_accum_steps: int = 1) -> Config:
    """Return a tiny configuration with the paper's normalization and initial weights.

    Kaiming's amplify the rounding by which torch's kernels for one image and for two differ: from 1e-7 of the gradient
    to 1e-5.
    """
    model = {"normalization": "instance", "initialization": "normal"}
    return tiny(train={"batch_size": batch_size, "grad_accum_steps": grad_accum_steps}, model=model)


def trained(config: Config, ranks: Ranks, steps: int) -> Trainer:
    """Train on images that are functions of their index in the global order, as noise is."""
    trainer = Trainer(config, CPU, "fp32", ranks)
    dtype = torch.get_default_dtype()
    for step in range(steps):
        indices = ranks.sample_indices(step, config.train.batch_size * config.train.grad_accum_steps)
        trainer.step(PerDomain(images(indices, 1, dtype), images(indices, 2, dtype)))
    return trainer


def images(indices: range, domain: int, dtype: torch.dtype) -> Tensor:
    def image(index: int) -> Tensor:
        generator = torch.Generator().manual_seed(10 * index + domain)
        return torch.rand(3, 16, 16, generator=generator, dtype=torch.float64).to(dtype) * 2 - 1

    return torch.stack([image(index) for index in indices])


def first_gradients(config: Config, ranks: Ranks) -> Tensor:
    """Return all gradients of the first step, in fp32."""
    trainer = trained(config, ranks, 1)
    parameters = [*trainer.networks.parameters(), *trainer.discriminators.parameters()]
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


def last_weights(config: Config, ranks: Ranks) -> Tensor:
    """Return all weights after 10 steps in double precision."""
    torch.set_default_dtype(torch.float64)
    try:
        trainer = trained(config, ranks, 10)
    finally:
        torch.set_default_dtype(torch.float32)
    parts = (trainer.networks, trainer.discriminators, trainer.ema)
    return torch.cat([p.detach().flatten() for part in parts for p in part.parameters()])


def digests(ranks: Ranks) -> list[list[str]]:
    """Return all ranks' digests after 0, 1 and 3 steps."""
    return [ranks.all_gather(trained(config(1), ranks, steps).digest()) for steps in (0, 1, 3)]


def collectives(ranks: Ranks) -> dict[str, Any]:
    """Return what each collective makes of values that differ between the ranks."""
    results: dict[str, Any] = {
        "max": ranks.all_reduce_max(ranks.rank, 5 - ranks.rank),
        "min": ranks.all_reduce_min(torch.tensor([ranks.rank, -ranks.rank])),
        "mean": ranks.all_reduce_mean({"x": float(ranks.rank), "y": 3.0}),
        "gathered": ranks.all_gather(f"rank {ranks.rank}"),
        "broadcast": ranks.broadcast(["first", "second"][ranks.rank]),
        "indices": [list(indices) for indices in ranks.all_gather(ranks.sample_indices(3, 2))],
        "averaged": ranks.all_gather(averaged(ranks)),
    }
    results["errors"] = ranks.all_gather([_error(ranks, failing) for failing in (None, 0, 1)])
    try:
        ranks.require_same({"torch": "2", "train.seed": ranks.rank})
    except UserError as error:
        results["different"] = str(error)
    return results


def averaged(ranks: Ranks) -> list[Tensor | None]:
    """Return the averaged gradients of a vector, of a transposed matrix and of a parameter without one."""
    vector, matrix, unused = (torch.nn.Parameter(torch.zeros(shape)) for shape in (2, (2, 3), 1))
    vector.grad = torch.tensor([1.0, 10.0]) * ranks.rank
    matrix.grad = (torch.arange(6.0).reshape(3, 2) * 2 * ranks.rank).T  # not contiguous
    ranks.average_gradients([vector, matrix, unused])
    return [vector.grad, matrix.grad, unused.grad]


def _error(ranks: Ranks, failing: int | None) -> tuple[str, str] | None:
    try:
        with ranks.fail_together():
            if ranks.rank == failing:
                raise DataError("folder: empty")
    except (DataError, PeerError) as error:
        return type(error).__name__, str(error)
    return None


def main() -> None:
    with init_distributed() as ranks:
        results = {
            "gradients": first_gradients(config(1), ranks),
            "accumulated": first_gradients(config(1, 2), ranks),
            "weights": last_weights(config(1), ranks),
            "digests": digests(ranks),
            "collectives": collectives(ranks),
        }
        if ranks.is_main:
            torch.save(results, sys.argv[1])
    assert not torch.distributed.is_initialized()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
