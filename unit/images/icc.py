"""ICC profiles of RGB and gray images, applied at 16 bits: LittleCMS, as Pillow offers it, works in 8.

Covers the profiles of cameras and editors (sRGB, Adobe RGB, Display P3, ProPhoto, Rec. 2020, gray gammas): one curve
per channel, then a matrix to CIE XYZ under D50 (ICC.1:2022, 8.3, 10.6, 10.18). Those with look-up tables, as printers
have, are not covered.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_BLOCK = 2**16
"""pixels at a time, which bounds the memory of the intermediate results"""
_KNOTS = np.linspace(0, 1, 65536)
"""all levels of 16 bits"""
_SRGB_CURVE = np.where(_KNOTS <= 0.04045, _KNOTS / 12.92, ((_KNOTS + 0.055) / 1.055) ** 2.4)
"""linear light at `_KNOTS`"""
_SRGB_TO_XYZ = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
"""The primaries of sRGB, adapted to D50 (Bradford)."""

Levels = NDArray[np.uint16]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class CurveProfile:
    """Curves and a matrix to XYZ; a gray profile has one curve and no matrix."""

    curves: tuple[NDArray[np.float64], ...]
    """linear light at `_KNOTS`, by channel"""
    to_xyz: NDArray[np.float64] | None

    def to_srgb(self, values: Levels) -> Levels:
        """Convert (H, W, 3) or (H, W) of 65535ths to sRGB (H, W, 3), clipped to its gamut."""
        to_linear_srgb = None if self.to_xyz is None else np.linalg.inv(_SRGB_TO_XYZ) @ self.to_xyz

        def convert(pixels: Levels) -> Array:
            linear = np.stack([curve[pixels[:, c]] for c, curve in enumerate(self.curves)], 1)
            return _srgb_encoded(linear if to_linear_srgb is None else linear @ to_linear_srgb.T)

        flat = values.reshape(-1, len(self.curves))
        converted = _in_blocks(flat, convert)
        return np.broadcast_to(converted, (len(flat), 3)).reshape(*values.shape[:2], 3)

    def from_srgb(self, values: Levels) -> Levels:
        """Convert sRGB (H, W, 3), or gray (H, W) for a gray profile, of 65535ths into the profile."""
        from_linear_srgb = None if self.to_xyz is None else np.linalg.inv(self.to_xyz) @ _SRGB_TO_XYZ

        def convert(pixels: Levels) -> Array:
            linear = _SRGB_CURVE[pixels]
            linear = linear if from_linear_srgb is None else linear @ from_linear_srgb.T
            return np.stack([np.interp(linear[:, c], curve, _KNOTS) for c, curve in enumerate(self.curves)], 1)

        return _in_blocks(values.reshape(-1, len(self.curves)), convert).reshape(values.shape)


@lru_cache(maxsize=8)
def parse_profile(profile: bytes) -> CurveProfile | None:
    """Return a profile made of curves and a matrix; None for any other, and for a broken one."""
    try:
        tags = _tags(profile)
        if any(name.startswith((b"A2B", b"D2B")) for name in tags):
            return None  # look-up tables, which take precedence
        if profile[16:20] == b"GRAY":
            return CurveProfile((_curve(tags[b"kTRC"]),), None)
        if profile[16:20] != b"RGB " or profile[20:24] != b"XYZ ":
            return None
        curves = tuple(_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC"))
        to_xyz = np.stack([_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")], axis=1)
        np.linalg.inv(to_xyz)
        return CurveProfile(curves, to_xyz)
    except (KeyError, IndexError, ValueError, ZeroDivisionError, struct.error, np.linalg.LinAlgError):
        return None


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack_from(">I", profile, 128)
    entries = (struct.unpack_from(">4sII", profile, 132 + 12 * k) for k in range(min(count, 100)))
    return {name: profile[offset : offset + size] for name, offset, size in entries}


def _xyz(tag: bytes) -> NDArray[np.float64]:
    return np.array(struct.unpack_from(">3i", tag, 8)) / 65536


def _curve(tag: bytes) -> NDArray[np.float64]:
    """Return a `curv` or `para` tag at `_KNOTS`; raises ValueError for one that can't be inverted."""
    if tag[:4] == b"curv":
        (count,) = struct.unpack_from(">I", tag, 8)
        table = np.frombuffer(tag, ">u2", count, 12)
        if count == 0:
            curve = _KNOTS
        elif count == 1:
            curve = _KNOTS ** (table[0] / 256)
        else:
            curve = np.interp(_KNOTS, np.linspace(0, 1, count), table / 65535)
    elif tag[:4] == b"para":
        (kind,) = struct.unpack_from(">H", tag, 8)
        curve = _parametric(
            kind, [value / 65536 for value in struct.unpack_from(f">{(1, 3, 4, 5, 7)[kind]}i", tag, 12)]
        )
    else:
        raise ValueError("an unknown kind of curve")
    if np.any(np.diff(curve) < 0) or curve[0] == curve[-1]:
        raise ValueError("a curve that can't be inverted")
    return curve


def _parametric(kind: int, values: list[float]) -> NDArray[np.float64]:
    """Evaluate one of the five functions of ICC.1:2022, table 68, at `_KNOTS`."""
    match kind, values:
        case 0, [g]:
            a, b, c, d, e, f = 1.0, 0.0, 0.0, 0.0, 0.0, 0.0
        case 1, [g, a, b]:
            c, d, e, f = 0.0, -b / a, 0.0, 0.0
        case 2, [g, a, b, e]:
            c, d, f = 0.0, -b / a, e
        case 3, [g, a, b, c, d]:
            e, f = 0.0, 0.0
        case _:
            g, a, b, c, d, e, f = values
    return np.clip(np.where(d <= _KNOTS, np.maximum(a * _KNOTS + b, 0) ** g + e, c * _KNOTS + f), 0, 1)


def _in_blocks(values: Levels, convert: Callable[[Levels], Array]) -> Levels:
    """Apply a function of levels (N, C), with values in 0 … 1, a block of pixels at a time."""
    converted = np.empty_like(values)
    for start in range(0, len(values), _BLOCK):
        block = slice(start, start + _BLOCK)
        converted[block] = np.rint(np.clip(convert(values[block]), 0, 1) * 65535)
    return converted


def _srgb_encoded(linear: Array) -> Array:
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
