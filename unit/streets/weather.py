"""Sun and rain, by day and at night: their colours, sky and overlays.

Only functions of `rng` depend on the variation; all others follow from the scene.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from unit.streets.rng import Rng
from unit.streets.scene import Camera, Color

Floats = npt.NDArray[np.float32]


class Weather(StrEnum):
    """Sun and rain, the two domains, and the same two at night: dry under the moon, and rainy."""

    SUNNY = "sunny"
    RAINY = "rainy"
    NIGHT = "night"
    RAINY_NIGHT = "rainy-night"

    @property
    def is_wet(self) -> bool:
        """True if it rains."""
        return self in (Weather.RAINY, Weather.RAINY_NIGHT)

    @property
    def is_dark(self) -> bool:
        """True at night."""
        return self in (Weather.NIGHT, Weather.RAINY_NIGHT)

    @property
    def is_lit(self) -> bool:
        """True if lamps and windows are lit."""
        return self is not Weather.SUNNY


DAY = (Weather.SUNNY, Weather.RAINY)
NIGHT = (Weather.NIGHT, Weather.RAINY_NIGHT)
"""Pairs of domains, A and B."""


@dataclass(frozen=True)
class Glow:
    """Light around a lamp or the sun: centre, its mirror image's y, radius (all in image units), and colour."""

    x: float
    y: float
    mirrored: float
    radius: float
    color: Color


MIN_GLOW_RADIUS = 0.012  # in image units: glows are drawn on a grid of 64 x 64
SHADE = 0.76  # brightness of a wall in its own shadow; the sun stands ahead and to the left
_AIR: dict[Weather, Color] = {  # the colour of haze and fog
    Weather.SUNNY: (206, 226, 240),
    Weather.RAINY: (167, 181, 195),
    Weather.NIGHT: (30, 38, 68),
    Weather.RAINY_NIGHT: (52, 57, 70),
}
_VISIBILITY: dict[Weather, float] = {
    Weather.SUNNY: 170.0,
    Weather.RAINY: 44.0,
    Weather.NIGHT: 130.0,
    Weather.RAINY_NIGHT: 44.0,
}  # metres, for 63 % of the colour
_SKY: dict[Weather, tuple[Color, Color]] = {  # zenith, horizon
    Weather.SUNNY: ((62, 136, 216), (206, 232, 244)),
    Weather.RAINY: ((100, 115, 136), _AIR[Weather.RAINY]),
    Weather.NIGHT: ((12, 18, 48), (48, 58, 100)),
    Weather.RAINY_NIGHT: ((28, 31, 42), _AIR[Weather.RAINY_NIGHT]),
}
_CLOUDS: dict[Weather, Color] = {
    Weather.SUNNY: (252, 252, 252),
    Weather.RAINY: (96, 106, 120),
    Weather.NIGHT: (46, 52, 78),
    Weather.RAINY_NIGHT: (28, 30, 40),
}
_RAIN: dict[Weather, Color] = {Weather.RAINY: (214, 222, 230), Weather.RAINY_NIGHT: (126, 134, 150)}
MIRRORED_SKY: dict[Weather, Color] = {Weather.RAINY: (152, 166, 180), Weather.RAINY_NIGHT: (34, 38, 50)}
"""what wet ground mirrors where nothing stands"""


def blend(a: Color, b: Color, fraction: float) -> Color:
    """`a` where `fraction` is 0, `b` where it is 1."""
    return (
        int(a[0] + (b[0] - a[0]) * fraction),
        int(a[1] + (b[1] - a[1]) * fraction),
        int(a[2] + (b[2] - a[2]) * fraction),
    )


def haze(weather: Weather, z: float) -> float:
    """Return the fraction of an object's colour, 0 to 1, that the air hides at a distance of `z` metres."""
    return 1.0 - math.exp(-z / _VISIBILITY[weather])


def tint(weather: Weather, color: Color, z: float, light: float = 1.0) -> Color:
    """Return the colour of a surface seen from `z` metres, lit by `light` (1: fully, `SHADE`: not by the sun)."""
    r, g, b = color
    if weather is Weather.SUNNY:
        cool = (1.0 - light) * 0.35  # shadows are lit by the blue sky
        r, g, b = int(r * light * 1.08), int(g * light * 1.04), int(b * (light + cool) * 0.97)
        return blend((min(r, 255), min(g, 255), min(b, 255)), _AIR[weather], haze(weather, z))
    if weather is Weather.NIGHT:  # the moon stands where the sun does, and leaves little colour
        gray = 0.3 * r + 0.55 * g + 0.15 * b
        r, g, b = (int((0.6 * c + 0.4 * gray) * light * moonlight) for c, moonlight in ((r, 0.3), (g, 0.34), (b, 0.46)))
        return blend((r + 6, g + 8, b + 20), _AIR[weather], haze(weather, z))
    gray = (0.3 * r + 0.55 * g + 0.15 * b) * 0.26
    light = 0.57 * (0.65 + 0.35 * light)
    wet = (int((r * 0.74 + gray) * light), int((g * 0.74 + gray) * light) + 4, int((b * 0.74 + gray) * light) + 12)
    if weather is Weather.RAINY_NIGHT:
        wet = (int(wet[0] * 0.42), int(wet[1] * 0.43), int(wet[2] * 0.5))
    return blend(wet, _AIR[weather], haze(weather, z))


def light_color(weather: Weather, color: Color, z: float) -> Color:
    """Return the colour of a lamp or lit window, which fog dims half as much as surfaces."""
    return blend(color, _AIR[weather], haze(weather, z) * 0.5) if weather.is_lit else color


def sun_position(camera: Camera) -> tuple[float, float]:
    """Return the sun's position in the image: always up and to the left of the vanishing point."""
    return camera.vanish_x - 0.2, camera.vanish_y - 0.36


def draw_sky(weather: Weather, camera: Camera, edge: int, rng: Rng) -> Image.Image:
    """Draw the sky, `edge` pixels square, with clouds and, if it is dry, the sun or the moon."""
    top, low = (np.array(color, dtype=np.float32) for color in _SKY[weather])
    fraction = np.clip(np.linspace(0.0, 1.0, edge, dtype=np.float32) / camera.vanish_y, 0.0, 1.0)[:, None] ** 0.9
    column = np.rint(top + (low - top) * fraction).astype(np.uint8)
    image = Image.fromarray(column[:, None, :]).resize((edge, edge), Image.Resampling.NEAREST)
    if not weather.is_wet:
        x, y = sun_position(camera)
        r, color = (0.03, (226, 230, 236)) if weather.is_dark else (0.05, (255, 246, 200))
        draw = ImageDraw.Draw(image)
        draw.ellipse([(x - r) * edge, (y - r) * edge, (x + r) * edge, (y + r) * edge], fill=color)
    small = max(32, edge // 2)
    cover = _clouds(weather, camera, small, rng).resize((edge, edge), Image.Resampling.BILINEAR)
    image.paste(_CLOUDS[weather], mask=cover)
    return image


def _clouds(weather: Weather, camera: Camera, edge: int, rng: Rng) -> Image.Image:
    """Return the opacity of the clouds, mode L."""
    cover = Image.new("L", (edge, edge), 0)
    draw = ImageDraw.Draw(cover)
    dry = not weather.is_wet
    for _ in range(rng.randint(4, 6) if dry else 6):
        x, y = rng.uniform(-0.05, 1.05), rng.uniform(0.03, 0.8) * camera.vanish_y
        width = rng.uniform(0.1, 0.2) * (1.0 if dry else 2.0)
        for _ in range(5):
            at = rng.uniform(-1.0, 1.0)
            r = width * rng.uniform(0.2, 0.42) * (1.15 - abs(at) * 0.7)
            left, low = x + at * width, y + r * 0.35  # the flat underside of a heap
            draw.pieslice(
                [(left - r) * edge, (low - r) * edge, (left + r) * edge, (low + r) * edge],
                180, 360, fill=205 if dry else 60,
            )  # fmt: skip
        draw.rectangle(
            [(x - width) * edge, y * edge, (x + width) * edge, (y + width * 0.08) * edge], fill=205 if dry else 60
        )
    return cover.filter(ImageFilter.GaussianBlur(edge * (0.006 if dry else 0.03)))


def add_glows(image: Image.Image, glows: list[Glow], mirrored: bool) -> Image.Image:
    """Add the light of `glows`, or of their mirror images, stretched in wet ground, to an image."""
    if not glows:
        return image
    cells = (np.arange(64) + 0.5) / 64
    x = np.array([glow.x for glow in glows])[:, None]
    r = np.array([glow.radius for glow in glows])[:, None]
    y = np.array([glow.mirrored if mirrored else glow.y for glow in glows])[:, None]
    across = np.exp(-(((cells - x) / r) ** 2))
    down = np.exp(-(((cells - y) / (r * (2.6 if mirrored else 1.0))) ** 2))
    colored = across[:, :, None] * np.array([glow.color for glow in glows], dtype=np.float64)[:, None, :]
    light = (down.T @ colored.reshape(len(glows), -1)).reshape(64, 64, 3)  # float64: rounding leaves no trace
    spilled = Image.fromarray(np.rint(np.minimum(light, 255.0)).astype(np.uint8))
    return ImageChops.screen(image, spilled.resize(image.size, Image.Resampling.BICUBIC))


def sun_glows(camera: Camera) -> list[Glow]:
    """Return the sun's glows, which spill over everything in front of it."""
    x, y = sun_position(camera)
    return [Glow(x, y, y, 0.1, (120, 104, 62)), Glow(x, y, y, 0.42, (62, 50, 24))]


def moon_glows(camera: Camera) -> list[Glow]:
    """Return the moon's glows."""
    x, y = sun_position(camera)
    return [Glow(x, y, y, 0.07, (50, 54, 66)), Glow(x, y, y, 0.3, (14, 16, 24))]


def add_rain(image: Image.Image, weather: Weather, camera: Camera, rng: Rng, factor: int) -> Image.Image:
    """Add streaks of rain and their splashes, drawn `factor` times finer than the image."""
    edge = image.width * factor
    streaks = Image.new("L", (edge, edge), 0)
    draw = ImageDraw.Draw(streaks)
    width = max(1, round(edge / 256))
    for _ in range(110):
        x, y, length = rng.uniform(-0.05, 1.08), rng.uniform(-0.1, 1.0), rng.uniform(0.05, 0.13)
        draw.line(
            [x * edge, y * edge, (x - length * 0.16) * edge, (y + length) * edge],
            fill=int(rng.uniform(90, 170)), width=width,
        )  # fmt: skip
    for _ in range(36):
        x, y = rng.random(), camera.vanish_y + (1.0 - camera.vanish_y) * rng.uniform(0.15, 1.0)
        r = 0.004 + 0.014 * (y - camera.vanish_y)
        box = [(x - r) * edge, (y - r * 0.4) * edge, (x + r) * edge, (y + r * 0.4) * edge]
        draw.ellipse(box, outline=120, width=width)
    mask = streaks.reduce(factor) if factor > 1 else streaks
    image.paste(_RAIN[weather], mask=mask)
    return image


def reflect(reflected: Image.Image, camera: Camera) -> Image.Image:
    """Turn the upside-down street into its reflection in wet ground: stretched downwards, and wavy in front."""
    width = reflected.width
    smeared = reflected.resize((width, max(4, width // 10)), Image.Resampling.BOX)
    smeared = smeared.resize((width, width), Image.Resampling.BICUBIC)
    soft = np.asarray(Image.blend(reflected, smeared, 0.62))
    across = np.arange(width) / width
    rows = across[:, None]
    reach = width * 0.016 * np.clip(rows - camera.vanish_y, 0.0, 1.0)
    ripple = np.sin(rows * 120.0 + across * 9.0) + np.sin(rows * 53.0 - across * 14.0)
    columns = np.clip(np.arange(width) + np.rint(reach * ripple).astype(np.intp), 0, width - 1)
    return Image.fromarray(soft[np.arange(width)[:, None], columns])


def ground_haze(weather: Weather, camera: Camera, edge: int) -> tuple[Image.Image, Color]:
    """Return the haze over the ground, row by row (mode L), and its colour."""
    slope = ((np.arange(edge, dtype=np.float64) + 0.5) / edge - camera.vanish_y) / camera.focal
    if camera.rise > 0:
        z = (-slope + np.sqrt(slope**2 + 4 * camera.rise * camera.height)) / (2 * camera.rise)
    else:
        z = camera.height / np.maximum(slope, 1e-3)
    fraction = 1.0 - np.exp(-z / _VISIBILITY[weather])
    column = np.rint(255 * fraction).astype(np.uint8)
    mask = Image.fromarray(column[:, None]).resize((edge, edge), Image.Resampling.NEAREST)
    return mask, _AIR[weather]
