"""The methods of a translator for images as Python programs hold them; `unit.translation.arrays` lists their kinds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, overload

from torch import Tensor

from unit.domains import Domain, PerDomain, domain_named, source_domain
from unit.translation.arrays import AnyImage, ImageT, from_batch, map_batches, to_batch


class ImageTranslator(ABC):
    """Translates PIL images, NumPy arrays, tensors and lists, given a translator of batches.

    All methods may be called from several threads at once.
    """

    names: PerDomain[str]
    """the user's names of the domains"""

    @abstractmethod
    def translate(self, images: Tensor, source: Domain, seed: int | None = None, *, strength: float = 1.0) -> Tensor:
        """Translate a batch (B, 3, H, W) in [-1, 1]."""

    @abstractmethod
    def encode_batch(self, images: Tensor, domain: Domain, seed: int | None = None) -> Tensor:
        """Return the codes (B, C, h, w) of a batch (B, 3, H, W) in [-1, 1]."""

    @abstractmethod
    def decode_batch(self, codes: Tensor, domain: Domain) -> Tensor:
        """Return the images (B, 3, s·h, s·w) in [-1, 1] of codes (B, C, h, w)."""

    def source(self, direction: str) -> Domain:
        """Return the source domain of a direction; raises `ConfigError` as `source_domain` does."""
        return source_domain(direction, self.names)

    @overload
    def __call__(self, images: ImageT, direction: str, *, strength: float = 1.0) -> ImageT: ...
    @overload
    def __call__(self, images: Sequence[ImageT], direction: str, *, strength: float = 1.0) -> list[ImageT]: ...
    def __call__(self, images: Any, direction: str, *, strength: float = 1.0) -> Any:
        """Translate an image, or a list of images of any sizes, into the same kind.

        Args:
            images: PIL images, NumPy arrays or tensors.
            direction: "a2b", "b2a", or by the names of the domains, such as "sunny2rainy".
            strength: as in `translate`: 0 is the reconstruction, 1 the translation.

        Raises:
            ConfigError: no such direction, or a strength outside 0 to 1.
            ImageError: an image of another type, shape or range, or with NaN or Inf.
            UserError: out of memory.
        """
        source = self.source(direction)
        return _map(lambda x: self.translate(x, source, strength=strength), images)

    @overload
    def sample(
        self, images: ImageT, direction: str, count: int, seed: int = 0, *, strength: float = 1.0
    ) -> list[ImageT]: ...
    @overload
    def sample(
        self, images: Sequence[ImageT], direction: str, count: int, seed: int = 0, *, strength: float = 1.0
    ) -> list[list[ImageT]]: ...
    def sample(self, images: Any, direction: str, count: int, seed: int = 0, *, strength: float = 1.0) -> Any:
        """Translate `count` times, each time with codes drawn from q(z|x) = N(μ, I).

        Returns:
            what `__call__` returns, `count` times; the k-th has the noise of seed + k, like the command's samples.
        """
        source = self.source(direction)

        def translate_with(seed: int) -> Any:
            return _map(lambda x: self.translate(x, source, seed, strength=strength), images)

        return [translate_with(seed + k) for k in range(count)]

    @overload
    def reconstruct(self, images: ImageT, domain: str) -> ImageT: ...
    @overload
    def reconstruct(self, images: Sequence[ImageT], domain: str) -> list[ImageT]: ...
    def reconstruct(self, images: Any, domain: str) -> Any:
        """Compute G_i(E_i(x)) of an image or a list, like `__call__`; the domain i is "a", "b" or its name."""
        i = domain_named(domain, self.names)
        return _map(lambda x: self.translate(x, i, strength=0.0), images)

    @overload
    def encode(self, images: AnyImage, domain: str, seed: int | None = None) -> Tensor: ...
    @overload
    def encode(self, images: Sequence[AnyImage], domain: str, seed: int | None = None) -> list[Tensor]: ...
    def encode(self, images: Any, domain: str, seed: int | None = None) -> Any:
        """Compute the code z of an image or of each in a list.

        Args:
            images: as in `__call__`.
            domain: i, of the images: "a", "b" or its name.
            seed: of noise, z = μ + η; None: no noise, z = μ = E_i(x).

        Returns:
            (C, h, w), or (B, C, h, w) of a tensor (B, 3, H, W), in fp32: h = H/s and w = W/s, rounded up.
        """
        i = domain_named(domain, self.names)
        items = images if isinstance(images, list | tuple) else [images]
        codes = map_batches(lambda x: self.encode_batch(x, i, seed), items)
        codes = [z if isinstance(x, Tensor) and x.ndim == 4 else z[0] for x, z in zip(items, codes, strict=True)]
        return codes if items is images else codes[0]

    def decode(self, code: Tensor, domain: str, size: tuple[int, int] | None = None) -> Tensor:
        """Compute G_i(z), an image of domain i.

        Args:
            code: z, (C, h, w) or (B, C, h, w), as from `encode`.
            domain: i: "a", "b" or its name.
            size: height and width of the image that was encoded; None: s·h and s·w.

        Returns:
            (3, H, W) or (B, 3, H, W) in [-1, 1], in fp32.

        Raises:
            DataError: a code of another shape, or with NaN or Inf.
        """
        height, width = size or (None, None)
        images = self.decode_batch(code if code.ndim == 4 else code[None], domain_named(domain, self.names))
        return (images if code.ndim == 4 else images[0])[..., :height, :width]


def _map(function: Callable[[Tensor], Tensor], images: Any) -> Any:
    """Apply a function of batches to an image or a list of them."""
    if isinstance(images, list | tuple):
        results = map_batches(function, images)
        return [from_batch(result, image) for result, image in zip(results, images, strict=True)]
    return from_batch(function(to_batch(images)), images)
