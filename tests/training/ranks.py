"""What test_distributed.py lets each of several ranks do; run by torchrun with the file that rank 0 writes to."""

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
    """With the paper's normalization and initial weights. Kaiming's amplify the rounding in which kernels differ that
    torch picks for one image and for two, from 1e-7 of the gradient to 1e-5."""
    model = {"normalization": "instance", "initialization": "normal"}
    return tiny(train={"batch_size": batch_size, "grad_accum_steps": grad_accum_steps}, model=model)


def trained(config: Config, ranks: Ranks, steps: int) -> Trainer:
    """After steps on images that follow from their places in the global sequence, as noise does."""
    trainer = Trainer(config, CPU, "fp32", ranks)
    dtype = torch.get_default_dtype()
    for step in range(steps):
        places = ranks.sample_indices(step, config.train.batch_size * config.train.grad_accum_steps)
        trainer.step(PerDomain(images(places, 1, dtype), images(places, 2, dtype)))
    return trainer


def images(places: range, domain: int, dtype: torch.dtype) -> Tensor:
    def image(place: int) -> Tensor:
        generator = torch.Generator().manual_seed(10 * place + domain)
        return torch.rand(3, 16, 16, generator=generator, dtype=torch.float64).to(dtype) * 2 - 1

    return torch.stack([image(place) for place in places])


def first_gradients(config: Config, ranks: Ranks) -> Tensor:
    """Of all networks, in fp32."""
    trainer = trained(config, ranks, 1)
    parameters = [*trainer.networks.parameters(), *trainer.discriminators.parameters()]
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


def last_weights(config: Config, ranks: Ranks) -> Tensor:
    """Of all networks after 10 steps, in double precision."""
    torch.set_default_dtype(torch.float64)
    try:
        trainer = trained(config, ranks, 10)
    finally:
        torch.set_default_dtype(torch.float32)
    parts = (trainer.networks, trainer.discriminators, trainer.ema)
    return torch.cat([p.detach().flatten() for part in parts for p in part.parameters()])


def digests(ranks: Ranks) -> list[list[str]]:
    """Of all ranks, after each of a few steps."""
    return [ranks.all_gather(trained(config(1), ranks, steps).digest()) for steps in (0, 1, 3)]


def agreement(ranks: Ranks) -> dict[str, Any]:
    """What the ranks make of values of their own."""
    found: dict[str, Any] = {
        "most": ranks.all_reduce_max(ranks.rank, 5 - ranks.rank),
        "least": ranks.all_reduce_min(torch.tensor([ranks.rank, -ranks.rank])),
        "mean": ranks.all_reduce_mean({"x": float(ranks.rank), "y": 3.0}),
        "gathered": ranks.all_gather(f"rank {ranks.rank}"),
        "from_first": ranks.broadcast(["first", "second"][ranks.rank]),
        "positions": [list(places) for places in ranks.all_gather(ranks.sample_indices(3, 2))],
    }
    found["errors"] = ranks.all_gather([_error(ranks, failing) for failing in (None, 0, 1)])
    try:
        ranks.require_same({"torch": "2", "train.seed": ranks.rank})
    except UserError as error:
        found["different"] = str(error)
    return found


def _error(ranks: Ranks, failing: int | None) -> tuple[str, str] | None:
    try:
        with ranks.all_or_none():
            if ranks.rank == failing:
                raise DataError("folder: empty")
    except (DataError, PeerError) as error:
        return type(error).__name__, str(error)
    return None


def main() -> None:
    with init_distributed() as ranks:
        found = {
            "gradients": first_gradients(config(1), ranks),
            "accumulated": first_gradients(config(1, 2), ranks),
            "weights": last_weights(config(1), ranks),
            "digests": digests(ranks),
            "agreement": agreement(ranks),
        }
        if ranks.is_main:
            torch.save(found, sys.argv[1])
    assert not torch.distributed.is_initialized()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
