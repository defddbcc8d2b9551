"""Translating a large image in strips, without seams.

Overlapping tiles would show: normalization needs the statistics of the whole image. But all of it is in the residual
blocks, which see the code, at 1/s of the image's size. So the code is held in full, twice. The layers around the
blocks, and the blocks' convolutions, run on one strip after the other, with as many more rows on either side as they
see. The result equals that of `Autoencoders` up to the precision's rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import reduce

import torch
from torch import Tensor, nn

from unit.domains import Domain
from unit.model.layers import ResidualBlocks
from unit.model.networks import Autoencoders
from unit.model.normalizing import long_dim, normalization_by, row_moments

_HALO = 3
"""Rows of the code that the layers around the blocks see on either side: the stem sees 3 pixels, each downsampling at
most 2 of its input, 2s + 1 together; upsampling sees less."""
_LONGER = 4
"""times as many rows do the blocks take: a pixel of the image has far fewer features there than around them"""


def encode_in_strips(networks: Autoencoders, image: Tensor, domain: Domain, strip: int) -> Tensor:
    """Return E_i(x).

    Args:
        networks: E and G.
        image: x, (1, 3, H, W) in [-1, 1]; H and W are multiples of s.
        domain: i.
        strip: pixels of a strip, across the longer side; at least 3s are taken.
    """
    *layers, blocks = networks.encoder.private[domain.value].children()
    strips = _Strips(image, networks.scale, strip)
    code = strips.map(nn.Sequential(*layers), image, _HALO)
    _apply_blocks((blocks, networks.encoder.shared), code, strips.strip)
    return code


def decode_in_strips(networks: Autoencoders, code: Tensor, domain: Domain, strip: int) -> Tensor:
    """Return G_j(z) of a code z (1, C, H/s, W/s), which is overwritten; the rest as in `encode_in_strips`."""
    blocks, *layers = networks.generator.private[domain.value].children()
    strips = _Strips(code, 1, strip // networks.scale)
    _apply_blocks((networks.generator.shared, blocks), code, strips.strip)
    return strips.map(nn.Sequential(*layers), code, _HALO)


class _Strips:
    """Strips across the longer side of an image, counted in rows of its code; features at any scale are cut alike.

    Args:
        features: of the image, (1, C, H, W).
        scale: their rows for each row of the code.
        strip: their rows for each strip.
    """

    def __init__(self, features: Tensor, scale: int, strip: int) -> None:
        self.dim = long_dim(features)
        self.rows = features.shape[self.dim] // scale
        self.strip = max(strip // scale, _HALO)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield each strip's first row and the row after its last."""
        return ((start, min(start + self.strip, self.rows)) for start in range(0, self.rows, self.strip))

    def cut(self, features: Tensor, start: int, stop: int) -> Tensor:
        """Return a view of some rows."""
        scale = features.shape[self.dim] // self.rows
        return features.narrow(self.dim, start * scale, (stop - start) * scale)

    def map(self, layers: Callable[[Tensor], Tensor], x: Tensor, halo: int, out: Tensor | None = None) -> Tensor:
        """Apply layers that see up to `halo` rows on either side, and write to `out`, which may be `x`."""
        before, first = self.cut(x, 0, 0), 0
        for start, stop in self:
            last = min(stop + halo, self.rows)
            y = layers(torch.cat([before, self.cut(x, start, last)], self.dim))
            before, scale = self.cut(x, max(stop - halo, 0), stop).clone(), y.shape[self.dim] // (last - first)
            if out is None:
                shape = [*y.shape]
                shape[self.dim] = scale * self.rows
                out = y.new_empty(shape).contiguous(memory_format=torch.channels_last)
            self.cut(out, start, stop).copy_(y.narrow(self.dim, scale * (start - first), scale * (stop - start)))
            first = max(stop - halo, 0)
        assert isinstance(out, Tensor)
        return out

    def normalization(self, norm: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the normalization by the statistics of all of `x`, to be applied to parts of it."""
        moments = torch.cat([row_moments(self.cut(x, *strip), self.dim) for strip in self], 1)
        return normalization_by(norm, moments, x)


def _apply_blocks(parts: Iterable[nn.Module], code: Tensor, rows: int) -> None:
    """Apply each `ResidualBlocks` in place, in strips of at least so many rows."""
    strips = _Strips(code, 1, _LONGER * rows)
    for blocks in parts:
        assert isinstance(blocks, ResidualBlocks)
        for block in blocks.children():
            _apply_block(block, code[:, blocks.pixels :], strips)


def _apply_block(block: nn.Module, x: Tensor, strips: _Strips) -> None:
    """Apply a `ResidualBlock` in place; a function of its own, so that `h` is free before the next one."""
    convolution, norm, relu, second_convolution, second_norm = block.get_submodule("body").children()
    h = strips.map(convolution, x, 1)
    normalize = strips.normalization(norm, h)
    strips.map(_in_order(normalize, relu, second_convolution), h, 1, out=h)
    normalize = strips.normalization(second_norm, h)
    for strip in strips:
        strips.cut(x, *strip).add_(normalize(strips.cut(h, *strip)))


def _in_order(*functions: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda x: reduce(lambda y, function: function(y), functions, x)
