"""Synthetic streets in sun and rain, by day and at night, rendered from a seed: the built-in data set."""

from unit.streets.render import render
from unit.streets.source import Streets, write_streets
from unit.streets.weather import DAY, NIGHT, Weather

__all__ = ["DAY", "NIGHT", "Streets", "Weather", "render", "write_streets"]
