"""Map a function over many files, in several processes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from tqdm import tqdm

from unit.errors import UserError

T = TypeVar("T")
U = TypeVar("U")


def parallel_map(function: Callable[[T], U], items: Sequence[T], processes: int) -> Iterator[U]:
    """Yield `function(item)` for each item, in order; with 0 `processes`, in this one.

    Raises:
        UserError: a process was killed.
    """
    import torch  # takes seconds, which mistakes need not wait for
    from torch.utils.data import DataLoader

    from unit.data.batches import allow_many_workers, loader_failure

    with allow_many_workers():
        loader: DataLoader[T] = DataLoader(
            items,  # type: ignore[arg-type]  # a list is a valid dataset
            batch_size=16,
            num_workers=processes,
            collate_fn=partial(_apply, function),
            generator=torch.Generator(),  # else it would draw from the global one
            multiprocessing_context="spawn" if processes else None,  # a fork may copy a lock that a thread holds
        )
        batches = iter(loader)  # starts the processes, before tqdm starts a thread
    with tqdm(total=len(items), unit="file", leave=False, disable=not sys.stderr.isatty()) as bar:
        try:
            for results in batches:
                bar.update(len(results))
                yield from results
        except RuntimeError as error:
            if loader_failure(error) is None:
                raise
            raise UserError(
                "a process that checks images was killed, probably out of memory; close other programs, or check the "
                "headers alone with --headers"
            ) from error


def _apply(function: Callable[[T], U], items: Sequence[T]) -> list[U]:
    return [function(item) for item in items]
