"""Map a function over many files, in several processes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from unit.data.batches import loader_failure
from unit.errors import UserError

T = TypeVar("T")
U = TypeVar("U")


class _Results(Dataset[U], Generic[T, U]):
    def __init__(self, function: Callable[[T], U], items: Sequence[T]) -> None:
        self.function, self.items = function, items

    def __getitem__(self, index: int) -> U:
        return self.function(self.items[index])

    def __len__(self) -> int:
        return len(self.items)


def parallel_map(function: Callable[[T], U], items: Sequence[T], processes: int) -> Iterator[U]:
    """Yield `function(item)` for each item, in order, with a progress bar.

    Args:
        processes: 0 for this process.

    Raises:
        UserError: a process was killed.
    """
    loader = DataLoader(
        _Results(function, items),
        batch_size=16,
        num_workers=processes,
        collate_fn=list,
        generator=torch.Generator(),  # else it would draw from the global one
    )
    with tqdm(total=len(items), unit="file", leave=False, disable=not sys.stderr.isatty()) as bar:
        try:
            for results in loader:
                bar.update(len(results))
                yield from results
        except RuntimeError as error:
            if loader_failure(error) is None:
                raise
            raise UserError(
                "a process that checks images was killed, probably out of memory; close other programs, or check the "
                "headers alone with --headers"
            ) from error
