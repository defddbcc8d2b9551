"""A camera that drives along one street: the frames of a video, in either weather."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

from PIL import Image

from unit.streets.layout import make_scene
from unit.streets.render import render_scene
from unit.streets.rng import Rng
from unit.streets.scene import NEAR, Building, Car, Furniture, Hedge, Lamp, Person, Scene, Tree
from unit.streets.weather import Weather

SPEED = 6.0  # metres per second, of all cars that drive
_DASHES = 5.0  # metres from one dash along the middle to the next
Upright = TypeVar("Upright", Tree, Lamp, Car, Person, Furniture)
Front = TypeVar("Front", Building, Hedge)


def drive(scene: int, weather: Weather, size: int, seconds: float, rate: int) -> Iterator[Image.Image]:
    """Yield the frames of a drive along a street; equal arguments give equal frames.

    Both weathers show the same world at the same time, and align pixel by pixel. The street is straight and level. Cars
    drive, in both directions, people stand, and each frame has streaks of rain of its own.

    Args:
        scene: the street's number, at least 0.
        size: side of the square frames in pixels, at least 8.
        seconds: how long, more than 0.
        rate: frames per second.
    """
    street = _drivable(make_scene(scene, longer=SPEED * seconds))
    for number in range(max(1, round(seconds * rate))):
        travelled = SPEED * number / rate
        clouds, rain = Rng(2, scene, 0), Rng(3, scene, number)
        yield render_scene(_seen_after(street, travelled), weather, size, None, clouds, rain)


def _drivable(street: Scene) -> Scene:
    """Put the camera into the right lane of a straight, level street without people on the carriageway."""
    camera = replace(street.camera, x=street.road.half * 0.4, bend=0.0, rise=0.0)
    return replace(street, camera=camera, people=tuple(p for p in street.people if abs(p.x) > street.road.half))


def _seen_after(street: Scene, metres: float) -> Scene:
    """Return the street as a camera sees it that has driven so far: everything is nearer, or behind."""
    road = replace(
        street.road,
        crossing=None if street.road.crossing is None else street.road.crossing - metres,
        side_street=street.road.side_street and _minus(street.road.side_street, metres),
        patches=tuple((x, z - metres, rx, rz) for x, z, rx, rz in street.road.patches),
        first_dash=street.road.first_dash - metres % _DASHES,
    )
    return replace(
        street,
        road=road,
        buildings=_fronts(street.buildings, metres),
        hedges=_fronts(street.hedges, metres),
        trees=_upright(street.trees, metres),
        lamps=_upright(street.lamps, metres),
        cars=_cars(street.cars, metres),
        people=_upright(street.people, metres),
        furniture=_upright(street.furniture, metres),
    )


def _minus(interval: tuple[float, float], metres: float) -> tuple[float, float]:
    return interval[0] - metres, interval[1] - metres


def _fronts(fronts: tuple[Front, ...], metres: float) -> tuple[Front, ...]:
    moved = (replace(front, z0=front.z0 - metres, z1=front.z1 - metres) for front in fronts)
    return tuple(front for front in moved if front.z1 > NEAR)


def _upright(objects: tuple[Upright, ...], metres: float) -> tuple[Upright, ...]:
    moved = (replace(item, z=item.z - metres) for item in objects)
    return tuple(item for item in moved if item.z > NEAR)


def _cars(cars: tuple[Car, ...], metres: float) -> tuple[Car, ...]:
    """Move parked cars like houses; those ahead keep their distance, and those that come are twice as fast."""
    moved = (replace(car, z=car.z - metres * (1 if car.parked else 0 if car.away else 2)) for car in cars)
    return tuple(car for car in moved if car.z + car.length > NEAR)
