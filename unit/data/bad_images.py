"""Training images that can't be read, where `data.on_bad_image` says to skip them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from unit.domains import Domain, PerDomain
from unit.errors import DataError, ImageError

log = logging.getLogger(__name__)

_MOST = 0.01
"""The share of a domain's images that may be bad; beyond it, the disk may have gone away."""


class BadImages:
    """The images found bad so far, by name, out of `counts` in each domain."""

    def __init__(self, counts: PerDomain[int]) -> None:
        self._counts = counts
        self._names: PerDomain[set[str]] = PerDomain(set(), set())

    def __len__(self) -> int:
        return sum(self._names.map(len))

    def note(self, domain: Domain, name: str, error: ImageError) -> None:
        """Log and count an image, each once; raises `DataError` when over 1 % of the domain's are bad."""
        names, count = self._names[domain], self._counts[domain]
        if name not in names:
            names.add(name)
            log.warning("%s; skipped, as %d of the %d images of domain %s so far", error, len(names), count, domain)
        if len(names) > _MOST * count:
            raise DataError(
                f"{error}; {len(names)} of the {count} images of domain {domain} can't be read, which is over "
                f"{_MOST:.0%}: look at the folder, and remove or replace them"
            )

    def add(self, states: Sequence[dict[str, list[str]]]) -> None:
        """Count also what other processes have found, and logged."""
        self._names = PerDomain.of(lambda i: self._names[i].union(*(state[i.value] for state in states)))

    def state_dict(self) -> dict[str, list[str]]:
        """The names, for a run that goes on."""
        return {domain.value: sorted(self._names[domain]) for domain in Domain}

    def load_state_dict(self, state: dict[str, list[str]]) -> None:
        """The inverse of `state_dict`."""
        self._names = PerDomain.of(lambda i: set(state[i.value]))
