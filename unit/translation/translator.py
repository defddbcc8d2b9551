"""Translating images of any size with a trained model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from unit.config import Config
from unit.devices import autocast, out_of_memory, resolve_device, resolve_precision
from unit.domains import Domain, PerDomain
from unit.errors import ConfigError, DataError, OutOfMemoryError, format_bytes
from unit.files import atomic_write
from unit.machine import available_memory
from unit.model.networks import Autoencoders
from unit.model.noise import gaussian
from unit.translation.detail import carry_change, scaled_to
from unit.translation.hub import download_model
from unit.translation.interface import ImageTranslator
from unit.translation.model_file import MODEL_FILE, NATIVE, load_model, model_bytes, read_best_detail
from unit.translation.provenance.marks import Provenance, weights_sha256
from unit.translation.strips import decode_in_strips, encode_in_strips

__all__ = ["MODEL_FILE", "Translator"]

Tile: TypeAlias = int | Literal["auto"] | None
Detail: TypeAlias = Literal["auto", "native", "guided"]

_BYTES_PER_PIXEL = {"fp32": 48, "bf16": 320}
_BYTES_PER_ACTIVATION = {"strided": 16, "blurred": 22}
"""Peak memory of a translation on the CPU (measured): by precision, for the image and what oneDNN pads; and by
`model.downsampling`, per pixel and channel of the first layer."""
_MUCH_LARGER = 1.5
"""times the trained size, below which a model does at an image's own size what it does at the trained one"""
_LARGE = 1_000_000_000
"""Images whose translation takes more bytes are translated in strips; these take about a quarter of it each."""


class Translator(ImageTranslator):
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
        detail: of images well over the size that the model was trained at: "native": translate them at their own size;
            "guided": at the trained size, and carry the change to theirs (`unit.translation.detail`); "auto":
            `best_detail`.
        best_detail: which of the two was better in the direction from each domain.
    """

    def __init__(
        self,
        networks: Autoencoders,
        config: Config,
        names: PerDomain[str],
        step: int,
        device: str = "auto",
        precision: str = "auto",
        tile: Tile = "auto",
        detail: Detail = "auto",
        best_detail: PerDomain[str] = NATIVE,
    ) -> None:
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        self.networks = networks.to(self.device).to(memory_format=torch.channels_last).eval()
        self.config, self.names, self.step, self.tile = config, names, step, tile
        self.detail, self.best_detail = detail, best_detail

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str = "auto",
        precision: str = "auto",
        tile: Tile = "auto",
        detail: Detail = "auto",
    ) -> Translator:
        """Load the model of a run directory or of a .safetensors file.

        Raises:
            ModelError: no such file, not a model of this program, of a newer version, or unusable.
        """
        return cls(*load_model(Path(path)), device, precision, tile, detail, read_best_detail(Path(path)))

    @classmethod
    def from_pretrained(
        cls,
        repository: str,
        revision: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        tile: Tile = "auto",
        detail: Detail = "auto",
    ) -> Translator:
        """Load a model of the Hugging Face Hub, "user/model", as `download_model` does; raises what both raise."""
        return cls.load(download_model(repository, revision), device, precision, tile, detail)

    def save(self, path: Path) -> None:
        """Write a .safetensors file atomically.

        Raises:
            UserError: it can't be written; an existing file is untouched.
        """
        atomic_write(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """Serialize to the contents of a .safetensors file."""
        return model_bytes(self.networks, self.config, self.names, self.step, self.best_detail)

    def provenance(self, source: Domain, sampled: bool = False) -> Provenance:
        """Return the marks of outputs of the present weights, of which it computes the hash at each call.

        Args:
            source: domain of the inputs.
            sampled: the code has noise.
        """
        names = (self.names[source], self.names[source.other])
        model = weights_sha256(self.networks.state_dict())
        return Provenance(*names, source.direction, model, self.step, sampled)

    def translate(self, images: Tensor, source: Domain, seed: int | None = None, *, strength: float = 1.0) -> Tensor:
        """Compute G_j(E_i(x)) of (B, 3, H, W) in [-1, 1], on any device, of any H and W.

        Args:
            images: of domain i.
            source: i.
            seed: of noise in the code, z = μ + η, the same for each image; None: no noise, z = μ.
            strength: from 0, the reconstruction G_i(z), to 1, the translation G_j(z); between them both are computed,
                and (1 - strength)·G_i(z) + strength·G_j(z) is the result.

        Raises:
            ConfigError: a strength outside 0 to 1.
            UserError: out of memory.
        """
        if not 0 <= strength <= 1:
            raise ConfigError(f"strength {strength}: must be from 0 (reconstruction) to 1 (translation)")
        if not self.is_guided(source, *images.shape[2:]):
            return self._translate(images, source, seed, strength)
        with torch.inference_mode():
            images = images.to(self.device, torch.float32)
            small = scaled_to(images, self.config.data.load_size)
            return carry_change(images, small, self._translate(small, source, seed, strength))

    def is_guided(self, source: Domain, height: int, width: int) -> bool:
        """Return whether images of this size are translated at the trained size, and the change is carried to them."""
        detail = self.best_detail[source] if self.detail == "auto" else self.detail
        return detail == "guided" and min(height, width) > _MUCH_LARGER * self.config.data.load_size

    def _translate(self, images: Tensor, source: Domain, seed: int | None, strength: float) -> Tensor:
        """Translate at the images' own size."""
        targets = [i for i, share in ((source, 1 - strength), (source.other, strength)) if share]

        def run(x: Tensor, strip: int | None) -> Tensor:
            first, *others = self._generate(x, source, targets, seed, strip)
            return torch.lerp(first, others[0], strength) if others else first

        height, width = images.shape[2:]
        return self._run(run, images)[..., :height, :width]

    def encode_batch(self, images: Tensor, domain: Domain, seed: int | None = None) -> Tensor:
        """Compute the codes of (B, 3, H, W) in [-1, 1], on any device: (B, C, H/s, W/s), rounded up, in fp32.

        Raises:
            UserError: out of memory.
        """
        return self._run(lambda x, strip: self._encode(x, domain, seed, strip), images)

    def decode_batch(self, codes: Tensor, domain: Domain) -> Tensor:
        """Compute G_i(z) of codes (B, C, h, w): (B, 3, s·h, s·w) in [-1, 1], in fp32.

        Raises:
            DataError: codes of another shape, or with NaN or Inf.
            UserError: out of memory.
        """
        channels, scale = self.networks.feature_channels[-1], self.networks.scale
        if codes.ndim != 4 or codes.shape[1] != channels or 0 in codes.shape or not codes.is_floating_point():
            raise DataError(
                f"a code of {codes.dtype} {tuple(codes.shape)}: floats ({channels}, h, w) or (batch, {channels}, h, w) "
                "are expected"
            )
        if not codes.isfinite().all():
            raise DataError("the code contains NaN or Inf")
        batch, _, height, width = codes.shape
        with self._computing(batch, scale * height, scale * width):
            strip = self._strip(scale * height, scale * width)
            z = codes.to(self.device, torch.float32, memory_format=torch.channels_last, copy=True)
            if strip is None:
                images: Tensor = self.networks.generator({domain: z}, [(domain, domain)])[domain, domain]
                return images.float()
            return torch.cat([decode_in_strips(self.networks, part, domain, strip) for part in z.split(1)]).float()

    def _run(self, function: Callable[[Tensor, int | None], Tensor], images: Tensor) -> Tensor:
        """Apply a function of padded images and a strip to a batch, in fp32; to each image alone where it is large."""
        batch, _, height, width = images.shape
        with self._computing(batch, height, width):
            x = images.to(self.device).contiguous(memory_format=torch.channels_last)
            x = functional.pad(x, self._padding(height, width), mode="replicate")
            strip = self._strip(height, width)
            return torch.cat([function(part, strip) for part in ([x] if strip is None else x.split(1))]).float()

    def _padding(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return the columns and rows to add to images: left, right, top, bottom."""
        scale = self.networks.scale
        right, bottom = -width % scale, -height % scale
        if max(height, width) <= scale:  # instance normalization would erase a code of one pixel
            right += scale
        return 0, right, 0, bottom

    @contextmanager
    def _computing(self, batch: int, height: int, width: int) -> Iterator[None]:
        """Compute in this precision, without gradients; raises `UserError` where the memory is too small."""
        self.require_memory(batch, height, width)
        try:
            with torch.inference_mode(), autocast(self.device, self.precision):
                yield
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            raise _too_large(batch, height, width, self.device) from error

    def _generate(
        self, x: Tensor, source: Domain, targets: Sequence[Domain], seed: int | None, strip: int | None
    ) -> list[Tensor]:
        """Compute G_k(E_i(x)) of padded images for each target k, in strips (then of one image) or at once."""
        if strip is not None:  # decoding overwrites the code; computing it again takes no memory, a copy would
            return [decode_in_strips(self.networks, self._encode(x, source, seed, strip), k, strip) for k in targets]
        z = self._encode(x, source, seed, None)
        images = self.networks.generator({source: z}, [(source, k) for k in targets])
        return [images[source, k] for k in targets]

    def _encode(self, x: Tensor, domain: Domain, seed: int | None, strip: int | None) -> Tensor:
        """Compute z of padded images, in strips (then of one image) or at once."""
        networks = self.networks
        z: Tensor
        z = networks.encoder({domain: x})[domain] if strip is None else encode_in_strips(networks, x, domain, strip)
        if seed is not None:
            z = z + gaussian(networks.code_shape(*x.shape[2:]), [seed] * len(x), self.device)
        return z

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
        in_fp32 = self.precision == "fp32" or self.config.model.pixel_skip
        return images + codes * (4 if in_fp32 else 2) + _LARGE // 2

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


def set_best_detail(file: Path, best_detail: PerDomain[str]) -> None:
    """Change `best_detail` in a model file; do nothing if there is no such file, or nothing to change."""
    if file.exists() and read_best_detail(file) != best_detail:
        translator = Translator.load(file, "cpu", "fp32")
        translator.best_detail = best_detail
        translator.save(file)


def _too_large(batch: int, height: int, width: int, device: torch.device, sizes: str = "") -> OutOfMemoryError:
    images = f"{batch} images of " if batch > 1 else ""
    return OutOfMemoryError(f"out of memory on {device} for {images}{width}x{height} pixels{sizes}")
