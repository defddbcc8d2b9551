"""The two domains, and a pair of values indexed by domain."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from unit.errors import ConfigError, escape

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


def source_domain(direction: str, names: PerDomain[str]) -> Domain:
    """Return the source domain of "a2b", "b2a" or a direction by the user's names, e.g. "sunny2rainy".

    "a2b" is always from A to B, even where the user's name of B is "a".

    Raises:
        ConfigError: no such direction, or an ambiguous one ("x2x2x" of "x" and "x2x").
    """
    by_code = [i for i in Domain if direction == i.direction]
    by_name = [i for i in Domain if direction == f"{names[i]}2{names[i.other]}"]
    matching = by_code or by_name
    if len(matching) == 1:
        return matching[0]
    a, b = names
    valid = f"a2b (from {a} to {b}) or b2a (from {b} to {a})" if matching else f"a2b ({a}2{b}) or b2a ({b}2{a})"
    raise ConfigError(escape(f"--direction {direction}: must be {valid}"))


def domain_named(text: str, names: PerDomain[str]) -> Domain:
    """Return the domain "a" or "b", or the one of that name; "a" is always A, even where the user's name of B is "a".

    Raises:
        ConfigError: no such domain.
    """
    for name_of in (lambda i: i.value, names.__getitem__):
        for i in Domain:
            if text == name_of(i):
                return i
    raise ConfigError(escape(f"domain {text}: must be a ({names.a}) or b ({names.b})"))
