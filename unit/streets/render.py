"""Render a street in one weather: sky, ground with shadows or reflections, then upright objects from far to near."""

import math
from collections.abc import Callable
from functools import partial

from PIL import Image, ImageDraw

from unit.streets.buildings import draw_building, draw_hedge
from unit.streets.layout import make_scene
from unit.streets.objects import draw_car, draw_furniture, draw_lamp, draw_person, draw_tree
from unit.streets.painter import Painter
from unit.streets.rng import Rng
from unit.streets.scene import FAR, NEAR, Building, Color, Scene
from unit.streets.weather import (
    MIRRORED_SKY,
    Weather,
    add_glows,
    add_rain,
    blend,
    draw_sky,
    ground_haze,
    moon_glows,
    reflect,
    sun_glows,
    tint,
)

_DEPTHS = (0.6, 2.0, 4.0, 7.0, 11.0, 17.0, 26.0, 40.0, 60.0, FAR)
_RING = tuple(  # round, but not like a coin
    ((1.0 + 0.12 * math.sin(3 * t + 1.0)) * math.cos(t), (1.0 + 0.1 * math.sin(2 * t)) * math.sin(t))
    for t in (i * math.tau / 20 for i in range(20))
)
_ACROSS, _TOWARDS = 0.52, 0.3  # metres a shadow runs right and towards the camera, to the metre of height


def render(scene: int, weather: Weather, size: int, variation: int = 0) -> Image.Image:
    """Render a street as an RGB image; equal arguments give equal bytes, and all weathers align pixel by pixel.

    Args:
        scene: the street's number, at least 0.
        size: side of the square image in pixels, at least 8.
        variation: at least 0; changes streaks of rain, clouds and lit windows, and nothing else.

    Raises:
        ValueError: an argument is out of range.
    """
    if scene < 0 or variation < 0 or size < 8:
        raise ValueError(f"scene {scene}, size {size}, variation {variation}: none may be negative, size at least 8")
    windows, clouds, rain = (Rng(k, scene, variation) for k in (1, 2, 3))
    return render_scene(make_scene(scene), Weather(weather), size, windows, clouds, rain)


def render_scene(
    street: Scene, weather: Weather, size: int, windows: Rng | None, clouds: Rng, rain: Rng
) -> Image.Image:
    """Render a street as an RGB image of `size` x `size` pixels.

    Args:
        windows: which of the distant windows are lit; None: those of people at home, like the near ones.
        clouds: their places.
        rain: its streaks.
    """
    factor = 4 if size <= 48 else 3 if size <= 160 else 2
    edge = size * factor
    painter = Painter(street.camera, weather, edge)
    _add_objects(painter, street, windows)
    image = draw_sky(weather, street.camera, edge, clouds)
    _backdrop(image, street, weather)
    _ground(image, painter, street, factor)
    painter.paint(image)
    image = image.reduce(factor)
    if weather is Weather.SUNNY:
        return add_glows(image, sun_glows(street.camera), False)
    if weather is Weather.NIGHT:
        return add_glows(image, [*moon_glows(street.camera), *painter.visible_glows()], False)
    return add_rain(add_glows(image, painter.visible_glows(), False), weather, street.camera, rain, factor)


def _add_objects(painter: Painter, street: Scene, rng: Rng | None) -> None:
    """Add everything that stands on the ground, far objects first."""
    objects: list[tuple[float, Callable[[], None]]] = [
        *((house.z1, partial(draw_building, painter, house, rng)) for house in street.buildings),
        *((hedge.z1, partial(draw_hedge, painter, hedge)) for hedge in street.hedges),
        *((tree.z, partial(draw_tree, painter, tree)) for tree in street.trees),
        *((lamp.z, partial(draw_lamp, painter, lamp)) for lamp in street.lamps),
        *((car.z, partial(draw_car, painter, car)) for car in street.cars),
        *((person.z, partial(draw_person, painter, person)) for person in street.people),
        *((item.z, partial(draw_furniture, painter, item)) for item in street.furniture),
    ]
    for _, draw_object in sorted(objects, key=lambda item: -item[0]):
        draw_object()


def _backdrop(image: Image.Image, street: Scene, weather: Weather) -> None:
    """Draw the silhouettes behind the end of the street: hills, a skyline, a tower."""
    edge, camera, back = image.width, street.camera, street.backdrop
    draw, ground = ImageDraw.Draw(image), (street.camera.vanish_y + 0.02) * edge
    level = camera.vanish_y - camera.focal * camera.rise * FAR
    shift = camera.focal * camera.bend * FAR
    if back.hills:
        points = [((x + shift) * edge, (level - h) * edge) for x, h in back.hills]
        draw.polygon([(-edge, ground), *points, (2 * edge, ground)], fill=tint(weather, back.color, 110.0, 0.85))
    if back.skyline:
        points = [((x + shift) * edge, (level - h) * edge) for x, h in back.skyline]
        outline = [(points[0][0], ground), *points, (points[-1][0], ground)]
        draw.polygon(outline, fill=tint(weather, (132, 138, 158), 100.0, 0.85))
    if back.tower:
        x, w, h = back.tower
        color = tint(weather, (176, 150, 132), 90.0, 0.85)
        left, right, mid, eaves = (
            (x - w + shift) * edge,
            (x + w + shift) * edge,
            (x + shift) * edge,
            (level - h * 0.65) * edge,
        )
        draw.rectangle([left, eaves, right, ground], fill=color)
        spire = tint(weather, (112, 108, 120), 90.0, 0.85)
        draw.polygon([left - w * 0.2 * edge, eaves, mid, (level - h) * edge, right + w * 0.2 * edge, eaves], fill=spire)


def _band(painter: Painter, left: float, right: float, near: float = 0.0, far: float = FAR) -> list[float]:
    """Return a strip of the ground between two lines along the street."""
    depths = [near, *(z for z in _DEPTHS if near < z < far), far] if near or far < FAR else list(_DEPTHS)
    return painter.ground([*((left, z) for z in depths), *((right, z) for z in reversed(depths))])


def _ground(image: Image.Image, painter: Painter, street: Scene, reduced: int) -> None:
    """Draw road, pavements and markings; then shadows, haze and reflections."""
    edge, weather, road = image.width, painter.weather, street.road
    wet = 0.86 if weather.is_wet else 1.0
    layer = Image.new("RGB", (edge, edge), tint(weather, road.verge, 0.0))
    mask = Image.new("L", (edge, edge), 0)
    everywhere = _band(painter, -400.0, 400.0)
    ImageDraw.Draw(mask).polygon(everywhere, fill=255)
    draw = ImageDraw.Draw(layer)

    def lay(points: list[float], color: Color, light: float = 1.0) -> None:
        draw.polygon(points, fill=tint(weather, color, 0.0, light * wet))

    outer = road.half + road.pavement
    lay(_band(painter, -outer - 2.0, outer + 2.0), road.paving, 0.97)
    if road.side_street:
        lay(_band(painter, -60.0, 60.0, *road.side_street), road.asphalt)
    for side in (-1, 1):
        lay(_band(painter, side * road.half, side * (road.half + 0.28)), blend(road.paving, (255, 255, 255), 0.3))
    lay(_band(painter, -road.half, road.half), road.asphalt)
    if road.side_street:
        lay(_band(painter, -outer - 2.0, outer + 2.0, *road.side_street), road.asphalt)
    for x, z, rx, rz in road.patches:
        lay(_oval(painter, x, z, rx, rz), road.asphalt, 0.88)
    _markings(painter, street, lay)
    if weather is Weather.SUNNY:
        dark = Image.new("L", (edge, edge), 0)
        _shadows(ImageDraw.Draw(dark), painter, street)
        layer.paste((38, 48, 96), mask=dark)
    air, color = ground_haze(weather, street.camera, edge)
    layer.paste(color, mask=air)
    if weather.is_wet:
        _reflect(layer, painter, street, reduced)
    image.paste(layer, mask=mask)


def _oval(painter: Painter, x: float, z: float, rx: float, rz: float) -> list[float]:
    return painter.ground((x + rx * a, z + rz * b) for a, b in _RING)


def _markings(painter: Painter, street: Scene, lay: Callable[..., None]) -> None:
    """Draw lines along the road, a cycle lane, a zebra crossing."""
    road = street.road
    paint = (238, 206, 110) if road.yellow else (240, 238, 230)
    if road.cycle_lane:
        for side in (-1, 1):
            lay(_band(painter, side * (road.half - 1.4), side * (road.half - 0.05)), road.cycle_lane, 0.92)
            lay(_band(painter, side * (road.half - 1.5), side * (road.half - 1.38)), paint)
    elif not road.yellow:
        for side in (-1, 1):
            lay(_band(painter, side * (road.half - 0.32), side * (road.half - 0.2)), paint, 0.9)
    if road.dashed:
        z = road.first_dash
        while z < 60.0:
            lay(painter.ground(((-0.09, z), (-0.09, z + 2.4), (0.09, z + 2.4), (0.09, z))), paint)
            z += 5.0
    else:
        for x in (-0.2, 0.1):
            lay(_band(painter, x, x + 0.11), paint)
    if road.crossing is not None:
        z0, z1 = road.crossing - 1.5, road.crossing + 1.5
        lay(_band(painter, -road.half, road.half, z0, z1), road.asphalt)
        stripes = round(road.half / 0.55)
        for i in range(stripes):
            x = -road.half + 2 * road.half * (i + 0.25) / stripes
            lay(painter.ground(((x, z0), (x, z1), (x + 0.55, z1), (x + 0.55, z0))), (240, 238, 230))


def _cast_shadow(painter: Painter, x0: float, x1: float, z0: float, z1: float, height: float) -> list[float]:
    """Return the shadow of a box at x0..x1, z0..z1."""
    dx, dz = _ACROSS * height, _TOWARDS * height
    near, low = max(z0 - dz, NEAR), max(z1 - dz, NEAR)
    return painter.ground(((x0, z1), (x1, z1), (x1 + dx, low), (x1 + dx, near), (x0 + dx, near), (x0, max(z0, NEAR))))


def _shadows(draw: ImageDraw.ImageDraw, painter: Painter, street: Scene) -> None:
    """Draw shadows, which are no darker where they overlap."""
    dark = 112
    for house in street.buildings:
        draw.polygon(_cast_shadow(painter, *_footprint(house), house.z0, house.z1, house.height + 0.6), fill=dark)
    for hedge in street.hedges:
        ends = hedge.side * hedge.wall, hedge.side * (hedge.wall + 0.9)
        draw.polygon(_cast_shadow(painter, min(ends), max(ends), hedge.z0, hedge.z1, hedge.height), fill=dark)
    for car in street.cars:
        half = car.width / 2
        draw.polygon(
            _cast_shadow(painter, car.x - half, car.x + half, car.z, car.z + car.length, car.height), fill=dark
        )
    for tree in street.trees:
        up = tree.height * 0.7
        r = tree.height * 0.22
        draw.polygon(
            _oval(painter, tree.x + up * _ACROSS, max(tree.z - up * _TOWARDS, NEAR + r), r * 1.3, r), fill=dark
        )
        draw.polygon(_cast_shadow(painter, tree.x - 0.12, tree.x + 0.12, tree.z, tree.z + 0.1, up), fill=dark)
    for lamp in street.lamps:
        draw.polygon(_cast_shadow(painter, lamp.x - 0.06, lamp.x + 0.06, lamp.z, lamp.z + 0.1, lamp.height), fill=dark)
    for person in street.people:
        draw.polygon(
            _cast_shadow(painter, person.x - 0.2, person.x + 0.2, person.z, person.z + 0.15, person.height), fill=dark
        )
    for item in street.furniture:
        r, up = (1.1, 2.2) if item.parasol else (0.4, 0.5)
        draw.polygon(_oval(painter, item.x + up * _ACROSS, item.z - up * _TOWARDS, r, r * 0.8), fill=dark)


def _footprint(house: Building) -> tuple[float, float]:
    ends = house.side * house.wall, house.side * (house.wall + house.depth)
    return min(ends), max(ends)


def _reflect(layer: Image.Image, painter: Painter, street: Scene, reduced: int) -> None:
    """Mirror the street in the wet ground, most of all in worn patches of the road."""
    edge, road = layer.width, street.road
    mirrored = Image.new("RGB", (edge // reduced, edge // reduced), MIRRORED_SKY[painter.weather])
    painter.paint_mirrored(mirrored, reduced)
    wet = add_glows(reflect(mirrored, street.camera), painter.glows, True)
    wet = wet.resize((edge, edge), Image.Resampling.BILINEAR)
    mask = Image.new("L", (edge, edge), 40)
    draw = ImageDraw.Draw(mask)
    outer = road.half + road.pavement
    draw.polygon(_band(painter, -outer - 2.0, outer + 2.0), fill=105)
    if road.side_street:
        draw.polygon(_band(painter, -60.0, 60.0, *road.side_street), fill=140)
    draw.polygon(_band(painter, -road.half, road.half), fill=140)
    for x, z, rx, rz in road.patches:
        draw.polygon(_oval(painter, x, z, rx, rz), fill=205)
    layer.paste(wet, mask=mask)
