"""Perspective projection of shapes in metres to the image, and to their mirror images in wet ground."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from unit.streets.scene import NEAR, Camera, Color
from unit.streets.weather import MIN_GLOW_RADIUS, Glow, Weather, light_color, tint


class Column(NamedTuple):
    """An upright line on the image: its x, its foot's y, pixels per metre, and its distance."""

    x: float
    foot: float
    scale: float
    z: float


class Shape(NamedTuple):
    """A filled polygon or ellipse (its box), and the same mirrored in the ground."""

    round: bool
    points: Sequence[float]
    mirrored: Sequence[float] | None  # None: too small to show
    fill: Color


class Painter:
    """Collect the shapes of upright objects, far ones first, for an image of `edge` pixels."""

    def __init__(self, camera: Camera, weather: Weather, edge: int) -> None:
        self.camera = camera
        self.weather = weather
        self.edge = edge
        self.shapes: list[Shape] = []
        self.glows: list[Glow] = []
        self._depths: list[float] = []  # of the glows
        self._covers: list[tuple[float, float, float, float, float]] = []
        self._focal = camera.focal * edge
        self._x, self._y = camera.vanish_x * edge, camera.vanish_y * edge

    def column(self, x: float, z: float) -> Column:
        """Project the upright line over the ground at (x, z)."""
        z = max(z, NEAR)
        scale = self._focal / z
        camera, curve = self.camera, z * z
        return Column(
            self._x + scale * (x - camera.x + camera.bend * curve),
            self._y + scale * (camera.height - camera.rise * curve),
            scale,
            z,
        )

    def outside(self, a: Column, b: Column) -> bool:
        """True if everything between two columns is left or right of the image."""
        return (a.x < 0 and b.x < 0) or (a.x > self.edge and b.x > self.edge)

    def ground(self, corners: Iterable[tuple[float, float]]) -> list[float]:
        """Project corners (x, z) on the ground to a flat list of image coordinates."""
        flat: list[float] = []
        for x, z in corners:
            column = self.column(x, z)
            flat.append(column.x)
            flat.append(column.foot)
        return flat

    def fill(self, corners: Iterable[tuple[Column, float]], color: Color) -> None:
        """Add a polygon of (column, height above the ground)."""
        points: list[float] = []
        mirrored: list[float] = []
        for (x, foot, scale, _), height in corners:
            rise = scale * height
            points += (x, foot - rise)
            mirrored += (x, foot + rise)
        self.shapes.append(Shape(False, points, mirrored, color))

    def panel(self, left: Column, right: Column, low: float, high: float, color: Color, mirrored: bool = True) -> None:
        """Add an upright rectangle between two columns; small ones need not be `mirrored` in wet ground."""
        xa, fa, sa, _ = left
        xb, fb, sb, _ = right
        if (xa < 0 and xb < 0) or (xa > self.edge and xb > self.edge):
            return
        a, b, c, d = sa * low, sa * high, sb * low, sb * high
        self.shapes.append(
            Shape(
                False,
                (xa, fa - a, xa, fa - b, xb, fb - d, xb, fb - c),
                (xa, fa + a, xa, fa + b, xb, fb + d, xb, fb + c) if mirrored else None,
                color,
            )
        )

    def flat(self, at: Column, corners: Iterable[tuple[float, float]], color: Color) -> None:
        """Add a polygon facing the camera; corners are metres right of and above the foot of `at`."""
        x, foot, scale, _ = at
        points: list[float] = []
        mirrored: list[float] = []
        for dx, dy in corners:
            points += (x + scale * dx, foot - scale * dy)
            mirrored += (x + scale * dx, foot + scale * dy)
        self.shapes.append(Shape(False, points, mirrored, color))

    def box(self, at: Column, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        """Add a rectangle facing the camera."""
        self.flat(at, ((x0, y0), (x0, y1), (x1, y1), (x1, y0)), color)

    def disc(self, at: Column, dx: float, dy: float, rx: float, ry: float, color: Color) -> None:
        """Add an ellipse facing the camera."""
        x, foot, scale, _ = at
        left, right = x + scale * (dx - rx), x + scale * (dx + rx)
        top, low = scale * (dy + ry), scale * (dy - ry)
        self.shapes.append(
            Shape(True, (left, foot - top, right, foot - low), (left, foot + low, right, foot + top), color)
        )

    def light(self, at: Column, dx: float, dy: float, radius: float, color: Color, strength: float) -> None:
        """Add a glow around a lamp; nothing in sunshine."""
        if self.weather.is_lit:
            x, foot, scale, z = at
            edge, r = self.edge, radius * scale / self.edge
            if r < MIN_GLOW_RADIUS:  # too small to draw at its size: larger and fainter instead
                r, strength = MIN_GLOW_RADIUS, strength * (r / MIN_GLOW_RADIUS) ** 1.4
            red, green, blue = light_color(self.weather, color, z)
            dim = (int(red * strength), int(green * strength), int(blue * strength))
            y, below = (foot - scale * dy) / edge, (foot + scale * dy) / edge
            self._depths.append(z)
            self.glows.append(Glow((x + scale * dx) / edge, y, below, r, dim))

    def cover(self, at: Column, x0: float, y0: float, x1: float, y1: float) -> None:
        """Add a box facing the camera that hides the lamps behind it."""
        x, foot, scale, z = at
        box = (x + scale * x0, foot - scale * y1, x + scale * x1, foot - scale * y0)
        self._covers.append((z, box[0] / self.edge, box[1] / self.edge, box[2] / self.edge, box[3] / self.edge))

    def visible_glows(self) -> list[Glow]:
        """Return the glows of lamps that nothing hides."""
        return [
            glow
            for glow, depth in zip(self.glows, self._depths, strict=True)
            if not any(z < depth and a < glow.x < c and b < glow.y < d for z, a, b, c, d in self._covers)
        ]

    def tint(self, color: Color, z: float, light: float = 1.0) -> Color:
        """Return a surface's colour in this weather at this distance."""
        return tint(self.weather, color, z, light)

    def paint(self, image: Image.Image) -> None:
        """Draw all shapes."""
        draw = ImageDraw.Draw(image)
        for is_round, points, _, color in self.shapes:
            if is_round:
                draw.ellipse(points, fill=color)
            else:
                draw.polygon(points, fill=color)

    def paint_mirrored(self, image: Image.Image, reduced: int) -> None:
        """Draw all shapes upside down, `reduced` times smaller."""
        draw = ImageDraw.Draw(image)
        fraction = 1.0 / reduced
        for is_round, _, points, color in self.shapes:
            if points is None:
                continue
            small = [value * fraction for value in points]
            if is_round:
                draw.ellipse(small, fill=color)
            else:
                draw.polygon(small, fill=color)
