"""Several processes that torchrun started, each of which translates its share of the images."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta

_LONGEST_WAIT = timedelta(days=30)


@dataclass(frozen=True)
class Share:
    """This process's part of a list: each `count`-th entry, from entry `rank` on."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    """among the processes of this machine; the number of its GPU"""

    @classmethod
    def of_process(cls) -> Share:
        """Return what torchrun gave this process; all of the list without torchrun."""
        rank, count, local_rank = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        if not (rank.isdecimal() and count.isdecimal() and int(rank) < int(count)):
            return cls()
        return cls(int(rank), int(count), int(local_rank) if local_rank.isdecimal() else 0)

    def device(self, name: str) -> str:
        """Return the name of this process's device, where `name` leaves the GPU open."""
        import torch

        open_gpu = name == "cuda" or (name == "auto" and torch.cuda.is_available())
        return f"cuda:{self.local_rank}" if open_gpu and self.count > 1 else name

    def wait_for_others(self) -> None:
        """Return when all have finished: torchrun would stop the others at the first that ends with a failure."""
        if self.count > 1 and "MASTER_ADDR" in os.environ:
            from torch import distributed

            distributed.init_process_group("gloo", timeout=_LONGEST_WAIT)
            distributed.barrier()
            distributed.destroy_process_group()


ALL = Share()
"""of a list"""
