"""The objects of a street, independent of the weather.

Lengths are in metres: x to the right of the road's middle, y up from the ground, z ahead of the camera.
"""

from dataclasses import dataclass
from enum import Enum, auto

Color = tuple[int, int, int]

FAR = 96.0  # where the street ends
NEAR = 1.2  # nothing is drawn nearer to the camera than this


@dataclass(frozen=True)
class Camera:
    """A pinhole looking along the street. Image coordinates run from 0 to 1, x rightwards and y downwards."""

    x: float
    height: float
    focal: float
    vanish_x: float
    vanish_y: float
    bend: float  # the street curves by bend * z**2 sideways ...
    rise: float  # ... and climbs by rise * z**2


class Roof(Enum):
    """The shape of a roof."""

    FLAT = auto()
    MANSARD = auto()
    GABLE = auto()  # a pointed gable towards the street
    STEPPED = auto()
    HIPPED = auto()


class Panes(Enum):
    """The style of windows."""

    PLAIN = auto()
    SHUTTERS = auto()
    WIDE = auto()


@dataclass(frozen=True)
class Building:
    """A house along the street: `side` is -1 left or +1 right, its front stands at x = side * wall, z0 <= z <= z1."""

    side: int
    wall: float
    z0: float
    z1: float
    depth: float
    base: float  # height of the ground floor
    storey: float
    floors: int  # above the ground floor
    bays: int
    color: Color
    trim: Color
    plinth: Color
    roof: Roof
    roof_color: Color
    panes: Panes
    accent: Color  # shutters, door, awning
    shop: bool
    awning: float  # how far it reaches over the pavement; 0: none
    balconies: bool
    chimney: float  # its position along the front, 0 to 1; negative: none
    curtains: tuple[bool, ...]  # windows with pale curtains: somebody is at home
    exposed: bool  # the end wall towards the camera can be seen

    @property
    def height(self) -> float:
        """Height of the eaves."""
        return self.base + self.storey * self.floors


@dataclass(frozen=True)
class Hedge:
    """A hedge, or a low wall, along a garden or a park."""

    side: int
    wall: float
    z0: float
    z1: float
    height: float
    color: Color


class Crown(Enum):
    """The shape of a tree."""

    ROUND = auto()
    TALL = auto()
    CONE = auto()


@dataclass(frozen=True)
class Tree:
    """A tree; `blobs` are (x, y, radius) of its foliage in units of its height."""

    x: float
    z: float
    height: float
    crown: Crown
    color: Color
    blobs: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Lamp:
    """A street lamp whose arm, if any, reaches towards the road."""

    x: float
    z: float
    height: float
    arm: float


@dataclass(frozen=True)
class Car:
    """A car, van or bus; its nearest end stands at z. `away`: its tail is towards the camera."""

    x: float
    z: float
    width: float
    length: float
    height: float
    color: Color
    away: bool
    parked: bool
    boxy: bool


@dataclass(frozen=True)
class Person:
    """A person on the pavement or the crossing."""

    x: float
    z: float
    height: float
    stride: float
    coat: Color
    trousers: Color
    skin: Color
    hair: Color
    skirt: bool


@dataclass(frozen=True)
class Furniture:
    """Small objects on the pavement: a parasol with its table, or a planter."""

    x: float
    z: float
    color: Color
    parasol: bool


@dataclass(frozen=True)
class Backdrop:
    """The end of the view: hills or a skyline as (x, height) in image units, and perhaps a tower (x, w, h)."""

    hills: tuple[tuple[float, float], ...]
    skyline: tuple[tuple[float, float], ...]
    tower: tuple[float, float, float] | None
    color: Color


@dataclass(frozen=True)
class Road:
    """The ground: half the carriageway's width, the pavements, markings and worn patches (x, z, rx, rz)."""

    half: float
    pavement: float
    asphalt: Color
    paving: Color
    verge: Color
    yellow: bool
    dashed: bool
    cycle_lane: Color | None
    crossing: float | None
    side_street: tuple[float, float] | None
    patches: tuple[tuple[float, float, float, float], ...]
    first_dash: float = 1.0  # where the dashes along the middle begin


@dataclass(frozen=True)
class Scene:
    """A street in any weather."""

    seed: int
    camera: Camera
    road: Road
    backdrop: Backdrop
    buildings: tuple[Building, ...]
    hedges: tuple[Hedge, ...]
    trees: tuple[Tree, ...]
    lamps: tuple[Lamp, ...]
    cars: tuple[Car, ...]
    people: tuple[Person, ...]
    furniture: tuple[Furniture, ...]
