"""Several processes that train one model, started by torchrun: who they are and what they agree on."""

from __future__ import annotations

import os
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

_PATIENCE = timedelta(days=1)
"""The heartbeat knows who is lost; a rank that evaluates may let the others wait."""
_START = timedelta(minutes=3)
"""Before there is a heartbeat: what ranks may differ by in loading torch from a slow disk."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a run; by default, this one alone. What several do together, all must do in the same order.

    All but `device`, `positions` and `all_reduce_async` is exchanged in the host's memory: nobody waits for a GPU.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    """its number on its own machine"""
    heartbeat: Heartbeat | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that logs and saves."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """What `train.device` means for this rank: each rank of a machine has a GPU of its own.

        Raises:
            ConfigError: the device is not there, or is one for several ranks.
        """
        device = resolve_device(name)
        if self.world_size == 1 or device.type == "cpu":
            return device
        if device.type != "cuda" or device.index is not None:
            raise ConfigError(f"train.device {name}: is one device for {self.world_size} ranks; leave it at auto")
        device = resolve_device(f"cuda:{self.local_rank}")
        torch.cuda.set_device(device)
        return device

    def sample_indices(self, step: int, size: int) -> range:
        """This rank's places in the global sequence of images, for the step after `step` others; `size` a rank."""
        first = (step * self.world_size + self.rank) * size
        return range(first, first + size)

    def all_reduce_max(self, *numbers: int) -> list[int]:
        """The largest of each number over all ranks."""
        return self._reduced(torch.tensor(numbers), distributed.ReduceOp.MAX).tolist()

    def all_reduce_min(self, values: Tensor) -> Tensor:
        """The smallest of each element over all ranks."""
        return self._reduced(values, distributed.ReduceOp.MIN)

    def all_reduce_mean(self, numbers: dict[str, float]) -> dict[str, float]:
        """The mean of each number over all ranks, which have the same names."""
        if self.world_size == 1:
            return numbers
        values = torch.tensor(list(numbers.values()), dtype=torch.float64)
        means = self._reduced(values, distributed.ReduceOp.SUM) / self.world_size
        return dict(zip(numbers, means.tolist(), strict=True))

    def all_gather(self, value: T) -> list[T]:
        """Every rank's value, on all ranks."""
        values: list[T | None] = [None] * self.world_size
        if self.world_size == 1:
            return [value]
        self._together(lambda: distributed.all_gather_object(values, value))
        return values  # type: ignore[return-value]  # all are there now

    def broadcast(self, value: T) -> T:
        """Rank 0's value, on all ranks."""
        values = [value]
        if self.world_size > 1:
            self._together(lambda: distributed.broadcast_object_list(values, src=0))
        return values[0]

    def all_reduce_async(self, values: Tensor) -> Callable[[], object]:
        """Begin to put the sum over all ranks into `values`, wherever they lie; what is returned waits for it."""
        work = self._together(lambda: distributed.all_reduce(values, async_op=True))
        return lambda: self._together(work.wait)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over all ranks, in one all-reduce."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.world_size == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        self.all_reduce_async(flat)()
        flat /= self.world_size
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    @contextmanager
    def all_or_none(self) -> Iterator[None]:
        """What fails on one rank fails on all: with the same error, but another's `UserError` as a `PeerError`."""
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        if error and (self.world_size == 1 or isinstance(error, PeerError)):
            raise error
        if self.all_reduce_max(int(error is not None))[0]:
            rank, theirs = next((rank, each) for rank, each in enumerate(self.all_gather(error)) if each)
            raise error or (PeerError(f"rank {rank}: {theirs}") if isinstance(theirs, UserError) else theirs)

    def require_same(self, facts: dict[str, object]) -> None:
        """Raises `UserError` on all ranks when one of the facts is not the same on all."""
        first, *others = self.all_gather(facts)
        for rank, other in enumerate(others, 1):
            for what, value in other.items():
                if value != first[what]:
                    raise UserError(f"{what} is {first[what]} on rank 0, but {value} on rank {rank}; make them equal")

    def barrier(self) -> None:
        """Until each rank has come here."""
        if self.world_size > 1:
            self._together(distributed.barrier)

    def _reduced(self, values: Tensor, operation: distributed.ReduceOp.RedOpType) -> Tensor:
        if self.world_size == 1:
            return values
        on_host = values.to("cpu", copy=True)
        self._together(lambda: distributed.all_reduce(on_host, operation))
        return on_host

    def _together(self, work: Callable[[], T]) -> T:
        """Raises `PeerError` when a rank is lost meanwhile."""
        try:
            return work()
        except RuntimeError as error:
            if self.heartbeat is None or loader_failure(error):  # which comes up anywhere, and is our own
                raise
            raise self.heartbeat.explain(error) from error


SINGLE_PROCESS = Ranks()


@contextmanager
def init_distributed() -> Iterator[Ranks]:
    """The ranks that torchrun started, for as long as they work together; without torchrun, this process alone.

    An error of one becomes known to all, and names its rank.
    """
    if _started_alone():
        yield SINGLE_PROCESS
        return
    rank, count, local = _from_torchrun()
    # Gloo for the host's memory in any case; NCCL is for tensors on GPUs.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store = _meet(rank, count)
    distributed.init_process_group(backend, timeout=_PATIENCE, store=store, rank=rank, world_size=count)
    heartbeat = Heartbeat(rank, count)
    ranks = Ranks(rank, count, local, heartbeat)
    try:
        yield ranks
        ranks.barrier()
    except PeerError:
        raise
    except UserError as error:
        error.args = (heartbeat.fail(str(error)),)
        raise
    except BaseException as error:
        heartbeat.fail(f"{type(error).__name__}: {error}")
        raise
    finally:
        distributed.destroy_process_group()  # may wait for a GPU that waits for a lost rank
        heartbeat.stop()


def is_first() -> bool:
    """Whether this process is rank 0 of those that torchrun started, or was not started by it."""
    return _started_alone() or os.environ.get("RANK", "0") == "0"


def restarted() -> bool:
    """Whether torchrun (--max-restarts) has started these processes in the place of others that failed."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


def _started_alone() -> bool:
    return os.environ.get("WORLD_SIZE", "1") == "1"


def _from_torchrun() -> tuple[int, int, int]:
    """This process's rank, how many there are, and its number on its machine."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
    try:
        rank, count, local, _ = (int(os.environ[name]) for name in names)
        os.environ["MASTER_ADDR"]
    except (KeyError, ValueError):
        raise ConfigError(
            f"WORLD_SIZE is {escape(os.environ['WORLD_SIZE'])} in the environment, without {', '.join(names[::2])} "
            "and the like: start several processes with torchrun, or unset WORLD_SIZE"
        ) from None
    return rank, count, local


def _meet(rank: int, count: int) -> Store:
    """torchrun's store, once all ranks are there.

    Raises:
        UserError: one did not come, since its command line was wrong, for instance.
    """
    here = [f"here/{each}" for each in range(count)]
    try:
        store: Store = next(rendezvous("env://", rank, count, timeout=_START))[0]
        store.set(here[rank], "")
        with suppress(RuntimeError):
            store.wait(here, _START)
        absent = [str(each) for each, key in enumerate(here) if not store.check([key])]
    except RuntimeError as error:
        why = escape(next(iter(str(error).splitlines()), type(error).__name__))
        raise UserError(
            f"rank {rank}: the {count} ranks could not meet ({why}); look at what the others say"
        ) from error
    if absent:
        who = f"rank {', '.join(absent)} of {count} did not start within {_START.seconds} s"
        raise UserError(f"rank {rank}: {who}; look at what it says")
    return store
