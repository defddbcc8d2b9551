"""Lay out a street: a scene is a function of its seed alone."""

from collections.abc import Sequence

from unit.streets.rng import Rng
from unit.streets.scene import (
    FAR,
    NEAR,
    Backdrop,
    Building,
    Camera,
    Car,
    Color,
    Crown,
    Furniture,
    Hedge,
    Lamp,
    Panes,
    Person,
    Road,
    Roof,
    Scene,
    Tree,
)

# Walls that go together, by the mood of a quarter; then the roofs above them.
_WALLS: tuple[tuple[Color, ...], ...] = (
    ((226, 149, 106), (240, 205, 150), (205, 104, 83), (243, 226, 196), (214, 172, 112)),  # southern
    ((190, 92, 74), (164, 78, 66), (206, 132, 100), (226, 206, 180), (142, 92, 82)),  # brick
    ((246, 208, 196), (198, 222, 212), (250, 230, 184), (196, 210, 232), (236, 190, 182)),  # pastel
    ((206, 88, 72), (232, 178, 84), (92, 134, 142), (238, 226, 204), (122, 152, 118)),  # harbour
    ((222, 214, 200), (200, 190, 176), (236, 230, 218), (184, 178, 172), (210, 196, 170)),  # stone
    ((108, 156, 168), (238, 220, 186), (226, 140, 112), (156, 186, 172), (244, 196, 128)),  # sea
)
_ROOFS: tuple[tuple[Color, ...], ...] = (
    ((176, 88, 62), (158, 78, 58), (190, 104, 72)),
    ((84, 86, 98), (104, 96, 98), (70, 78, 92)),
    ((150, 96, 88), (96, 108, 124), (120, 92, 90)),
    ((78, 84, 92), (150, 76, 60), (92, 80, 76)),
    ((92, 104, 120), (108, 116, 128), (80, 90, 106)),
    ((170, 92, 70), (88, 100, 112), (146, 84, 66)),
)
_ACCENTS: tuple[Color, ...] = (
    (196, 62, 58), (46, 116, 110), (52, 84, 140), (226, 160, 60), (104, 132, 84), (132, 66, 92), (74, 140, 160),
)  # fmt: skip
_CARS: tuple[Color, ...] = (
    (208, 58, 50), (46, 104, 170), (238, 236, 230), (244, 186, 60), (70, 76, 86), (88, 158, 150), (226, 122, 62),
    (150, 164, 176),
)  # fmt: skip
_LEAVES: tuple[tuple[Color, ...], ...] = (
    ((84, 146, 70), (104, 160, 76), (66, 128, 74)),
    ((96, 150, 66), (130, 168, 70), (74, 132, 70)),
    ((226, 152, 58), (208, 112, 56), (190, 164, 70)),
    ((238, 172, 186), (116, 164, 88), (228, 150, 172)),
)
_HEDGES: tuple[Color, ...] = ((92, 138, 76), (112, 148, 80), (188, 164, 140), (96, 126, 84))
_COATS: tuple[Color, ...] = (
    (206, 70, 62), (48, 92, 150), (238, 184, 72), (84, 134, 112), (120, 82, 130), (232, 226, 214), (66, 70, 88),
)  # fmt: skip
_TROUSERS: tuple[Color, ...] = ((52, 58, 78), (70, 62, 60), (96, 104, 122), (120, 104, 86))
_SKINS: tuple[Color, ...] = ((240, 200, 168), (206, 154, 116), (142, 96, 70), (228, 184, 148))
_HAIR: tuple[Color, ...] = ((60, 42, 34), (120, 78, 48), (36, 32, 36), (206, 166, 104))


def make_scene(seed: int, longer: float = 0.0) -> Scene:
    """Return the street of `seed` >= 0, some metres `longer` than a camera that stands still can see.

    Equal arguments give equal streets; a longer street is another one.
    """
    rng = Rng(0, seed)
    road = _road(rng)
    camera = _camera(rng, road)
    (left, left_hedges), (right, right_hedges) = _row(rng, road, -1, longer), _row(rng, road, 1, longer)
    cars = _traffic(rng, road, longer) + _parked(rng, road, longer)
    return Scene(
        seed=seed,
        camera=camera,
        road=road,
        backdrop=_backdrop(rng, camera),
        buildings=left + right,
        hedges=left_hedges + right_hedges,
        trees=_trees(rng, road, left_hedges + right_hedges, longer),
        lamps=_lamps(rng, road, longer),
        cars=cars,
        people=_people(rng, road, longer),
        furniture=_furniture(rng, road, longer),
    )


def _road(rng: Rng) -> Road:
    half = rng.uniform(3.3, 6.4)
    tone = rng.randint(-8, 10)
    crossing = rng.uniform(8.5, 24.0) if rng.bernoulli(0.45) else None
    side_street = None
    if rng.bernoulli(0.5):
        start = crossing + 4.0 if crossing else rng.uniform(13.0, 34.0)
        side_street = (start, start + rng.uniform(6.0, 10.0))
    warm = rng.randint(0, 14)
    patches = tuple(
        (rng.uniform(-half, half), rng.uniform(4.5, 26.0), rng.uniform(0.5, 1.5), rng.uniform(0.5, 1.6))
        for _ in range(rng.randint(2, 5))
    )
    return Road(
        half=half,
        pavement=rng.uniform(2.0, 4.2),
        asphalt=(128 + tone, 125 + tone, 126 + tone),
        paving=(196 + warm, 188 + warm // 2, 174),
        verge=rng.choice(((126, 168, 84), (150, 170, 92), (186, 174, 150))),
        yellow=rng.bernoulli(0.2),
        dashed=rng.bernoulli(0.75),
        cycle_lane=rng.choice(((186, 92, 78), (92, 148, 108))) if half > 4.6 and rng.bernoulli(0.35) else None,
        crossing=crossing,
        side_street=side_street,
        patches=patches,
    )


def _camera(rng: Rng, road: Road) -> Camera:
    on_pavement = rng.bernoulli(0.22)
    lane = road.half * rng.uniform(0.1, 0.55)
    if on_pavement:
        lane = (road.half + road.pavement * 0.5) * rng.choice((-1.0, 1.0))
    vanish_x = 0.5 + rng.uniform(-0.12, 0.12)
    if on_pavement:  # look towards the road
        vanish_x = 0.5 + (0.14 if lane > 0 else -0.14) * rng.uniform(0.6, 1.2)
    return Camera(
        x=lane,
        height=rng.uniform(1.7, 3.4),
        focal=rng.uniform(0.72, 0.98),
        vanish_x=vanish_x,
        vanish_y=rng.uniform(0.47, 0.59),
        bend=rng.uniform(-0.0012, 0.0012) if rng.bernoulli(0.5) else 0.0,
        rise=rng.uniform(0.0002, 0.001) if rng.bernoulli(0.4) else 0.0,
    )


def _backdrop(rng: Rng, camera: Camera) -> Backdrop:
    hills: list[tuple[float, float]] = []
    if rng.bernoulli(0.6):
        height, x = rng.uniform(0.04, 0.12), -0.1
        while x < 1.2:
            hills.append((x, height * rng.uniform(0.35, 1.0)))
            x += rng.uniform(0.08, 0.2)
    skyline: list[tuple[float, float]] = []
    if rng.bernoulli(0.55):
        x = camera.vanish_x - 0.3
        while x < camera.vanish_x + 0.3:
            width, height = rng.uniform(0.02, 0.06), rng.uniform(0.02, 0.11)
            skyline += [(x, height), (x + width, height)]
            x += width
    tower = None
    if rng.bernoulli(0.3):
        tower = (camera.vanish_x + rng.uniform(-0.05, 0.05), rng.uniform(0.02, 0.035), rng.uniform(0.12, 0.2))
    return Backdrop(
        tuple(hills), tuple(skyline), tower, rng.choice(((104, 142, 120), (112, 138, 152), (134, 148, 110)))
    )


def _row(rng: Rng, road: Road, side: int, longer: float) -> tuple[tuple[Building, ...], tuple[Hedge, ...]]:
    """Lay out one side of the street, near to far: houses, and hedges in the gaps between them."""
    quarter, floors = rng.randint(0, len(_WALLS) - 1), rng.randint(1, 3)
    wall, green = road.half + road.pavement, rng.choice(_HEDGES)
    awning = min(1.3, road.pavement * 0.33)  # seen from below, an awning looks like a mistake
    z, gap, houses, hedges, last = rng.uniform(-6.0, 0.5), False, [], [], -1
    if rng.bernoulli(0.17):  # a park instead of houses
        far = rng.uniform(38.0, 75.0)
        for z0, z1 in _free_intervals(road, NEAR, far):
            hedges.append(Hedge(side, wall, z0, z1, rng.uniform(0.7, 1.1), green))
        z, gap = far, True
    while z < FAR - 8.0 + longer:
        width = rng.uniform(6.5, 13.0)
        if road.side_street and z < road.side_street[1] and z + width > road.side_street[0]:
            width = road.side_street[0] - z
            if width < 5.0:
                z, gap = road.side_street[1], True
                continue
        elif z > 6.0 and rng.bernoulli(0.13):
            gap, start, z = True, z, z + rng.uniform(5.0, 10.0)
            hedges += [Hedge(side, wall, z0, z1, 1.1, green) for z0, z1 in _free_intervals(road, start, z)]
            continue
        tint = rng.randint(0, 4)
        tint = (tint + 1) % 5 if tint == last else tint
        last = tint
        setback = rng.choice((0.0, 0.0, 0.0, 0.6, 1.6)) if z > 2.0 else 0.0
        if z + width > NEAR + 0.5:
            houses.append(_house(rng, side, wall + setback, z, z + width, quarter, tint, floors, gap, awning))
        z, gap = z + width, False
    return tuple(houses), tuple(hedges)


def _free_intervals(road: Road, z0: float, z1: float) -> list[tuple[float, float]]:
    """Return the intervals of z0..z1 that no side street takes."""
    start, end = road.side_street or (z1, z1)
    return [(a, b) for a, b in ((z0, min(z1, start)), (max(z0, end), z1)) if b - a > 1.0]


def _house(
    rng: Rng,
    side: int,
    wall: float,
    z0: float,
    z1: float,
    quarter: int,
    tint: int,
    floors: int,
    gap: bool,
    awning: float,
) -> Building:
    house_floors = max(1, floors + rng.randint(-1, 2))
    bays = max(2, round((z1 - z0) / rng.uniform(2.2, 3.2)))
    panes = rng.choice((Panes.PLAIN, Panes.PLAIN, Panes.SHUTTERS, Panes.SHUTTERS, Panes.WIDE))
    roof = rng.choice((Roof.FLAT, Roof.FLAT, Roof.MANSARD, Roof.GABLE, Roof.STEPPED, Roof.HIPPED, Roof.HIPPED))
    shop = rng.bernoulli(0.55)
    color = _WALLS[quarter][tint]
    dark = sum(color) < 480
    return Building(
        side=side,
        wall=wall,
        z0=max(z0, NEAR),
        z1=z1,
        depth=rng.uniform(7.0, 11.0),
        base=rng.uniform(3.3, 4.2),
        storey=rng.uniform(2.7, 3.4),
        floors=house_floors,
        bays=bays,
        color=color,
        trim=(246, 238, 222) if dark or rng.bernoulli(0.6) else (150, 112, 92),
        plinth=rng.choice(((150, 136, 126), (120, 112, 112), (176, 160, 142))),
        roof=roof,
        roof_color=rng.choice(_ROOFS[quarter]),
        panes=panes,
        accent=rng.choice(_ACCENTS),
        shop=shop,
        awning=awning if shop and rng.bernoulli(0.65) else 0.0,
        balconies=panes is not Panes.WIDE and rng.bernoulli(0.22),
        chimney=rng.uniform(0.15, 0.85) if rng.bernoulli(0.5) else -1.0,
        curtains=tuple(rng.bernoulli(0.3) for _ in range(house_floors * bays)),
        exposed=gap,
    )


def _trees(rng: Rng, road: Road, hedges: Sequence[Hedge], longer: float) -> tuple[Tree, ...]:
    leaves, crown = rng.choice(_LEAVES), rng.choice((Crown.ROUND, Crown.ROUND, Crown.TALL, Crown.CONE))
    if leaves in _LEAVES[2:]:  # only broad trees turn red or blossom
        crown = Crown.ROUND
    trees = []
    for side in (-1, 1):
        if not rng.bernoulli(0.6):
            continue
        step, x = rng.uniform(7.0, 14.0), side * (road.half + rng.uniform(0.7, 1.1))
        z = rng.uniform(8.0, 15.0)
        while z < 60.0 + longer:
            if rng.bernoulli(0.8) and not _on_side_street(road, z, 1.0):
                trees.append(_tree(rng, x, z, rng.uniform(4.2, 6.4), crown, rng.choice(leaves)))
            z += step
    for hedge in hedges:  # gardens and parks
        for _ in range(1 + int((hedge.z1 - hedge.z0) / 6.0)):
            x, z = hedge.side * (hedge.wall + rng.uniform(2.5, 9.0)), rng.uniform(hedge.z0 + 1.5, hedge.z1 - 0.8)
            if hedge.z1 - hedge.z0 > 4.0 and z > 7.0:
                trees.append(
                    _tree(rng, x, z, rng.uniform(4.5, 7.5), rng.choice((Crown.ROUND, crown)), rng.choice(leaves))
                )
    return tuple(trees)


def _tree(rng: Rng, x: float, z: float, height: float, crown: Crown, color: Color) -> Tree:
    blobs = tuple(
        (rng.uniform(-0.17, 0.17), rng.uniform(0.56, 0.82), rng.uniform(0.13, 0.19)) for _ in range(rng.randint(4, 6))
    )
    return Tree(x, z, height, crown, color, blobs)


def _on_side_street(road: Road, z: float, margin: float) -> bool:
    return road.side_street is not None and road.side_street[0] - margin < z < road.side_street[1] + margin


def _lamps(rng: Rng, road: Road, longer: float) -> tuple[Lamp, ...]:
    arm = rng.uniform(1.0, 1.9) if rng.bernoulli(0.6) else 0.0
    height = rng.uniform(5.0, 6.4) if arm else rng.uniform(3.8, 4.6)
    step, both = rng.uniform(11.0, 18.0), rng.bernoulli(0.6)
    lamps, z, side = [], rng.uniform(6.5, 13.0), rng.choice((-1, 1))
    while z < 80.0 + longer:
        if not _on_side_street(road, z, 0.3):
            lamps.append(Lamp(side * (road.half + 0.45), z, height, arm))
        z, side = z + step, -side if both else side
    return tuple(lamps)


def _vehicle(rng: Rng, x: float, z: float, away: bool, parked: bool) -> Car:
    kind, color = rng.random(), rng.choice(_CARS)
    if kind < 0.09 and not parked:
        return Car(x, z, 2.4, 8.5, 3.0, color, away, parked, True)
    if kind < 0.24:
        return Car(x, z, 1.95, 4.8, 2.2, color, away, parked, True)
    return Car(x, z, 1.8, rng.uniform(3.7, 4.5), rng.uniform(1.4, 1.6), color, away, parked, False)


def _traffic(rng: Rng, road: Road, longer: float) -> tuple[Car, ...]:
    cars = []
    lane = min(road.half * 0.45, road.half - 3.4) if road.half > 4.6 else road.half * 0.45  # clear of parked cars
    for x, away in ((lane, True), (-lane, False)):
        z = rng.uniform(7.5, 22.0)
        while z < 75.0 + longer:
            stopped = road.crossing is not None and z < road.crossing + 3.5 and z + 9.0 > road.crossing - 2.0
            if rng.bernoulli(0.62) and not stopped:
                cars.append(_vehicle(rng, x, z, away, False))
            z += rng.uniform(12.0, 24.0)
    return tuple(cars)


def _parked(rng: Rng, road: Road, longer: float) -> tuple[Car, ...]:
    """Park cars along the kerbs, where the carriageway is wide enough."""
    cars: list[Car] = []
    for side in (-1, 1):
        if road.half < 4.7 or road.cycle_lane or not rng.bernoulli(0.6):
            continue
        z = rng.uniform(7.0, 14.0)
        while z < 62.0 + longer:
            crossed = road.crossing is not None and road.crossing - 6.0 < z < road.crossing + 4.0
            if rng.bernoulli(0.6) and not crossed and not _on_side_street(road, z + 2.0, 3.5):
                cars.append(_vehicle(rng, side * (road.half - 1.05), z, side > 0, True))
            z += rng.uniform(5.8, 8.5)
    return tuple(cars)


def _person(rng: Rng, x: float, z: float) -> Person:
    return Person(
        x=x,
        z=z,
        height=rng.uniform(1.55, 1.85),
        stride=rng.uniform(0.1, 0.32),
        coat=rng.choice(_COATS),
        trousers=rng.choice(_TROUSERS),
        skin=rng.choice(_SKINS),
        hair=rng.choice(_HAIR),
        skirt=rng.bernoulli(0.3),
    )


def _people(rng: Rng, road: Road, longer: float) -> tuple[Person, ...]:
    people = []
    for _ in range(rng.randint(2, 8) + int(longer / 6.0)):
        x = rng.choice((-1, 1)) * (road.half + road.pavement * rng.uniform(0.35, 0.75))
        people.append(_person(rng, x, rng.uniform(5.5, 30.0 + longer)))
    if road.crossing is not None:
        z = road.crossing
        people += [
            _person(rng, road.half * rng.uniform(-0.9, 0.9), z + rng.uniform(-0.8, 0.8))
            for _ in range(rng.randint(0, 3))
        ]
    return tuple(people)


def _furniture(rng: Rng, road: Road, longer: float) -> tuple[Furniture, ...]:
    objects = []
    if road.pavement > 2.8 and rng.bernoulli(0.4):
        side, z, color = rng.choice((-1, 1)), rng.uniform(7.0, 16.0), rng.choice(_ACCENTS)
        for _ in range(rng.randint(1, 3)):
            if not _on_side_street(road, z, 1.5):
                objects.append(Furniture(side * (road.half + road.pavement - 1.2), z, color, True))
            z += 3.2
    for _ in range(rng.randint(0, 4) + int(longer / 10.0)):
        z = rng.uniform(6.0, 24.0 + longer)
        if not _on_side_street(road, z, 0.8):
            color = rng.choice(_ACCENTS)
            objects.append(Furniture(rng.choice((-1, 1)) * (road.half + road.pavement - 0.5), z, color, False))
    return tuple(objects)
