"""Makes up a street: what stands where follows from a seed, and nothing else."""

from collections.abc import Sequence

from unit.streets.dice import Rng
from unit.streets.scene import (
    FAR,
    NEAR,
    Backdrop,
    Building,
    Camera,
    Car,
    Colour,
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
_WALLS: tuple[tuple[Colour, ...], ...] = (
    ((226, 149, 106), (240, 205, 150), (205, 104, 83), (243, 226, 196), (214, 172, 112)),  # southern
    ((190, 92, 74), (164, 78, 66), (206, 132, 100), (226, 206, 180), (142, 92, 82)),  # brick
    ((246, 208, 196), (198, 222, 212), (250, 230, 184), (196, 210, 232), (236, 190, 182)),  # pastel
    ((206, 88, 72), (232, 178, 84), (92, 134, 142), (238, 226, 204), (122, 152, 118)),  # harbour
    ((222, 214, 200), (200, 190, 176), (236, 230, 218), (184, 178, 172), (210, 196, 170)),  # stone
    ((108, 156, 168), (238, 220, 186), (226, 140, 112), (156, 186, 172), (244, 196, 128)),  # sea
)
_ROOFS: tuple[tuple[Colour, ...], ...] = (
    ((176, 88, 62), (158, 78, 58), (190, 104, 72)),
    ((84, 86, 98), (104, 96, 98), (70, 78, 92)),
    ((150, 96, 88), (96, 108, 124), (120, 92, 90)),
    ((78, 84, 92), (150, 76, 60), (92, 80, 76)),
    ((92, 104, 120), (108, 116, 128), (80, 90, 106)),
    ((170, 92, 70), (88, 100, 112), (146, 84, 66)),
)
_ACCENTS: tuple[Colour, ...] = (
    (196, 62, 58), (46, 116, 110), (52, 84, 140), (226, 160, 60), (104, 132, 84), (132, 66, 92), (74, 140, 160),
)  # fmt: skip
_CARS: tuple[Colour, ...] = (
    (208, 58, 50), (46, 104, 170), (238, 236, 230), (244, 186, 60), (70, 76, 86), (88, 158, 150), (226, 122, 62),
    (150, 164, 176),
)  # fmt: skip
_LEAVES: tuple[tuple[Colour, ...], ...] = (
    ((84, 146, 70), (104, 160, 76), (66, 128, 74)),
    ((96, 150, 66), (130, 168, 70), (74, 132, 70)),
    ((226, 152, 58), (208, 112, 56), (190, 164, 70)),
    ((238, 172, 186), (116, 164, 88), (228, 150, 172)),
)
_HEDGES: tuple[Colour, ...] = ((92, 138, 76), (112, 148, 80), (188, 164, 140), (96, 126, 84))
_COATS: tuple[Colour, ...] = (
    (206, 70, 62), (48, 92, 150), (238, 184, 72), (84, 134, 112), (120, 82, 130), (232, 226, 214), (66, 70, 88),
)  # fmt: skip
_TROUSERS: tuple[Colour, ...] = ((52, 58, 78), (70, 62, 60), (96, 104, 122), (120, 104, 86))
_SKINS: tuple[Colour, ...] = ((240, 200, 168), (206, 154, 116), (142, 96, 70), (228, 184, 148))
_HAIR: tuple[Colour, ...] = ((60, 42, 34), (120, 78, 48), (36, 32, 36), (206, 166, 104))


def make_scene(seed: int) -> Scene:
    """The street that belongs to `seed` >= 0; equal seeds give equal streets."""
    dice = Rng(0, seed)
    road = _road(dice)
    camera = _camera(dice, road)
    (left, left_hedges), (right, right_hedges) = _row(dice, road, -1), _row(dice, road, 1)
    cars = _traffic(dice, road) + _parked(dice, road)
    return Scene(
        seed=seed,
        camera=camera,
        road=road,
        backdrop=_backdrop(dice, camera),
        buildings=left + right,
        hedges=left_hedges + right_hedges,
        trees=_trees(dice, road, left_hedges + right_hedges),
        lamps=_lamps(dice, road),
        cars=cars,
        people=_people(dice, road),
        furniture=_furniture(dice, road),
    )


def _road(dice: Rng) -> Road:
    half = dice.between(3.3, 6.4)
    tone = dice.whole(-8, 10)
    crossing = dice.between(8.5, 24.0) if dice.chance(0.45) else None
    side_street = None
    if dice.chance(0.5):
        start = crossing + 4.0 if crossing else dice.between(13.0, 34.0)
        side_street = (start, start + dice.between(6.0, 10.0))
    warm = dice.whole(0, 14)
    patches = tuple(
        (dice.between(-half, half), dice.between(4.5, 26.0), dice.between(0.5, 1.5), dice.between(0.5, 1.6))
        for _ in range(dice.whole(2, 5))
    )
    return Road(
        half=half,
        pavement=dice.between(2.0, 4.2),
        asphalt=(128 + tone, 125 + tone, 126 + tone),
        paving=(196 + warm, 188 + warm // 2, 174),
        verge=dice.pick(((126, 168, 84), (150, 170, 92), (186, 174, 150))),
        yellow=dice.chance(0.2),
        dashed=dice.chance(0.75),
        cycle_lane=dice.pick(((186, 92, 78), (92, 148, 108))) if half > 4.6 and dice.chance(0.35) else None,
        crossing=crossing,
        side_street=side_street,
        patches=patches,
    )


def _camera(dice: Rng, road: Road) -> Camera:
    on_pavement = dice.chance(0.22)
    lane = road.half * dice.between(0.1, 0.55)
    if on_pavement:
        lane = (road.half + road.pavement * 0.5) * dice.pick((-1.0, 1.0))
    vanish_x = 0.5 + dice.between(-0.12, 0.12)
    if on_pavement:  # look towards the road
        vanish_x = 0.5 + (0.14 if lane > 0 else -0.14) * dice.between(0.6, 1.2)
    return Camera(
        x=lane,
        height=dice.between(1.7, 3.4),
        focal=dice.between(0.72, 0.98),
        vanish_x=vanish_x,
        vanish_y=dice.between(0.47, 0.59),
        bend=dice.between(-0.0012, 0.0012) if dice.chance(0.5) else 0.0,
        rise=dice.between(0.0002, 0.001) if dice.chance(0.4) else 0.0,
    )


def _backdrop(dice: Rng, camera: Camera) -> Backdrop:
    hills: list[tuple[float, float]] = []
    if dice.chance(0.6):
        height, x = dice.between(0.04, 0.12), -0.1
        while x < 1.2:
            hills.append((x, height * dice.between(0.35, 1.0)))
            x += dice.between(0.08, 0.2)
    skyline: list[tuple[float, float]] = []
    if dice.chance(0.55):
        x = camera.vanish_x - 0.3
        while x < camera.vanish_x + 0.3:
            width, height = dice.between(0.02, 0.06), dice.between(0.02, 0.11)
            skyline += [(x, height), (x + width, height)]
            x += width
    tower = None
    if dice.chance(0.3):
        tower = (camera.vanish_x + dice.between(-0.05, 0.05), dice.between(0.02, 0.035), dice.between(0.12, 0.2))
    return Backdrop(tuple(hills), tuple(skyline), tower, dice.pick(((104, 142, 120), (112, 138, 152), (134, 148, 110))))


def _row(dice: Rng, road: Road, side: int) -> tuple[tuple[Building, ...], tuple[Hedge, ...]]:
    """One side of the street, near to far: houses, and hedges before the gaps."""
    quarter, floors = dice.whole(0, len(_WALLS) - 1), dice.whole(1, 3)
    wall, green = road.half + road.pavement, dice.pick(_HEDGES)
    awning = min(1.3, road.pavement * 0.33)  # seen from below, an awning looks like a mistake
    z, gap, houses, hedges, last = dice.between(-6.0, 0.5), False, [], [], -1
    if dice.chance(0.17):  # a park instead of houses
        far = dice.between(38.0, 75.0)
        for z0, z1 in _free(road, NEAR, far):
            hedges.append(Hedge(side, wall, z0, z1, dice.between(0.7, 1.1), green))
        z, gap = far, True
    while z < FAR - 8.0:
        width = dice.between(6.5, 13.0)
        if road.side_street and z < road.side_street[1] and z + width > road.side_street[0]:
            width = road.side_street[0] - z
            if width < 5.0:
                z, gap = road.side_street[1], True
                continue
        elif z > 6.0 and dice.chance(0.13):
            gap, start, z = True, z, z + dice.between(5.0, 10.0)
            hedges += [Hedge(side, wall, z0, z1, 1.1, green) for z0, z1 in _free(road, start, z)]
            continue
        tint = dice.whole(0, 4)
        tint = (tint + 1) % 5 if tint == last else tint
        last = tint
        setback = dice.pick((0.0, 0.0, 0.0, 0.6, 1.6)) if z > 2.0 else 0.0
        if z + width > NEAR + 0.5:
            houses.append(_house(dice, side, wall + setback, z, z + width, quarter, tint, floors, gap, awning))
        z, gap = z + width, False
    return tuple(houses), tuple(hedges)


def _free(road: Road, z0: float, z1: float) -> list[tuple[float, float]]:
    """The stretches of z0..z1 that no side street takes."""
    start, end = road.side_street or (z1, z1)
    return [(a, b) for a, b in ((z0, min(z1, start)), (max(z0, end), z1)) if b - a > 1.0]


def _house(
    dice: Rng,
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
    own = max(1, floors + dice.whole(-1, 2))
    bays = max(2, round((z1 - z0) / dice.between(2.2, 3.2)))
    panes = dice.pick((Panes.PLAIN, Panes.PLAIN, Panes.SHUTTERS, Panes.SHUTTERS, Panes.WIDE))
    roof = dice.pick((Roof.FLAT, Roof.FLAT, Roof.MANSARD, Roof.GABLE, Roof.STEPPED, Roof.HIPPED, Roof.HIPPED))
    shop = dice.chance(0.55)
    colour = _WALLS[quarter][tint]
    dark = sum(colour) < 480
    return Building(
        side=side,
        wall=wall,
        z0=max(z0, NEAR),
        z1=z1,
        depth=dice.between(7.0, 11.0),
        base=dice.between(3.3, 4.2),
        storey=dice.between(2.7, 3.4),
        floors=own,
        bays=bays,
        colour=colour,
        trim=(246, 238, 222) if dark or dice.chance(0.6) else (150, 112, 92),
        plinth=dice.pick(((150, 136, 126), (120, 112, 112), (176, 160, 142))),
        roof=roof,
        roof_colour=dice.pick(_ROOFS[quarter]),
        panes=panes,
        accent=dice.pick(_ACCENTS),
        shop=shop,
        awning=awning if shop and dice.chance(0.65) else 0.0,
        balconies=panes is not Panes.WIDE and dice.chance(0.22),
        chimney=dice.between(0.15, 0.85) if dice.chance(0.5) else -1.0,
        curtains=tuple(dice.chance(0.3) for _ in range(own * bays)),
        exposed=gap,
    )


def _trees(dice: Rng, road: Road, hedges: Sequence[Hedge]) -> tuple[Tree, ...]:
    leaves, crown = dice.pick(_LEAVES), dice.pick((Crown.ROUND, Crown.ROUND, Crown.TALL, Crown.CONE))
    if leaves in _LEAVES[2:]:  # only broad trees turn red or blossom
        crown = Crown.ROUND
    trees = []
    for side in (-1, 1):
        if not dice.chance(0.6):
            continue
        step, x = dice.between(7.0, 14.0), side * (road.half + dice.between(0.7, 1.1))
        z = dice.between(8.0, 15.0)
        while z < 60.0:
            if dice.chance(0.8) and not _on_side_street(road, z, 1.0):
                trees.append(_tree(dice, x, z, dice.between(4.2, 6.4), crown, dice.pick(leaves)))
            z += step
    for hedge in hedges:  # gardens and parks
        for _ in range(1 + int((hedge.z1 - hedge.z0) / 6.0)):
            x, z = hedge.side * (hedge.wall + dice.between(2.5, 9.0)), dice.between(hedge.z0 + 1.5, hedge.z1 - 0.8)
            if hedge.z1 - hedge.z0 > 4.0 and z > 7.0:
                trees.append(
                    _tree(dice, x, z, dice.between(4.5, 7.5), dice.pick((Crown.ROUND, crown)), dice.pick(leaves))
                )
    return tuple(trees)


def _tree(dice: Rng, x: float, z: float, height: float, crown: Crown, colour: Colour) -> Tree:
    blobs = tuple(
        (dice.between(-0.17, 0.17), dice.between(0.56, 0.82), dice.between(0.13, 0.19)) for _ in range(dice.whole(4, 6))
    )
    return Tree(x, z, height, crown, colour, blobs)


def _on_side_street(road: Road, z: float, margin: float) -> bool:
    return road.side_street is not None and road.side_street[0] - margin < z < road.side_street[1] + margin


def _lamps(dice: Rng, road: Road) -> tuple[Lamp, ...]:
    arm = dice.between(1.0, 1.9) if dice.chance(0.6) else 0.0
    height = dice.between(5.0, 6.4) if arm else dice.between(3.8, 4.6)
    step, both = dice.between(11.0, 18.0), dice.chance(0.6)
    lamps, z, side = [], dice.between(6.5, 13.0), dice.pick((-1, 1))
    while z < 80.0:
        if not _on_side_street(road, z, 0.3):
            lamps.append(Lamp(side * (road.half + 0.45), z, height, arm))
        z, side = z + step, -side if both else side
    return tuple(lamps)


def _vehicle(dice: Rng, x: float, z: float, away: bool, parked: bool) -> Car:
    kind, colour = dice.unit(), dice.pick(_CARS)
    if kind < 0.09 and not parked:
        return Car(x, z, 2.4, 8.5, 3.0, colour, away, parked, True)
    if kind < 0.24:
        return Car(x, z, 1.95, 4.8, 2.2, colour, away, parked, True)
    return Car(x, z, 1.8, dice.between(3.7, 4.5), dice.between(1.4, 1.6), colour, away, parked, False)


def _traffic(dice: Rng, road: Road) -> tuple[Car, ...]:
    cars = []
    lane = min(road.half * 0.45, road.half - 3.4) if road.half > 4.6 else road.half * 0.45  # clear of parked cars
    for x, away in ((lane, True), (-lane, False)):
        z = dice.between(7.5, 22.0)
        while z < 75.0:
            stopped = road.crossing is not None and z < road.crossing + 3.5 and z + 9.0 > road.crossing - 2.0
            if dice.chance(0.62) and not stopped:
                cars.append(_vehicle(dice, x, z, away, False))
            z += dice.between(12.0, 24.0)
    return tuple(cars)


def _parked(dice: Rng, road: Road) -> tuple[Car, ...]:
    """Along the kerbs, where the carriageway is wide enough."""
    cars: list[Car] = []
    for side in (-1, 1):
        if road.half < 4.7 or road.cycle_lane or not dice.chance(0.6):
            continue
        z = dice.between(7.0, 14.0)
        while z < 62.0:
            crossed = road.crossing is not None and road.crossing - 6.0 < z < road.crossing + 4.0
            if dice.chance(0.6) and not crossed and not _on_side_street(road, z + 2.0, 3.5):
                cars.append(_vehicle(dice, side * (road.half - 1.05), z, side > 0, True))
            z += dice.between(5.8, 8.5)
    return tuple(cars)


def _person(dice: Rng, x: float, z: float) -> Person:
    return Person(
        x=x,
        z=z,
        height=dice.between(1.55, 1.85),
        stride=dice.between(0.1, 0.32),
        coat=dice.pick(_COATS),
        trousers=dice.pick(_TROUSERS),
        skin=dice.pick(_SKINS),
        hair=dice.pick(_HAIR),
        skirt=dice.chance(0.3),
    )


def _people(dice: Rng, road: Road) -> tuple[Person, ...]:
    people = []
    for _ in range(dice.whole(2, 8)):
        x = dice.pick((-1, 1)) * (road.half + road.pavement * dice.between(0.35, 0.75))
        people.append(_person(dice, x, dice.between(5.5, 30.0)))
    if road.crossing is not None:
        z = road.crossing
        people += [
            _person(dice, road.half * dice.between(-0.9, 0.9), z + dice.between(-0.8, 0.8))
            for _ in range(dice.whole(0, 3))
        ]
    return tuple(people)


def _furniture(dice: Rng, road: Road) -> tuple[Furniture, ...]:
    things = []
    if road.pavement > 2.8 and dice.chance(0.4):
        side, z, colour = dice.pick((-1, 1)), dice.between(7.0, 16.0), dice.pick(_ACCENTS)
        for _ in range(dice.whole(1, 3)):
            if not _on_side_street(road, z, 1.5):
                things.append(Furniture(side * (road.half + road.pavement - 1.2), z, colour, True))
            z += 3.2
    for _ in range(dice.whole(0, 4)):
        z = dice.between(6.0, 24.0)
        if not _on_side_street(road, z, 0.8):
            colour = dice.pick(_ACCENTS)
            things.append(Furniture(dice.pick((-1, 1)) * (road.half + road.pavement - 0.5), z, colour, False))
    return tuple(things)
