"""The mean of the gradients over all ranks, sent while the backward pass still computes others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from unit.training.distributed import Ranks

_BUCKET = 16 * 2**20
"""Bytes that are sent at once, as soon as they are all there."""


class GradientMean:
    """Averages the gradients of a network's parameters over the ranks.

    DistributedDataParallel does so for a module whose one forward pass leads to one backward pass. In a step of UNIT
    networks are used in parts and several times, in two updates of which one passes through the other's networks; hooks
    on the parameters need to know nothing of that.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], ranks: Ranks) -> None:
        self._ranks, self._active = ranks, False
        # From the last layer to the first, as the backward pass goes; in the same order on all ranks.
        self._buckets = (
            [_Bucket(members) for members in _in_buckets(list(parameters)[::-1])] if ranks.world_size > 1 else []
        )
        self._next = 0
        for bucket in self._buckets:
            for parameter in bucket.parameters:
                parameter.register_post_accumulate_grad_hook(lambda _, bucket=bucket: self._one_more(bucket))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within is the last backward pass before an update; afterwards each `grad` is the mean over the ranks."""
        self._active, self._next = True, 0
        for bucket in self._buckets:
            bucket.missing = len(bucket.parameters)
        yield
        self._active = False
        for bucket in self._buckets[self._next :]:  # with parameters that no loss depends on
            bucket.send(self._ranks)
        for bucket in self._buckets:
            bucket.receive(self._ranks.world_size)

    def _one_more(self, bucket: _Bucket) -> None:
        if not self._active:
            return
        bucket.missing -= 1
        while self._next < len(self._buckets) and self._buckets[self._next].missing == 0:
            self._buckets[self._next].send(self._ranks)
            self._next += 1


class _Bucket:
    """Gradients that are sent together, one after the other in a buffer of their own."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.missing = 0
        first = parameters[0]
        self._buffer = torch.zeros(sum(p.numel() for p in parameters), dtype=first.dtype, device=first.device)
        parts = self._buffer.split([p.numel() for p in parameters])
        self._views = [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]
        self._wait: Callable[[], object] = lambda: None

    def send(self, ranks: Ranks) -> None:
        """Begin to sum over the ranks."""
        for view, parameter in zip(self._views, self.parameters, strict=True):
            if parameter.grad is None:
                view.zero_()
            else:
                view.copy_(parameter.grad)
        self._wait = ranks.all_reduce_async(self._buffer)

    def receive(self, count: int) -> None:
        """Wait for the sum, and make it the mean of `count`."""
        self._wait()
        self._buffer /= count
        for view, parameter in zip(self._views, self.parameters, strict=True):
            if parameter.grad is not None:
                parameter.grad.copy_(view)


def _in_buckets(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    members: list[nn.Parameter] = []
    for parameter in parameters:
        members.append(parameter)
        if sum(p.nbytes for p in members) >= _BUCKET:
            yield members
            members = []
    if members:
        yield members
