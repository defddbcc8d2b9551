"""Draw the objects on the street: trees, lamps, cars, people, parasols and planters."""

import math

from unit.streets.painter import Column, Painter
from unit.streets.scene import Car, Color, Crown, Furniture, Lamp, Person, Tree
from unit.streets.weather import SHADE, blend, light_color

_WHITE: Color = (255, 246, 222)
_RED: Color = (255, 58, 44)
_LAMP: Color = (255, 214, 140)
_IRON: Color = (62, 68, 78)


def draw_tree(painter: Painter, tree: Tree) -> None:
    """Draw trunk and foliage, brighter at the upper left."""
    at, h = painter.column(tree.x, tree.z), tree.height
    dark, mid = painter.tint(tree.color, tree.z, SHADE), painter.tint(tree.color, tree.z, 0.9)
    pale = painter.tint(blend(tree.color, (255, 240, 160), 0.28), tree.z, 1.0)
    trunk = painter.tint((112, 82, 62), tree.z, 0.85)
    painter.flat(at, ((-0.035 * h, 0), (-0.02 * h, 0.55 * h), (0.02 * h, 0.55 * h), (0.035 * h, 0)), trunk)
    wide = 0.28 if tree.crown is Crown.ROUND else 0.12
    painter.cover(at, -wide * h, 0.4 * h, wide * h, 0.9 * h)
    if tree.crown is Crown.CONE:
        for low, high, half in ((0.14, 0.62, 0.2), (0.34, 0.82, 0.16), (0.56, 1.0, 0.11)):
            painter.flat(at, ((-half * h, low * h), (0, high * h), (half * h, low * h)), dark)
            painter.flat(at, ((-half * h, low * h), (0, high * h), (half * 0.2 * h, low * h)), mid)
    elif tree.crown is Crown.TALL:
        painter.disc(at, 0, 0.58 * h, 0.13 * h, 0.42 * h, dark)
        painter.disc(at, -0.02 * h, 0.6 * h, 0.1 * h, 0.38 * h, mid)
        painter.disc(at, -0.04 * h, 0.66 * h, 0.05 * h, 0.26 * h, pale)
    else:
        for grow, shift, color in ((1.0, 0.0, dark), (0.78, 0.03, mid), (0.4, 0.075, pale)):
            painter.disc(at, -shift * h, (0.69 + shift) * h, 0.2 * grow * h, 0.19 * grow * h, color)
            for x, y, r in tree.blobs:
                painter.disc(at, (x - shift) * h, (y + shift) * h, r * grow * h, r * grow * h, color)


def draw_lamp(painter: Painter, lamp: Lamp) -> None:
    """Draw a pole with a head over the road or a lantern on top; lit in the rain and at night."""
    at, h = painter.column(lamp.x, lamp.z), lamp.height
    iron = painter.tint(_IRON, lamp.z, 0.9)
    on = light_color(painter.weather, (255, 238, 190), lamp.z)
    head = on if painter.weather.is_lit else painter.tint((236, 238, 232), lamp.z)
    painter.box(at, -0.07, 0, 0.07, h, iron)
    painter.box(at, -0.14, 0, 0.14, 0.6, iron)
    if lamp.arm:
        reach = -lamp.arm if lamp.x > 0 else lamp.arm
        painter.flat(at, ((0, h - 0.15), (0, h), (reach, h + 0.3), (reach, h + 0.15)), iron)
        painter.box(at, min(reach * 0.75, reach * 1.25), h + 0.08, max(reach * 0.75, reach * 1.25), h + 0.34, iron)
        painter.disc(at, reach, h + 0.06, 0.3, 0.13, head)
        painter.light(at, reach, h, 0.55, _LAMP, 0.85)
        painter.light(at, reach, h, 1.7, _LAMP, 0.38)
    else:
        painter.flat(at, ((-0.16, h), (-0.3, h + 0.62), (0.3, h + 0.62), (0.16, h)), head)
        painter.flat(at, ((-0.36, h + 0.6), (0, h + 0.92), (0.36, h + 0.6)), iron)
        painter.light(at, 0, h + 0.3, 0.6, _LAMP, 0.85)
        painter.light(at, 0, h + 0.3, 1.7, _LAMP, 0.38)


def draw_car(painter: Painter, car: Car) -> None:
    """Draw a car, van or bus: the side towards the middle of the image, the roof, then the end facing the camera."""
    half, z0, z1 = car.width / 2, car.z, car.z + car.length
    middle = painter.camera.x - painter.camera.bend * z0 * z0
    side = car.x - half if car.x > middle else car.x + half
    lit = 0.95 if side < car.x else SHADE
    painter.cover(painter.column(car.x, z0 + 0.05), -half, 0.2, half, car.height)
    painter.cover(painter.column(car.x, z1), -half, 0.2, half, car.height)
    if abs(car.x - middle) > half:
        _flank(painter, car, side, lit)
    belt, waist = (car.height * 0.45, 0.42) if car.boxy else (car.height * 0.58, 0.3)
    near = painter.column(car.x, z0)
    roof = 0.0 if car.boxy else 0.16
    slope = 0.02 if car.boxy else 0.2 if car.away else 0.3
    rear, front = painter.column(car.x, z0 + car.length * slope), painter.column(car.x, z1 - car.length * 0.25)
    body, glass = painter.tint(car.color, z0, 0.86), painter.tint((74, 92, 112), z0, 0.9)
    top = painter.tint(blend(car.color, (255, 255, 255), 0.2), z0, 1.0)
    _quad(painter, near, half, belt, rear, half * (1 - roof), belt + 0.02, top)
    _quad(painter, rear, half * (1 - roof), car.height, front, half * (1 - roof), car.height, top)
    screen = ((near if car.boxy else _between(near, rear, 0.35)), half * 0.94)
    _quad(painter, screen[0], screen[1], belt, rear, half * (1 - roof), car.height, body)
    _quad(painter, screen[0], screen[1] * 0.88, belt + 0.06, rear, half * (1 - roof) * 0.86, car.height - 0.1, glass)
    painter.box(near, -half, waist, half, belt, body)
    painter.box(near, -half * 0.94, 0.22, half * 0.94, waist + 0.1, painter.tint((58, 60, 68), z0, 0.9))
    for x in (-half * 0.72, half * 0.72):
        painter.box(near, x - 0.13, 0.0, x + 0.13, 0.34, painter.tint((36, 38, 44), z0, 0.9))
    painter.box(near, -0.26, waist + 0.04, 0.26, waist + 0.18, painter.tint((232, 228, 214), z0, 0.9))
    _lights(painter, car, near, half, waist, belt)


def _lights(painter: Painter, car: Car, near: Column, half: float, waist: float, belt: float) -> None:
    y = (waist + belt) * 0.5 + 0.06
    for x in (-half * 0.76, half * 0.76):
        if not painter.weather.is_lit or car.parked:
            color = painter.tint((176, 48, 44) if car.away else (226, 228, 222), car.z, 0.95)
        else:
            color = light_color(painter.weather, (255, 74, 56) if car.away else (255, 250, 230), car.z)
            glow, fraction = (_RED, 0.6) if car.away else (_WHITE, 0.75)
            painter.light(near, x, y, 0.45, glow, fraction)
            painter.light(near, x, y, 1.1, glow, fraction * 0.35)
        painter.disc(near, x, y, 0.19, 0.13, color)


def _between(a: Column, b: Column, fraction: float) -> Column:
    return Column(*(p + (q - p) * fraction for p, q in zip(a, b, strict=True)))


def _quad(
    painter: Painter,
    a: Column,
    half_a: float,
    height_a: float,
    b: Column,
    half_b: float,
    height_b: float,
    color: Color,
) -> None:
    """Draw a surface between a level line at `a` and one at `b`, both centred."""
    corners = []
    for column, half, height in (
        (a, -half_a, height_a),
        (a, half_a, height_a),
        (b, half_b, height_b),
        (b, -half_b, height_b),
    ):
        corners.append((column._replace(x=column.x + column.scale * half), height))
    painter.fill(corners, color)


def _flank(painter: Painter, car: Car, x: float, light: float) -> None:
    """The long side of a car."""
    z0, length, height = car.z, car.length, car.height

    def at(fraction: float) -> Column:
        return painter.column(x, z0 + length * fraction)

    body, glass = painter.tint(car.color, z0, light), painter.tint((84, 106, 128), z0, light)
    near, far = at(0.0), at(1.0)
    if car.boxy:
        painter.panel(near, far, 0.3, height, body)
        if length > 6:
            painter.panel(at(0.05), at(0.95), height * 0.45, height * 0.82, glass)
        else:
            painter.panel(
                at(0.66 if car.away else 0.1), at(0.92 if car.away else 0.34), height * 0.5, height * 0.85, glass
            )
    else:
        inner = x + (car.x - x) * 0.16
        painter.panel(near, far, 0.28, height * 0.58, body)
        a, b = painter.column(inner, z0 + length * 0.22), painter.column(inner, z0 + length * 0.72)
        painter.fill(((at(0.08), height * 0.57), (a, height), (b, height), (at(0.88), height * 0.57)), body)
        a, b = painter.column(inner, z0 + length * 0.27), painter.column(inner, z0 + length * 0.68)
        painter.fill(((at(0.17), height * 0.6), (a, height * 0.93), (b, height * 0.93), (at(0.8), height * 0.6)), glass)
    tyre = painter.tint((36, 38, 44), z0, 0.9)
    hub = painter.tint((170, 172, 176), z0, light)
    for fraction in (0.2, 0.8):
        for radius, color in ((0.36, tyre), (0.17, hub)):
            ring = []
            for i in range(10):
                turn = i * math.pi / 5
                ring.append(
                    (
                        painter.column(x, z0 + length * fraction + radius * math.cos(turn)),
                        0.36 + radius * math.sin(turn),
                    )
                )
            painter.fill(ring, color)


def draw_person(painter: Painter, person: Person) -> None:
    """A walker: legs, coat, head."""
    at, k = painter.column(person.x, person.z), person.height / 1.75
    coat, dark = painter.tint(person.coat, person.z, 0.95), painter.tint(person.coat, person.z, SHADE)
    painter.cover(at, -0.22 * k, 0.0, 0.22 * k, 1.7 * k)
    legs = painter.tint(person.trousers, person.z, 0.95)
    s = person.stride
    for end in (-s, s):
        painter.flat(at, ((-0.1 * k, 0.85 * k), (end - 0.09, 0.0), (end + 0.11, 0.0), (0.12 * k, 0.85 * k)), legs)
    hem = 0.34 if person.skirt else 0.23
    low = 0.55 if person.skirt else 0.75
    painter.flat(at, ((-hem * k, low * k), (-0.2 * k, 1.46 * k), (0.2 * k, 1.46 * k), (hem * k, low * k)), coat)
    painter.flat(at, ((0.05 * k, low * k), (0.1 * k, 1.46 * k), (0.2 * k, 1.46 * k), (hem * k, low * k)), dark)
    painter.flat(at, ((-0.2 * k, 1.44 * k), (-0.34 * k, 0.9 * k), (-0.24 * k, 0.88 * k), (-0.12 * k, 1.3 * k)), dark)
    painter.disc(at, 0.0, 1.62 * k, 0.14 * k, 0.16 * k, painter.tint(person.hair, person.z, 0.95))
    painter.disc(at, 0.02 * k, 1.59 * k, 0.11 * k, 0.12 * k, painter.tint(person.skin, person.z, 0.95))


def draw_furniture(painter: Painter, item: Furniture) -> None:
    """Draw a parasol over a table, or a planter."""
    at, z = painter.column(item.x, item.z), item.z
    if item.parasol:
        iron = painter.tint(_IRON, z)
        painter.box(at, -0.05, 0, 0.05, 2.3, iron)
        painter.box(at, -0.5, 0.68, 0.5, 0.76, painter.tint((222, 206, 180), z))
        painter.box(at, -0.3, 0.0, 0.3, 0.06, iron)
        painter.flat(at, ((-1.2, 1.95), (0, 2.7), (1.2, 1.95)), painter.tint(item.color, z, 0.85))
        painter.flat(at, ((-1.2, 1.95), (0, 2.7), (-0.45, 1.95)), painter.tint(item.color, z, 1.0))
        painter.flat(at, ((-0.45, 1.95), (0, 2.7), (0.35, 1.95)), painter.tint((246, 240, 226), z, 0.95))
        return
    painter.disc(at, 0, 0.78, 0.42, 0.34, painter.tint((92, 142, 76), z, 0.85))
    painter.disc(at, -0.14, 0.86, 0.2, 0.18, painter.tint((124, 168, 88), z, 1.0))
    painter.flat(at, ((-0.42, 0.6), (-0.34, 0), (0.34, 0), (0.42, 0.6)), painter.tint(item.color, z, 0.8))
