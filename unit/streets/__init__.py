"""Streets in sun and rain, drawn from a seed: the data set that comes with the program."""

from unit.streets.drawing import draw
from unit.streets.source import Streets, write_streets
from unit.streets.weather import Weather

__all__ = ["Streets", "Weather", "draw", "write_streets"]
