"""Unreadable training images, where `data.on_bad_image` is "skip"."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from unit.domains import Domain, PerDomain
from unit.errors import DataError, ImageError

log = logging.getLogger(__name__)

_MAX_FRACTION = 0.01
"""Maximum fraction of bad images per domain; with more, the disk has probably gone away."""


class BadImages:
    """The names of the bad images found so far.

    Args:
        counts: the number of training images.
    """

    def __init__(self, counts: PerDomain[int]) -> None:
        self._counts = counts
        self._names: PerDomain[set[str]] = PerDomain(set(), set())

    def __len__(self) -> int:
        return sum(self._names.map(len))

    def note(self, domain: Domain, name: str, error: ImageError) -> None:
        """Count a bad image, and log it the first time.

        Raises:
            DataError: over 1 % of the domain's images are bad.
        """
        names, count = self._names[domain], self._counts[domain]
        if name not in names:
            names.add(name)
            log.warning("%s; skipped, as %d of the %d images of domain %s so far", error, len(names), count, domain)
        if len(names) > _MAX_FRACTION * count:
            raise DataError(
                f"{error}; {len(names)} of the {count} images of domain {domain} can't be read, which is over "
                f"{_MAX_FRACTION:.0%}: check the folder, and remove or replace them"
            )

    def add(self, states: Sequence[dict[str, list[str]]]) -> None:
        """Add the images that other processes found (and logged)."""
        self._names = PerDomain.of(lambda i: self._names[i].union(*(state[i.value] for state in states)))

    def state_dict(self) -> dict[str, list[str]]:
        """Return the names, for a checkpoint."""
        return {domain.value: sorted(self._names[domain]) for domain in Domain}

    def load_state_dict(self, state: dict[str, list[str]]) -> None:
        """Restore `state_dict`."""
        self._names = PerDomain.of(lambda i: set(state[i.value]))
