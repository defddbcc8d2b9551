"""The two domains, and a pair of values indexed by domain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")


class Domain(StrEnum):
    """One of the two image domains."""

    A = "a"
    B = "b"

    @property
    def other(self) -> Domain:
        """The opposite domain."""
        return Domain.B if self is Domain.A else Domain.A

    @property
    def direction(self) -> str:
        """The translation that starts here: "a2b" or "b2a"."""
        return f"{self}2{self.other}"


@dataclass(frozen=True, slots=True)
class PerDomain(Generic[T]):
    """One value for each domain, indexed by `Domain`."""

    a: T
    b: T

    @classmethod
    def of(cls, make: Callable[[Domain], T]) -> PerDomain[T]:
        """Return the pair of `make(domain)`."""
        return cls(make(Domain.A), make(Domain.B))

    def __getitem__(self, domain: Domain) -> T:
        return self.a if domain is Domain.A else self.b

    def __iter__(self) -> Iterator[T]:
        yield self.a
        yield self.b

    def map(self, function: Callable[[T], U]) -> PerDomain[U]:
        """Return the pair of `function(value)`."""
        return PerDomain(function(self.a), function(self.b))

    def swapped(self) -> PerDomain[T]:
        """Return a pair with the two values swapped."""
        return PerDomain(self.b, self.a)
