"""Translating images of any size with a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from unit.config import Config
from unit.devices import autocast, out_of_memory, resolve_device, resolve_precision
from unit.domains import Domain, PerDomain, source_domain
from unit.errors import UserError, format_bytes
from unit.files import atomic_write
from unit.images import to_image, to_rgb, to_tensor
from unit.machine import available_memory
from unit.model.networks import Autoencoders
from unit.model.noise import gaussian
from unit.translation.model_file import MODEL_FILE, load_model, model_bytes
from unit.translation.provenance import Provenance, weights_sha256
from unit.translation.strips import decode_in_strips, encode_in_strips

__all__ = ["MODEL_FILE", "Translator"]

ImageT = TypeVar("ImageT", Image.Image, Tensor)

_BYTES_PER_PIXEL = {"fp32": 48, "bf16": 320}
_BYTES_PER_ACTIVATION = {"strided": 16, "blurred": 22}
"""Peak memory of a translation on the CPU (measured): by precision, for the image and what oneDNN pads; and by
`model.downsampling`, per pixel and channel of the first layer."""
_LARGE = 1_000_000_000
"""Images whose translation takes more bytes are translated in strips; these take about a quarter of it each."""


class Translator:
    """Encoders and generators of both domains, without noise: z = μ.

    Args:
        networks: the EMA networks; not copied, so later changes to them take effect here. Set to evaluation mode.
        config: of the run that trained them.
        names: the user's names of the domains.
        step: number of training steps.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        precision: "auto", "fp32" or "bf16".
        tile: pixels of a strip, across the longer side, in which to compute each image (`unit.translation.strips`);
            None: the whole image at once; "auto": strips for large images.
    """

    def __init__(
        self,
        networks: Autoencoders,
        config: Config,
        names: PerDomain[str],
        step: int,
        device: str = "auto",
        precision: str = "auto",
        tile: int | Literal["auto"] | None = "auto",
    ) -> None:
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self.networks = networks.to(self.device).to(memory_format=torch.channels_last).eval()
        self.config, self.names, self.step, self.tile = config, names, step, tile

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str = "auto",
        precision: str = "auto",
        tile: int | Literal["auto"] | None = "auto",
    ) -> Translator:
        """Load the model of a run directory or of a .safetensors file.

        Raises:
            ModelError: no such file, not a model of this program, of a newer version, or unusable.
        """
        return cls(*load_model(Path(path)), device, precision, tile)

    def save(self, path: Path) -> None:
        """Write a .safetensors file atomically.

        Raises:
            UserError: it can't be written; an existing file is untouched.
        """
        atomic_write(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """Serialize to the contents of a .safetensors file."""
        return model_bytes(self.networks, self.config, self.names, self.step)

    def source(self, direction: str) -> Domain:
        """Return the source domain of a direction; raises `ConfigError` as `source_domain` does."""
        return source_domain(direction, self.names)

    def provenance(self, source: Domain, sampled: bool = False) -> Provenance:
        """Return the marks of outputs of the present weights, of which it computes the hash at each call.

        Args:
            source: domain of the inputs.
            sampled: the code has noise.
        """
        names = (self.names[source], self.names[source.other])
        model = weights_sha256(self.networks.state_dict())
        return Provenance(*names, source.direction, model, self.step, sampled)

    def __call__(self, image: ImageT, direction: str) -> ImageT:
        """Translate one image: a PIL image of any size, or a tensor (3, H, W) in [-1, 1], into one of the same kind.

        Raises:
            ConfigError: no such direction.
            ImageError: a PIL image whose numbers have no known white.
            UserError: out of memory.
        """
        source = self.source(direction)
        if isinstance(image, Tensor):
            return self.translate(image[None], source)[0]
        return to_image(self.translate(to_tensor(to_rgb(image))[None], source)[0])

    def translate(self, images: Tensor, source: Domain, seed: int | None = None) -> Tensor:
        """Compute G_j(E_i(x)) of (B, 3, H, W) in [-1, 1], on any device, of any H and W.

        Args:
            images: of domain i.
            source: i.
            seed: of noise in the code, z = μ + η, the same for each image; None: no noise, z = μ.

        Raises:
            UserError: out of memory.
        """
        return self._forward(images, source, source.other, seed)

    def reconstruct(self, images: Tensor, source: Domain) -> Tensor:
        """Compute G_i(E_i(x)), like `translate`."""
        return self._forward(images, source, source, None)

    def _forward(self, images: Tensor, encoder: Domain, generator: Domain, seed: int | None) -> Tensor:
        batch, _, height, width = images.shape
        self.require_memory(batch, height, width)
        scale = self.networks.scale
        right, bottom = -width % scale, -height % scale
        if max(height, width) <= scale:  # instance normalization would erase a code of one pixel
            right += scale
        try:
            with torch.inference_mode(), autocast(self.device, self.precision):
                x = images.to(self.device).contiguous(memory_format=torch.channels_last)
                x = functional.pad(x, (0, right, 0, bottom), mode="replicate")
                parts = [x] if (strip := self._strip(height, width)) is None else x.split(1)
                out = torch.cat([self._generate(part, encoder, generator, seed, strip) for part in parts])
                return out[..., :height, :width].float()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise _too_large(batch, height, width, self.device) from error

    def _generate(self, x: Tensor, encoder: Domain, generator: Domain, seed: int | None, strip: int | None) -> Tensor:
        """Compute G_j(E_i(x)) of padded images, in strips (then of one image) or at once."""
        networks = self.networks
        z = networks.encoder({encoder: x})[encoder] if strip is None else encode_in_strips(networks, x, encoder, strip)
        if seed is not None:
            z = z + gaussian(networks.code_shape(*x.shape[2:]), [seed] * len(x), self.device)
        if strip is not None:
            return decode_in_strips(networks, z, generator, strip)
        out: Tensor = networks.generator({encoder: z}, [(encoder, generator)])[encoder, generator]
        return out

    def require_memory(self, batch: int, height: int, width: int) -> None:
        """Refuse what would not fit: the system would kill the program without a message.

        Raises:
            UserError: out of memory.
        """
        needed = self.bytes_needed(height * width, batch)
        if needed > (available := available_memory()):
            sizes = f": {format_bytes(needed)} are needed, and {format_bytes(available)} are free"
            raise _too_large(batch, height, width, self.device, sizes)

    def bytes_needed(self, pixels: int, batch: int = 1) -> int:
        """Estimate the memory, not that of a GPU, that translating a batch of images of so many pixels each takes."""
        images = batch * pixels * _BYTES_PER_PIXEL["fp32"]
        if self.device.type != "cpu":
            return images
        if self._strip(1, pixels) is None:
            return batch * pixels * self._bytes_per_pixel
        codes = 2 * self.networks.feature_channels[-1] * pixels // self.networks.scale**2
        return images + codes * (4 if self.precision == "fp32" else 2) + _LARGE // 2

    @property
    def _bytes_per_pixel(self) -> int:
        """Of a translation at once, on the CPU."""
        model = self.config.model
        return _BYTES_PER_PIXEL[self.precision] + model.channels * _BYTES_PER_ACTIVATION[model.downsampling]

    def _strip(self, height: int, width: int) -> int | None:
        """Return the pixels of a strip for images of this size; None: each at once."""
        if self.tile != "auto":
            return self.tile
        if height * width * self._bytes_per_pixel <= _LARGE:
            return None
        return _LARGE // 4 // (min(height, width) * self._bytes_per_pixel)


def _too_large(batch: int, height: int, width: int, device: torch.device, sizes: str = "") -> UserError:
    images = f"{batch} images of " if batch > 1 else ""
    return UserError(f"out of memory on {device} for {images}{width}x{height} pixels{sizes}")
