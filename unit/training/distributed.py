"""Training in several processes (ranks) started by torchrun: collectives, shared failures, averaged gradients."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed import Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from unit.data.batches import loader_failure
from unit.devices import resolve_device
from unit.errors import ConfigError, UserError, escape
from unit.training.heartbeat import Heartbeat, PeerError

T = TypeVar("T")

_COLLECTIVE_TIMEOUT = timedelta(days=1)  # lost ranks are the heartbeat's; one that evaluates may keep others waiting
_START_TIMEOUT = timedelta(minutes=3)  # ranks may differ in how long they load torch from a slow disk


@dataclass(frozen=True)
class Ranks:
    """The processes that train together; by default, this one alone.

    Methods that communicate must be called by all ranks in the same order. All but `average_gradients` exchange host
    memory, so that no rank waits for a GPU.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """the rank within its machine"""
    heartbeat: Heartbeat | None = None

    @property
    def is_main(self) -> bool:
        """True for rank 0, which logs and saves."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """Return this rank's device for `train.device`; of several ranks, each has a GPU of its own."""
        device = resolve_device(name)
        if self.world_size == 1 or device.type == "cpu":
            return device
        if device.type != "cuda" or device.index is not None:
            raise ConfigError(f"train.device {name}: can't be shared by {self.world_size} ranks; leave it at auto")
        device = resolve_device(f"cuda:{self.local_rank}")
        torch.cuda.set_device(device)
        return device

    def sample_indices(self, step: int, size: int) -> range:
        """Return this rank's indices in the global sample order after `step` steps of `size` images per rank."""
        first = (step * self.world_size + self.rank) * size
        return range(first, first + size)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their mean over all ranks, in one all-reduce of all of them.

        Which parameters have a gradient must be the same on all ranks; those without stay without.
        DistributedDataParallel is not used because it ties one forward pass of one module to one backward pass, while
        UNIT uses its networks in parts and several times in a step.
        """
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.world_size == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        self._run_collective(lambda: distributed.all_reduce(flat))
        flat /= self.world_size
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view(gradient.shape))

    def all_reduce_max(self, *numbers: int) -> list[int]:
        """Return the maximum of each number over all ranks."""
        return self._all_reduce(torch.tensor(numbers), distributed.ReduceOp.MAX).tolist()

    def all_reduce_min(self, values: Tensor) -> Tensor:
        """Return the elementwise minimum over all ranks, in host memory."""
        return self._all_reduce(values, distributed.ReduceOp.MIN)

    def all_reduce_mean(self, scalars: dict[str, float]) -> dict[str, float]:
        """Return the mean of each scalar over all ranks, which must have the same names."""
        gathered = self.all_gather(scalars)
        return {name: sum(other[name] for other in gathered) / self.world_size for name in scalars}

    def all_gather(self, value: T) -> list[T]:
        """Return every rank's value, by rank."""
        values = [value] * self.world_size
        self._run_collective(lambda: distributed.all_gather_object(values, value))
        return values

    def broadcast(self, value: T) -> T:
        """Return rank 0's value."""
        values = [value]
        self._run_collective(lambda: distributed.broadcast_object_list(values, src=0))
        return values[0]

    def barrier(self) -> None:
        """Wait until all ranks have reached this point."""
        self._run_collective(distributed.barrier)

    @contextmanager
    def fail_together(self) -> Iterator[None]:
        """Raise the error of one rank on all ranks; a `UserError` of another rank becomes a `PeerError`."""
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        if isinstance(error, PeerError):
            raise error
        if self.all_reduce_max(int(error is not None))[0]:
            rank, first = next((rank, error) for rank, error in enumerate(self.all_gather(error)) if error)
            raise error or (PeerError(f"rank {rank}: {first}") if isinstance(first, UserError) else first)

    def require_same(self, values: dict[str, object]) -> None:
        """Raise `UserError` on all ranks if a value, named by its key, differs between them."""
        first, *others = self.all_gather(values)
        for rank, other in enumerate(others, 1):
            for name, value in other.items():
                if value != first[name]:
                    raise UserError(f"{name} is {first[name]} on rank 0, but {value} on rank {rank}; make them equal")

    def _all_reduce(self, values: Tensor, operation: distributed.ReduceOp.RedOpType) -> Tensor:
        on_host = values.to("cpu", copy=True)
        self._run_collective(lambda: distributed.all_reduce(on_host, operation))
        return on_host

    def _run_collective(self, collective: Callable[[], object]) -> None:
        """Call a collective if there are several ranks; raises `PeerError` if it fails because a rank is lost."""
        if self.world_size == 1:
            return
        try:
            collective()
        except RuntimeError as error:
            if self.heartbeat is None or loader_failure(error):  # a data loader's death is raised wherever we are
                raise
            raise self.heartbeat.explain(error) from error


SINGLE_PROCESS = Ranks()


@contextmanager
def init_distributed() -> Iterator[Ranks]:
    """Join the ranks that torchrun started, until the block ends; without torchrun, this process alone.

    If the block fails, the other ranks are told why and end as well; a `UserError` then names this rank.
    """
    if not _started_by_torchrun():
        yield SINGLE_PROCESS
        return
    store, rank, local_rank, names = _rendezvous()
    # Gloo exchanges host memory on any machine; NCCL exchanges tensors on GPUs.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=_COLLECTIVE_TIMEOUT, store=store, rank=rank, world_size=len(names))
    heartbeat = Heartbeat(store, rank, names)
    ranks = Ranks(rank, len(names), local_rank, heartbeat)
    try:
        yield ranks
        ranks.barrier()
    except PeerError:
        raise
    except UserError as error:
        error.args = (heartbeat.fail(str(error)),)
        raise
    except BaseException as error:
        heartbeat.fail(" ".join(f"{type(error).__name__}: {error}".split()))
        raise
    finally:
        distributed.destroy_process_group()  # may wait for a GPU that waits for a lost rank
        heartbeat.stop()


def is_main_process() -> bool:
    """True for rank 0, and for a process started without torchrun."""
    return not _started_by_torchrun() or os.environ.get("RANK", "0") == "0"


def restarted_by_torchrun() -> bool:
    """True if torchrun (--max-restarts) started this process in place of one that failed."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def _started_by_torchrun() -> bool:
    return os.environ.get("WORLD_SIZE", "1") != "1"


def _rendezvous() -> tuple[Store, int, int, list[str]]:
    """Wait for all ranks to start; returns torchrun's store, this rank and local rank, and the names of all ranks."""
    try:
        rank, local_rank, world_size = (int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
        keys = [f"name/{other}" for other in range(world_size)]
        store: Store = next(rendezvous("env://", rank, world_size, timeout=_START_TIMEOUT))[0]
        store.set(keys[rank], f"rank {rank} on {socket.gethostname()}")
        with suppress(RuntimeError):
            store.wait(keys, _START_TIMEOUT)
        missing = [str(other) for other, key in enumerate(keys) if not store.check([key])]
        if not missing:
            return store, rank, local_rank, [store.get(key).decode() for key in keys]
    except (KeyError, ValueError):
        raise ConfigError(
            f"WORLD_SIZE is {escape(os.environ['WORLD_SIZE'])} in the environment, but RANK, LOCAL_RANK, MASTER_ADDR "
            "or MASTER_PORT is missing or wrong: start several processes with torchrun, or unset WORLD_SIZE"
        ) from None
    except RuntimeError as error:
        reason = escape(next(iter(str(error).splitlines()), type(error).__name__))
        raise UserError(
            f"rank {rank}: the rendezvous of {world_size} ranks failed ({reason}); see the other ranks' output"
        ) from error
    who = f"rank {', '.join(missing)} of {world_size}"
    raise UserError(f"rank {rank}: {who} did not start within {_START_TIMEOUT.seconds} s; see its output")
