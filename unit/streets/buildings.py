"""Draw the houses along the street."""

from unit.streets.painter import Column, Painter
from unit.streets.rng import Rng
from unit.streets.scene import NEAR, Building, Color, Hedge, Panes, Roof
from unit.streets.weather import SHADE, Weather, blend, light_color

_WARM: tuple[Color, ...] = ((255, 214, 128), (255, 200, 104), (255, 226, 160))
_DETAIL = 30.0  # metres up to which windows have frames
_BANDS = 46.0  # and from which a floor's are one band


def draw_building(painter: Painter, house: Building, rng: Rng | None) -> None:
    """Draw a house: end wall, front, roof, windows; `rng` decides which windows are lit in the rain."""
    x = house.side * house.wall
    near, far = painter.column(x, house.z0), painter.column(x, house.z1)
    light = SHADE if house.side < 0 else 1.0
    middle = (house.z0 + house.z1) * 0.5
    _end_wall(painter, house, near)
    _roof(painter, house, near, far, light)
    painter.panel(near, far, 0.0, house.height, painter.tint(house.color, middle, light))
    painter.panel(near, far, 0.0, 0.7, painter.tint(house.plinth, middle, light))
    trim = painter.tint(house.trim, middle, light)
    if middle < _DETAIL * 1.5:
        painter.panel(near, far, house.base - 0.3, house.base, trim)
    painter.panel(near, far, house.height - 0.35, house.height + 0.05, trim)
    _windows(painter, house, light, rng)
    _ground_floor(painter, house, light)


def _end_wall(painter: Painter, house: Building, near: Column) -> None:
    """Draw the wall that faces the camera, seen over lower neighbours and in gaps."""
    if house.z0 <= NEAR:
        return
    outer = painter.column(house.side * (house.wall + house.depth), house.z0)
    light = SHADE * 1.1
    color = painter.tint(house.color, house.z0, light)
    if house.roof in (Roof.MANSARD, Roof.HIPPED):
        ridge = painter.column(house.side * (house.wall + house.depth * 0.5), house.z0)
        top = house.height + 2.6
        painter.fill(((near, house.height), (ridge, top), (outer, house.height)), color)
    painter.panel(near, outer, 0.0, house.height, color)
    if not house.exposed or house.z0 > 50.0:
        return
    pane = painter.tint(_glass(painter, SHADE), house.z0)
    for floor in range(house.floors):
        low = house.base + house.storey * (floor + 0.28)
        for fraction in (0.25, 0.6):
            side = house.side * (house.wall + house.depth * fraction)
            a, b = painter.column(side - 0.5, house.z0), painter.column(side + 0.5, house.z0)
            painter.panel(a, b, low, low + 1.4, pane)


def _roof(painter: Painter, house: Building, near: Column, far: Column, light: float) -> None:
    """Draw everything above the eaves."""
    top, side, middle = house.height, house.side, (house.z0 + house.z1) * 0.5
    color = painter.tint(house.roof_color, middle, min(1.0, light + 0.1))
    if house.chimney >= 0 and house.roof is not Roof.FLAT:
        z = house.z0 + (house.z1 - house.z0) * house.chimney
        at = painter.column(side * (house.wall + 1.2), z)
        painter.box(at, -0.45, top, 0.45, top + 3.3, painter.tint(house.plinth, z, SHADE))
        painter.box(at, -0.55, top + 3.1, 0.55, top + 3.4, painter.tint(house.roof_color, z, SHADE))
    if house.roof is Roof.FLAT:
        painter.panel(near, far, top, top + 0.5, painter.tint(blend(house.color, (90, 84, 88), 0.25), middle, light))
    elif house.roof is Roof.MANSARD:
        a = painter.column(side * (house.wall + 0.8), house.z0 + 0.4)
        b = painter.column(side * (house.wall + 0.8), house.z1 - 0.4)
        painter.fill(((near, top), (a, top + 2.4), (b, top + 2.4), (far, top)), color)
        _dormers(painter, house, light)
    elif house.roof is Roof.HIPPED:
        inset = min(2.0, (house.z1 - house.z0) * 0.25)
        a = painter.column(side * (house.wall + 1.6), house.z0 + inset)
        b = painter.column(side * (house.wall + 1.6), house.z1 - inset)
        painter.fill(((near, top), (a, top + 2.6), (b, top + 2.6), (far, top)), color)
    else:
        _gable(painter, house, light)


def _gable(painter: Painter, house: Building, light: float) -> None:
    """Draw a gable that rises from the front, smooth or stepped."""
    top, span = house.height, house.z1 - house.z0
    rise = min(4.0, span * 0.38)
    x, middle = house.side * house.wall, (house.z0 + house.z1) * 0.5
    color = painter.tint(house.color, middle, light)
    cap = painter.tint(house.trim, middle, light)
    if house.roof is Roof.GABLE:
        outline = [(0.0, 0.0), (0.5, rise), (1.0, 0.0)]
    else:
        steps = 3
        path = [(0.0, 0.0)]
        for i in range(steps):
            path += [(i * 0.15, rise * (i + 1) / steps), ((i + 1) * 0.15, rise * (i + 1) / steps)]
        outline = path + [(1.0 - s, h) for s, h in reversed(path)]
    columns = [(painter.column(x, house.z0 + span * s), h) for s, h in outline]
    painter.fill([(c, top + h + 0.3) for c, h in columns], cap)
    painter.fill([(c, top + h - 0.05) for c, h in columns], color)
    a, b = painter.column(x, middle - 0.5), painter.column(x, middle + 0.5)
    painter.panel(a, b, top + rise * 0.2, top + rise * 0.2 + 1.2, painter.tint(_glass(painter, light), middle, light))


def _dormers(painter: Painter, house: Building, light: float) -> None:
    if house.z1 > _DETAIL * 1.3:
        return
    step = (house.z1 - house.z0) / house.bays
    for bay in range(house.bays):
        z = house.z0 + step * (bay + 0.5)
        a = painter.column(house.side * (house.wall + 0.3), z - 0.55)
        b = painter.column(house.side * (house.wall + 0.3), z + 0.55)
        low = house.height + 0.5
        painter.panel(a, b, low, low + 1.5, painter.tint(house.trim, z, light))
        a = painter.column(house.side * (house.wall + 0.3), z - 0.36)
        b = painter.column(house.side * (house.wall + 0.3), z + 0.36)
        painter.panel(a, b, low + 0.1, low + 1.3, painter.tint(_glass(painter, light), z, light))


def _glass(painter: Painter, light: float) -> Color:
    """Return the colour of dark glass, which reflects the sky towards the sun."""
    if painter.weather is Weather.SUNNY:
        return (126, 172, 204) if light == 1.0 else (88, 116, 150)
    return (70, 82, 98)


def _windows(painter: Painter, house: Building, light: float, rng: Rng | None) -> None:
    """Draw the rows of windows above the ground floor."""
    x, step = house.side * house.wall, (house.z1 - house.z0) / house.bays
    fraction = 0.78 if house.panes is Panes.WIDE else 0.46
    low, high = (0.25, 0.82) if house.panes is Panes.WIDE else (0.22, 0.8)
    glass = _glass(painter, light)
    if house.z0 > _BANDS:
        _bands(painter, house, light)
        return
    for bay in range(house.bays):
        z = house.z0 + step * (bay + 0.5)
        half = min(step * fraction, 3.0 if house.panes is Panes.WIDE else 1.25) * 0.5
        a, b = painter.column(x, z - half), painter.column(x, z + half)
        if painter.outside(a, b):
            continue
        dark, pale = painter.tint(glass, z, 1.0), painter.tint((236, 226, 206), z, light)
        fine = z < _DETAIL
        if fine:
            frame = painter.tint(house.trim, z, light)
            c, d = painter.column(x, z - half - 0.13), painter.column(x, z + half + 0.13)
        if fine and house.panes is Panes.SHUTTERS:
            e, f = painter.column(x, z - half * 1.75), painter.column(x, z + half * 1.75)
            leaf = painter.tint(house.accent, z, light)
        for floor in range(house.floors):
            foot, head = house.base + house.storey * (floor + low), house.base + house.storey * (floor + high)
            home = house.curtains[floor * house.bays + bay]
            # nearby ones are never random
            lit = (rng.bernoulli(0.88 if home else 0.05) if rng and z > 9.0 else home) and painter.weather.is_lit
            if a.foot < a.scale * foot and b.foot < b.scale * foot:
                break  # above the image
            if fine and house.panes is Panes.SHUTTERS:
                painter.panel(e, f, foot, head, leaf, False)
            if fine:
                painter.panel(c, d, foot - 0.14, head + 0.12, frame, False)
            painter.panel(a, b, foot, head, light_color(painter.weather, _WARM[(floor + bay) % 3], z) if lit else dark)
            if home and not lit:
                painter.panel(a, b, foot + (head - foot) * 0.45, head, pale)
            if house.balconies and fine and floor % 2 == 0:
                rail = painter.tint((64, 66, 76), z, light)
                painter.panel(c, d, foot - 0.2, foot + 0.55, rail, False)


def _bands(painter: Painter, house: Building, light: float) -> None:
    """Draw the windows of a distant floor as one band."""
    x, z = house.side * house.wall, house.z0
    a, b = painter.column(x, z + 0.5), painter.column(x, house.z1 - 0.5)
    color = painter.tint(blend(house.color, _glass(painter, light), 0.55), z, light)
    for floor in range(house.floors):
        low = house.base + house.storey * (floor + 0.25)
        painter.panel(a, b, low, low + 1.6, color)
        if house.curtains[floor] and painter.weather.is_lit:
            c = painter.column(x, z + (house.z1 - z) * (0.3 + 0.1 * floor))
            d = painter.column(x, c.z + 2.0)
            painter.panel(c, d, low, low + 1.5, light_color(painter.weather, _WARM[floor % 3], z))


def draw_hedge(painter: Painter, hedge: Hedge) -> None:
    """Draw a hedge: its front, its top."""
    x, deep = hedge.side * hedge.wall, hedge.side * (hedge.wall + 0.9)
    light = SHADE if hedge.side < 0 else 0.95
    pieces = max(1, round((hedge.z1 - hedge.z0) / 5.0))
    step = (hedge.z1 - hedge.z0) / pieces
    for i in reversed(range(pieces)):  # in pieces, since haze grows with distance
        z = hedge.z0 + step * i
        near, far = painter.column(x, z), painter.column(x, z + step)
        inner, outer = painter.column(deep, z), painter.column(deep, z + step)
        h = hedge.height
        painter.fill(
            ((near, h), (inner, h), (outer, h), (far, h)), painter.tint(blend(hedge.color, (255, 246, 190), 0.2), z)
        )
        if i == 0:
            painter.panel(near, inner, 0.0, h, painter.tint(hedge.color, z, SHADE))
        painter.panel(near, far, 0.0, h, painter.tint(hedge.color, z, light))


def _ground_floor(painter: Painter, house: Building, light: float) -> None:
    """Draw a shop front with its awning, or windows and a door."""
    x, step = house.side * house.wall, (house.z1 - house.z0) / house.bays
    if house.z1 > 62.0:
        return
    for bay in range(house.bays):
        z = house.z0 + step * (bay + 0.5)
        door = bay == house.bays // 2
        half = min(step * (0.4 if house.shop else 0.24), 0.5 if door else 9.0)
        a, b = painter.column(x, z - half), painter.column(x, z + half)
        if painter.outside(a, b):
            continue
        if door:
            painter.panel(a, b, 0.0, 2.5, painter.tint(house.accent, z, light * 0.9))
            continue
        lit = house.shop
        color = (
            light_color(painter.weather, _WARM[bay % 3], z)
            if lit and painter.weather.is_lit
            else painter.tint(_glass(painter, light), z)
        )
        painter.panel(a, b, 0.6 if house.shop else 1.1, house.base - (0.9 if house.shop else 1.0), color)
        if house.shop and z < 26.0:
            _display(painter, house, z, half, light)
    if house.shop:
        near, far = painter.column(x, house.z0 + 0.3), painter.column(x, house.z1 - 0.3)
        sign = painter.tint(house.accent, (house.z0 + house.z1) * 0.5, light)
        painter.panel(near, far, house.base - 0.85, house.base - 0.3, sign)
        z = (house.z0 + house.z1) * 0.5
        if 8.0 < z < 40.0:
            painter.light(painter.column(x, z), 0.0, 1.7, 2.2, _WARM[0], 0.2)
    if house.awning:
        _awning(painter, house, light)


def _display(painter: Painter, house: Building, z: float, half: float, light: float) -> None:
    """Draw the goods in a shop window, and the window's bars."""
    x, goods = house.side * house.wall, (house.accent, (232, 196, 120), (146, 96, 84), (112, 150, 130))
    for i, (at, wide, high) in enumerate(((-0.72, 0.3, 0.7), (-0.3, 0.2, 1.1), (0.22, 0.34, 0.5), (0.7, 0.24, 0.9))):
        a, b = painter.column(x, z + half * (at - wide * 0.7)), painter.column(x, z + half * (at + wide * 0.7))
        painter.panel(a, b, 0.6, 0.6 + high, painter.tint(goods[i], z, light * 0.8), False)
    frame = painter.tint(house.trim, z, light)
    painter.panel(painter.column(x, z - half), painter.column(x, z + half), 2.15, 2.25, frame, False)
    for at in (-1.0, 0.0, 1.0):
        a, b = painter.column(x, z + half * at - 0.05), painter.column(x, z + half * at + 0.05)
        painter.panel(a, b, 0.6, house.base - 0.9, frame, False)


def _awning(painter: Painter, house: Building, light: float) -> None:
    """Draw a striped awning that slopes down over the pavement."""
    x, out = house.side * house.wall, house.side * (house.wall - house.awning)
    stripes = max(4, round((house.z1 - house.z0) * 0.8)) if house.z0 < 26.0 else 1
    step = (house.z1 - house.z0 - 0.8) / stripes
    for i in reversed(range(stripes)):
        z0 = house.z0 + 0.4 + step * i
        color = painter.tint(house.accent if i % 2 == 0 else (244, 238, 226), z0, min(1.0, light + 0.12))
        wall0, wall1 = painter.column(x, z0), painter.column(x, z0 + step)
        edge0, edge1 = painter.column(out, z0), painter.column(out, z0 + step)
        top, low = house.base - 0.45, house.base - 1.15
        painter.fill(((wall0, top), (edge0, low), (edge1, low), (wall1, top)), color)
        painter.panel(edge0, edge1, low - 0.28, low, painter.tint(house.accent, z0, light * 0.85))
