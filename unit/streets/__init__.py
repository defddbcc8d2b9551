"""Synthetic streets in sun and rain, rendered from a seed: the built-in data set."""

from unit.streets.render import render
from unit.streets.source import Streets, write_streets
from unit.streets.weather import Weather

__all__ = ["Streets", "Weather", "render", "write_streets"]
